"""One run of a script, started as a user would start it, and what is read from it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
import csv
import dataclasses
from datetime import datetime, timezone
import functools
import importlib
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WINDOW = 20  # training episodes whose mean return says whether a task is solved
THREAD_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)

NOT_OF_LEARNING = {"algorithm", "versions", "seed", "runs_dir", "log_frequency", "checkpoint_frequency"}
NOT_OF_LEARNING |= {"save_model", "capture_video", "render", "track", "wandb_project", "resume", "evaluate"}


@dataclasses.dataclass
class Outcome:
    """What a run left.

    Attributes:
        command: what a user would type.
        returncode: of the process; 0 is a run that ended well.
        start_seconds: from the start of the process to the start of training: Python, TensorFlow, networks.
        whole_seconds: from the start of the process to its end, evaluation included.
        options: that the run had, by name, as its config.json says.
        evaluation: mean and standard deviation of the greedy episodes' returns, None without any.
        rows: of metrics.csv, as (global_step, seconds, episodic_return, episodic_length); None where empty.
            Seconds count from the start of training.
        error: the last words of stderr, if the run failed.
    """

    command: str
    returncode: int
    start_seconds: float = 0.0
    whole_seconds: float = 0.0
    options: dict = dataclasses.field(default_factory=dict)
    evaluation: tuple[float, float] | None = None
    rows: list[tuple[int, float, float | None, float | None]] = dataclasses.field(default_factory=list)
    error: str = ""


def run_script(
    script: str, options: str, *, threads: int = 0, timeout: float | None = None, runs_dir: str | None = None
) -> Outcome:
    """Run `python <script>/<script>.py <options>` in a process of its own.

    Args:
        script: its name, such as "dqn".
        options: of its command line.
        threads: that each library may use; 0 leaves it to them.
        timeout: seconds after which the run is ended, and counts as failed.
        runs_dir: where the run folder stays; None for a temporary one.
    """
    command = f"python {script}/{script}.py {options}".strip()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(runs_dir).resolve() if runs_dir else Path(scratch) / "runs"
        arguments = [
            sys.executable,
            f"{script}/{script}.py",
            *shlex.split(options),
            "--runs-dir",
            str(folder),
        ]
        outcome = Outcome(command, -1)
        with open(Path(scratch) / "stderr", "w+", errors="replace") as errors:
            started = time.perf_counter()
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            run_folder = None
            timer = threading.Timer(timeout or threading.TIMEOUT_MAX, process.kill)
            timer.daemon = True
            timer.start()
            try:
                for line in process.stdout:
                    if match := re.match(r"run folder: (.+)", line):
                        outcome.start_seconds = time.perf_counter() - started
                        run_folder = Path(match[1].strip())
                    elif match := re.match(r"evaluation: mean return (\S+) ± (\S+)", line):
                        outcome.evaluation = float(match[1]), float(match[2])
                outcome.returncode = process.wait()
            finally:
                timer.cancel()
                process.kill()  # does nothing to one that has ended
            outcome.whole_seconds = time.perf_counter() - started
            errors.seek(0)
            words = [line.strip() for line in errors.read().replace("\r", "\n").splitlines() if line.strip()]
        if outcome.returncode != 0:
            outcome.error = " | ".join(words[-3:]) or f"exit code {outcome.returncode}"
        if run_folder and (run_folder / "metrics.csv").exists():
            outcome.options = of_learning(json.loads((run_folder / "config.json").read_text()))
            outcome.rows = read_metrics(run_folder / "metrics.csv")
    return outcome


def environment(threads: int) -> dict[str, str]:
    """This process' environment variables, with a limit of threads unless it is 0."""
    path = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )  # `common` of this checkout
    limits = {name: str(threads) for name in THREAD_VARIABLES} if threads else {}
    return dict(os.environ) | {"PYTHONPATH": path} | limits


def of_learning(options: dict) -> dict:
    """The options that say how a run learns and is judged, without those that say what it leaves where."""
    return {name: value for name, value in options.items() if name not in NOT_OF_LEARNING}


@functools.cache
def resolved(script: str, options: str) -> dict:
    """All options of learning that a command line comes to with today's defaults; none if it is wrong."""
    from common.options import parse

    config_class = importlib.import_module(f"{script}.{script}").Config
    try:
        config = parse(config_class, shlex.split(options))
    except SystemExit:
        return {}
    return of_learning(json.loads(json.dumps(dataclasses.asdict(config))))  # tuples as JSON gives them back


def is_of(row: dict[str, str], options: dict) -> bool:
    """Whether a row of results was made with these options; one that has been added since says nothing."""
    made_with = json.loads(row["options"])
    return bool(options) and all(options[name] == made_with[name] for name in options.keys() & made_with)


def read_metrics(path: Path) -> list[tuple[int, float, float | None, float | None]]:
    """Read the four columns that every metrics.csv has."""
    with path.open(newline="") as file:
        return [
            (
                int(row["global_step"]),
                float(row["seconds"]),
                float(row["episodic_return"]) if row["episodic_return"] else None,
                float(row["episodic_length"]) if row["episodic_length"] else None,
            )
            for row in csv.DictReader(file)
        ]


def first_solved(rows: list, bar: float, window: int = WINDOW) -> tuple[int, float] | None:
    """Return step and seconds of the first row at which the training return had reached the bar.

    That is: the mean return of the last `window` training episodes, counted in whole rows, is at least
    `bar`. A row holds means over the episodes that ended in it, about steps / mean length of them.
    """
    recent, last_step = [], 0
    for step, seconds, mean_return, mean_length in rows:
        if mean_return is not None:
            recent.append((max(1.0, (step - last_step) / max(mean_length, 1.0)), mean_return))
        last_step = step
        while recent and sum(count for count, _ in recent[1:]) >= window:
            recent.pop(0)
        episodes = sum(count for count, _ in recent)
        if episodes >= window and sum(count * value for count, value in recent) / episodes >= bar:
            return step, seconds
    return None


def steps_per_second(rows: list, warm_up: int) -> float:
    """Speed between the first row at or after `warm_up` steps and the last row: compiling lies before."""
    start = next(row for row in rows if row[0] >= warm_up)
    return (rows[-1][0] - start[0]) / (rows[-1][1] - start[1])


def versions() -> str:
    """The versions that results depend on, on one line."""
    packages = [f"{name} {version(name)}" for name in ("tensorflow", "keras", "gymnasium", "numpy")]
    return ", ".join([f"Python {platform.python_version()}", *packages])


def machine() -> str:
    """Cores and processor, on one line."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = names[0].strip() if names else model
    return f"{os.cpu_count()} cores, {model}"


def stolen_seconds(path: Path = Path("/proc/stat")) -> float:
    """Time that this machine's processors have waited for the host, if it is a virtual one under Linux."""
    return int(path.read_text().split()[8]) / os.sysconf("SC_CLK_TCK") if path.exists() else 0.0


def today() -> str:
    """The date in UTC."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing results meanwhile; on Windows, which lacks the means, do not."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def keep(path: Path, rows: list[dict], key: tuple[str, ...]) -> None:
    """Write rows into a CSV file in place of those of the same key; other rows stay."""
    with locked(path.parent):
        new = {tuple(str(row[name]) for name in key) for row in rows}
        old = [row for row in read_csv(path) if tuple(row.get(name) for name in key) not in new]
        old = [row for row in old if set(row) == set(rows[0])]  # of an older make: it will be made again
        write_csv(path, sorted([*old, *rows], key=lambda row: [_sortable(row[name]) for name in key]))


def _sortable(value: str | float) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return 0.0, str(value)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file; one that is not there has no rows."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows of equal keys, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)

"""One run of a script, started as a user would start it, and its outcome."""

from contextlib import suppress
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import re
import shlex
import signal
from statistics import mean, pstdev
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from benchmarks import options
from benchmarks.curves import read_evaluations, read_metrics
from benchmarks.records import ROOT

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
THREAD_VARIABLES += ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_thread = threading.local()  # has `processes` in the threads for which `add_processes_to` was called


@dataclass
class Outcome:
    """The outcome of a run."""

    command: str  # as a user would type it
    returncode: int = -1
    start_seconds: float = 0.0  # from the start of the process to the start of training
    whole_seconds: float = 0.0  # from the start of the process to its end, evaluation included
    options: dict = field(default_factory=dict)  # of learning, as in config.json
    evaluation: tuple[float, float] | None = None  # mean and standard deviation of the returns
    rows: list[tuple] = field(default_factory=list)  # of metrics.csv; seconds from the start of training
    evaluations: list[tuple] = field(default_factory=list)  # of evaluations.csv: step, mean, deviation
    error: str = ""  # last lines of stderr, if the run failed

    def check(self) -> "Outcome":
        """Return the outcome of a successful run; RuntimeError if it failed."""
        if self.returncode:
            raise RuntimeError(f"{self.command}: {self.error}")
        return self


def run_script(
    script: str, arguments: str, threads: int = 0, timeout: float | None = None, runs_dir: str | None = None
) -> Outcome:
    """Run `python <script>/<script>.py <arguments>` in a new process.

    With 0 threads the libraries keep their defaults. A run is killed after `timeout` seconds and counts as
    failed. Its run folder is deleted unless there is a `runs_dir`.
    """
    outcome = Outcome(f"python {script}/{script}.py {arguments}".strip())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(runs_dir).resolve() if runs_dir else Path(scratch) / "runs"
        command = [
            sys.executable,
            str(ROOT / script / f"{script}.py"),
            *shlex.split(arguments),
            "--runs-dir",
            str(folder),
        ]
        with open(Path(scratch) / "stderr", "w+", errors="replace") as errors:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
            started = time.perf_counter()
            # a session of its own: Ctrl-C in the terminal reaches it through this program, once (Ctrl-Z: not)
            process = subprocess.Popen(command, env=environment(threads), start_new_session=True, **streams)
            getattr(_thread, "processes", set()).add(process)
            timer = threading.Timer(timeout or threading.TIMEOUT_MAX, process.kill)
            timer.daemon = True
            timer.start()
            run_folder = None
            try:
                for line in process.stdout:
                    if match := re.match(r"run folder: (.+)", line):
                        outcome.start_seconds = time.perf_counter() - started
                        run_folder = Path(match[1].strip())
                outcome.returncode = process.wait()
            finally:
                timer.cancel()
                process.kill()  # no effect once it has ended
                process.wait()  # or it would stay as a dead process until this one ends
            outcome.whole_seconds = time.perf_counter() - started
            errors.seek(0)
            lines = [line.strip() for line in errors.read().replace("\r", "\n").splitlines() if line.strip()]
        if outcome.returncode != 0:
            outcome.error = " | ".join(lines[-3:]) or f"exit code {outcome.returncode}"
        if run_folder and (run_folder / "metrics.csv").exists():
            outcome.options = options.of_learning(json.loads((run_folder / "config.json").read_text()))
            outcome.rows = read_metrics(run_folder / "metrics.csv")
            outcome.evaluations = read_evaluations(run_folder / "evaluations.csv")
        if run_folder and (run_folder / "evaluation.json").exists():
            returns = json.loads((run_folder / "evaluation.json").read_text())["returns"]
            outcome.evaluation = mean(returns), pstdev(returns)
    return outcome


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables of a run: this checkout on the path, and a limit on threads."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    limits = {name: str(threads) for name in THREAD_VARIABLES} if threads else {}
    return dict(os.environ) | {"PYTHONPATH": path} | limits


def exit_when_told() -> None:
    """Let the first SIGTERM, or the end of the terminal, raise SystemExit in the main thread.

    The clean-up code then runs, and later ones are ignored. What is ignored already, as with nohup, stays so.
    """
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def stop(number: int, frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in signals:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def add_processes_to(processes: set[subprocess.Popen]) -> None:
    """Add the scripts that this thread starts from now on to `processes`."""
    _thread.processes = processes


def terminate(processes: set[subprocess.Popen], told: set[subprocess.Popen]) -> None:
    """Terminate scripts, and add them to `told`.

    Those in `told` are left alone: a script saves its last steps at the first signal, and ends at once at a
    second one.
    """
    for process in processes - told:
        process.terminate()  # no effect once it has ended
        told.add(process)


def terminate_children() -> None:
    """Terminate the processes that this one has started, and those that they have started."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.terminate()

"""Fuzz test: random options, valid and invalid, for every script.

    python tests/fuzz.py                                  # 500 cases of each script: about half an hour
    python tests/fuzz.py --scripts dqn a2c --cases 50 --seed 1
    python tests/fuzz.py --scripts dqn --seed 1 --only 17  # one case again, with all that it prints
    TMPDIR=/dev/shm python tests/fuzz.py                  # faster, because nothing is written to a disk

A case passes if it trains and exits with 0, or if it ends with one line on stderr that starts with
"error: " and exits with 2; progress bars and warnings do not count. A case that is refused before it names
its run folder must leave all files as they were. Failures are tracebacks, other output, changed files, and
cases that take longer than --timeout.

Cases are short runs with one to five random options, on small environments or on ids that do not exist.
Some resume or evaluate the run `made`, which the first case of a script makes. One in 50 is compiled and
draws its learning curve, which would take most of the time. A process runs 50 cases, forked from one that has
loaded the script: this needs Linux or macOS.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
import contextlib
import functools
import importlib
import multiprocessing
import os
from pathlib import Path
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import typing
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common import cli, run  # noqa: E402
import gymnasium as gym  # noqa: E402
import matplotlib.figure  # noqa: E402, F401

from tests.conftest import SCRIPTS  # noqa: E402
import tests.environments  # noqa: E402, F401

# fmt: off
SHORT = {  # keeps a case short, unless it draws another value for the option
    "total_timesteps": 30, "num_envs": 2, "eval_episodes": 1, "log_frequency": 5, "checkpoint_frequency": 20,
    "hidden_sizes": 8, "learning_starts": 8, "train_frequency": 10, "gradient_steps": 1, "batch_size": 4,
    "buffer_size": 200, "num_steps": 5, "num_epochs": 1, "num_minibatches": 2, "cg_iterations": 2,
}
NOT_DRAWN = ("env_id", "eager", "track", "wandb_project")  # drawn apart; in need of W&B
RARE = (  # slow, or nearly always refused
    "executor", "capture_video", "render", "terminal_on_life_loss", "env_kwargs",
)
LONG = ("total_timesteps", "cg_iterations", "line_search_steps")  # huge values are valid, and take years
SIZES = (  # huge values take memory
    "num_envs", "eval_episodes", "hidden_sizes", "gradient_steps", "batch_size", "num_steps", "num_epochs",
    "num_minibatches", "frame_stack", "bins", "buffer_size",
)
HUGE = (2**31, 10**12, 10**30)
HUGE_SIZES = (10**12, 10**30)  # more than any machine has, so that they are refused at once
WRONG = (["two"], [""], ["None"], ["nan"], ["-inf"], ["1", "2"], ["[1]"], ["1_0"], ["0x2"], [])
TEXTS = {
    "resume": ("made", "made", "made", "made/checkpoints", "nothing", ".", ""),
    "evaluate": ("made", "made", "made/model.keras", "made/model.npz", "made/config.json", "nothing", "."),
    "env_kwargs": ("max_episode_steps=7", "max_episode_steps=0", "map_name=5x5", "id=x", "=", "a={1}"),
    "runs_dir": ("new/one", "ünï cödé", "made/config.json", "made/config.json/x", "x" * 300, "", "/proc/no"),
}
SMALL = [
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "FrozenLake-v1",
    "CliffWalking-v1", "Blackjack-v1", "HiddenVelocityCartPole-v1",
]
NO_ENVIRONMENT = [
    "None-v0", "CartPole-v99", "CartPole", "no_module:Env-v0", "a:b:c", "", "ALE/No-v5", "ü",
    "tests.environments:Broken-v0",
]
PICTURES = ["Picture-v0", "Picture-v0", "Image-v0", "TinyPicture-v0"]
MISTAKES = ["--no-such-option=1", "word", "--", "-x", "--seed", "", "--eager=1", "--help=2"]
# fmt: on
TESTED = [
    f"tests.environments:{name}"
    for name, spec in sorted(gym.registry.items())
    if getattr(spec.entry_point, "__module__", "") == "tests.environments"
    and name not in ("Broken-v0", "NeedsSize-v0")
]
NO_ERROR = re.compile(r".*\d+%\||.*step/s\]|warning: |.*Warning: |  |\s*$")  # progress bars and warnings
CASES_OF_A_WORKER = 50


class Outcome(NamedTuple):
    """How a case ended: "trained", "refused" or "failed", and why."""

    kind: str
    reason: str


def short_args(config_class: type) -> list[str]:
    """Return the options of `SHORT` that a script has."""
    hints = typing.get_type_hints(config_class)
    return [f"--{name.replace('_', '-')}={value}" for name, value in SHORT.items() if name in hints]


def draw_case(rng: random.Random, config_class: type) -> list[str]:
    """Return the arguments of a random case."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    options = {name: [f"--{name}={value}"] for name, value in SHORT.items() if name in hints}
    options["save_model"] = rng.choices([["--no-save-model"], []], [2, 1])[0]
    options["eager"] = rng.choices([["--eager"], []], [49, 1])[0]
    default, kind = config_class.env_id, action_kind(config_class.env_id)
    others = [name for name in SMALL + TESTED if rng.random() < 0.2 or action_kind(name) == kind]
    env_id = rng.choice(rng.choices([[default], others, NO_ENVIRONMENT], [10, 9, 1])[0])
    options["env_id"] = [f"--env-id={env_id}"]
    names = [name for name in hints if name not in NOT_DRAWN and (name not in RARE or rng.random() < 0.1)]
    for name in rng.sample(names, rng.choice([1, 1, 2, 2, 3, 4, 5])):
        options[name] = draw_option(rng, name, hints[name])
    if "cnn" in str(options.get("network")) and rng.random() < 0.8:
        options["env_id"] = [f"--env-id=tests.environments:{rng.choice(PICTURES)}"]
    if "lstm" in str(options.get("network")) and rng.random() < 0.8:
        options["frame_stack"] = ["--frame-stack=3"]
    args = [arg for values in options.values() for arg in values]
    if rng.random() < 0.03:
        args.append(rng.choice(MISTAKES))
    return args


@functools.cache
def action_kind(env_id: str) -> type:
    """Return the kind of the action space of an environment."""
    with gym.make(env_id, disable_env_checker=True) as env:
        return type(env.action_space)


def draw_option(rng: random.Random, name: str, hint: Any) -> list[str]:
    """Return the arguments that set an option to a random value."""
    option = "--" + rng.choice([name, name.replace("_", "-")])
    if hint is bool:
        return [rng.choice([option] * 5 + [f"--no-{option[2:]}"] * 3 + [f"{option}=yes"])]
    values = draw_values(rng, name, hint) if rng.random() < 0.95 or name in TEXTS else rng.choice(WRONG)
    return [f"{option}={values[0]}"] if len(values) == 1 and rng.random() < 0.5 else [option, *values]


def draw_values(rng: random.Random, name: str, hint: Any) -> list[str]:
    """Return random values of the type: most of them valid, some at the borders, some beyond."""
    parts = typing.get_args(hint)
    if name in TEXTS:
        return [rng.choice(TEXTS[name])]
    if typing.get_origin(hint) is typing.Literal:
        return [rng.choice(parts)]
    if typing.get_origin(hint) is tuple:
        return [
            value for _ in range(rng.choice([0, 1, 1, 2, 3, 4])) for value in draw_values(rng, name, parts[0])
        ]
    if type(None) in parts:
        return rng.choice([["None"], draw_values(rng, name, parts[0])])
    if int in (hint, *parts):
        if rng.random() < 0.8:
            return [str(rng.choice([1, 1, 2, 3, 5, 8, 40, "1e1"]))]
        huge = () if name in LONG else HUGE_SIZES if name in SIZES else HUGE
        return [str(rng.choice([0, 0, -1, "2.5", *huge]))]
    if rng.random() < 0.8:
        return [str(rng.choice([0.0, 0.1, 0.5, 1.0, 1.0, 1e-3, 1e-30]))]
    return [str(rng.choice([-0.0, -1e-9, 1.5, 1e6, 1e30, 1e308, "1e400", "inf", "nan", "-inf"]))]


class Worker:
    """A process that runs cases of a script, one after another: TensorFlow starts more slowly than a case."""

    def __init__(self, script: str):
        context = multiprocessing.get_context("fork")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(script, self.connection, other))
        self.process.start()
        other.close()
        self.cases = 0

    def run(self, args: list[str], folder: Path, timeout: float) -> tuple[int | None, str, str]:
        """Run a case in `folder`; return exit code (None if it hangs), stdout, and stderr."""
        self.cases += 1
        with tempfile.TemporaryDirectory() as outputs:
            self.connection.send((args, folder, outputs))
            code = None
            try:
                if self.connection.poll(timeout):
                    code = self.connection.recv()
            except EOFError:  # the process has died
                self.process.join()
                code = self.process.exitcode
            if code is None or not self.process.is_alive():
                self.close()
            texts = [Path(outputs, name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return code, *texts

    def close(self) -> None:
        """Kill the process, and the workers of its environments."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


def serve(script: str, end_of_parent: Any, connection: Any) -> None:
    """Do what `python <script>.py <args>` does for every message, with its output in two files."""
    end_of_parent.close()  # so that `recv` ends this process if its parent is killed
    os.setsid()
    os.environ.pop("DISPLAY", None)
    module, path, draw = (
        importlib.import_module(f"{script}.{script}"),
        list(sys.path),
        run.draw_learning_curve,
    )
    while True:
        args, folder, outputs = connection.recv()
        os.chdir(folder)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(Path(outputs, name), os.O_WRONLY | os.O_CREAT)
            os.dup2(file, descriptor)
            os.close(file)
        sys.argv, sys.path = [f"{script}.py", *args], list(path)
        run.draw_learning_curve = (lambda *_: None) if "--eager" in args else draw  # half the time of a case
        code = 0
        try:
            cli.main(module.Config, module.train, module.evaluate)
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(code)


def judge(code: int | None, out: str, err: str, unchanged: bool) -> Outcome:
    """Say how a case ended."""
    lines = [line for line in re.split(r"[\r\n]+", err) if not NO_ERROR.match(line)]
    if code == 0 and "Traceback" not in err:
        return Outcome("trained", "")
    if code is None:
        return Outcome("failed", "it does not end")
    if code != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        return Outcome("failed", f"exit code {code}, {len(lines)} lines on stderr: {(lines or [''])[-1]}")
    if "run folder: " not in out and not unchanged:
        return Outcome("failed", f"refused, but it changed files: {lines[0]}")
    return Outcome("refused", lines[0])


def contents(folder: Path) -> dict[str, int]:
    """Return the time of the last change of every file and folder below `folder`."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def fuzz(script: str, seed: int, cases: Iterable[int], timeout: float) -> Iterator[tuple]:
    """Run random cases of a script; yield their numbers, arguments, outcomes, and what they printed."""
    config_class = importlib.import_module(f"{script}.{script}").Config
    with tempfile.TemporaryDirectory() as top, contextlib.ExitStack() as stack:
        worker = Worker(script)
        stack.callback(lambda: worker.close())
        code, _, err = worker.run([*short_args(config_class), "--eager", "--runs-dir=."], Path(top), timeout)
        assert code == 0, err
        (made,) = Path(top).iterdir()
        for number in cases:
            args = draw_case(random.Random(f"{seed} {script} {number}"), config_class)
            folder = Path(top, str(number))
            shutil.copytree(made, folder / "made")
            before = contents(folder)
            if worker.cases >= CASES_OF_A_WORKER or not worker.process.is_alive():
                worker.close()
                worker = Worker(script)
            code, out, err = worker.run(args, folder, timeout)
            yield number, args, judge(code, out, err, contents(folder) == before), out + err
            shutil.rmtree(folder)


def main() -> None:
    """Run the cases that the command line asks for; print a line per failure and per script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scripts", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="SCRIPT")
    parser.add_argument("--cases", type=int, default=500, help="of each script")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of the one case to run, with its output")
    parser.add_argument("--show", action="store_true", help="print every case")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that a case may take")
    options = parser.parse_args()
    cases = range(options.cases) if options.only is None else [options.only]
    failed = 0
    for script in options.scripts:
        counts = Counter()
        for number, args, outcome, output in fuzz(script, options.seed, cases, options.timeout):
            counts[outcome.kind] += 1
            if outcome.kind == "failed" or options.show or options.only is not None:
                print(f"{script} {number}: {outcome.kind} {outcome.reason}", flush=True)
                print(f"    python {script}/{script}.py {shlex.join(args)}", flush=True)
            if options.only is not None:
                print(output)
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("trained", "refused", "failed"))
        print(f"{script}: {sum(counts.values())} cases, {kinds}", flush=True)
        failed += counts["failed"]
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

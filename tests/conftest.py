"""Shared by the tests: the scripts by name, ways to run one, and ways to read what a run leaves."""

import csv
import dataclasses
import functools
import gc
import importlib
import os
from pathlib import Path
import subprocess
import sys
import time

from common.cli import main
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    path.stem
    for path in ROOT.glob("*/*.py")
    if path.stem == path.parent.name and path.with_name("README.md").exists()  # without: an experiment
)

SHORT = {  # options that make a run of a script short, yet long enough to learn, log and checkpoint
    "q_learning": "--total-timesteps 1500",
    "reinforce": "--total-timesteps 1600 --num-envs 2 --batch-size 200",
    "a2c": "--total-timesteps 1600 --num-envs 4 --num-steps 10",
    "trpo": "--total-timesteps 1600 --num-envs 2 --num-steps 50 --num-minibatches 2",
    "ppo": "--total-timesteps 1600 --num-envs 2 --num-steps 50 --num-minibatches 2",
    "dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "double_dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "dueling_dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "ddpg": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "td3": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "sac": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
}
SMALL_UPDATES = {  # options of uncompiled updates that come often; a script takes those that it has
    "learning_starts": 20,
    "train_frequency": 20,
    "gradient_steps": 2,
    "batch_size": 20,
    "num_envs": 2,
    "num_steps": 10,
    "num_epochs": 2,
    "num_minibatches": 2,
    "normalize_observations": True,
    "normalize_rewards": True,
    "eager": True,
}
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}  # a core for each of two workers
EVERY = "--log-frequency 100 --checkpoint-frequency 300 --eval-episodes 3"
DQN_FAMILY = ("dqn", "double_dqn", "dueling_dqn")
BOX_ACTIONS = ("ddpg", "td3", "sac")  # the scripts that do not serve Discrete actions


def short_options(script: str) -> list[str]:
    """Return the options of a short run of a script."""
    return f"{SHORT[script]} {EVERY}".split()


def environment(script: str, name: str) -> str:
    """Return the id of a test environment, with Box actions for the scripts that need them."""
    return f"tests.environments:{name}{'Box' if script in BOX_ACTIONS else ''}-v0"


def pytest_generate_tests(metafunc):
    """Run a test that has the argument `script` for every script, all tests of a script in one worker."""
    chosen = [mark for mark in metafunc.definition.iter_markers("parametrize") if mark.args[0] == "script"]
    if "script" in metafunc.fixturenames and not chosen:
        marked = [pytest.param(script, marks=pytest.mark.xdist_group(script)) for script in SCRIPTS]
        metafunc.parametrize("script", marked)


@pytest.fixture(autouse=True)
def compiled_again():
    """Undo what a run with `eager` sets for the whole process."""
    yield
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.run_functions_eagerly(False)


@pytest.fixture
def module():
    """Import a script by its name: module("dqn") is dqn/dqn.py."""
    return lambda name: importlib.import_module(f"{name}.{name}")


@pytest.fixture
def configured(module, tmp_path):
    """Make a Config with one small layer and no evaluation; options that the script lacks are ignored."""

    def configure(script, **options):
        config_class = module(script).Config
        known = {field.name for field in dataclasses.fields(config_class)}
        small = {"hidden_sizes": (16,), "num_envs": 1, "initial_value": 0.0, "eval_episodes": 0}
        options = small | {"runs_dir": str(tmp_path)} | options
        return config_class(**{name: value for name, value in options.items() if name in known})

    return configure


def run_script(folder, script, *args, env=(), timeout=120):
    """Run a script from `folder`, as a user would; return the finished process."""
    return subprocess.run(
        [sys.executable, ROOT / script / f"{script}.py", *map(str, args)],
        cwd=folder,
        env=os.environ | ONE_THREAD | dict(env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start_script(folder, script, *args):
    """Start a script from `folder`; return the running process."""
    return subprocess.Popen(
        [sys.executable, ROOT / script / f"{script}.py", *map(str, args)],
        cwd=folder,
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=120):
    """Wait until condition() holds while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run takes too long"
        time.sleep(0.02)


def error_line(process):
    """Return the one line on stderr with which a process refused its options."""
    assert process.returncode == 2, (process.stdout, process.stderr)
    (line,) = process.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def rows(folder):
    """Return the rows of metrics.csv without the time column, as text."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


def metrics(folder) -> dict[str, np.ndarray]:
    """Return the columns of metrics.csv as numbers, NaN where a cell is empty."""
    lines = rows(folder)
    return {name: np.array([float(row[name] or "nan") for row in lines]) for name in lines[0]}


def model_in(folder):
    """Return the path of the saved model of a run folder."""
    (path,) = folder.glob("model.*")
    return path


@pytest.fixture
def command(tmp_path):
    """Run a script as a user would, from an empty folder; returns the finished process."""
    return functools.partial(run_script, tmp_path)


@pytest.fixture
def command_here(module, tmp_path, monkeypatch, capfd):
    """As `command`, but in this process, which has loaded TensorFlow already: several seconds less."""

    def run(name, *args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "argv", [f"{ROOT / name / name}.py", *map(str, args)])
        monkeypatch.setattr(gc, "freeze", lambda: None)  # other tests have objects in this process
        script, code = module(name), 0
        capfd.readouterr()
        try:
            main(script.Config, script.train, script.evaluate)
        except SystemExit as stop:
            code = stop.code
        return subprocess.CompletedProcess(sys.argv, code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def short_run(tmp_path_factory):
    """A finished short run of a script, made once and not to be changed: (process, run folder)."""

    @functools.cache
    def run(script):
        where = tmp_path_factory.mktemp(script)
        process = run_script(where, script, *short_options(script))
        assert process.returncode == 0, process.stderr
        (folder,) = (where / "runs").iterdir()
        return process, folder

    return run


@pytest.fixture
def only_run(tmp_path):
    """Find the one run folder below the test's folder."""

    def find():
        (folder,) = (path.parent for path in tmp_path.glob("**/config.json"))
        return folder

    return find

"""What the tests share: the scripts by name, and ways to run one."""

import functools
import importlib
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.stem for path in ROOT.glob("*/*.py") if path.stem == path.parent.name)

SHORT = {  # options that make a run of a script short, yet long enough to learn, log and checkpoint
    "q_learning": "--total-timesteps 1500",
    "reinforce": "--total-timesteps 1600 --num-envs 2 --num-steps 100",
    "a2c": "--total-timesteps 1600 --num-envs 4 --num-steps 10",
    "trpo": "--total-timesteps 1600 --num-envs 2 --num-steps 50 --num-minibatches 2",
    "ppo": "--total-timesteps 1600 --num-envs 2 --num-steps 50 --num-minibatches 2",
    "dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "double_dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "dueling_dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "ddpg": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
    "td3": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
}
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}  # a core for each of two workers
EVERY = "--log-frequency 100 --checkpoint-frequency 300 --eval-episodes 3"


def short_options(script: str) -> list[str]:
    """The options of a short run of `script`."""
    return f"{SHORT[script]} {EVERY}".split()


def pytest_generate_tests(metafunc):
    """Run a test that asks for `script` once for every script of the house, each in one worker."""
    chosen = [mark for mark in metafunc.definition.iter_markers("parametrize") if mark.args[0] == "script"]
    if "script" in metafunc.fixturenames and not chosen:
        marked = [pytest.param(script, marks=pytest.mark.xdist_group(script)) for script in SCRIPTS]
        metafunc.parametrize("script", marked)


@pytest.fixture(autouse=True)
def compiled_again():
    """Take back what a run with --eager has set for the process."""
    yield
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.run_functions_eagerly(False)


@pytest.fixture
def module():
    """Import a script by its name: module("dqn") is dqn/dqn.py."""
    return lambda name: importlib.import_module(f"{name}.{name}")


def run_script(folder, script, *args, env=(), timeout=120):
    """Run a script as a user would, from `folder`; returns the finished process."""
    return subprocess.run(
        [sys.executable, ROOT / script / f"{script}.py", *map(str, args)],
        cwd=folder,
        env=os.environ | ONE_THREAD | dict(env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def command(tmp_path):
    """Run a script as a user would, from an empty folder; returns the finished process."""
    return functools.partial(run_script, tmp_path)


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
    """The one run folder below the test's folder."""

    def find():
        (folder,) = (path.parent for path in tmp_path.glob("**/config.json"))
        return folder

    return find

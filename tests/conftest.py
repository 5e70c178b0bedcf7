"""What the tests share: the scripts by name, and ways to run one."""

import importlib
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.stem for path in ROOT.glob("*/*.py") if path.stem == path.parent.name)

SHORT = {  # options that make a run of a script short, yet long enough to learn, log and checkpoint
    "reinforce": "--total-timesteps 1600 --num-envs 2 --num-steps 100",
    "a2c": "--total-timesteps 1600 --num-envs 4 --num-steps 10",
    "trpo": "--total-timesteps 1600 --num-envs 2 --num-steps 50 --num-minibatches 2",
    "ppo": "--total-timesteps 1600 --num-envs 2 --num-steps 50 --num-minibatches 2",
    "dqn": "--total-timesteps 1500 --learning-starts 100 --train-frequency 50 --gradient-steps 5",
}
EVERY = "--log-frequency 100 --checkpoint-frequency 300 --eval-episodes 3"


def short_options(script: str) -> list[str]:
    """The options of a short run of `script`."""
    return f"{SHORT[script]} {EVERY}".split()


def pytest_generate_tests(metafunc):
    """Run a test that asks for `script` once for every script of the house."""
    if "script" in metafunc.fixturenames:
        metafunc.parametrize("script", SCRIPTS)


@pytest.fixture
def module():
    """Import a script by its name: module("dqn") is dqn/dqn.py."""
    return lambda name: importlib.import_module(f"{name}.{name}")


@pytest.fixture
def command(tmp_path):
    """Run a script as a user would, from an empty folder; returns the finished process."""

    def run(script, *args, env=(), timeout=120, **options):
        return subprocess.run(
            [sys.executable, ROOT / script / f"{script}.py", *map(str, args)],
            cwd=tmp_path,
            env=os.environ | dict(env),
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    return run


@pytest.fixture
def only_run(tmp_path):
    """The one run folder below the test's folder."""

    def find():
        (folder,) = (path.parent for path in tmp_path.glob("**/config.json"))
        return folder

    return find

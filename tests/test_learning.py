"""Each script learns: the command a reader types, on seeds fixed in advance, reaches the bar of its task.

The tables over ten seeds are made by benchmarks/learning.py; here stand the first seeds of each, so that a
change that breaks learning is red within minutes.
"""

import re

import pytest

from tests.conftest import SCRIPTS

SEEDS = (0, 1)
TASKS = [  # script, options, the least mean return of 100 greedy episodes
    ("q_learning", "", 195),
    ("dqn", "", 475),
    ("double_dqn", "", 475),
    ("dueling_dqn", "", 475),
    ("reinforce", "", 475),
    ("a2c", "", 475),
    ("trpo", "", 475),
    ("ppo", "", 475),
    ("ddpg", "", -170),
    ("td3", "", -170),
    ("sac", "", -170),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("script_name", "options", "bar"), TASKS)
def test_solves_its_task(script_name, options, bar, seed, command):
    process = command(script_name, *options.split(), "--seed", seed, timeout=500)
    assert process.returncode == 0, process.stderr
    (mean,) = re.findall(r"^evaluation: mean return (-?[\d.]+) ", process.stdout, flags=re.MULTILINE)
    assert float(mean) >= bar


def test_every_script_is_seen_to_learn():
    assert {script_name for script_name, *_ in TASKS} == set(SCRIPTS)

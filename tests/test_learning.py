"""Each script learns: the command that a reader types, on a seed fixed in advance, reaches the bar below.

The tables over 30 seeds are made by benchmarks/learning.py; this file runs the first seed of each script, so
that a change that breaks learning fails within minutes.
"""

import re

import pytest

from tests.conftest import SCRIPTS

TASKS = [  # script, the least mean return of 100 greedy episodes
    ("q_learning", 195),  # two of its 30 seeds end between this and 475
    ("dqn", 475),
    ("double_dqn", 475),
    ("dueling_dqn", 475),
    ("reinforce", 475),
    ("a2c", 475),
    ("trpo", 475),
    ("ppo", 475),
    ("ddpg", -200),
    ("td3", -200),
    ("sac", -200),
]


@pytest.mark.parametrize(("script_name", "bar"), TASKS)
def test_solves_its_task(script_name, bar, command):
    process = command(script_name, "--seed", 0, timeout=500)
    assert process.returncode == 0, process.stderr
    (mean,) = re.findall(r"^evaluation: mean return (-?[\d.]+) ", process.stdout, flags=re.MULTILINE)
    assert float(mean) >= bar


def test_every_script_is_seen_to_learn():
    assert {script_name for script_name, _ in TASKS} == set(SCRIPTS)

"""A script differs from its parent by its idea alone, and stays short."""

from pathlib import Path
import subprocess

import pytest

from tests.conftest import ROOT, SCRIPTS

BUDGETS = {  # (parent, child): lines of `diff parent child` that start with < or >
    ("dqn", "double_dqn"): 19,
    ("double_dqn", "dueling_dqn"): 47,
    ("ddpg", "td3"): 61,
    ("td3", "sac"): 153,
    ("reinforce", "a2c"): 202,
    ("a2c", "ppo"): 102,
    ("ppo", "trpo"): 210,
}
LENGTHS = {  # lines of a script, docstrings and comments included
    "q_learning": 129,
    "dqn": 200,
    "double_dqn": 201,
    "dueling_dqn": 220,
    "reinforce": 202,
    "a2c": 236,
    "ppo": 268,
    "trpo": 334,
    "ddpg": 191,
    "td3": 210,
    "sac": 223,
}


def changed(parent, child) -> list[str]:
    """Return the lines of `diff` that one of two files has and the other has not."""
    process = subprocess.run(["diff", parent, child], capture_output=True, text=True)
    return [line for line in process.stdout.splitlines() if line[0] in "<>"]


def path(script: str) -> Path:
    """Return the path of a script."""
    return ROOT / script / f"{script}.py"


@pytest.mark.parametrize(("pair", "budget"), BUDGETS.items(), ids=map("-".join, BUDGETS))
def test_siblings_differ_by_the_idea_alone(pair, budget):
    difference = changed(*map(path, pair))
    assert 0 < len(difference) <= budget, f"{len(difference)} lines:\n" + "\n".join(difference)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short(script):
    assert len(path(script).read_text().splitlines()) <= LENGTHS[script]


@pytest.mark.parametrize("module", sorted(ROOT.glob("common/*.py")), ids=lambda module: module.stem)
def test_a_module_of_common_is_short(module):
    assert len(module.read_text().splitlines()) <= 300


def test_every_line_counts(tmp_path):
    """Docstrings, comments, and empty lines too."""
    parent, child = tmp_path / "parent.py", tmp_path / "child.py"
    parent.write_text('"""One."""\nx = 1  # why\ny = 2\n')
    child.write_text('"""Two."""\nx = 1  # because\n\ny = 2\n')
    assert changed(parent, child) == [
        '< """One."""',
        "< x = 1  # why",
        '> """Two."""',
        "> x = 1  # because",
        "> ",
    ]

"""A script and its parent differ by the idea alone: bug fixes and options reach every sibling."""

import ast
import difflib

import pytest

from tests.conftest import ROOT

BUDGETS = {  # (parent, child): lines of code out plus in
    ("dqn", "double_dqn"): 6,
    ("double_dqn", "dueling_dqn"): 25,
    ("reinforce", "a2c"): 90,
    ("a2c", "ppo"): 60,
    ("ppo", "trpo"): 130,
    ("ddpg", "td3"): 35,
}


def code(source: str) -> list[str]:
    """The lines of a script without its comments, docstrings and blank lines, all laid out in one way."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            texts = [
                line for line in body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
            ]
            node.body = [line for line in body if line not in texts] or [ast.Pass()]
    return [line for line in ast.unparse(tree).splitlines() if line.strip()]


def changed(parent: str, child: str) -> list[str]:
    """The lines of code that a diff takes out or puts in."""
    lines = difflib.unified_diff(code(parent), code(child), lineterm="", n=0)
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize(
    ("pair", "budget"), BUDGETS.items(), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_siblings_differ_by_the_idea_alone(pair, budget):
    parent, child = (ROOT / name / f"{name}.py" for name in pair)
    if not (parent.exists() and child.exists()):
        pytest.skip(f"{child.name} or its parent is still to be written")
    lines = changed(parent.read_text(), child.read_text())
    assert len(lines) <= budget, f"{len(lines)} lines:\n" + "\n".join(lines)


def test_words_are_not_counted_and_code_is():
    parent = '"""One."""\nclass A:\n    x: int = 1\n    """What x is."""\n    y = f(\n        1)  # why\n'
    child = '"""Two,\n\nlonger."""\nclass A:\n    x: int = 1\n    """Other words."""\n\n    y = f(1)\n'
    assert changed(parent, child) == []
    assert changed(parent, child.replace("f(1)", "f(2)")) == ["-    y = f(1)", "+    y = f(2)"]

"""What the site reads from scripts, pages, and results, and what it makes of them."""

import ast
import dataclasses
from html import unescape
import re

import pytest

from benchmarks.settings import SCRIPTS as TABLE
from docs.book import curves, markup, pages, scripts
from tests.conftest import ROOT, SCRIPTS

SITE = ROOT / "build" / "docs" / "html"
ROW = r'<span class="number">(\d*)</span><span class="number">(\d*)</span><span class="mark">.</span> (.*)'

OLD = '''"""One.

Parent.
Of two."""

x = 1
target = max(q)  # (2)
'''
NEW = '''"""Two.

Child.
Of one."""

x = 1
target = min(q)  # (2)
y = 2
'''


def text(html):
    """Return HTML without its tags."""
    return re.sub(r"<[^>]+>", "", html)


def test_every_script_is_in_the_family_tree():
    assert sorted(pages.reading_order()) == SCRIPTS


@pytest.mark.parametrize("script", [script for script, row in TABLE.items() if row.parent])
def test_the_parent_is_the_one_that_the_page_names(script):
    """DQN's parent is named by the docstring of Q-learning."""
    heading = f"## What changes from {TABLE[TABLE[script].parent].name}\n"
    following = f"Next: {script}/{script}.py"
    parent = scripts.read(scripts.path(TABLE[script].parent))
    assert heading in scripts.read(ROOT / script / "README.md") or following in parent


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_equation_of_a_docstring_has_one_on_the_page(script):
    in_docstring = scripts.equations_of_docstring(scripts.read(scripts.path(script)))
    on_page = scripts.equations_of_page(scripts.read(ROOT / script / "README.md"))
    assert list(in_docstring) == list(on_page)
    assert all("$" in equation for equation in on_page.values())


def test_a_bar_within_an_equation_does_not_end_it():
    assert scripts.equations_of_page("| (1) | $a \\| b$ | `c` |\n") == {"1": "$a \\| b$"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_are_those_of_the_config(script, module):
    config = module(script).Config()
    assert curves._defaults(script) == dataclasses.asdict(config)


def test_an_option_is_split_into_its_parts():
    (option,) = (one for one in scripts.options("dqn") if one.name == "learning_rate")
    assert option.flag == "--learning-rate"
    assert (option.default, option.values) == ("1e-3", "number > 0")
    assert (option.meaning, option.source) == ("Initial learning rate of Adam.", "DQN: 2.5e-4, RMSProp")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("Fraction", "number in [0, 1]"),
        ("PositiveFraction", "number in (0, 1]"),
        ("Positive | None", "number > 0, or None"),
        ("tuple[PositiveInt, ...]", "integer > 0, one or more"),
        ("Literal['mlp', 'cnn']", "mlp, cnn"),
        ("bool", "True or False"),
    ],
)
def test_ranges_in_words(hint, words):
    assert scripts._values(ast.parse(hint, mode="eval").body) == words


def test_highlighting_keeps_every_character(script):
    code = scripts.read(scripts.path(script))
    assert "\n".join("".join(word for _, word in line) for line in markup.tokens(code)) == code.rstrip("\n")


def test_a_difference_marks_words_and_folds_docstrings():
    diff = markup.difference(OLD, NEW)
    assert (diff.removed, diff.added) == (1, 2)
    assert re.findall(r"<del>(.*?)</del>", diff.html.partition("</details>")[2]) == [
        '<span class="nb">max</span>'
    ]
    folded = text(re.search(r"<details>(.*?)</details>", diff.html, flags=re.DOTALL)[1])
    assert folded.startswith("docstring: 4 lines out, 4 in") and "Child." in folded and "x = 1" not in folded


@pytest.mark.parametrize("script", [script for script, row in TABLE.items() if row.parent])
def test_a_difference_contains_both_scripts(script):
    both = [scripts.read(scripts.path(one)) for one in (TABLE[script].parent, script)]
    html = markup.difference(*both).html
    rows = re.findall(r'<span class="(old|new|same)">(.*)\n</span>', html)
    for which, (code, other) in enumerate(zip(both, ("new", "old"))):
        numbers, lines = [], []
        for css, row in rows:
            left, right, line = re.fullmatch(ROW, row).groups()
            if css != other:
                numbers.append(int((left, right)[which]))
                lines.append(unescape(text(line)))
        assert lines == code.splitlines()
        assert numbers == list(range(1, len(lines) + 1))


def test_unchanged_lines_are_folded_away():
    old = "".join(f"x{k} = {k}\n" for k in range(20))
    html = markup.difference(old, old.replace("x10 = 10", "x10 = 11")).html
    assert re.findall(r"(\d+) unchanged lines", html) == ["7", "6"]


def test_the_tree_links_every_page_and_every_difference():
    parents = {script: row.parent for script, row in TABLE.items()}
    names = {script: row.name for script, row in TABLE.items()}
    svg = markup.family_tree(names, names, parents)
    for script, parent in parents.items():
        assert f'href="{script}/index.html"' in svg
        assert (f'href="{script}/diff.html"' in svg) == (parent is not None)


def test_boxes_of_the_tree_stand_below_their_parents_and_apart():
    parents = {script: row.parent for script, row in TABLE.items()}
    places = markup._places(parents)
    for script, parent in parents.items():
        assert parent is None or places[script][1] == places[parent][1] + markup.BOX[1] + markup.GAP[1]
    assert len(set(places.values())) == len(SCRIPTS)
    assert places["dqn"][0] == places["q_learning"][0] and places["ppo"][0] == places["a2c"][0]


def test_links_lead_to_pages_of_the_site(tmp_path):
    linked = set()
    page = ROOT / "ppo" / "README.md"
    before = (
        "[A2C](../a2c/README.md#results), [code](../common/envs.py), [all](../common), [web](https://x.org)"
    )
    after = "[A2C](../a2c/index.md#results), [code](../common/envs.py.md), [all](../common/index.md), [web](https://x.org)"
    assert pages.with_links(before, page, linked, tmp_path) == after
    assert linked == {ROOT / "common" / "envs.py", ROOT / "common"}


def test_curves_are_those_of_the_results():
    (panel,) = (panel for panel in curves.data(["ppo"]) if panel["env"] == "CartPole-v1")
    assert panel["threshold"] == 475.0
    (script,) = panel["scripts"]
    first = (ROOT / "benchmarks/results/curves/ppo__CartPole-v1.csv").read_text().splitlines()[1].split(",")
    curve = script["seeds"][first[0]]
    assert [curve["steps"][0], curve["seconds"][0], curve["returns"][0]] == [
        float(cell) for cell in first[1:]
    ]


def test_runs_with_other_options_than_todays_are_left_out(monkeypatch):
    assert "CartPole-v1" in [panel["env"] for panel in curves.data(["ppo"])]
    monkeypatch.setattr(curves, "_defaults", lambda script: {"gamma": 0.123})
    assert "CartPole-v1" not in [panel["env"] for panel in curves.data(["ppo"])]


@pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the site is not built: make docs")
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_equation_beside_a_line_is_that_of_the_page(script):
    latex = scripts.equations_of_page(scripts.read(ROOT / script / "README.md"))
    html = (SITE / script / f"{script}.py.html").read_text(encoding="utf-8")
    marked = r'<div class="marked".*?<pre>(.*?)</pre><div class="note">.*?>\((\d+)\)</a>(.*?)</div>'
    notes = re.findall(marked, html, flags=re.DOTALL)
    assert {number for _, number, _ in notes} == latex.keys()
    for code, number, text in notes:
        assert re.sub(r"<[^>]+>", "", code).endswith(f"# ({number})\n")
        shown = re.findall(r"\\\((.+?)\\\)", unescape(text), flags=re.DOTALL)
        assert shown == re.findall(r"\$(.+?)\$", latex[number].replace("\\|", "|"))

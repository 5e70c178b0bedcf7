"""Docstring, code and page of every script agree on equation numbers, option names, and metrics."""

import ast
import dataclasses
import re

import pytest

from benchmarks.settings import SCRIPTS
from tests.conftest import ROOT
from tests.test_siblings import changed, path

HEADINGS = [
    "The idea",
    "Equations and lines",
    "Logged metrics",
    "Differences from the paper",
    "Results",
    "When it fails",
]
PAGES = sorted(ROOT.glob("[a-z]*/README.md"))


def source(script):
    return path(script).read_text()


def page(script):
    return (ROOT / script / "README.md").read_text()


def section(script, heading):
    """Return the text of one section of a page."""
    parts = re.split(r"^## (.+)$", page(script), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[heading]


def first_cells(table):
    """Return the first column of the tables in a text, without the header and its rule."""
    cells = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return [cell for k, cell in enumerate(cells) if k > 1]


def test_the_page_has_its_sections_in_order(script):
    headings = re.findall(r"^## (.+)$", page(script), flags=re.MULTILINE)
    own = [heading for heading in headings if heading in HEADINGS]
    assert own == HEADINGS
    extra = [heading for heading in headings if heading not in HEADINGS]
    assert all(heading.startswith("What ") for heading in extra), extra


def test_equation_numbers_agree(script):
    docstring = ast.get_docstring(ast.parse(source(script)))
    numbers = re.findall(r"\((\d+)\)\s*$", docstring, flags=re.MULTILINE)
    assert numbers == [str(k + 1) for k in range(len(numbers))] and len(numbers) >= 2
    code = source(script).split('"""', 2)[2]
    marked = set(re.findall(r"# \((\d+)\)", code))
    assert marked == set(numbers)
    assert [cell.strip("()") for cell in first_cells(section(script, "Equations and lines"))] == numbers


def test_code_on_the_page_is_code_of_the_script(script):
    """The line that the page shows for an equation is in the script, and ends in its number."""
    for line in section(script, "Equations and lines").splitlines():
        if line.startswith("| ("):
            number, _, code = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:4])
            quoted = re.findall(r"`([^`]{9,})`", code)
            assert all(one in source(script) for one in quoted), quoted
            assert any(f"{one}  # {number}" in source(script) for one in quoted), number


def test_the_changed_lines_on_the_page_are_those_of_the_scripts(script):
    """Lines that begin with + are only in the script, those with - only in its parent."""
    for block in re.findall(r"```diff\n(.*?)```", page(script), flags=re.DOTALL):
        difference = changed(path(SCRIPTS[script].parent), path(script))
        for line in filter(None, block.splitlines()):
            assert {"+": "> ", "-": "< "}[line[0]] + line[1:] in difference, line


def test_every_option_the_page_uses_exists(script, module):
    known = {"help"} | {field.name for field in dataclasses.fields(module(script).Config)}
    others = ("pip ", "benchmarks/")  # lines about other programs
    lines = [line for line in page(script).splitlines() if not any(word in line for word in others)]
    for option in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", "\n".join(lines)):
        assert option.replace("-", "_") in known or option.removeprefix("no-").replace("-", "_") in known, (
            option
        )


def test_metrics_agree(script, short_run):
    header = (short_run(script)[1] / "metrics.csv").read_text().splitlines()[0].split(",")
    named = [cell.strip("`") for cell in first_cells(section(script, "Logged metrics"))]
    assert sorted(named) == sorted(header[4:])


def test_docstrings_of_options(script):
    """Every option has one."""
    tree = ast.parse(source(script))
    (config,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config")
    body = config.body[1:]
    for field, text in zip(body[::2], body[1::2], strict=True):
        assert isinstance(field, ast.AnnAssign), ast.unparse(field)
        assert isinstance(text.value.value, str), f"{field.target.id} has no docstring"


@pytest.mark.parametrize("name", ["README.md", *(f"{page.parent.name}/README.md" for page in PAGES)])
def test_links_lead_somewhere(name):
    file = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
        assert (file.parent / target).exists(), target


def test_every_option_of_the_front_page_exists(module):
    """Its commands are DQN's, except that of TensorBoard."""
    known = {"help", "logdir"} | {field.name for field in dataclasses.fields(module("dqn").Config)}
    for option in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", (ROOT / "README.md").read_text()):
        assert option.replace("-", "_") in known, option

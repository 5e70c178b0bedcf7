"""Writes the tables and figures of the results, and puts the tables into the pages.

    python benchmarks/report.py

Writes benchmarks/results/README.md with all tables, the figures in benchmarks/results/figures, and the tables
that a README.md requests between two markers:

    <!-- benchmarks: summary -->            or learning, mujoco, games, speed, num_envs, …;
    <!-- end of benchmarks -->              with a script's name, as in `learning dqn`, only its rows
"""

from dataclasses import dataclass
from pathlib import Path
import re

from common.errors import UserError

from benchmarks import cli
from benchmarks.figures import draw_all
from benchmarks.records import RESULTS, ROOT
from benchmarks.tables import TABLES

START, END = "<!-- benchmarks: {} -->", "<!-- end of benchmarks -->"


@dataclass
class Options:
    """Where to read results and write tables."""

    results: Path = RESULTS
    """Folder written by learning.py and speed.py; README.md and figures/ are written to it."""
    pages: tuple[Path, ...] = ()
    """Pages to fill (default: every README.md with markers, but none if `results` is another folder)."""


def fill(text: str, results: Path) -> str:
    """Replace the tables of a page between its markers, each at the start of a line.

    Raises:
        UserError: for a marker without its end, or for a table that does not exist.
    """
    opening = "^" + re.escape(START).replace(re.escape("{}"), r"(\w+)(?: (\w+))?")
    if len(re.findall(opening, text, re.MULTILINE)) != len(re.findall("^" + END, text, re.MULTILINE)):
        raise UserError(f"every {START.format('…')} needs its {END}")

    def replace(match: re.Match) -> str:
        if match[1] not in TABLES:
            raise UserError(f"there is no table {match[1]}: choose from {', '.join(TABLES)}")
        marker = match[0].partition("-->")[0] + "-->"
        return f"{marker}\n{TABLES[match[1]][1](results, match[2] or '')}\n{END}"

    return re.sub(opening + r".*?^" + END, replace, text, flags=re.DOTALL | re.MULTILINE)


def main(options: Options) -> None:
    """Write tables and figures, and fill the pages."""
    figures = draw_all(options.results)
    parts = ["# Results\n\nWritten by `python benchmarks/report.py` from the CSV files in this folder."]
    parts += [f"## {title}\n\n{table(options.results)}" for title, table in TABLES.values()]
    parts += ["## Figures", *(f"![{name}](figures/{name}.png)" for name in figures)]
    text = "\n\n".join(parts) + "\n"
    text = re.sub(r"\]\((\w+/README\.md)\)", r"](../../\1)", text)  # links relative to this folder
    (options.results / "README.md").write_text(text, encoding="utf-8")
    ours = sorted(ROOT.glob("README.md")) + sorted(ROOT.glob("*/README.md"))
    for page in options.pages or (ours if options.results.resolve() == RESULTS.resolve() else []):
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text, options.results)) != text:
            page.write_text(filled, encoding="utf-8")
            print(f"filled {page}")
    print(f"wrote {options.results / 'README.md'} and the figures")


if __name__ == "__main__":
    cli.run(main, Options)

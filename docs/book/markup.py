"""HTML of source code, of the difference of two files, and of the family tree."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from html import escape
from itertools import groupby
import re

from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES, Comment, String

from docs.book import scripts

Token = tuple[str, str]  # CSS class, text
BOX, GAP = (132, 46), (24, 44)  # width and height of a script in the family tree, and the space between two
CONTEXT = 3  # unchanged lines shown around a change
LONG = 3  # docstrings of more lines than this are folded away in a difference


@cache
def tokens(code: str, language: str = "python") -> list[list[Token]]:
    """Return the colored tokens of each line; comments and strings word by word."""
    lines: list[list[Token]] = [[]]
    for kind, text in get_lexer_by_name(language, stripnl=False).get_tokens(code):
        prose = kind in Comment or kind in String
        for k, part in enumerate(text.split("\n")):
            if k:
                lines.append([])
            words = re.findall(r"\s+|\w+|[^\w\s]", part) if prose else [part]
            lines[-1] += [(STANDARD_TYPES.get(kind, ""), word) for word in words if word]
    return lines[:-1]


def spans(line: Iterable[Token], tag: str = "", changed: Sequence[bool] = ()) -> str:
    """Return a line as HTML; tokens that changed are wrapped in a tag, neighbors together."""
    html, opened = "", False
    for k, (css, text) in enumerate(line):
        now = bool(tag) and k < len(changed) and changed[k]
        if now != opened:
            html += f"<{tag}>" if now else f"</{tag}>"
            opened = now
        html += f'<span class="{css}">{escape(text)}</span>' if css else escape(text)
    return html + (f"</{tag}>" if opened else "")


def numbered(number: int, line: str) -> str:
    """Return a line with its number, which is its anchor."""
    return f'<a class="number" id="L{number}" href="#L{number}">{number}</a>{line}\n'


@dataclass(frozen=True)
class Row:
    """A line of a difference; mark is "-", "+", or a space, and the numbers are those in the two files."""

    mark: str
    left: int | None
    right: int | None
    line: str
    in_docstring: bool

    @property
    def html(self) -> str:
        """The row as HTML."""
        css = {"-": "old", "+": "new", " ": "same"}[self.mark]
        numbers = "".join(f'<span class="number">{number or ""}</span>' for number in (self.left, self.right))
        return f'<span class="{css}">{numbers}<span class="mark">{self.mark}</span> {self.line}\n</span>'


@dataclass(frozen=True)
class Diff:
    """The difference of two scripts: HTML, and how many lines went and came, long docstrings aside."""

    removed: int
    added: int
    html: str


@cache
def difference(old: str, new: str) -> Diff:
    """Compare two scripts line by line, and changed lines token by token."""
    rows = _rows(old, new)
    html = ""
    for in_docstring, group in groupby(rows, lambda row: row.in_docstring):
        block = list(group)
        if in_docstring and (counts := Counter(row.mark for row in block)).keys() != {" "}:
            html += _folded(block, f"docstring: {counts['-']} lines out, {counts['+']} in")
        else:
            html += "".join(
                _code(list(part), rows) for _, part in groupby(block, lambda row: row.mark == " ")
            )
    counts = Counter(row.mark for row in rows if not row.in_docstring)
    return Diff(counts["-"], counts["+"], html)


def _rows(old: str, new: str) -> list[Row]:
    """Return all lines of two scripts, aligned."""
    lines = tokens(old), tokens(new)
    folded = [
        {number for one in scripts.docstring_lines(code) if len(one) > LONG for number in one}
        for code in (old, new)
    ]
    matcher = SequenceMatcher(
        lambda line: not line.strip(), old.splitlines(), new.splitlines(), autojunk=False
    )
    rows = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            pairs = zip(range(i1 + 1, i2 + 1), range(j1 + 1, j2 + 1))
            rows += [Row(" ", i, j, spans(lines[0][i - 1]), i in folded[0]) for i, j in pairs]
            continue
        went, came = _changed_tokens(lines[0][i1:i2], lines[1][j1:j2])
        for i, changed in enumerate(went, start=i1 + 1):
            rows.append(Row("-", i, None, spans(lines[0][i - 1], "del", changed), i in folded[0]))
        for j, changed in enumerate(came, start=j1 + 1):
            rows.append(Row("+", None, j, spans(lines[1][j - 1], "ins", changed), j in folded[1]))
    return rows


def _code(block: list[Row], rows: list[Row]) -> str:
    """Return lines as HTML; of many unchanged lines, those far from a change are folded away."""
    head = 0 if block[0] is rows[0] else CONTEXT
    tail = len(block) - (0 if block[-1] is rows[-1] else CONTEXT)
    if block[0].mark != " " or tail - head <= CONTEXT:
        return _lines(block)
    middle = _folded(block[head:tail], f"{tail - head} unchanged lines")
    return _lines(block[:head]) + middle + _lines(block[tail:])


def _lines(block: list[Row]) -> str:
    """Return lines as HTML."""
    return f"<pre>{''.join(row.html for row in block)}</pre>" if block else ""


def _folded(block: list[Row], summary: str) -> str:
    """Return lines as HTML, folded away below a summary."""
    return f"<details><summary>{summary}</summary>{_lines(block)}</details>"


def _changed_tokens(old: list[list[Token]], new: list[list[Token]]) -> tuple[list, list]:
    """Return for each token whether it changed; all False if two blocks have little in common."""
    flat = [[token for line in side for token in [*line, ("", "\n")]] for side in (old, new)]
    matcher = SequenceMatcher(lambda token: not token[1].strip(), *flat, autojunk=False)
    changed = [[True] * len(side) for side in flat]
    if matcher.ratio() < 0.5:
        changed = [[False] * len(side) for side in flat]
    for i, j, size in matcher.get_matching_blocks():
        changed[0][i : i + size] = changed[1][j : j + size] = [False] * size
    split = [], []
    for side, lines in enumerate((old, new)):
        start = 0
        for line in lines:
            split[side].append(changed[side][start : start + len(line)])
            start += len(line) + 1
    return split


def family_tree(names: dict[str, str], papers: dict[str, str], parents: dict[str, str | None]) -> str:
    """Draw the scripts below their parents as SVG: boxes link to pages, edges to differences."""
    places = _places(parents)
    drawing = ""
    for number, (script, (x, y)) in enumerate(places.items(), start=1):
        middle = x + BOX[0] / 2
        if parent := parents[script]:
            diff = difference(*(scripts.read(scripts.path(one)) for one in (parent, script)))
            from_x, from_y, turn = places[parent][0] + BOX[0] / 2, places[parent][1] + BOX[1], y - GAP[1] / 2
            drawing += (
                f'<a class="edge" href="{script}/diff.html">'
                f"<title>What changes from {escape(names[parent])} to {escape(names[script])}</title>"
                f'<path d="M{from_x} {from_y} V{turn} H{middle} V{y}"/>'
                f'<text x="{middle + 8}" y="{turn + 14}">−{diff.removed} +{diff.added} lines</text></a>'
            )
        drawing += (
            f'<a href="{script}/index.html">'
            f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8"/>'
            f'<text x="{middle}" y="{y + 20}">{number}. {escape(names[script])}</text>'
            f'<text class="paper" x="{middle}" y="{y + 37}">{escape(papers[script])}</text></a>'
        )
    width, height = (max(place[k] for place in places.values()) + BOX[k] + GAP[0] for k in (0, 1))
    attributes = f'viewBox="0 0 {width} {height}" style="max-width: {width}px" role="group"'
    return f'<svg class="tree" {attributes} aria-label="Family tree of the algorithms">{drawing}</svg>'


def _places(parents: dict[str, str | None]) -> dict[str, tuple[int, int]]:
    """Return the corners of the boxes, in the order of reading: below the parent, siblings to its right."""
    places: dict[str, tuple[int, int]] = {}
    columns = 0

    def place(family: str | None, depth: int) -> None:
        nonlocal columns
        for k, child in enumerate(one for one, parent in parents.items() if parent == family):
            columns += k > 0
            places[child] = 1 + columns * (BOX[0] + GAP[0]), 1 + depth * (BOX[1] + GAP[1])
            place(child, depth + 1)

    place(None, 0)
    return places

"""The directives with which the pages show what is generated from the code and the results."""

from html import escape
import json
from pathlib import Path
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from benchmarks.settings import COLLECTION
from docs.book import curves, markup, scripts

IMPORT = re.compile(r"from common\.(\w+) import")
QUOTE = '"'


class Generated(SphinxDirective):
    """A directive whose arguments are words, and whose result is mostly HTML."""

    optional_arguments = 2

    def html(self, text: str) -> nodes.raw:
        """Return a node of HTML."""
        return nodes.raw("", text, format="html")


class Source(Generated):
    """A source file in color. In a script, each equation stands beside the line that ends in its number."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.arguments[0])
        code = scripts.read(scripts.ROOT / path)
        script = path.stem if path.parts[0] in COLLECTION else ""
        language = {".py": "python", ".toml": "toml"}.get(path.suffix, "text")
        equations = scripts.equations_of_docstring(code) if script else {}
        page = scripts.read(scripts.ROOT / script / "README.md") if script else ""
        latex = scripts.equations_of_page(page)
        title = f'role="region" aria-label="{path.name}" tabindex="0"'
        result = [self.html(f'<div class="highlight source" {title}>')]
        block, seen = "", set()
        for number, line in enumerate(markup.tokens(code, language), start=1):
            text = "".join(word for _, word in line)
            html = markup.spans(line)
            if imported := IMPORT.match(text):
                link = f'<a href="../common/{imported[1]}.py.html">{imported[1]}</a>'
                html = html.replace(f"{imported[1]}</span>", f"{link}</span>", 1)
            html = markup.numbered(number, html)
            marked = re.search(r"# \((\d+)\)$", text)
            if marked and marked[1] in equations:
                which = marked[1]
                anchor = "" if which in seen else f' id="equation-{which}"'
                seen.add(which)
                result.append(self.html(f'<pre>{block}</pre><div class="marked"{anchor}><pre>{html}</pre>'))
                result += self.note(which, latex.get(which) or f"`{equations[which]}`")
                block = ""
            elif not seen and (which := _number(text)) in equations:  # in the docstring
                link = f'<a href="#equation-{which}" aria-label="line of equation {which}">→ line</a>'
                block += html.removesuffix("\n") + f" {link}\n"
            else:
                block += html
        return [*result, self.html(f"<pre>{block}</pre></div>")]

    def note(self, number: str, equation: str) -> list[nodes.Node]:
        """Return an equation, rendered, with a link to its place on the page of the algorithm."""
        text = nodes.container()
        self.state.nested_parse(StringList([equation], self.get_source_info()[0]), 0, text)
        link = f'<a href="index.html#eq-{number}" aria-label="equation {number} on the page">({number})</a>'
        return [self.html(f'<div class="note">{link}'), *text.children, self.html("</div></div>")]


def _number(line: str) -> str:
    """Return the number of the equation with which a line of a docstring ends, or nothing."""
    return match[1] if (match := re.search(r"\((\d+)\)$", line)) else ""


class DiffOf(Generated):
    """The difference of a script and its parent."""

    def run(self) -> list[nodes.Node]:
        parent, script = self.arguments
        diff = markup.difference(*(scripts.read(scripts.path(one)) for one in (parent, script)))
        names = [f'<a href="../{one}/{one}.py.html">{one}/{one}.py</a>' for one in (parent, script)]
        head = f"<p>{names[0]} → {names[1]}: {diff.removed} lines out, {diff.added} lines in, long docstrings"
        head += f' not counted. <a href="index.html">{escape(COLLECTION[script].name)}</a> explains them.</p>'
        region = 'role="region" aria-label="difference" tabindex="0"'
        return [self.html(f'{head}<div class="highlight source diff" {region}>{diff.html}</div>')]


class Options(Generated):
    """The options of a script: those of its own, and, folded away, those that all scripts share."""

    def run(self) -> list[nodes.Node]:
        own = scripts.options(self.arguments[0])
        declared = {option.name for option in own}
        shared = [option for option in scripts.shared_options() if option.name not in declared]
        html = (
            _table(own)
            + f"<details><summary>Options that all scripts share</summary>{_table(shared)}</details>"
        )
        return [self.html(html)]


def _table(options: list[scripts.Option]) -> str:
    """Return options as a table; the column of sources is left out if there is none."""
    sources = any(option.source for option in options)
    head = ["option", "default", "values", "meaning", *["source"] * sources]
    rows = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    for one in options:
        cells = [f"<code>{one.flag}</code>", f"<code>{escape(one.default.strip(QUOTE))}</code>"]
        cells += [escape(text) for text in (one.values, one.meaning, *[one.source] * sources)]
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f'<div class="table-wrapper"><table class="docutils options">{rows}</table></div>'


class Curves(Generated):
    """Learning curves to explore, of the given script or of all; a static picture comes before them."""

    def run(self) -> list[nodes.Node]:
        panels = curves.data(self.arguments or list(COLLECTION))
        text = json.dumps(panels, separators=(",", ":")).replace("</", "<\\/")
        return [
            self.html(f'<div class="curves"><script type="application/json">{text}</script></div>')
        ] * bool(panels)


class FamilyTree(Generated):
    """All scripts below their parents."""

    def run(self) -> list[nodes.Node]:
        names = {script: row.name for script, row in COLLECTION.items()}
        papers = {script: re.match(r"\[?([^\]]+)", row.paper)[1] for script, row in COLLECTION.items()}
        parents = {script: row.parent for script, row in COLLECTION.items()}
        return [self.html(markup.family_tree(names, papers, parents))]


DIRECTIVES = {
    "source": Source,
    "diff": DiffOf,
    "options": Options,
    "curves": Curves,
    "family-tree": FamilyTree,
}

"""Prepares the pages for Sphinx: the README files as they are, with links between the pages of the site.

Each file or folder that a page links to gets a page too. The pages are written into Sphinx's source folder.
"""

import ast
import os
from pathlib import Path
import re
import shutil

from benchmarks.settings import COLLECTION
from docs.book import scripts
from docs.book.scripts import ROOT

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
WIDE = "---\nhide-toc: true\n---\n\n"  # without a table of contents
CODE = "benchmarks/index\nbenchmarks/results/index\ncommon/index\ntests/index\ndocs/index"


def prepare(folder: Path) -> None:
    """Write all pages into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    linked = {*map(scripts.path, COLLECTION), *ROOT.glob("common/*.py")}
    patterns = ("README.md", "[a-z]*/README.md", "benchmarks/results/README.md", "docs/*.md")
    for page in (page for pattern in patterns for page in ROOT.glob(pattern)):
        text = scripts.read(page)
        if page.parent == ROOT:
            text = front_page(text)
        elif page.parent.name in COLLECTION:
            text = page_of_script(text, page.parent.name)
        _write(folder / staged(page), with_links(text, page, linked, folder))
    for script, row in COLLECTION.items():
        if row.parent:
            title = f"From {COLLECTION[row.parent].name} to {row.name}"
            diff = f"```{{diff}} {row.parent} {script}\n```\n"
            _write(folder / script / "diff.md", f"{WIDE}# {title}\n\n{tour(script, 'diff.html')}\n\n{diff}")
    for path in linked:
        _write(folder / staged(path), listing(path) if path.is_dir() else source_page(path))


def staged(path: Path) -> Path:
    """Return where the page of a file or folder of the repository stands, relative to the source folder."""
    if path.is_dir() or path.name == "README.md":
        return (path if path.is_dir() else path.parent).relative_to(ROOT) / "index.md"
    if path.parent == ROOT / "docs" and path.suffix == ".md":
        return Path(path.name)
    if path.suffix in (".png", ".gif", ".md"):
        return path.relative_to(ROOT)
    return path.relative_to(ROOT).with_name(path.name + ".md")


def with_links(text: str, page: Path, linked: set[Path], folder: Path) -> str:
    """Return a page whose links lead to pages of the site; note the files linked, and copy the images."""

    def change(match: re.Match) -> str:
        image, label, target, anchor = match.groups()
        goal = (page.parent / target).resolve()
        if not goal.exists():
            return match.group()  # Sphinx will warn
        if image:
            (folder / staged(goal)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(goal, folder / staged(goal))
        elif not (goal / "README.md").exists() and goal.suffix != ".md":
            linked.add(goal)
        relative = os.path.relpath(staged(goal), staged(page).parent)
        return f"{image}[{label}]({relative}{anchor or ''})"

    return LINK.sub(change, text)


def front_page(text: str) -> str:
    """Add the family tree and the table of contents to the README."""
    text = text.replace("\n## ", "\n```{family-tree}\n```\n\n## ", 1)
    algorithms = "\n".join(f"{script}/index" for script in reading_order())
    contents = {
        "Algorithms": algorithms,
        "Guides": "own_problem\npolicies/index\ncurves",
        "Evidence and code": CODE,
    }
    return text + "".join(toctree(rows, name) for name, rows in contents.items())


def toctree(rows: str, caption: str = "") -> str:
    """Return an entry of the table of contents."""
    head = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{head}\n{rows}\n```\n"


def reading_order(parent: str | None = None) -> list[str]:
    """Return the scripts in the order of reading: each one is followed by its descendants."""
    children = [script for script, row in COLLECTION.items() if row.parent == parent]
    return [one for script in children for one in [script, *reading_order(script)]]


def page_of_script(text: str, script: str) -> str:
    """Add to the page of a script: links to the annotated script and to the diff, the curves, the options."""
    parent, source = COLLECTION[script].parent, f"{script}.py"
    text = text.replace("\n", f"\n\n{tour(script, 'index.html')}\n", 1)
    row = rf'| <a href="{source}.html#equation-\1" id="eq-\1">(\1)</a> |'
    text = re.sub(r"^\| \((\d+)\) \|", row, text, flags=re.MULTILINE)
    text = re.sub(r"(## Results\n\n!\[.*\n)", rf"\1\n```{{curves}} {script}\n```\n", text)
    text += f"\n## Options\n\n```{{options}} {script}\n```\n"
    return text + toctree(f"{source}\ndiff" if parent else source)


def tour(script: str, here: str) -> str:
    """Return links to all that the site has about a script; `here` is the page that shows them."""
    parent = COLLECTION[script].parent
    links = {"Page": "index.html", "Annotated script": f"{script}.py.html"}
    links |= {f"Diff to {COLLECTION[parent].name}": "diff.html"} if parent else {}
    links |= {"Options": "index.html#options", "Results": "index.html#results"}
    marks = {here: ' aria-current="page"'}
    return "{.tour}\n" + " · ".join(
        f'<a href="{target}"{marks.get(target, "")}>{text}</a>' for text, target in links.items()
    )


def source_page(path: Path) -> str:
    """Return the page of a source file."""
    head = WIDE.replace("---\n", "---\norphan: true\n", 1)
    links = f"{tour(path.stem, f'{path.name}.html')}\n\n" if path.stem in COLLECTION else ""
    return f"{head}# {path.name}\n\n{links}```{{source}} {path.relative_to(ROOT)}\n```\n"


def listing(path: Path) -> str:
    """Return the page of a folder: its modules with the first lines of their docstrings."""
    files = sorted(file for file in path.glob("*.py") if file.name != "__init__.py")
    linked = path.name == "common"
    rows = [f"| {f'[{one.name}]({one.name}.md)' if linked else one.name} | {summary(one)} |" for one in files]
    text = "\n".join([f"# {path.name}/\n", "| file | content |", "| --- | --- |", *rows, ""])
    return text + (toctree("\n".join(file.name for file in files)) if linked else "")


def summary(file: Path) -> str:
    """Return the first line of a module's docstring, for the cell of a table."""
    return (ast.get_docstring(ast.parse(scripts.read(file))) or "").partition("\n")[0].replace("|", "\\|")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

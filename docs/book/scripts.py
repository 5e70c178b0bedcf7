"""Reads a script without importing it: equations, docstrings, and options."""

import ast
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
import re
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SYMBOLS = {"Gt": ">", "Ge": "≥", "Lt": "<", "Le": "≤"}
PLAIN = {"int": "integer", "float": "number", "str": "text", "bool": "True or False", "None": "None"}


@dataclass(frozen=True)
class Option:
    """An option of a script, as its Config declares it."""

    name: str
    default: str
    values: str
    meaning: str
    source: str

    @property
    def value(self) -> Any:
        """The default as a Python object."""
        return ast.literal_eval(self.default)

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + self.name.replace("_", "-")


def path(script: str) -> Path:
    """Return the path of a script."""
    return ROOT / script / f"{script}.py"


@cache
def read(file: Path) -> str:
    """Return the text of a file."""
    return file.read_text(encoding="utf-8")


def equations_of_page(page: str) -> dict[str, str]:
    """Return the equations of a page by number, in Markdown: rows such as "| (1) | $y = r$ | `line` |"."""
    rows = re.findall(r"^\| \((\d+)\) \|(.+?)(?<!\\)\|", page, flags=re.MULTILINE)
    return {number: equation.strip() for number, equation in rows}


def equations_of_docstring(code: str) -> dict[str, str]:
    """Return the equations of a module's docstring by number, as the text that they are."""
    docstring = ast.get_docstring(ast.parse(code)) or ""
    rows = re.findall(r"^ +(.+?) +\((\d+)\)$", docstring, flags=re.MULTILINE)
    return {number: equation for equation, number in rows}


def docstring_lines(code: str) -> list[range]:
    """Return the line numbers of each docstring, those of options included."""
    statements = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Expr)]
    strings = [one for one in statements if isinstance(one.value, ast.Constant)]
    return [range(one.lineno, one.end_lineno + 1) for one in strings if isinstance(one.value.value, str)]


@cache
def options(script: str) -> list[Option]:
    """Return the options that a script declares itself."""
    return _fields(read(path(script)), "Config")


@cache
def shared_options() -> list[Option]:
    """Return the options that all scripts share."""
    return _fields(read(ROOT / "common" / "options.py"), "RunConfig")


def _fields(code: str, name: str) -> list[Option]:
    """Return the fields of a dataclass; the expression that follows a field is its docstring."""
    (body,) = (node.body for node in ast.parse(code).body if getattr(node, "name", "") == name)
    return [
        _option(field, ast.literal_eval(text.value), _default(ast.get_source_segment(code, field.value)))
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    ]


def _default(code: str) -> str:
    """Return the default that the right-hand side of a field gives."""
    return "{}" if code.endswith("field(default_factory=dict)") else code


def _option(field: ast.AnnAssign, docstring: str, default: str) -> Option:
    """Split the docstring "Discount factor γ (paper: 0.99)." into the meaning and the source."""
    pattern = r"(.*?)(?: \(((?:[^()]*: |paper|authors)[^()]*)\))?\.?"
    meaning, source = re.fullmatch(pattern, docstring, flags=re.DOTALL).groups()
    return Option(field.target.id, default, _values(field.annotation), f"{meaning}.", source or "")


@cache
def _aliases() -> dict[str, ast.expr]:
    """Return the types of common/options.py by name, such as Positive = Annotated[float, Gt(0)]."""
    assigned = (
        node for node in ast.parse(read(ROOT / "common" / "options.py")).body if isinstance(node, ast.Assign)
    )
    return {node.targets[0].id: node.value for node in assigned}


def _values(hint: ast.expr) -> str:
    """Say in words which values an annotation admits."""
    if isinstance(hint, ast.BinOp):  # X | None
        return f"{_values(hint.left)}, or {_values(hint.right)}"
    if isinstance(hint, ast.Subscript):
        inner = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        match hint.value.id:
            case "Literal":
                return ", ".join(ast.unparse(one).strip("'") for one in inner)
            case "Annotated":
                return f"{_values(inner[0])} {_bounds(inner[1])}"
            case "dict":
                return "name=value, any number"
            case _:  # tuple[X, ...]
                return f"{_values(inner[0])}, one or more"
    name = ast.unparse(hint)
    return _values(_aliases()[name]) if name in _aliases() else PLAIN.get(name, name)


def _bounds(call: ast.Call) -> str:
    """Write Gt(0) as "> 0" and Interval(ge=0, le=1) as "in [0, 1]"."""
    if call.func.id != "Interval":
        return f"{SYMBOLS[call.func.id]} {ast.unparse(call.args[0])}"
    limits = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    low = f"[{limits['ge']}" if "ge" in limits else f"({limits['gt']}"
    high = f"{limits['le']}]" if "le" in limits else f"{limits['lt']})"
    return f"in {low}, {high}"

"""Breaks the scripts on purpose, one line at a time, and shows which breaks the fast tests notice.

    python tests/mutants.py                               named mutants and 12 random ones of every script
    python tests/mutants.py --scripts dqn td3 --random 0  named mutants of two scripts

Named mutants are in tests/mutants.toml. Random ones come from a seed: an operator exchanged, a constant
doubled, a call, a statement, or an argument left out, anywhere in the code below a script's options. Each
mutant is written to a copy of the repository, where the tests of its script run until one fails. The tests of
learning, of pages, and of the lengths of scripts do not take part.
"""

import ast
from collections import Counter
from collections.abc import Iterator
import copy
from dataclasses import dataclass
import os
from pathlib import Path
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import common.run  # noqa: F401, imported for the forks
import keras  # noqa: F401
import pytest
import tensorflow  # noqa: F401
import tyro

from benchmarks.records import ROOT
from benchmarks.settings import SCRIPTS, read_toml

LEFT_OUT = ("benchmarks", "cli", "fuzz_and_soak", "learning", "mutants", "options", "pages")
LEFT_OUT += ("siblings", "tune")
LAST = ("evaluation", "run")  # they start processes
FIRST = ("on_policy", "off_policy", "known_values", "schedules", "double_dqn", "ppo", "a2c")
EXCHANGED = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq},
}
RENAMED = {"minimum": "maximum", "reduce_mean": "reduce_sum", "argmax": "argmin", "reduce_max": "reduce_min"}
RENAMED |= {new: old for old, new in RENAMED.items()}


@dataclass
class Options:
    """What to break."""

    scripts: tuple[str, ...] = tuple(SCRIPTS)
    """Scripts to break."""
    random: int = 12
    """Random mutants of each script."""
    named: bool = True
    """Run the named mutants too."""
    seed: int = 0
    """Seed of the random mutants."""
    workers: int = 2
    """Simultaneous runs of the tests."""
    timeout: float = 600.0
    """Seconds after which a mutant counts as killed, because it hangs."""


@dataclass(frozen=True)
class Mutant:
    """A script with one line broken."""

    script: str
    kind: str
    name: str
    source: str


def path_of(script: str) -> Path:
    """Return the path of a script, relative to the repository."""
    return Path(script) / f"{script}.py"


def named_mutants(script: str) -> Iterator[Mutant]:
    """Yield the mutants of mutants.toml; ValueError if a script no longer has the line."""
    source = (ROOT / path_of(script)).read_text()
    for entry in read_toml(ROOT / "tests" / "mutants.toml")["mutant"]:
        if script in entry["scripts"]:
            if source.count(entry["old"]) != 1:
                raise ValueError(f"{script}: {entry['old']!r} occurs {source.count(entry['old'])} times")
            yield Mutant(script, "named", entry["name"], source.replace(entry["old"], entry["new"]))


def breaks(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what was done to a node and the node that takes its place."""

    def changed(**fields) -> ast.AST:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in EXCHANGED:
            yield "operator exchanged", changed(op=EXCHANGED[type(op)]())
        case ast.AugAssign(op=op) if type(op) in EXCHANGED:
            yield "operator exchanged", changed(op=EXCHANGED[type(op)]())
            yield "statement left out", ast.Pass()
        case ast.Compare(ops=[op]) if type(op) in EXCHANGED:
            yield "comparison exchanged", changed(ops=[EXCHANGED[type(op)]()])
        case ast.Constant(value=bool(value)):
            yield "constant negated", changed(value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield "constant doubled", changed(value=2 * value or type(value)(1))
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not()):
            yield "sign left out", node.operand
        case ast.If():
            yield "condition negated", changed(test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement left out", ast.Pass()
        case ast.Call(func=func, args=args, keywords=keywords):
            if isinstance(func, ast.Attribute) and func.attr in RENAMED:
                yield "function exchanged", changed(func=ast.Attribute(func.value, RENAMED[func.attr]))
            if args and not isinstance(args[0], ast.Starred):
                yield "call left out", args[0]
            if len(args) >= 2:
                yield "arguments exchanged", changed(args=[args[1], args[0], *args[2:]])
            for keyword in keywords:
                if keyword.arg not in (None, "name"):
                    yield (
                        f"{keyword.arg} left out",
                        changed(keywords=[k for k in keywords if k is not keyword]),
                    )


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Yield where each node hangs, in code: parent, field, and index. Annotations and text are left out."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield tree, field, index
                yield from places(child)


def random_mutants(script: str, number: int, seed: int) -> list[Mutant]:
    """Return random mutants of the code below the options."""
    source = (ROOT / path_of(script)).read_text()
    tree = ast.parse(source)
    code = [x for x in tree.body if isinstance(x, ast.FunctionDef) or getattr(x, "name", "") == "Agent"]
    candidates = [
        (parent, field, index, what, new)
        for part in code
        for parent, field, index in places(part)
        for what, new in breaks(_at(parent, field, index))
    ]
    chosen = random.Random(f"{script} {seed}").sample(candidates, min(number, len(candidates)))
    mutants = []
    for parent, field, index, what, new in chosen:
        child, old = _at(parent, field, index), getattr(parent, field)
        setattr(parent, field, new if index is None else [*old[:index], new, *old[index + 1 :]])
        line = getattr(child, "lineno", getattr(parent, "lineno", 0))
        name = f"line {line}, {what}: {ast.get_source_segment(source, child) or ''}"
        mutants.append(Mutant(script, "random", " ".join(name.split())[:110], ast.unparse(tree)))
        setattr(parent, field, old)
    return mutants


def _at(parent: ast.AST, field: str, index: int | None) -> ast.AST:
    """Return the node in a field of `parent`, or at an index of the list in that field."""
    return getattr(parent, field) if index is None else getattr(parent, field)[index]


def tests_by_script(scripts: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the ids of the tests that run each script, the sharpest first."""
    command = [sys.executable, "-m", "pytest", "tests", "--collect-only", "-q", "-n", "0"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    ids = [line for line in output.splitlines() if "::" in line]
    named = re.compile(rf"(?<![a-z_])(?:{'|'.join(SCRIPTS)})(?![a-z_])")
    chosen = {}
    for script in scripts:
        order = (script, *FIRST)

        def rank(test: str, order: tuple[str, ...] = order) -> tuple[int, str]:
            noun = Path(test.partition("::")[0]).stem.removeprefix("test_")
            return order.index(noun) if noun in order else len(order) + (noun in LAST), noun

        fits = [test for test in ids if script in (named.findall(test) or [rank(test)[1]])]
        chosen[script] = sorted((test for test in fits if rank(test)[1] not in LEFT_OUT), key=rank)
    return chosen


def run_tests(mutant: Mutant, tests: list[str], folder: Path) -> None:
    """Run tests in a copy of the repository until one fails; never returns."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path[0] = str(folder)
    path_of(mutant.script).write_text(mutant.source)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        code = pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests])
    finally:
        os._exit(code)


def outcomes(mutants: list[Mutant], tests: dict[str, list[str]], chosen: Options) -> Iterator[tuple]:
    """Yield each mutant with the test that failed, "a timeout", or nothing if all passed.

    Each mutant is a fork of this process, which has imported TensorFlow once for all.
    """
    waiting = list(reversed(mutants))
    with tempfile.TemporaryDirectory() as where:
        folders = [Path(where) / str(k) for k in range(chosen.workers)]
        for folder in folders:
            left_out = shutil.ignore_patterns(".*", "build", "results", "runs", "__pycache__")
            shutil.copytree(ROOT, folder, ignore=left_out)
        running: dict[int, tuple] = {}
        while waiting or running:
            while waiting and folders:
                mutant, folder = waiting.pop(), folders.pop()
                if not (child := os.fork()):
                    run_tests(mutant, tests[mutant.script], folder)
                running[child] = mutant, folder, time.monotonic() + chosen.timeout
            time.sleep(0.1)
            for child, (mutant, folder, deadline) in list(running.items()):
                late = time.monotonic() > deadline
                if late:
                    os.kill(child, signal.SIGKILL)
                done, status = os.waitpid(child, 0 if late else os.WNOHANG)
                if not done:
                    continue
                del running[child]
                folders.append(folder)
                shutil.copy(ROOT / path_of(mutant.script), folder / path_of(mutant.script))
                output = (folder / "output").read_text(errors="replace")
                failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", output, flags=re.MULTILINE)
                reason = "a timeout" if late else failed[1] if failed else f"an error: {output[-200:]}"
                yield mutant, reason if status else ""


def main(chosen: Options) -> None:
    """Run all mutants; print one line each, and a table."""
    tests = tests_by_script(chosen.scripts)
    unbroken = [Mutant(x, "", "nothing", (ROOT / path_of(x)).read_text()) for x in chosen.scripts]
    for mutant, failed in outcomes(unbroken, tests, chosen):
        if failed:
            sys.exit(f"error: {mutant.script} fails {failed} before anything is broken")
    mutants = []
    for script in chosen.scripts:
        mutants += named_mutants(script) if chosen.named else []
        mutants += random_mutants(script, chosen.random, chosen.seed)
    counts = Counter()
    for mutant, failed in outcomes(mutants, tests, chosen):
        counts[mutant.script, mutant.kind] += 1
        counts[mutant.script, mutant.kind, "killed"] += bool(failed)
        outcome = f"killed by {failed}" if failed else "SURVIVED"
        print(f"{mutant.script}, {mutant.kind}: {mutant.name} -> {outcome}", flush=True)
    print(f"\n{'script':12} {'named':>7} {'killed':>7} {'random':>7} {'killed':>7}")
    for script in chosen.scripts:
        keys = [(script, kind, *more) for kind in ("named", "random") for more in ((), ("killed",))]
        print(f"{script:12} " + " ".join(f"{counts[key]:7}" for key in keys))


if __name__ == "__main__":
    main(tyro.cli(Options))

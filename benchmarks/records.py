"""CSV files of results, and where a result comes from: versions, machine, date, commit."""

from collections.abc import Iterator
from contextlib import contextmanager
import csv
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
import os
from pathlib import Path
import platform
import re
import subprocess
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ORIGIN = ("versions", "machine", "date", "commit")  # the columns that say where a row comes from
NO_CODE = (":!benchmarks/results", ":!*.md")  # what may differ from a row's commit, as Git writes it
COMMIT = "BENCHMARKS_COMMIT"  # tells the workers of a cluster, which have a copy without the history


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file; a missing file has no rows."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows with equal keys; after a crash or power cut the old or the new file is there."""
    from common.run_folder import replacing  # the site is built without the packages that this needs

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def replace_rows(path: Path, rows: list[dict], key: tuple[str, ...]) -> None:
    """Replace the rows of a CSV file that have the same key as new ones; keep the others, sorted by key.

    Rows of an older version keep the columns that there still are; new columns are empty in them.
    """
    with locked(path.parent):
        new = {tuple(str(row[name]) for name in key) for row in rows}
        old = [{name: row.get(name, "") for name in rows[0]} for row in read_csv(path)]
        old = [row for row in old if tuple(row[name] for name in key) not in new]
        write_csv(path, sorted([*old, *rows], key=lambda row: [_sortable(row[name]) for name in key]))


def drop_rows(path: Path, column: str, value: Any) -> None:
    """Drop the rows of a CSV file that have a value in a column; a file without rows is deleted."""
    if not path.exists():
        return
    with locked(path.parent):
        if rows := [row for row in read_csv(path) if row[column] != str(value)]:
            write_csv(path, rows)
        else:
            path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a folder (not on Windows, which has no fcntl)."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sortable(value: str | float) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return 0.0, str(value)


def origin() -> dict[str, str]:
    """Return the columns `ORIGIN`; the date is in UTC."""
    packages = [f"{name} {version(name)}" for name in ("tensorflow", "keras", "gymnasium", "numpy")]
    values = (
        ", ".join([f"Python {platform.python_version()}", *packages]),
        machine(),
        datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        os.environ.get(COMMIT) or commit(),
    )
    return dict(zip(ORIGIN, values, strict=True))


def commit(root: Path = ROOT) -> str:
    """Return the short hash of the checkout's commit, with `+` if its code or settings have changed since.

    Pages and results are left out. The hash is empty without Git, and in a copy without the history.
    """
    if not (root / ".git").exists():  # or Git would look in the folders above
        return ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    run = partial(subprocess.run, cwd=root, env=environment, capture_output=True, text=True)
    try:
        found = run(["git", "rev-parse", "--short", "HEAD"])
        changed = run(["git", "--no-optional-locks", "status", "--porcelain", "--", ".", *NO_CODE])
    except FileNotFoundError:
        return ""
    return "" if found.returncode else found.stdout.strip() + "+" * bool(changed.stdout)


def machine() -> str:
    """Return number of cores and processor."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = names[0].strip() if names else model
    return f"{os.cpu_count()} cores, {model}"


def stolen_seconds(path: Path = Path("/proc/stat")) -> float:
    """Return the CPU time that the host of a virtual machine took from it so far; 0 outside Linux."""
    return int(path.read_text().split()[8]) / os.sysconf("SC_CLK_TCK") if path.exists() else 0.0

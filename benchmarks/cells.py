"""What the tables and figures share: reading results, the wording of cells, Markdown."""

from collections.abc import Iterable
from pathlib import Path
import re

import pandas as pd

from benchmarks import options
from benchmarks.settings import SCRIPTS, TASKS, THRESHOLDS, Task

NO_RESULTS = "No results yet."


def read(path: Path, script: str = "") -> pd.DataFrame:
    """Read a CSV file of results, or the rows of one script; empty if there is none."""
    if not path.exists():
        return pd.DataFrame()
    frame = pd.read_csv(path, dtype={"threads": str})
    return frame[frame["script"] == script] if script else frame


def runs(task: Task, results: Path) -> pd.DataFrame:
    """Return the seeds of a task, without runs made with options other than today's."""
    frame = read(results / "learning" / task.file)
    if frame.empty:
        return frame
    defaults = options.defaults(task.script)
    return frame[[options.is_current(row, task, defaults) for row in frame.to_dict("records")]]


def default_task(script: str) -> Task | None:
    """Return the first task of a script in learning.toml."""
    return next((task for task in TASKS if task.script == script), None)


def label(
    script: str, env_id: str, *, num_envs: int = 1, threads: str = "default", executor: str = "sync"
) -> str:
    """Return the first cell of a row, with threads and executor if they are not the defaults."""
    parts = [SCRIPTS[script].name, env_id if num_envs == 1 else f"{num_envs} × {env_id}"]
    parts += [] if threads == "default" else [f"{threads} thread(s)"]
    parts += [] if executor == "sync" else [executor]
    return ", ".join(parts)


def named(task: Task) -> str:
    """Return a task in words, such as "PPO on CartPole-v1"."""
    return f"{SCRIPTS[task.script].name} on {task.title}"


def middle(values: pd.Series, decimals: int = 0) -> str:
    """Return the median, without missing values."""
    return f"{values.median():,.{decimals}f}" if values.notna().any() else "–"


def solved(frame: pd.DataFrame, env_id: str) -> str:
    """Return the number of solved runs, such as "10 of 10", or "– (10)" without a threshold."""
    if env_id not in THRESHOLDS:
        return f"– ({len(frame)})"
    return f"{(frame['evaluation_mean'] >= THRESHOLDS[env_id]).sum()} of {len(frame)}"


def markdown(rows: list[dict[str, str]]) -> str:
    """Return a table; columns of numbers are aligned to the right."""
    if not rows:
        return NO_RESULTS
    numbers = [all(re.match(r"[-–\d]", row[column]) for row in rows) for column in rows[0]]
    lines = [list(rows[0]), ["---:" if number else "---" for number in numbers]]
    lines += [list(row.values()) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def origin(frames: Iterable[pd.DataFrame]) -> str:
    """Return the line below a table: dates, versions and machines."""
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        return ""
    frame = pd.concat(frames)
    first, last = frame["date"].min(), frame["date"].max()
    when = first if first == last else f"{first} to {last}"
    return "\n\n" + "; ".join([when, *sorted(set(frame["versions"])), *sorted(set(frame["machine"]))]) + "."

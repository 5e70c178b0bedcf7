"""Tables of speed: compared with libraries, by number of environments, of updates, seconds to solve a task.

Rows made with options other than today's are left out, except those of the update.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import options
from benchmarks.cells import NO_RESULTS, label, markdown, middle, origin, read
from benchmarks.peers import NAMES as LIBRARIES
from benchmarks.settings import PAIRS, RACES, Task, select


def pair_rows(results: Path, script: str = "") -> pd.DataFrame:
    """Return the rows of speed.csv."""
    return current(read(results / "speed.csv", script), [pair.pair for pair in PAIRS])


def speed_pairs(results: Path, script: str = "") -> pd.DataFrame:
    """Return median speeds and ratios of the rows of speed.toml, in its order."""
    frame = pair_rows(results, script)
    if frame.empty:
        return frame
    key = ["script", "env_id", "num_envs", "executor", "peer"]
    rows = [
        (pair.script, pair.env_id, pair.num_envs, pair.executor, peer)
        for pair in PAIRS
        for peer in pair.peers
    ]
    groups = frame.groupby([*key, "threads"])
    speeds = groups[["steps_per_second", "peer_steps_per_second"]].median()
    ratios = groups["ratio"].agg(["median", "min", "max", "count"])
    return pd.DataFrame(rows, columns=key).merge(speeds.join(ratios).reset_index(), on=key)


def pair_label(pair: Any) -> str:
    """Return the first cell of a row of `speed_pairs`."""
    how = {"num_envs": pair.num_envs, "threads": pair.threads, "executor": pair.executor}
    return label(pair.script, pair.env_id, **how)


def speed_table(results: Path, script: str = "") -> str:
    """Steps per second compared with the libraries."""
    frame = pair_rows(results, script)
    rows = [
        {
            "script and task": pair_label(pair),
            "compared with": LIBRARIES[pair.peer],
            "our steps/s": f"{pair.steps_per_second:,.0f}",
            "their steps/s": f"{pair.peer_steps_per_second:,.0f}",
            "ratio (range)": f"{pair.median:.2f} ({pair.min:.2f}–{pair.max:.2f})",
            "pairs": str(pair.count),
        }
        for pair in speed_pairs(results, script).itertuples()
    ]
    libraries = "" if frame.empty else f"\n\nLibraries: {'; '.join(sorted(set(frame['peer_versions'])))}."
    return markdown(rows) + libraries + origin([frame])


def num_envs_speeds(results: Path, script: str = "") -> pd.DataFrame:
    """Return the speeds for different numbers of environments."""
    frame = read(results / "num_envs.csv", script)
    measured = [] if frame.empty else set(zip(frame["num_envs"], frame["executor"]))
    return current(frame, [pair.with_envs(*how).pair for pair in PAIRS for how in measured])


def num_envs_table(results: Path, script: str = "") -> str:
    """Steps per second for different numbers of environments."""
    frame = num_envs_speeds(results, script)
    if frame.empty:
        return NO_RESULTS
    index = ["script", "env_id", "executor", "threads"]
    table = frame.pivot_table("steps_per_second", index, "num_envs", "median", sort=False)
    rows = [
        {"steps/s by number of environments": label(script, env_id, executor=executor, threads=threads)}
        | {str(count): "–" if pd.isna(speed) else f"{speed:,.0f}" for count, speed in row.items()}
        for (script, env_id, executor, threads), row in table.sort_index(axis="columns").iterrows()
    ]
    return markdown(rows) + origin([frame])


def arithmetic_table(results: Path, script: str = "") -> str:
    """How long an update of an off-policy script takes, compared with its matrix products."""
    frame = read(results / "arithmetic.csv", script)
    rows = [
        {
            "script and task": label(row["script"], row["env_id"]),
            "milliseconds per update": f"{row['update_ms']:.2f}",
            "million operations in matrix products": f"{row['megaflop']:,}",
            "time / time of the products alone": f"{row['ratio']:.2f}",
        }
        for row in frame.to_dict("records")
    ]
    return markdown(rows) + origin([frame])


def solve_table(results: Path, script: str = "") -> str:
    """Time from the command to the solved task, compared with a library that has its own tuned settings."""
    frame = current(read(results / "time_to_solve.csv", script), [race.race for race in RACES])
    if frame.empty:
        return NO_RESULTS
    rows = []
    index = ["script", "env_id", "threads", "peer"]
    for (name, env_id, threads, peer), group in frame.groupby(index, sort=False):
        row = {"script and task": label(name, env_id, threads=threads), "compared with": LIBRARIES[peer]}
        for whose, prefix in (("our", ""), ("their", "peer_")):
            seconds = group[prefix + "solved_seconds"]
            evaluated = (group[prefix + "evaluation"] >= group["bar"]).sum()
            reached = f"{middle(seconds, 1)} ({seconds.count()} of {len(group)})"
            total = f"{middle(group[prefix + 'whole_seconds'], 1)} ({evaluated} of {len(group)})"
            row[f"{whose} seconds to threshold (seeds)"] = reached
            row[f"{whose} total seconds (solved)"] = total
        for title, column in (("to threshold", "solved_seconds"), ("in total", "whole_seconds")):
            ratio = group["peer_" + column].median() / group[column].median()
            row[f"their / our seconds, {title}"] = "–" if pd.isna(ratio) else f"{ratio:.1f}"
        rows.append(row)
    return markdown(rows) + origin([frame])


def current(frame: pd.DataFrame, tasks: list[Task]) -> pd.DataFrame:
    """Return the rows that were made with the options of one of the tasks."""

    def is_current(row: dict[str, Any]) -> bool:
        ours = select(tasks, (row["script"],), (row["env_id"],))
        return any(options.is_current(row, task, options.defaults(task.script)) for task in ours)

    return frame if frame.empty else frame[[is_current(row) for row in frame.to_dict("records")]]

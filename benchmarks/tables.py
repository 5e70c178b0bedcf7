"""Tables of the results, in Markdown."""

from collections.abc import Iterable
from pathlib import Path
import re
from typing import Any

import pandas as pd

from benchmarks import options, records
from benchmarks.intervals import interquartile_mean, interval, with_interval
from benchmarks.peers import NAMES as LIBRARIES
from benchmarks.settings import PAIRS, SCRIPTS, TASKS, THRESHOLDS, Task

PUBLISHED = records.ROOT / "benchmarks" / "published.csv"  # best published return of each task
NO_RESULTS = "No results yet."
HALFWAY = 500_000  # steps at which tables of MuJoCo tasks show a return besides the final one


def read(path: Path, script: str = "") -> pd.DataFrame:
    """Read a CSV file of results, or the rows of one script; empty if there is none."""
    if not path.exists():
        return pd.DataFrame()
    frame = pd.read_csv(path, dtype={"threads": str})
    return frame[frame["script"] == script] if script else frame


def runs(task: Task, results: Path) -> pd.DataFrame:
    """Return the runs of a task, without those made with other options than today's."""
    frame = read(results / "learning" / task.file)
    if frame.empty:
        return frame
    defaults = options.defaults(task.script)
    return frame[[options.is_current(row, task, defaults) for row in frame.to_dict("records")]]


def default_task(script: str) -> Task | None:
    """Return the first task of a script in learning.toml."""
    return next((task for task in TASKS if task.script == script), None)


def speed_pairs(results: Path, script: str = "") -> pd.DataFrame:
    """Return median speeds and ratios of the rows of speed.toml, in its order."""
    frame = read(results / "speed.csv", script)
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


def label(
    script: str, env_id: str, *, num_envs: int = 1, threads: str = "default", executor: str = "sync"
) -> str:
    """Return the first cell of a row, with threads and executor if they are not the defaults."""
    parts = [SCRIPTS[script].name, env_id if num_envs == 1 else f"{num_envs} × {env_id}"]
    parts += [] if threads == "default" else [f"{threads} thread(s)"]
    parts += [] if executor == "sync" else [executor]
    return ", ".join(parts)


def pair_label(pair: Any) -> str:
    """Return the first cell of a row of `speed_pairs`."""
    how = {"num_envs": pair.num_envs, "threads": pair.threads, "executor": pair.executor}
    return label(pair.script, pair.env_id, **how)


def named(task: Task) -> str:
    """Return a task in words, such as "PPO on CartPole-v1"."""
    return f"{SCRIPTS[task.script].name} on {task.env_id}"


def middle(values: pd.Series, decimals: int = 0) -> str:
    """Return the median, without missing values."""
    return f"{values.median():,.{decimals}f}" if values.notna().any() else "–"


def solved(frame: pd.DataFrame, env_id: str) -> str:
    """Return the number of solved runs, such as "10 of 10"."""
    if env_id not in THRESHOLDS:
        return "–"
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


def summary_table(results: Path, script: str = "") -> str:
    """All scripts, each on its default task: the table of the front page."""
    rows, used = [], []
    pairs = speed_pairs(results)
    for name, about in SCRIPTS.items():
        task = default_task(name)
        if task is None or script not in ("", name) or (frame := runs(task, results)).empty:
            continue
        used.append(frame)
        speeds = {}
        if not pairs.empty:
            first = pairs[(pairs["script"] == name) & (pairs["threads"] == "default")]
            for pair in first.drop_duplicates("peer").itertuples():  # the first environment of speed.toml
                speeds[pair.peer] = f"{pair.median:.1f} ({pair.min:.1f}–{pair.max:.1f})"
        rows.append(
            {
                "script": f"[{about.name}]({name}/README.md)",
                "paper": about.paper,
                "actions": ", ".join(about.actions),
                "default task": task.env_id,
                "seeds solved": solved(frame, task.env_id),
                "mean return [95 %]": with_interval(frame["evaluation_mean"]),
                "steps to threshold": middle(frame["solved_step"]),
                "seconds to threshold": middle(frame["solved_seconds"], 1),
                "speed compared with SB3": speeds.get("sb3") or speeds.get("sb3-contrib", "–"),
                "with SBX": speeds.get("sbx", "–"),
            }
        )
    return markdown(rows) + origin(used)


def published_returns() -> pd.DataFrame:
    """Return the best published returns, by script and environment."""
    return read(PUBLISHED).set_index(["script", "env_id"])


def best_published(task: Task, published: pd.DataFrame) -> str:
    """Return the best published return of a task, its source, number of steps, and version of the task."""
    if (task.script, task.env_id) not in published.index:
        return "–"
    source = published.loc[(task.script, task.env_id)]
    steps = "" if pd.isna(source["steps"]) else f", {source['steps']:,.0f} steps"
    kind = "" if source["returns"] == "evaluation" else ", training"
    other = re.match(r"on (\S+-v\d)", str(source["note"]))
    version = f", {other[1]}" if other and other[1] != task.env_id else ""
    return f"{source['mean']:.1f} ([{source['name']}]({source['source']}){steps}{kind}{version})"


def learning_table(results: Path, script: str = "") -> str:
    """Every task: means over seeds, and the best published return."""
    published = published_returns()
    rows, used, notes, commands = [], [], [], []
    below: dict[str, list[str]] = {}
    for task in TASKS:
        if script not in ("", task.script) or (frame := runs(task, results)).empty:
            continue
        used.append(frame)
        commands.append(f"python {script}/{script}.py --env-id {task.env_id} {task.arguments}")
        returns = frame["evaluation_mean"]
        if (task.script, task.env_id) in published.index:
            bar = published.loc[(task.script, task.env_id)]["mean"]
            if round(returns.mean(), 1) < round(bar, 1):
                inside = (
                    "the interval ends below it" if interval(returns)[1] < bar else "the interval contains it"
                )
                below.setdefault("one seed" if len(returns) == 1 else inside, []).append(named(task))
        if task.note:
            notes.append(f"{named(task)}: {task.note}")
        rows.append(
            {
                "script and task": label(task.script, task.env_id),
                "steps": f"{frame['total_timesteps'].iloc[0]:,}",
                "seeds solved": solved(frame, task.env_id),
                "mean [95 %]": with_interval(returns),
                "interquartile mean [95 %]": with_interval(returns, interquartile_mean),
                "steps to threshold": middle(frame["solved_step"]),
                "seconds to threshold": middle(frame["solved_seconds"], 1),
                "total seconds": middle(frame["whole_seconds"], 1),
                "best published": best_published(task, published),
            }
        )
    lines = [f"Below the best published return ({why}): {', '.join(which)}." for why, which in below.items()]
    lines += notes
    if script and commands:
        lines += ["The commands of the rows, with `--seed` 0, 1, …:"]
        lines += ["\n".join(f"    {command}".rstrip() for command in commands)]
    return "\n\n".join([markdown(rows), *lines]) + origin(used)


def mujoco_table(results: Path, script: str = "") -> str:
    """The MuJoCo tasks, task by task: the final return of each script and the one at `HALFWAY` steps."""
    published = published_returns()
    rows, used, notes = [], [], []
    tasks = [task for task in TASKS if task.is_mujoco and script in ("", task.script)]
    for task in sorted(tasks, key=lambda task: (task.env_id, list(SCRIPTS).index(task.script))):
        if (frame := runs(task, results)).empty:
            continue
        used.append(frame)
        if task.note:
            notes.append(f"{named(task)}: {task.note}")
        rows.append(
            {
                "task": task.env_id,
                "script": SCRIPTS[task.script].name,
                "steps": f"{frame['total_timesteps'].iloc[0]:,}",
                "seeds": str(len(frame)),
                "mean [95 %]": with_interval(frame["evaluation_mean"]),
                f"at {HALFWAY:,} steps": at_halfway(task, frame, results),
                "total seconds": middle(frame["whole_seconds"], 1),
                "best published": best_published(task, published),
            }
        )
    return "\n\n".join([markdown(rows), *notes]) + origin(used)


def at_halfway(task: Task, frame: pd.DataFrame, results: Path) -> str:
    """Return the mean return at `HALFWAY` steps of the runs in `frame` that were evaluated then, or ended."""
    if (frame["total_timesteps"] == HALFWAY).all():
        return with_interval(frame["evaluation_mean"])
    evaluations = read(results / "evaluations" / task.file)
    if evaluations.empty:
        return "–"
    evaluations = evaluations[evaluations["seed"].isin(frame["seed"])]
    first = evaluations[evaluations["global_step"] >= HALFWAY].groupby("seed").first()
    first = first[first["global_step"] < 1.1 * HALFWAY]  # the first rollout that ends after it
    return with_interval(first["mean_return"]) if len(first) else "–"


def speed_table(results: Path, script: str = "") -> str:
    """Steps per second compared with the libraries."""
    frame = read(results / "speed.csv", script)
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


def num_envs_table(results: Path, script: str = "") -> str:
    """Steps per second for different numbers of environments."""
    frame = read(results / "num_envs.csv", script)
    if frame.empty:
        return NO_RESULTS
    index = ["script", "env_id", "executor"]
    table = frame.pivot_table("steps_per_second", index, "num_envs", "median", sort=False)
    rows = [
        {"steps/s by number of environments": label(script, env_id, executor=executor)}
        | {str(count): "–" if pd.isna(speed) else f"{speed:,.0f}" for count, speed in row.items()}
        for (script, env_id, executor), row in table.sort_index(axis="columns").iterrows()
    ]
    return markdown(rows) + origin([frame])


def solve_table(results: Path, script: str = "") -> str:
    """Time from the command to the solved task, compared with a library that has its own tuned settings."""
    frame = read(results / "time_to_solve.csv", script)
    if frame.empty:
        return NO_RESULTS
    rows = []
    for (name, env_id, peer), group in frame.groupby(["script", "env_id", "peer"], sort=False):
        row = {"script and task": label(name, env_id), "compared with": LIBRARIES[peer]}
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


def ray_table(results: Path, script: str = "") -> str:
    """The same runs on this machine and on Ray, seed by seed."""
    rows, used = [], []
    for task in TASKS:
        if script not in ("", task.script) or (ray := runs(task, results / "ray")).empty:
            continue
        pool = runs(task, results)
        if pool.empty or (both := ray.merge(pool, on="seed", suffixes=("", "_pool"))).empty:
            continue
        used.append(both)
        rows.append(
            {
                "script and task": label(task.script, task.env_id),
                "seeds": ", ".join(map(str, both["seed"])),
                "mean returns, process pool": ", ".join(map(str, both["evaluation_mean_pool"])),
                "mean returns, Ray": ", ".join(map(str, both["evaluation_mean"])),
                "total seconds, process pool": middle(both["whole_seconds_pool"], 1),
                "total seconds, Ray": middle(both["whole_seconds"], 1),
            }
        )
    return markdown(rows) + origin(used)


TABLES = {
    "summary": ("All scripts, each on its default task", summary_table),
    "learning": ("Learning over seeds", learning_table),
    "mujoco": ("MuJoCo tasks", mujoco_table),
    "speed": ("Steps per second compared with other libraries", speed_table),
    "num_envs": ("Steps per second by number of environments", num_envs_table),
    "solve": ("Seconds from the command to the solved task", solve_table),
    "ray": ("The same runs in a process pool and on Ray", ray_table),
}

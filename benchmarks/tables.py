"""Tables of the results, in Markdown."""

from pathlib import Path
import re

import pandas as pd

from benchmarks import records
from benchmarks.cells import default_task, label, markdown, middle, named, origin, read, runs, solved
from benchmarks.intervals import interquartile_mean, interval, with_interval
from benchmarks.settings import COLLECTION, PAIRS, SCRIPTS, TASKS, Task
from benchmarks.speed_tables import (
    arithmetic_table,
    num_envs_table,
    pair_rows,
    solve_table,
    speed_pairs,
    speed_table,
)

PUBLISHED = records.ROOT / "benchmarks" / "published.csv"  # best published return of each task
MILESTONE = 500_000  # steps at which tables of MuJoCo tasks show a return besides the final one


def summary_table(results: Path, script: str = "") -> str:
    """All scripts, each on its default task: the table of the front page."""
    rows, used = [], []
    pairs = speed_pairs(results)
    for name, about in COLLECTION.items():
        task = default_task(name)
        if task is None or script not in ("", name) or (frame := runs(task, results)).empty:
            continue
        used.append(frame)
        speeds = {}
        if (first := next((pair for pair in PAIRS if pair.script == name), None)) and not pairs.empty:
            how = (first.script, first.env_id, first.num_envs, first.executor, "default")
            for pair in pairs.itertuples():
                if (pair.script, pair.env_id, pair.num_envs, pair.executor, pair.threads) == how:
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
    return markdown(rows) + origin([*used, pair_rows(results)])


def published_returns() -> pd.DataFrame:
    """Return the best published returns, by script and environment."""
    return read(PUBLISHED).set_index(["script", "env_id"])


def best_published(task: Task, published: pd.DataFrame) -> str:
    """Return the best published return of a task, its source, steps, kind, and version of the task."""
    if (task.script, task.title) not in published.index:
        return "–"
    source = published.loc[(task.script, task.title)]
    steps = "" if pd.isna(source["steps"]) else f", {source['steps']:,.0f} steps"
    kind = "" if source["returns"] == "evaluation" else f", {source['returns']}"
    runs = ", one run" if source["seeds"] == 1 else ""
    other = re.match(r"on (\S+-v\d)", str(source["note"]))
    version = f", {other[1]}" if other and other[1] != task.env_id else ""
    mean = with_interval([source["mean"]])
    return f"{mean} ([{source['name']}]({source['source']}){steps}{kind}{version}{runs})"


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
        if (task.script, task.title) in published.index:
            bar = published.loc[(task.script, task.title)]["mean"]
            if round(returns.mean(), 1) < round(bar, 1):
                inside = (
                    "the interval ends below it" if interval(returns)[1] < bar else "the interval contains it"
                )
                below.setdefault("one seed" if len(returns) == 1 else inside, []).append(named(task))
        if task.note:
            notes.append(f"{named(task)}: {task.note}")
        rows.append(
            {
                "script and task": label(task.script, task.title),
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
    """The MuJoCo tasks: the final return of each script and the one at `MILESTONE` steps."""
    return task_table([task for task in TASKS if task.is_mujoco], results, script, milestone=True)


def games_table(results: Path, script: str = "") -> str:
    """MinAtar and Atari: the return of each script."""
    return task_table([task for task in TASKS if task.is_game], results, script)


def task_table(tasks: list[Task], results: Path, script: str, *, milestone: bool = False) -> str:
    """Return a table of some tasks, task by task."""
    published = published_returns()
    rows, used, notes = [], [], []
    tasks = [task for task in tasks if script in ("", task.script)]
    for task in sorted(tasks, key=lambda task: (task.title, list(SCRIPTS).index(task.script))):
        if (frame := runs(task, results)).empty:
            continue
        used.append(frame)
        if task.note:
            notes.append(f"{named(task)}: {task.note}")
        row = {
            "task": task.title,
            "script": SCRIPTS[task.script].name,
            "steps": f"{frame['total_timesteps'].iloc[0]:,}",
            "seeds": str(len(frame)),
            "mean [95 %]": with_interval(frame["evaluation_mean"]),
        }
        if milestone:
            row[f"at {MILESTONE:,} steps"] = at_milestone(task, frame, results)
        row["total seconds"] = middle(frame["whole_seconds"], 1)
        row["best published"] = best_published(task, published)
        rows.append(row)
    return "\n\n".join([markdown(rows), *notes]) + origin(used)


def at_milestone(task: Task, frame: pd.DataFrame, results: Path) -> str:
    """Return the mean return at `MILESTONE` steps of the runs that were evaluated then, or ended."""
    if (frame["total_timesteps"] == MILESTONE).all():
        return with_interval(frame["evaluation_mean"])
    evaluations = read(results / "evaluations" / task.file)
    if evaluations.empty:
        return "–"
    evaluations = evaluations[evaluations["seed"].isin(frame["seed"])]
    first = evaluations[evaluations["global_step"] >= MILESTONE].groupby("seed").first()
    first = first[first["global_step"] < 1.1 * MILESTONE]  # the first rollout that ends after it
    if first.empty:
        return "–"
    missing = len(first) < len(frame)
    return with_interval(first["mean_return"]) + (f" ({len(first)} of {len(frame)} seeds)" if missing else "")


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
                "script and task": label(task.script, task.title),
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
    "games": ("Games", games_table),
    "speed": ("Steps per second compared with other libraries", speed_table),
    "num_envs": ("Steps per second by number of environments", num_envs_table),
    "arithmetic": ("Time of an update compared with its matrix products", arithmetic_table),
    "solve": ("Seconds from the command to the solved task", solve_table),
    "ray": ("The same runs in a process pool and on Ray", ray_table),
}

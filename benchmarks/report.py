"""Tables and figures from what learning.py and speed.py have left.

    python benchmarks/report.py

Writes benchmarks/results/README.md with all tables, figures beside it (PNG and SVG, made for light and dark
pages), and fills every README.md of the house that asks for a table between two marks:

    <!-- benchmarks: summary -->            or learning, speed, num_envs, solve, ray; with a script's name
    <!-- end of benchmarks -->              behind it, such as `learning dqn`, that script's rows alone

Intervals are 95 % percentile bootstraps over seeds (scipy.stats.bootstrap); the interquartile mean leaves out
the best and the worst quarter of the seeds (scipy.stats.trim_mean).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import re
from statistics import median

from common.envs import SCRIPTS
import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
import numpy as np
from scipy import stats
import tyro

from benchmarks import job
from benchmarks.learning import Job
from benchmarks.settings import BARS, PAPERS, SPEEDS, TASKS, Task

PUBLISHED = job.ROOT / "benchmarks" / "published.csv"  # the best published figure of each task
START, END = "<!-- benchmarks: {} -->", "<!-- end of benchmarks -->"
NAMES = {
    "q_learning": "Q-learning",
    "dqn": "DQN",
    "double_dqn": "Double DQN",
    "dueling_dqn": "Dueling DQN",
    "reinforce": "REINFORCE",
    "a2c": "A2C",
    "trpo": "TRPO",
    "ppo": "PPO",
    "ddpg": "DDPG",
    "td3": "TD3",
}
PEERS = {"sb3": "SB3", "sb3-contrib": "sb3-contrib", "sbx": "SBX"}
COLOURS = (  # of medium lightness, so that each stands out from white and from black
    "#3b82c4",
    "#e08214",
    "#2a9d72",
    "#d1495b",
    "#8f6fc9",
    "#a0724f",
    "#d46bb0",
    "#5aa9b8",
    "#9a9a2e",
    "#6b7c93",
)
STYLE = {
    "axes.edgecolor": "#808890",
    "axes.grid": True,
    "axes.labelcolor": "#808890",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.25,
    "grid.color": "#808890",
    "legend.frameon": False,
    "legend.labelcolor": "#808890",
    "savefig.transparent": True,
    "svg.hashsalt": "benchmarks",  # the same results give the same file
    "text.color": "#808890",
    "xtick.color": "#808890",
    "ytick.color": "#808890",
}


@dataclass
class Options:
    """Where results are read, and tables go."""

    results: Path = job.RESULTS
    """Folder that learning.py and speed.py have written to; README.md and figures/ go there."""
    pages: tuple[Path, ...] = ()
    """Pages to fill between their marks; none for every README.md of the house that has such marks."""


# ---- numbers -----------------------------------------------------------------------------------------------


def interval(values: np.ndarray, statistic: Callable = np.mean) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval of a statistic over the first axis, the seeds; NaN for a single seed."""
    values = np.asarray(values, float)
    if len(values) < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    outcome = stats.bootstrap(
        (values,), statistic, axis=0, n_resamples=5_000, method="percentile", batch=500, rng=0
    )
    return outcome.confidence_interval.low, outcome.confidence_interval.high


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean without the lowest and the highest quarter."""
    return stats.trim_mean(values, 0.25, axis=axis)


def with_interval(values: list[float], statistic: Callable = np.mean) -> str:
    """Such as "498.3 [495.0, 500.0]"."""
    low, high = interval(values, statistic)
    digits = 1 if np.abs(values).max() >= 20 else 2
    bounds = "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{statistic(np.asarray(values), axis=0):.{digits}f}{bounds}"


def runs(task: Task, results: Path) -> list[dict[str, str]]:
    """The rows of a task that were made with the options it has today."""
    jobs = {str(seed): Job(task.script, task.env_id, seed, task.options) for seed in range(task.seeds)}
    return [
        row
        for row in job.read_csv(results / "learning" / jobs["0"].file)
        if row["seed"] in jobs and job.is_of(row, job.resolved(task.script, jobs[row["seed"]].arguments))
    ]


def middle(rows: list[dict[str, str]], column: str) -> str:
    """The median of a column over the rows that have it."""
    values = [float(row[column]) for row in rows if row[column] != ""]
    decimals = 1 if column.endswith("seconds") else 0
    return f"{median(values):,.{decimals}f}" if values else "–"


def solved(rows: list[dict[str, str]], env_id: str) -> str:
    """Such as "10 of 10"."""
    if env_id not in BARS:
        return "–"
    return f"{sum(float(row['evaluation_mean']) >= BARS[env_id] for row in rows)} of {len(rows)}"


# ---- tables ------------------------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table, its numbers to the right."""
    if not rows:
        return "No results yet."
    numbers = [all(re.match(r"[-–\d]", row[place]) for row in rows) for place in range(len(header))]
    ruler = ["---:" if number else "---" for number in numbers]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ruler, *rows])


def origin(rows: list[dict[str, str]]) -> str:
    """The line below a table: when, with what, on what."""
    if not rows:
        return ""
    dates = sorted({row["date"] for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return "\n\n" + "; ".join([when, *sorted({row["versions"] for row in rows}), *machines(rows)]) + "."


def machines(rows: list[dict[str, str]]) -> list[str]:
    """The machines that rows come from."""
    return sorted({row["machine"] for row in rows})


def summary_table(results: Path, script: str = "") -> str:
    """All scripts, each on its default task: the table of the front page."""
    lines, used = [], []
    ratios = speed_ratios(results)
    for name in SCRIPTS:
        tasks = [task for task in TASKS if task.script == name and script in ("", name)]
        if not tasks or not (rows := runs(tasks[0], results)):
            continue
        used += rows
        fastest = {peer: text for (s, _, peer), text in reversed(ratios.items()) if s == name}
        lines.append(
            [
                f"[{NAMES[name]}]({name}/README.md)",
                PAPERS[name],
                ", ".join(SCRIPTS[name]),
                tasks[0].env_id,
                solved(rows, tasks[0].env_id),
                with_interval([float(row["evaluation_mean"]) for row in rows]),
                middle(rows, "solved_step"),
                middle(rows, "solved_seconds"),
                fastest.get("sb3") or fastest.get("sb3-contrib", "–"),
                fastest.get("sbx", "–"),
            ]
        )
    header = ["script", "paper", "actions", "default task", "seeds solved", "mean return [95 %]"]
    header += ["steps to the bar", "seconds to the bar", "speed × SB3", "× SBX"]
    return table(header, lines) + origin(used)


def learning_table(results: Path, script: str = "") -> str:
    """Every task: mean and interquartile mean over seeds, beside the best published figure."""
    published = {(row["script"], row["env_id"]): row for row in job.read_csv(PUBLISHED)}
    lines, used, missing, commands = [], [], [], []
    below = defaultdict(list)  # the published figure, by how far
    for task in TASKS:
        rows = runs(task, results) if script in ("", task.script) else []
        if not rows:
            continue
        used += rows
        if script:
            commands.append(f"    python {script}/{script}.py --env-id {task.env_id} {task.options}".rstrip())
        values = [float(row["evaluation_mean"]) for row in rows]
        best = published.get((task.script, task.env_id))
        theirs = "–"
        if best:
            steps = f", {int(best['steps']):,} steps" if best["steps"] else ""
            kind = "" if best["returns"] == "evaluation" else ", training"
            theirs = f"{float(best['mean']):.1f} ([{best['name']}]({best['source']}){steps}{kind})"
            if round(np.mean(values), 1) < round(float(best["mean"]), 1):
                high = interval(values)[1]
                far = "on one seed" if np.isnan(high) else "with the whole interval"
                far = "but not beyond the interval" if high >= float(best["mean"]) else far
                below[far].append(f"{NAMES[task.script]} on {task.env_id}")
        if task.missing:
            missing.append(f"{NAMES[task.script]} on {task.env_id}: {task.missing}")
        lines.append(
            [
                f"{NAMES[task.script]}, {task.env_id}",
                f"{int(rows[0]['total_timesteps']):,}",
                solved(rows, task.env_id),
                with_interval(values),
                with_interval(values, interquartile_mean),
                middle(rows, "solved_step"),
                middle(rows, "solved_seconds"),
                middle(rows, "whole_seconds"),
                theirs,
            ]
        )
    header = ["script and task", "steps", "seeds solved", "mean [95 %]", "interquartile mean [95 %]"]
    header += ["steps to the bar", "seconds to the bar", "seconds in all", "best published"]
    notes = [f"Below the published figure, {far}: {', '.join(which)}." for far, which in below.items()]
    notes = "".join(f"\n\n{line}" for line in [*notes, *missing])
    if commands:
        notes += "\n\n".join(["\n\nThe commands of the rows, with `--seed` 0, 1, …:", "\n".join(commands)])
    return table(header, lines) + notes + origin(used)


def speed_ratios(results: Path) -> dict[tuple[str, str, str], str]:
    """Median ratio and range by (script, environment, peer), in the order of settings.py."""
    groups = defaultdict(list)
    for row in job.read_csv(results / "speed.csv"):
        if row["threads"] == "default":
            groups[row["script"], row["env_id"], row["peer"]].append(float(row["ratio"]))
    keys = [(speed.script, speed.env_id, peer) for speed in SPEEDS for peer in speed.peers]
    return {
        key: f"{median(groups[key]):.1f} ({min(groups[key]):.1f}–{max(groups[key]):.1f})"
        for key in keys
        if key in groups
    }


def speed_table(results: Path, script: str = "") -> str:
    """Steps per second beside the peers."""
    groups = defaultdict(list)
    for row in job.read_csv(results / "speed.csv"):
        if script in ("", row["script"]):
            groups[row["script"], row["env_id"], row["peer"], row["threads"]].append(row)
    order = {key: place for place, key in enumerate(speed_ratios(results))}
    lines = []
    for key, rows in sorted(groups.items(), key=lambda item: (order.get(item[0][:3], 99), item[0])):
        ratios = [float(row["ratio"]) for row in rows]
        lines.append(
            [
                f"{NAMES[key[0]]}, {key[1]}" + ("" if key[3] == "default" else f", {key[3]} thread(s)"),
                PEERS[key[2]],
                middle(rows, "steps_per_second"),
                middle(rows, "peer_steps_per_second"),
                f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
                str(len(rows)),
            ]
        )
    used = [row for rows in groups.values() for row in rows]
    peers = sorted({row["peer_versions"] for row in used})
    notes = f"\n\nPeers: {'; '.join(peers)}." if peers else ""
    header = ["script and task", "beside", "steps/s", "theirs", "ratio (range)", "pairs"]
    return table(header, lines) + notes + origin(used)


def num_envs_table(results: Path, script: str = "") -> str:
    """Steps per second against the number of environments."""
    groups, used = defaultdict(lambda: defaultdict(list)), []
    for row in job.read_csv(results / "num_envs.csv"):
        if script in ("", row["script"]):
            groups[row["script"], row["env_id"]][int(row["num_envs"])].append(row)
            used.append(row)
    counts = sorted({count for group in groups.values() for count in group})
    lines = [
        [f"{NAMES[name]}, {env_id}", *(middle(group.get(count, []), "steps_per_second") for count in counts)]
        for (name, env_id), group in groups.items()
    ]
    return table(["steps/s with … environments", *map(str, counts)], lines) + origin(used)


def solve_table(results: Path, script: str = "") -> str:
    """From the command to the bar, beside the peer with its own tuned settings."""
    groups = defaultdict(list)
    for row in job.read_csv(results / "time_to_solve.csv"):
        if script in ("", row["script"]):
            groups[row["script"], row["env_id"], row["peer"]].append(row)
    lines = []
    for (name, env_id, peer), rows in groups.items():
        line = [f"{NAMES[name]}, {env_id}"]
        for prefix, who in (("", "ours"), ("peer_", PEERS[peer])):
            reached = sum(row[prefix + "solved_seconds"] != "" for row in rows)
            evaluated = sum(float(row[prefix + "evaluation"]) >= float(row["bar"]) for row in rows)
            line += [
                f"{who}: {middle(rows, prefix + 'solved_seconds')} ({reached} of {len(rows)})",
                f"{middle(rows, prefix + 'whole_seconds')} ({evaluated} of {len(rows)})",
            ]
        for column in ("solved_seconds", "whole_seconds"):
            mine, other = ([float(r[c]) for r in rows if r[c] != ""] for c in (column, f"peer_{column}"))
            line.append(f"{median(other) / median(mine):.1f}" if mine and other else "–")
        lines.append(line)
    header = ["script and task", "seconds to the bar (seeds)", "to the end (solved)"]
    header += ["peer's seconds to the bar (seeds)", "to the end (solved)"]
    header += ["theirs / ours, to the bar", "to the end"]
    return table(header, lines) + origin([row for rows in groups.values() for row in rows])


def ray_table(results: Path, script: str = "") -> str:
    """The same runs from the process pool and from Ray, seed by seed."""
    lines, used = [], []
    for task in TASKS:
        if script not in ("", task.script):
            continue
        pool, ray = ({row["seed"]: row for row in runs(task, place)} for place in (results, results / "ray"))
        seeds = [seed for seed in ray if seed in pool]
        if not seeds:
            continue
        used += [ray[seed] for seed in seeds]
        line = [f"{NAMES[task.script]}, {task.env_id}", ", ".join(seeds)]
        line += [", ".join(rows[seed]["evaluation_mean"] for seed in seeds) for rows in (pool, ray)]
        line += [middle([rows[seed] for seed in seeds], "whole_seconds") for rows in (pool, ray)]
        lines.append(line)
    header = ["script and task", "seeds", "mean returns, process pool", "mean returns, Ray"]
    return table([*header, "seconds in all, pool", "seconds in all, Ray"], lines) + origin(used)


TABLES = {
    "summary": summary_table,
    "learning": learning_table,
    "speed": speed_table,
    "num_envs": num_envs_table,
    "solve": solve_table,
    "ray": ray_table,
}
TITLES = {
    "summary": "All scripts, each on its default task",
    "learning": "Learning over seeds",
    "speed": "Steps per second beside the peers",
    "num_envs": "Steps per second against the number of environments",
    "solve": "From the command to the solved task",
    "ray": "The same runs from the process pool and from Ray",
}


def fill(text: str, results: Path) -> str:
    """Put the tables that a page asks for between its marks, each at the start of a line.

    Raises:
        SystemExit: for a table that there is not, or a mark without its end.
    """
    opening = "^" + re.escape(START).replace(re.escape("{}"), r"(\w+)(?: (\w+))?")
    if len(re.findall(opening, text, re.MULTILINE)) != len(re.findall("^" + END, text, re.MULTILINE)):
        raise SystemExit(f"error: every {START.format('…')} needs its {END}")

    def replace(match: re.Match) -> str:
        if match[1] not in TABLES:
            raise SystemExit(f"error: there is no table {match[1]}: choose from {', '.join(TABLES)}")
        mark = match[0].partition("-->")[0] + "-->"
        return f"{mark}\n{TABLES[match[1]](results, match[2] or '')}\n{END}"

    return re.sub(opening + r".*?^" + END, replace, text, flags=re.DOTALL | re.MULTILINE)


# ---- figures -----------------------------------------------------------------------------------------------


def curves(task: Task, results: Path, x: str) -> tuple[np.ndarray, np.ndarray] | None:
    """A grid of steps or seconds, and the seeds' training returns on it, (seeds, points)."""
    seeds = {row["seed"] for row in runs(task, results)}
    by_seed = defaultdict(list)
    for row in job.read_csv(results / "curves" / Job(task.script, task.env_id, 0, "").file):
        if row["seed"] in seeds:
            by_seed[row["seed"]].append((float(row[x]), float(row["episodic_return"])))
    if not by_seed:
        return None
    spaced = np.geomspace if x == "global_step" else np.linspace
    grid = spaced(
        max(points[0][0] for points in by_seed.values()),
        median(points[-1][0] for points in by_seed.values()),
        60,
    )
    return grid, np.array([np.interp(grid, *zip(*points)) for points in by_seed.values()])


def draw_learning(results: Path, x: str, tasks: list[Task]) -> Figure | None:
    """A panel an environment, a line a script: mean training return and its interval over seeds."""
    panels = defaultdict(list)
    for task in tasks:
        if (lines := curves(task, results, x)) is not None:
            panels[task.env_id].append((task, *lines))
    if not panels:
        return None
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * height), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False).flat
    drawn = {}
    for axes, (env_id, lines) in zip(grid, panels.items()):
        for task, points, returns in lines:
            colour = COLOURS[list(NAMES).index(task.script)]
            (drawn[task.script],) = axes.plot(points, returns.mean(axis=0), color=colour, linewidth=1.6)
            low, high = interval(returns)
            axes.fill_between(points, low, high, color=colour, alpha=0.2, linewidth=0)
        if env_id in BARS:
            axes.axhline(BARS[env_id], color="#808890", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_title(env_id)
        if x == "global_step":  # what one script learns in is the first tenth of another's run
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("environment steps" if x == "global_step" else "seconds from the command")
    for axes in list(grid)[len(panels) :]:
        axes.set_axis_off()
    figure.supylabel("training return", fontsize=9)
    ordered = [name for name in NAMES if name in drawn]
    figure.legend(
        [drawn[name] for name in ordered],
        [NAMES[name] for name in ordered],
        loc="outside lower center",
        ncols=min(5, len(ordered)),
    )
    return figure


def draw_speed(results: Path) -> Figure | None:
    """A bar a peer: how many times as many steps per second, with the range over pairs."""
    groups = defaultdict(list)
    for row in job.read_csv(results / "speed.csv"):
        if row["threads"] == "default":
            groups[row["script"], row["env_id"], row["peer"]].append(float(row["ratio"]))
    keys = [key for key in speed_ratios(results) if key in groups]
    if not keys:
        return None
    figure = Figure(figsize=(6.4, 0.8 + 0.32 * len(keys)), layout="constrained")
    axes = figure.subplots()
    for place, key in enumerate(keys):
        ratios = groups[key]
        colour = COLOURS[list(PEERS).index(key[2])]
        axes.barh(place, median(ratios), color=colour, height=0.7)
        axes.plot([min(ratios), max(ratios)], [place, place], color="#808890", linewidth=1.5)
        axes.annotate(f"{median(ratios):.1f} ×", (max(ratios), place), (4, -3), textcoords="offset points")
    axes.set_yticks(range(len(keys)), [f"{NAMES[s]}, {e}, beside {PEERS[p]}" for s, e, p in keys])
    axes.axvline(1.0, color="#808890", linewidth=1.0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("steps per second, ours / theirs, same settings")
    return figure


def draw_num_envs(results: Path) -> Figure | None:
    """Steps per second against the number of environments."""
    groups = defaultdict(lambda: defaultdict(list))
    for row in job.read_csv(results / "num_envs.csv"):
        groups[row["script"]][int(row["num_envs"])].append(float(row["steps_per_second"]))
    if not groups:
        return None
    figure = Figure(figsize=(4.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for name, group in groups.items():
        colour = COLOURS[list(NAMES).index(name)]
        counts = sorted(group)
        axes.plot(counts, [median(group[c]) for c in counts], color=colour, marker="o", label=NAMES[name])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({count for group in groups.values() for count in group}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
    axes.set(xlabel="environments", ylabel="steps per second")
    axes.legend()
    return figure


def main(options: Options) -> None:
    """Write tables and figures, and fill the pages."""
    figures = options.results / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    default_tasks = list({task.script: task for task in reversed(TASKS)}.values())  # the first of each
    shown = []
    with matplotlib.rc_context(STYLE):
        for name, figure in {
            "learning_steps": draw_learning(options.results, "global_step", TASKS),
            "learning_seconds": draw_learning(options.results, "seconds", default_tasks),
            "speed": draw_speed(options.results),
            "num_envs": draw_num_envs(options.results),
        }.items():
            if figure is not None:
                figure.savefig(figures / f"{name}.png", dpi=150)
                figure.savefig(figures / f"{name}.svg", metadata={"Date": None})
                shown.append(f"![{name}](figures/{name}.svg)")
    pages = ["# Results\n\nMade by `python benchmarks/report.py` from the CSV files of this folder."]
    pages += [f"## {title}\n\n{TABLES[name](options.results)}" for name, title in TITLES.items()]
    text = "\n\n".join([*pages, *shown]) + "\n"
    links = re.sub(r"\]\((\w+/README\.md)\)", r"](../../\1)", text)  # seen from this folder
    (options.results / "README.md").write_text(links)
    for page in options.pages or sorted([*job.ROOT.glob("README.md"), *job.ROOT.glob("*/README.md")]):
        text = page.read_text()
        if (filled := fill(text, options.results)) != text:
            page.write_text(filled)
            print(f"filled {page}")
    print(f"wrote {options.results / 'README.md'} and {len(shown)} figures")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

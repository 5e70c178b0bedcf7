"""Figures of the results, as small PNG files."""

from io import BytesIO
from pathlib import Path
from statistics import median

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator
import numpy as np
from PIL import Image

from benchmarks.cells import default_task, label, read, runs
from benchmarks.intervals import interval
from benchmarks.peers import NAMES as LIBRARIES
from benchmarks.settings import COLLECTION, SCRIPTS, TASKS, THRESHOLDS, Task
from benchmarks.speed_tables import num_envs_speeds, pair_label, speed_pairs

COLORS = (  # color-blind-safe (Paul Tol's muted scheme) and black
    *("#332288", "#cc6677", "#117733", "#88ccee", "#882255"),
    *("#999933", "#000000", "#44aa99", "#aa4499", "#ddaa33"),
)
LINES = ("-", (0, (5, 1.5)), (0, (6, 1, 1, 1)))
DASHES = {"color": "#666666", "linewidth": 0.9, "linestyle": "--"}
X_LABELS = {"global_step": "environment steps", "seconds": "seconds from the command"}
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "lines.linewidth": 1.7,
}
MARKERS = {"sync": "o", "async": "x", "envpool": "^"}


def look(script: str) -> dict:
    """Return color and line style of a script, the same in all figures."""
    number = list(SCRIPTS).index(script)
    return {"color": COLORS[number % len(COLORS)], "linestyle": LINES[number % len(LINES)]}


def learning_curves(task: Task, results: Path, x: str, spaced=np.linspace) -> tuple | None:
    """Return a grid of steps or seconds and the training returns (seeds, points) on it."""
    frame, current = read(results / "curves" / task.file), runs(task, results)
    if frame.empty or current.empty:
        return None
    curves = [curve for _, curve in frame[frame["seed"].isin(current["seed"])].groupby("seed")]
    if not curves:
        return None
    start, end = max(curve[x].iloc[0] for curve in curves), median(curve[x].iloc[-1] for curve in curves)
    grid = spaced(start, end, 60)
    return grid, np.array([np.interp(grid, curve[x], curve["episodic_return"]) for curve in curves])


def draw_curve(axes: Axes, task: Task, points: np.ndarray, returns: np.ndarray) -> list:
    """Draw mean and interval over seeds, and the solved threshold; return the artists in this order."""
    (line,) = axes.plot(points, returns.mean(axis=0), **look(task.script))
    band = axes.fill_between(points, *interval(returns), color=line.get_color(), alpha=0.2, linewidth=0)
    threshold = [axes.axhline(y, **DASHES) for y in [THRESHOLDS.get(task.env_id)] if y is not None]
    return [line, band, *threshold]


def draw_script(results: Path, task: Task) -> Figure | None:
    """Draw the learning curve of a script on a task."""
    curve = learning_curves(task, results, "global_step")
    if curve is None:
        return None
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.subplots()
    artists = draw_curve(axes, task, *curve)
    artists[0].set_linestyle("-")
    labels = [f"mean over {len(curve[1])} seeds", "95 % bootstrap interval of the mean", "solved threshold"]
    axes.legend(artists, labels[: len(artists)], loc="lower right")
    axes.set(title=label(task.script, task.title), xlabel=X_LABELS["global_step"], ylabel="training return")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def draw_learning(results: Path, x: str, tasks: list[Task], columns: int) -> Figure | None:
    """Draw one panel per environment and one curve per script; x is logarithmic."""
    panels: dict[str, list] = {}
    for task in tasks:
        if (curve := learning_curves(task, results, x, np.geomspace)) is not None:
            panels.setdefault(task.title, []).append((task, *curve))
    if not panels:
        return None
    columns = min(columns, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure((8.6, (2.3 if columns < 3 else 1.6) * height + 0.9), layout="constrained")
    grid = list(figure.subplots(height, columns, squeeze=False).flat)
    lines = {}
    for axes, (title, curves) in zip(grid, panels.items()):
        for task, *curve in curves:
            lines[task.script] = draw_curve(axes, task, *curve)[0]
        axes.set_title(title.replace(" ", "\n", 1), fontsize=7.5)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if columns < 3 or high < 15 * low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}" if x == "seconds" else EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter("")
    for axes in grid[len(panels) :]:
        axes.remove()
    figure.suptitle(
        "Training return: mean over seeds, 95 % bootstrap interval (band), solved threshold (gray dashes)"
    )
    figure.supxlabel(X_LABELS[x])
    names = [name for name in SCRIPTS if name in lines]
    labels = [SCRIPTS[name].name for name in names]
    figure.legend([lines[name] for name in names], labels, loc="outside right center")
    return figure


def draw_speed(results: Path) -> Figure | None:
    """Draw one bar per pair of script and library: the ratio of their speeds, and its range."""
    pairs = speed_pairs(results)
    if pairs.empty:
        return None
    pairs = pairs[pairs["threads"] == "default"].reset_index()
    figure = Figure(figsize=(6.4, 0.9 + 0.3 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    for pair in pairs.itertuples():
        color = COLORS[list(LIBRARIES).index(pair.peer)]
        axes.barh(pair.Index, pair.median, color=color, height=0.7)
        axes.plot([pair.min, pair.max], [pair.Index, pair.Index], color="black", linewidth=1.2)
        axes.annotate(f"{pair.median:.1f} ×", (pair.max, pair.Index), (4, -3), textcoords="offset points")
    names = [f"{pair_label(pair)} / {LIBRARIES[pair.peer]}" for pair in pairs.itertuples()]
    axes.set_yticks(range(len(pairs)), names)
    axes.axvline(1.0, color="#666666", linewidth=1.0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("steps per second, ours / theirs: median and range")
    return figure


def draw_num_envs(results: Path) -> Figure | None:
    """Draw steps per second against the number of environments."""
    frame = num_envs_speeds(results)
    if frame.empty:
        return None
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    envs = list(frame["env_id"].unique())
    for (script, env_id, executor), group in frame.groupby(["script", "env_id", "executor"], sort=False):
        speeds = group.groupby("num_envs")["steps_per_second"].median()
        style = look(script) | {
            "linestyle": LINES[envs.index(env_id) % len(LINES)],
            "marker": MARKERS[executor],
        }
        axes.plot(speeds.index, speeds, label=label(script, env_id, executor=executor), **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(frame["num_envs"])))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
    axes.set(xlabel="number of environments", ylabel="steps per second (median)")
    axes.legend()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file with a palette; the same results give the same file."""
    image = BytesIO()
    figure.savefig(image, format="png", dpi=100)
    Image.open(image).convert("RGB").quantize(128).save(path, optimize=True)


def draw_all(results: Path) -> list[str]:
    """Write all figures to figures/, and return the names of those that compare scripts."""
    (results / "figures").mkdir(parents=True, exist_ok=True)
    default_tasks = [task for name in COLLECTION if (task := default_task(name))]
    mujoco = sorted((task for task in TASKS if task.is_mujoco), key=lambda task: task.title)
    games = sorted((task for task in TASKS if task.is_game), key=lambda task: task.title)
    others = [task for task in TASKS if not task.is_mujoco and not task.is_game]
    with matplotlib.rc_context(STYLE):
        figures = {
            "learning_seconds": draw_learning(results, "seconds", default_tasks, columns=2),
            "learning_steps": draw_learning(results, "global_step", others, columns=4),
            "mujoco": draw_learning(results, "global_step", mujoco, columns=4),
            "games": draw_learning(results, "global_step", games, columns=3),
            "speed": draw_speed(results),
            "num_envs": draw_num_envs(results),
        }
        scripts = {task.script: draw_script(results, task) for task in default_tasks}
        for name, figure in (figures | scripts).items():
            if figure is not None:
                save(figure, results / "figures" / f"{name}.png")
    return [name for name, figure in figures.items() if figure is not None]

"""The learning curves of benchmarks/results, as data for the browser."""

from typing import Any

from benchmarks.options import is_current
from benchmarks.records import RESULTS, read_csv
from benchmarks.settings import COLLECTION, TASKS, THRESHOLDS, Task
from docs.book import scripts

COLUMNS = {"steps": "global_step", "seconds": "seconds", "returns": "episodic_return"}


def data(chosen: list[str]) -> list[dict[str, Any]]:
    """Return the curves of some scripts, one entry per environment."""
    panels: dict[str, dict[str, Any]] = {}
    order = list(COLLECTION)
    tasks = [task for task in TASKS if task.script in chosen]
    for task in sorted(tasks, key=lambda task: order.index(task.script)):
        if seeds := _seeds(task):
            new = {"env": task.title, "threshold": THRESHOLDS.get(task.env_id), "scripts": []}
            panel = panels.setdefault(task.title, new)
            panel["scripts"].append(
                {"name": COLLECTION[task.script].name, "look": order.index(task.script), "seeds": seeds}
            )
    return list(panels.values())


def _seeds(task: Task) -> dict[str, dict[str, list[float]]]:
    """Return the curves of a task by seed, without runs made with options other than today's."""
    defaults = _defaults(task.script)
    results = read_csv(RESULTS / "learning" / task.file)
    current = {row["seed"] for row in results if is_current(row, task, defaults)}
    curves: dict[str, dict[str, list[float]]] = {}
    for row in read_csv(RESULTS / "curves" / task.file):
        if row["seed"] in current:
            curve = curves.setdefault(row["seed"], {name: [] for name in COLUMNS})
            for name, column in COLUMNS.items():
                curve[name].append(float(row[column]))
    return curves


def _defaults(script: str) -> dict[str, Any]:
    """Return the default options of a script, which is not imported."""
    return {option.name: option.value for option in [*scripts.shared_options(), *scripts.options(script)]}

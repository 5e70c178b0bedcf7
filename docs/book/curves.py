"""The learning curves of benchmarks/results, as data for the browser."""

import csv
import json
from typing import Any

from benchmarks.options import matches, of_learning
from benchmarks.settings import SCRIPTS, TASKS, THRESHOLDS, Task
from docs.book import scripts

RESULTS = scripts.ROOT / "benchmarks" / "results"
COLUMNS = {"steps": "global_step", "seconds": "seconds", "returns": "episodic_return"}


def data(chosen: list[str]) -> list[dict[str, Any]]:
    """Return the curves of some scripts, one entry per environment."""
    panels: dict[str, dict[str, Any]] = {}
    order = list(SCRIPTS)
    for task in sorted(TASKS, key=lambda task: order.index(task.script)):
        if task.script in chosen and (seeds := _seeds(task)):
            new = {"env": task.env_id, "threshold": THRESHOLDS.get(task.env_id), "scripts": []}
            panel = panels.setdefault(task.env_id, new)
            panel["scripts"].append(
                {"name": SCRIPTS[task.script].name, "look": order.index(task.script), "seeds": seeds}
            )
    return list(panels.values())


def _seeds(task: Task) -> dict[str, dict[str, list[float]]]:
    """Return the curves of a task by seed, without runs that were made with other options than today's."""
    today = _today(task)
    current = {row["seed"] for row in _rows("learning", task) if matches(row["options"], today)}
    curves: dict[str, dict[str, list[float]]] = {}
    for row in _rows("curves", task):
        if row["seed"] in current and int(row["seed"]) < task.seeds:
            curve = curves.setdefault(row["seed"], {name: [] for name in COLUMNS})
            for name, column in COLUMNS.items():
                curve[name].append(float(row[column]))
    return curves


def _rows(folder: str, task: Task) -> list[dict[str, str]]:
    """Return the rows of a results file of a task; none if there is no such file."""
    file = RESULTS / folder / task.file
    return list(csv.DictReader(scripts.read(file).splitlines())) if file.exists() else []


def _today(task: Task) -> dict[str, Any]:
    """Return the options of a task that affect learning, with today's defaults."""
    declared = [*scripts.shared_options(), *scripts.options(task.script)]
    given = {name: None if value == "none" else value for name, value in task.options.items()}
    today = {option.name: option.value for option in declared} | given | {"env_id": task.env_id}
    return of_learning(json.loads(json.dumps(today)))

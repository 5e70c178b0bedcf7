"""The options of a run that affect learning: those of a command line and those of a results row."""

from collections.abc import Mapping
import dataclasses
import functools
import importlib
import json
import shlex
from typing import Any

from common.errors import UserError
from common.run_folder import read_options

from benchmarks.settings import Task, with_none

OUTPUT_OPTIONS = {"algorithm", "versions", "seed", "runs_dir", "log_frequency", "checkpoint_frequency"}
OUTPUT_OPTIONS |= {"eval_frequency"}
OUTPUT_OPTIONS |= {"save_model", "capture_video", "render", "track", "wandb_project", "resume", "evaluate"}


def parse(script: str, arguments: str) -> Any:
    """Return the `Config` of a script for a command line; UserError if the script does not accept it."""
    from common.cli import parse_config

    arguments = shlex.split(arguments, comments=True)  # learning.py adds one to a run that it continued
    return parse_config(importlib.import_module(f"{script}.{script}").Config, arguments)


def of_learning(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that affect learning or evaluation, not those of logging and output."""
    return {name: value for name, value in options.items() if name not in OUTPUT_OPTIONS}


@functools.cache
def defaults(script: str) -> dict[str, Any]:
    """Return the default options of a script."""
    return dataclasses.asdict(importlib.import_module(f"{script}.{script}").Config())


@functools.cache
def resolved(script: str, arguments: str) -> dict[str, Any]:
    """Return all options of learning for a command line, with today's defaults; {} if it is not accepted."""
    try:
        config = parse(script, arguments)
    except UserError:
        return {}
    return of_learning(json.loads(json.dumps(dataclasses.asdict(config))))  # tuples become lists


@functools.cache
def eval_frequency(script: str, arguments: str) -> int:
    """Return the steps between evaluations during training; 0 if there are none."""
    try:
        return parse(script, arguments).eval_frequency
    except UserError:
        return 0


def matches(recorded: str, options: dict[str, Any], defaults: dict[str, Any] | None = None) -> bool:
    """Whether the options recorded in a results row (JSON) agree with these.

    All options that both sides know must agree. Options removed since the run are ignored. Those added since
    must be off (None, False, or 0), or have the value in `defaults`; without `defaults`, they are ignored.
    A row without options agrees with none.
    """
    if not isinstance(recorded, str) or not recorded:  # NaN for an empty cell
        return False
    recorded = read_options(recorded)
    if defaults:
        added = {name for name in options.keys() - recorded if options[name]}
        recorded |= json.loads(json.dumps({name: defaults.get(name) for name in added}))  # tuples: lists
    return bool(options) and all(options[name] == recorded[name] for name in options.keys() & recorded)


def is_current(row: Mapping[str, Any], task: Task, defaults: dict[str, Any]) -> bool:
    """Whether a results row has the options that a task has today, and a seed, if it has one, of the task.

    `defaults` are the default options of its script.
    """
    given = with_none(task.options) | {"env_id": task.env_id}
    today = json.loads(json.dumps(defaults | given))  # tuples become lists
    is_seed = int(row.get("seed", 0)) < task.seeds
    return is_seed and matches(row.get("options", ""), of_learning(today), defaults)

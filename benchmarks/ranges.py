"""The searches of tune.py: base setting and ranges of each, read from tune.toml and checked."""

from collections.abc import Iterator
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from common.envs import make_env, view_options
from common.errors import UserError
from common.options import validate

from benchmarks import options
from benchmarks.settings import PRESETS, SCRIPTS, TASKS, Task, command_line, read_toml, select, tomllib

OWN = options.OUTPUT_OPTIONS | {"env_id", "eval_episodes"}  # tune.py sets them, or they change no score


@dataclass(frozen=True)
class Search:
    """A script on an environment: fixed options, and the ranges of the others."""

    script: str
    env_id: str
    title: str  # the environment in learning.toml
    options: dict[str, Any]  # the base setting, where it differs from the defaults
    ranges: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of the study and its files."""
        return Task(self.script, self.env_id, name=self.title).file.removesuffix(".csv")

    @property
    def base(self) -> dict[str, Any]:
        """The value of each option with a range in the base setting."""
        values = json.loads(json.dumps(options.defaults(self.script))) | self.options  # tuples become lists
        return {name: "none" if values[name] is None else values[name] for name in self.ranges}

    def suggest(self, trial: Any) -> None:
        """Let a trial of Optuna choose a value in every range."""
        for name, given in self.ranges.items():
            if "choices" in given:
                trial.suggest_categorical(name, [json.dumps(choice) for choice in given["choices"]])
            else:
                choose = trial.suggest_int if of_integers(given) else trial.suggest_float
                choose(name, given["low"], given["high"], log=given.get("log", False))

    def params(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return values of options as Optuna stores them: choices in JSON, because some are lists."""
        return {
            name: json.dumps(value) if "choices" in self.ranges[name] else value
            for name, value in values.items()
        }

    def values(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the values of options that Optuna stores; floats have 6 digits, to be copied easily."""
        read = {str: json.loads, float: lambda value: float(f"{value:.6g}"), int: int}
        return {name: read[type(value)](value) for name, value in params.items()}

    def is_base(self, params: dict[str, Any]) -> bool:
        """Whether Optuna's values are those of the base setting."""
        return params == self.params(self.base)

    def arguments(self, values: dict[str, Any]) -> str:
        """Return the arguments of the script for values of the options with ranges."""
        return command_line({"env_id": self.env_id} | self.options | values)


def read(path: Path, scripts: tuple[str, ...], envs: tuple[str, ...], ranges: str | None) -> list[Search]:
    """Return the searches of a file that a command selects; the ranges of that name for all, if it is given.

    Raises:
        UserError: for an unknown script, environment, or name; for a range that the script does not accept
            or that does not contain the base setting.
    """
    try:
        content = read_toml(path)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    named = content.pop("ranges", {})
    for script in [*scripts, *content]:
        _look_up(SCRIPTS, script, "script")
    if ranges and scripts and envs:
        tables = [(script, title, {"ranges": ranges}) for script in scripts for title in envs]
    elif ranges:
        raise UserError(f"--ranges {ranges} needs --scripts and --envs: name what to tune")
    else:
        tables = list(_selected(content, scripts, envs))
    if not tables:
        asked = " ".join([*scripts, *envs])
        raise UserError(f"{path} has no table for {asked}: add one, or give --ranges")
    return [_search(*table, named) for table in tables]


def _look_up(table: dict[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        choice = f"choose from {', '.join(table) or 'none'}"
        advice = f"{choice}, or add it to benchmarks/scripts.toml" if kind == "script" else choice
        raise UserError(f"there is no {kind} {name}: {advice}")
    return table[name]


def _selected(content: dict, scripts: tuple[str, ...], envs: tuple[str, ...]) -> Iterator[tuple]:
    for script, tables in content.items():
        for title, table in tables.items():
            if (not scripts or script in scripts) and (not envs or title in envs):
                yield script, title, table


def _search(script: str, title: str, table: Any, named: dict[str, dict]) -> Search:
    """Return the search of a table; UserError, which names the table, if it cannot be."""
    try:
        if not isinstance(table, dict):
            raise UserError(f'options belong in an environment\'s table, such as [{script}."CartPole-v1"]')
        row = next(iter(select(TASKS, (script,), (title,))), Task(script, title))
        search = Search(script, row.env_id, title, *_base_and_ranges(row.options, table, named))
        _check(search)
    except UserError as error:
        raise UserError(f'[{script}."{title}"]: {error}') from error
    return search


def _base_and_ranges(base: dict, table: dict, named: dict[str, dict]) -> tuple[dict, dict]:
    """Return the fixed options, those of `base` with a table's changes, and the ranges of the table."""
    table = (_look_up(named, table["ranges"], "table of ranges") if "ranges" in table else {}) | table
    table.pop("ranges", None)
    if "preset" in table:
        variant = {"env_kwargs": base["env_kwargs"]} if "env_kwargs" in base else {}
        base = _look_up(PRESETS, table.pop("preset"), "preset") | variant
    for name in table.keys() & OWN:
        raise UserError(f"{name} is not allowed here: tune.py sets it")
    ranges = {
        name: value for name, value in table.items() if isinstance(value, dict) and name != "env_kwargs"
    }
    base = base | {name: value for name, value in table.items() if name not in ranges}
    return {name: value for name, value in base.items() if name not in ("seeds", "note")}, ranges


def _check(search: Search) -> None:
    """Check the base setting, then every range by itself: both of its ends, or each of its choices."""
    config = options.parse(search.script, search.arguments({}))
    validate(config)
    make_env(search.env_id, **view_options(config)).close()
    if not search.ranges:
        raise UserError("there is no range to search")
    for name, given in search.ranges.items():
        for value in _values(name, given):
            validate(options.parse(search.script, search.arguments({name: value})))
    for name, given in search.ranges.items():
        if not _contains(given, search.base[name]):
            raise UserError(f"{name} is {search.base[name]} in the base setting, outside of its range")


def _values(name: str, given: dict[str, Any]) -> list:
    """Return both ends of a range, or its choices."""
    if set(given) == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
        return given["choices"]
    low, high = given.get("low"), given.get("high")
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or set(given) - {"low", "high", "log"}:
        raise UserError(f"{name} needs {{ low = …, high = …, log = true or false }} or {{ choices = […] }}")
    if low >= high:
        raise UserError(f"{name} has low = {low}, which is not below high = {high}")
    if given.get("log") and low <= 0:
        raise UserError(f"{name} has low = {low}: a logarithmic range begins above 0")
    return [low, high]


def _contains(given: dict[str, Any], value: Any) -> bool:
    if "choices" in given:
        return value in given["choices"]
    kinds = int if of_integers(given) else (int, float)
    return isinstance(value, kinds) and given["low"] <= value <= given["high"]


def of_integers(given: dict[str, Any]) -> bool:
    """Whether both ends of a range are integers."""
    return isinstance(given["low"], int) and isinstance(given["high"], int)

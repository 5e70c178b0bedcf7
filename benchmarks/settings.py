"""Settings of the benchmarks, read from the TOML files of this folder.

`SCRIPTS` are the algorithms, and `COLLECTION` those with a page: a script without one is an experiment, which
has rows in the tables, but no place on the front page and on the site. `TASKS` are the runs of learning.py,
and `PRESETS` the options that some of them share; `PAIRS` and `RACES` are those of speed.py. A task is solved
at its threshold in `THRESHOLDS`. The TOML files explain their keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
import shlex
import sys
from typing import Any, Literal

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

from common.env_kwargs import to_arguments

from benchmarks.records import ROOT

MUJOCO = {
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedPendulum-v5"),
    *("InvertedDoublePendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5"),
}


@dataclass(frozen=True)
class Script:
    """An algorithm in the tables: a table of scripts.toml."""

    name: str
    actions: list[str]
    paper: str = "–"
    parent: str | None = None


@dataclass(frozen=True)
class Task:
    """A script on an environment: a table of learning.toml; `name` is its title if it is not the id."""

    script: str
    env_id: str
    options: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    note: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """The environment in tables, and for `--envs`."""
        return self.name or self.env_id

    @property
    def is_mujoco(self) -> bool:
        """Whether the environment is one of Gymnasium's MuJoCo tasks."""
        return self.env_id in MUJOCO

    @property
    def is_game(self) -> bool:
        """Whether the environment is a game of MinAtar or of the Arcade Learning Environment."""
        return self.env_id.startswith(("MinAtar/", "ALE/"))

    @property
    def arguments(self) -> str:
        """Arguments of the script for the options."""
        return command_line(self.options)

    @property
    def file(self) -> str:
        """Name of the CSV files with the results."""
        env = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in self.title)
        return f"{self.script}__{env}.csv"


@dataclass(frozen=True)
class Comparison:
    """A script and libraries, for the same settings in speed.toml, each with its own in race.toml."""

    script: str
    env_id: str
    peers: list[str]
    total_timesteps: int
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    num_envs: int = 1
    vec_env: str = "dummy"
    warm_up: int = 0
    row_steps: int = 1_000

    @property
    def title(self) -> str:
        """The environment, for `--envs`."""
        return self.env_id

    @property
    def executor(self) -> str:
        """How our environments are stepped."""
        return self.ours.get("executor", "sync")

    @property
    def pair(self) -> Task:
        """Our side of a pair."""
        fixed = {"num_envs": self.num_envs, "total_timesteps": self.total_timesteps, "eval_episodes": 0}
        return Task(self.script, self.env_id, fixed | self.ours)

    @property
    def race(self) -> Task:
        """Our side of a race: the task of learning.toml with the changes of race.toml."""
        (task,) = select(TASKS, (self.script,), (self.env_id,))
        return replace(task, options=task.options | self.ours)

    def with_envs(self, count: int, executor: str) -> "Comparison":
        """Return this pair with a number of environments; with eight or more, runs are twice as long."""
        total = self.total_timesteps * (1 if count < 8 else 2)
        ours = self.ours | {"executor": executor}
        return replace(self, num_envs=count, total_timesteps=total, ours=ours)


def command_line(options: dict[str, Any]) -> str:
    """Return options as arguments of a script, such as "--hidden-sizes 64 64 --normalize-rewards"."""
    return " ".join(_argument(name.replace("_", "-"), value) for name, value in with_none(options).items())


def with_none(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a TOML file with None where it says "none"."""
    values = {name: with_none(value) if isinstance(value, dict) else value for name, value in options.items()}
    return {name: None if value == "none" else value for name, value in values.items()}


def _argument(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, dict):
        value = to_arguments(value)
    values = value if isinstance(value, list) else [value]
    return shlex.join([f"--{name}", *map(str, values)])


def select(rows: list, scripts: tuple[str, ...], envs: tuple[str, ...]) -> list:
    """Return the rows of some scripts and environments; an empty selection means all."""
    rows = [row for row in rows if not scripts or row.script in scripts]
    return [row for row in rows if not envs or row.title in envs]


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _load(name: str) -> dict[str, Any]:
    try:
        return read_toml(Path(__file__).with_name(name))
    except tomllib.TOMLDecodeError as error:
        raise _stop(f"{name}: {error}") from None


def _stop(message: str) -> SystemExit:
    """Print an error; return what ends the program, which has only begun to import its modules."""
    print(f"error: benchmarks/{message}", file=sys.stderr)
    return SystemExit(2)


def _script(name: str, row: dict[str, Any]) -> Script:
    try:
        return Script(**row)
    except TypeError as error:
        raise _stop(f"scripts.toml: [{name}]: {str(error).partition(' ')[2]}") from None


def _with_pages(table: dict[str, Script], root: Path) -> dict[str, Script]:
    return {name: row for name, row in table.items() if (root / name / "README.md").exists()}


def _rows(content: dict[str, Any], file: str) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield script, environment, name, and settings of each row, those of its preset included.

    Tables within a row, such as `ours`, add to those of the preset.
    """
    presets = content.pop("presets", {})
    for script, rows in content.items():
        for name, row in rows.items():
            place = f"{file}: [{script}.{name}]"
            if script not in SCRIPTS:
                raise _stop(f"{place}: scripts.toml has no such script")
            if not isinstance(row, dict):
                raise _stop(f"{place}: an environment is missing")
            if "preset" in row and row["preset"] not in presets:
                raise _stop(f"{place}: there is no such preset")
            preset = presets[row.pop("preset")] if "preset" in row else {}
            both = {key: preset[key] | row[key] for key in preset if isinstance(row.get(key), dict)}
            row = preset | row | both
            yield script, row.pop("env_id", name), name, row


def _task(script: str, env_id: str, name: str, row: dict[str, Any]) -> Task:
    own = {key: row.pop(key) for key in ("seeds", "note") if key in row}
    return Task(script, env_id, row, **own, name=name)


_learning = _load("learning.toml")
SCRIPTS = {name: _script(name, row) for name, row in _load("scripts.toml").items()}
COLLECTION = _with_pages(SCRIPTS, ROOT)
ScriptName = Literal[tuple(SCRIPTS)]  # for options
THRESHOLDS: dict[str, float] = _learning.pop("thresholds")
PRESETS: dict[str, dict[str, Any]] = dict(_learning["presets"])
TASKS = [_task(*row) for row in _rows(_learning, "learning.toml")]
PAIRS, RACES = (
    [Comparison(script, env_id, **row) for script, env_id, _, row in _rows(_load(file), file)]
    for file in ("speed.toml", "race.toml")
)

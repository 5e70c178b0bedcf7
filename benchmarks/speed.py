"""Speed compared with Stable-Baselines3 (SB3), sb3-contrib and SBX (SB3 in JAX).

    python benchmarks/speed.py pairs       steps per second of the training loop, with the same settings
    python benchmarks/speed.py num-envs    steps per second of our scripts with 1 to 64 environments
    python benchmarks/speed.py solve       seconds from the command to the solved task; the library has its
                                           own tuned settings

Every measurement is a new process. For `pairs` and `num-envs` the clock runs from the end of the warm-up to
the last step: start-up and compilation are not counted. For `solve` it runs from the command. Use an
otherwise idle machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import json
import os
from pathlib import Path
import re
import subprocess
import sys
import time
from typing import Any, Literal

from common.errors import UserError
import tyro

from benchmarks import cli, curves, job, records
from benchmarks.options import defaults
from benchmarks.peers import MODULES
from benchmarks.settings import PAIRS, RACES, THRESHOLDS, Comparison, ScriptName, Task, command_line, select

NO_OUTPUT = {"checkpoint_frequency": 0, "save_model": False}  # the libraries save nothing either
NUM_ENVS = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Options:
    """What to measure, and how often."""

    what: tyro.conf.Positional[Literal["pairs", "num-envs", "solve"]] = "pairs"
    """pairs: compared with libraries; num-envs: with 1 to 64 environments; solve: time to solve a task."""
    scripts: tuple[ScriptName, ...] = ()
    """Scripts to measure (default: all in speed.toml or race.toml)."""
    envs: tuple[str, ...] = ()
    """Environments to measure (default: all)."""
    peers: tuple[str, ...] = ("sb3", "sb3-contrib", "sbx")
    """Libraries to compare with."""
    executors: tuple[Literal["sync", "async", "envpool"], ...] = ()
    """Executors to measure (default: all in speed.toml, or sync with `num-envs`)."""
    repeats: int = 5
    """Number of pairs; with `solve`, number of seeds."""
    peer_python: str = sys.executable
    """Python with benchmarks/requirements-peers.txt installed."""
    max_stolen: float = 0.02
    """Repeat a measurement if the host of a virtual machine took a larger fraction of its CPU time."""
    attempts: int = 5
    """Maximum number of such attempts."""
    threads: int = 0
    """Threads per library, theirs and ours; 0 keeps their defaults."""
    results: Path = records.RESULTS
    """Folder of speed.csv, num_envs.csv and time_to_solve.csv."""


def run_ours(task: Task, given: dict[str, Any], options: Options) -> job.Outcome:
    """Run our script with the options of a task and others; RuntimeError if it fails."""
    arguments = command_line({"env_id": task.env_id} | given | task.options)
    return job.run_script(task.script, arguments, options.threads).check()


def run_theirs(row: Comparison, library: str, seed: int, options: Options, eval_episodes: int = 0) -> dict:
    """Run a library; return the output of peers.py and the total seconds; RuntimeError if it fails."""
    task = {"library": library, "algorithm": row.script, "env_id": row.env_id, "num_envs": row.num_envs}
    task |= {"total_timesteps": row.total_timesteps, "seed": seed, "options": row.theirs}
    task |= {
        "vec_env": row.vec_env,
        "row_steps": row.row_steps,
        "eval_episodes": eval_episodes,
        "launched": time.time(),
    }
    started = time.perf_counter()
    process = subprocess.run(
        [options.peer_python, str(records.ROOT / "benchmarks" / "peers.py"), json.dumps(task)],
        capture_output=True,
        text=True,
        env=job.environment(options.threads),
    )
    whole_seconds = time.perf_counter() - started
    match = re.search(r"^peer: (.*)$", process.stdout, re.MULTILINE)
    if not match:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise RuntimeError(f"{library} {row.script}: {lines[-1]}")
    return json.loads(match[1]) | {"whole_seconds": whole_seconds}


def origin(outcome: job.Outcome, options: Options) -> dict:
    """Return the last columns of a row: how, with what and where it was measured."""
    row = {"options": json.dumps(outcome.options, separators=(",", ":"))}
    return row | {"threads": options.threads or "default", "command": outcome.command, **records.origin()}


def measure_pair(pair: Comparison, library: str, seed: int, options: Options) -> dict:
    """Measure our script, then the library; return a row of speed.csv."""
    outcome = run_ours(pair.pair, {"seed": seed} | NO_OUTPUT, options)
    peer = run_theirs(pair, library, seed, options)
    ours, theirs = (curves.steps_per_second(rows, pair.warm_up) for rows in (outcome.rows, peer["rows"]))
    row = {"script": pair.script, "env_id": pair.env_id, "num_envs": pair.num_envs}
    row |= {"executor": pair.executor, "peer": library, "pair": seed}
    row |= {"steps_per_second": round(ours), "peer_steps_per_second": round(theirs)}
    row |= {"ratio": round(ours / theirs, 3)}
    return row | origin(outcome, options) | {"peer_versions": peer["versions"]}


def measure_num_envs(pair: Comparison, repeat: int, options: Options) -> dict:
    """Measure our script alone; return a row of num_envs.csv."""
    outcome = run_ours(pair.pair, {"seed": repeat} | NO_OUTPUT, options)
    speed = curves.steps_per_second(outcome.rows, max(pair.warm_up, pair.total_timesteps // 4))
    row = {"script": pair.script, "env_id": pair.env_id, "executor": pair.executor}
    row |= {"num_envs": pair.num_envs, "repeat": repeat}
    return row | {"steps_per_second": round(speed)} | origin(outcome, options)


def measure_race(race: Comparison, library: str, seed: int, options: Options) -> dict:
    """Run our script and the library, each with its own settings; return a row of time_to_solve.csv."""
    outcome = run_ours(race.race, {"seed": seed, "checkpoint_frequency": 0}, options)
    peer = run_theirs(race, library, seed, options, eval_episodes=100)
    threshold = THRESHOLDS[race.env_id]
    row = {"script": race.script, "env_id": race.env_id, "peer": library, "seed": seed, "bar": threshold}
    for prefix, run in (("", vars(outcome)), ("peer_", peer)):
        solved = curves.first_solved(run["rows"], threshold)
        row |= {
            prefix + "solved_step": solved[0] if solved else "",
            prefix + "solved_seconds": round(run["start_seconds"] + solved[1], 2) if solved else "",
            prefix + "whole_seconds": round(run["whole_seconds"], 2),
            prefix + "evaluation": round(run["evaluation"][0], 1),
        }
    return row | origin(outcome, options) | {"peer_versions": peer["versions"]}


def undisturbed(measure: Callable[..., dict], *what: Any, options: Options) -> dict:
    """Return and print `measure(*what, options)`, repeated while the host takes too much of the CPU time."""
    for attempt in range(options.attempts):
        stolen, started = records.stolen_seconds(), time.perf_counter()
        row = measure(*what, options)
        available = (time.perf_counter() - started) * (os.cpu_count() or 1)
        fraction = (records.stolen_seconds() - stolen) / available
        if fraction <= options.max_stolen:
            break
        consequence = "result kept" if attempt + 1 == options.attempts else "repeated"
        print(f"{row['script']}: the host took {fraction:.1%} of the CPU time: {consequence}", flush=True)
    shown = list(row)[: list(row).index("options")] if "options" in row else row
    print(", ".join(f"{name} {row[name]}" for name in shown), flush=True)
    return row


def selected(rows: list[Comparison], scripts: tuple[str, ...], envs: tuple[str, ...]) -> list[Comparison]:
    """Return the rows of some scripts and environments; UserError if there are none."""
    if not (chosen := select(rows, scripts, envs)):
        raise UserError(f"no row for {' '.join([*scripts, *envs])}: choose one from speed.toml or race.toml")
    return chosen


def measure_all(rows: list[Comparison], measure: Callable, options: Options) -> Iterator[list[dict]]:
    """Yield the results of each script and library."""
    for row in selected(rows, options.scripts, options.envs):
        if options.executors and row.executor not in options.executors:
            continue
        for library in (peer for peer in row.peers if peer in options.peers):
            yield [undisturbed(measure, row, library, k, options=options) for k in range(options.repeats)]


def pairs(options: Options) -> None:
    """Write speed.csv: one row per pair."""
    for rows in measure_all(PAIRS, measure_pair, options):  # new pairs replace all earlier ones
        key = ("script", "env_id", "num_envs", "executor", "peer", "threads")
        records.replace_rows(options.results / "speed.csv", rows, key)


def num_envs(options: Options) -> None:
    """Write num_envs.csv: steps per second for each number of environments."""
    pairs = selected(PAIRS, options.scripts or ("dqn", "ppo"), options.envs or ("CartPole-v1",))
    last = {(pair.script, pair.env_id): pair for pair in pairs}  # has most environments
    for pair in last.values():
        chosen = defaults(pair.script) | pair.ours
        counts = [count for count in NUM_ENVS if count <= chosen.get("train_frequency", count)]
        for executor in options.executors or ("sync",):
            repeats = [
                (pair.with_envs(count, executor), repeat)
                for count in counts
                for repeat in range(options.repeats)
            ]
            rows = [undisturbed(measure_num_envs, *repeat, options=options) for repeat in repeats]
            key = ("script", "env_id", "executor", "num_envs", "threads")
            records.replace_rows(options.results / "num_envs.csv", rows, key)


def check_peers(rows: list[Comparison], options: Options) -> None:
    """UserError unless `--peer-python` runs and has the libraries that the chosen rows are compared with."""
    python, chosen = options.peer_python, selected(rows, options.scripts, options.envs)
    modules = sorted({MODULES[peer] for row in chosen for peer in row.peers if peer in options.peers})
    code = "import importlib.util as i, sys; print(*[m for m in sys.argv[1:] if not i.find_spec(m)])"
    try:
        found = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"--peer-python is {python}, which is not a Python that runs") from error
    if missing := found.stdout.split():
        raise UserError(
            f"{python} has no {' and no '.join(missing)}: install benchmarks/requirements-peers.txt in a"
            " virtual environment and give its Python as --peer-python"
        )


def solve(options: Options) -> None:
    """Write time_to_solve.csv: one row per seed."""
    for rows in measure_all(RACES, measure_race, options):
        key = ("script", "env_id", "peer", "seed", "threads")
        records.replace_rows(options.results / "time_to_solve.csv", rows, key)


def main(options: Options) -> None:
    """Measure what was chosen.

    Raises:
        UserError: for a mistake in the options, or if the libraries are missing.
    """
    for name in ("repeats", "attempts"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}: it must be at least 1")
    if options.what != "num-envs":
        check_peers(PAIRS if options.what == "pairs" else RACES, options)
    {"pairs": pairs, "num-envs": num_envs, "solve": solve}[options.what](options)


if __name__ == "__main__":
    cli.run(main, Options)

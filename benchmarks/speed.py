"""Ours beside Stable-Baselines3, sb3-contrib and SBX: the same settings, in alternating pairs.

    python benchmarks/speed.py pairs       steps per second of the whole training loop, and their ratio
    python benchmarks/speed.py num-envs    steps per second of ours with 1 to 64 environments
    python benchmarks/speed.py solve       seconds from the command to the solved task, the peer with its
                                           own tuned settings
Every measurement is a process of its own. The clock of `pairs` and `num-envs` runs from the warm-up to the
last step, so that starting and compiling are nobody's; the clock of `solve` runs from the command.
Measure on a machine that does nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
import json
import os
from pathlib import Path
import re
from statistics import median
import subprocess
import sys
import time
from typing import Any, Literal

import tyro

from benchmarks import job
from benchmarks.settings import BARS, SPEEDS, TASKS, ZOO, Speed, Zoo

QUIET = "--eval-episodes 0 --checkpoint-frequency 0 --no-save-model"  # the peers leave nothing behind either


@dataclass
class Options:
    """What to measure, and how often."""

    what: tyro.conf.Positional[Literal["pairs", "num-envs", "solve"]] = "pairs"
    """pairs: steps per second beside the peers; num-envs: with 1 to 64 environments; solve: time to solved"""
    scripts: tuple[str, ...] = ()
    """Scripts to measure; none for all that have a row in settings.py."""
    envs: tuple[str, ...] = ()
    """Environments to measure; none for all."""
    peers: tuple[str, ...] = ("sb3", "sb3-contrib", "sbx")
    """Libraries to measure beside."""
    repeats: int = 5
    """Pairs, or seeds with `solve`."""
    peer_python: str = sys.executable
    """Python that has benchmarks/requirements.txt, where that is not this one."""
    max_stolen: float = 0.02
    """Share of the processors' time that the host of a virtual machine may take during a measurement."""
    attempts: int = 5
    """Times that a measurement is made at most, while the host takes more."""
    threads: int = 0
    """Threads that each library may use, theirs and ours; 0 leaves it to them, as a user would."""
    results: Path = job.RESULTS
    """Folder for speed.csv, num_envs.csv and time_to_solve.csv."""


def ours(options: str, *, threads: int) -> job.Outcome:
    """Run a script, given as "dqn --option value".

    Raises:
        RuntimeError: if the run fails.
    """
    script, _, rest = options.partition(" ")
    outcome = job.run_script(script, rest, threads=threads)
    if outcome.returncode:
        raise RuntimeError(f"{outcome.command}: {outcome.error}")
    return outcome


def theirs(python: str, task: dict, *, threads: int) -> dict:
    """Run a peer; returns what it printed, and the seconds that its whole process took.

    Raises:
        RuntimeError: if the run fails.
    """
    started = time.perf_counter()
    process = subprocess.run(
        [python, str(job.ROOT / "benchmarks" / "peers.py"), json.dumps(task | {"launched": time.time()})],
        capture_output=True,
        text=True,
        env=job.environment(threads),
    )
    whole_seconds = time.perf_counter() - started
    match = re.search(r"^peer: (.*)$", process.stdout, re.MULTILINE)
    if not match:
        words = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise RuntimeError(f"{task['library']} {task['algorithm']}: {words[-1]}")
    return json.loads(match[1]) | {"whole_seconds": whole_seconds}


def measure_pair(speed: Speed, library: str, seed: int, options: Options) -> dict:
    """Measure ours, then the peer; returns a row of speed.csv."""
    command = (
        f"{speed.script} --env-id {speed.env_id} --seed {seed} --num-envs {speed.num_envs}"
        f" --total-timesteps {speed.total_timesteps} {speed.options}"
    )
    outcome = ours(f"{command} {QUIET}", threads=options.threads)
    peer = theirs(
        options.peer_python,
        {
            "library": library,
            "algorithm": speed.script,
            "env_id": speed.env_id,
            "num_envs": speed.num_envs,
            "total_timesteps": speed.total_timesteps,
            "seed": seed,
            "options": speed.peers[library],
            "row_steps": speed.row_steps,
            "eval_episodes": 0,
        },
        threads=options.threads,
    )
    mine = job.steps_per_second(outcome.rows, speed.warm_up)
    other = job.steps_per_second(peer["rows"], speed.warm_up)
    return {
        "script": speed.script,
        "env_id": speed.env_id,
        "peer": library,
        "pair": seed,
        "steps_per_second": round(mine),
        "peer_steps_per_second": round(other),
        "ratio": round(mine / other, 3),
        "goal": speed.goals.get(library, ""),
        **about(outcome.command, options),
        "peer_versions": peer["versions"],
    }


def undisturbed(measure: Callable[..., dict], *what: Any, options: Options) -> dict:
    """Return `measure(*what, options)`, made again if the host took the processors meanwhile."""
    for attempt in range(options.attempts):
        stolen, started = job.stolen_seconds(), time.perf_counter()
        row = measure(*what, options)
        available = (time.perf_counter() - started) * (os.cpu_count() or 1)
        share = (job.stolen_seconds() - stolen) / available
        if share <= options.max_stolen:
            break
        then = "kept nevertheless" if attempt + 1 == options.attempts else "measured again"
        print(f"{row['script']}: the host took {share:.1%} of the processors' time: {then}", flush=True)
    return row


def about(command: str, options: Options) -> dict:
    """Where a row comes from."""
    return {
        "threads": options.threads or "default",
        "command": command,
        "versions": job.versions(),
        "machine": job.machine(),
        "date": job.today(),
    }


def wanted(rows: list, options: Options) -> list:
    """The rows of settings.py that the command line asks for."""
    return [
        row
        for row in rows
        if row.script in (options.scripts or (row.script,)) and row.env_id in (options.envs or (row.env_id,))
    ]


def pairs(options: Options) -> None:
    """Write speed.csv: a row a pair."""
    for speed in wanted(SPEEDS, options):
        for library in speed.peers:
            if library not in options.peers:
                continue
            rows = [
                undisturbed(measure_pair, speed, library, seed, options=options)
                for seed in range(options.repeats)
            ]
            job.keep(options.results / "speed.csv", rows, ("script", "env_id", "peer", "threads"))
            ratios = [row["ratio"] for row in rows]
            print(
                f"{speed.script:12} {speed.env_id:16}"
                f"  ours {median(row['steps_per_second'] for row in rows):7,.0f}"
                f"  {library} {median(row['peer_steps_per_second'] for row in rows):7,.0f} steps/s"
                f"  ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                f"  goal {speed.goals.get(library, '-')}",
                flush=True,
            )


def num_envs(options: Options) -> None:
    """Write num_envs.csv: steps per second with 1, 2, 4, … 64 environments."""
    for speed in wanted(SPEEDS, options):
        if speed.env_id != "CartPole-v1" or (speed.script not in ("dqn", "ppo") and not options.scripts):
            continue
        rows = []
        for count in (1, 2, 4, 8, 16, 32, 64):
            total = speed.total_timesteps * (1 if count < 8 else 2)
            command = (
                f"{speed.script} --env-id {speed.env_id} --num-envs {count} --total-timesteps {total}"
                f" {speed.options}"
            )
            for seed in range(options.repeats):
                outcome = ours(f"{command} --seed {seed} {QUIET}", threads=options.threads)
                rows.append(
                    {
                        "script": speed.script,
                        "env_id": speed.env_id,
                        "num_envs": count,
                        "repeat": seed,
                        "steps_per_second": round(
                            job.steps_per_second(outcome.rows, max(speed.warm_up, total // 4))
                        ),
                        **about(outcome.command, options),
                    }
                )
            speeds = [row["steps_per_second"] for row in rows if row["num_envs"] == count]
            print(f"{speed.script:12} num_envs {count:3}  {median(speeds):8,.0f} steps/s", flush=True)
        job.keep(
            options.results / "num_envs.csv", rows, ("script", "env_id", "num_envs", "repeat", "threads")
        )


def race(zoo: Zoo, seed: int, options: Options) -> dict:
    """Run ours and the peer with their own settings for a task; returns a row of time_to_solve.csv."""
    bar = BARS[zoo.env_id]
    (task,) = [task for task in TASKS if (task.script, task.env_id) == (zoo.script, zoo.env_id)]
    command = f"{zoo.script} --env-id {zoo.env_id} --seed {seed} {task.options} {zoo.ours}".strip()
    outcome = ours(f"{command} --checkpoint-frequency 0", threads=options.threads)
    peer = theirs(
        options.peer_python,
        {
            "library": zoo.library,
            "algorithm": zoo.script,
            "env_id": zoo.env_id,
            "num_envs": zoo.num_envs,
            "total_timesteps": zoo.total_timesteps,
            "seed": seed,
            "options": zoo.options,
            "row_steps": 1_000,
            "eval_episodes": 100,
        },
        threads=options.threads,
    )
    row = {"script": zoo.script, "env_id": zoo.env_id, "peer": zoo.library, "seed": seed, "bar": bar}
    for prefix, rows, start, whole, evaluation in (
        ("", outcome.rows, outcome.start_seconds, outcome.whole_seconds, outcome.evaluation),
        ("peer_", peer["rows"], peer["start_seconds"], peer["whole_seconds"], peer["evaluation"]),
    ):
        solved = job.first_solved(rows, bar)
        row |= {
            prefix + "solved_step": solved[0] if solved else "",
            prefix + "solved_seconds": round(start + solved[1], 2) if solved else "",
            prefix + "whole_seconds": round(whole, 2),
            prefix + "evaluation": round(evaluation[0], 1),
        }
    return row | about(outcome.command, options) | {"peer_versions": peer["versions"]}


def solve(options: Options) -> None:
    """Write time_to_solve.csv: a row a seed."""
    for zoo in wanted(ZOO, options):
        rows = []
        for seed in range(options.repeats):
            rows.append(undisturbed(race, zoo, seed, options=options))
            job.keep(
                options.results / "time_to_solve.csv", rows, ("script", "env_id", "peer", "seed", "threads")
            )
        for prefix, name in (("", "ours"), ("peer_", zoo.library)):
            solved = sum(row[prefix + "evaluation"] >= row["bar"] for row in rows)
            reached = [row[prefix + "solved_seconds"] for row in rows if row[prefix + "solved_seconds"] != ""]
            print(
                f"{zoo.script:12} {zoo.env_id:16} {name:12} reached the bar in {len(reached)} of {len(rows)}"
                f" seeds, median {median(reached) if reached else float('nan'):.1f} s after the command;"
                f" process ended after {median(row[prefix + 'whole_seconds'] for row in rows):.1f} s,"
                f" solved in {solved} of {len(rows)}",
                flush=True,
            )


if __name__ == "__main__":
    arguments = tyro.cli(Options, description=__doc__)
    {"pairs": pairs, "num-envs": num_envs, "solve": solve}[arguments.what](arguments)

"""Learning over seeds: scripts × environments × seeds, each a real run of the script in a process of its own.

    python benchmarks/learning.py                                      all rows of settings.py
    python benchmarks/learning.py --scripts dqn --envs CartPole-v1     some of them
    python benchmarks/learning.py --ray                                on Ray, started on this machine
    python benchmarks/learning.py --ray 10.0.0.1:6379                  on a Ray cluster that is there

A run that ended well leaves a row in benchmarks/results/learning/<script>__<env>.csv and its learning curve,
thinned, in benchmarks/results/curves/. What has its row is not run again, unless settings.py or a default of
the script has changed since, so that what was stopped goes on where it was. Runs that fail are
listed at the end and tried again next time.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
import json
import os
from pathlib import Path
import sys

import tyro

from benchmarks import job
from benchmarks.settings import BARS, TASKS, Task

POINTS = 50  # of a thinned learning curve


@dataclass
class Options:
    """What to run, and where."""

    scripts: tuple[str, ...] = ()
    """Scripts to run; none for all that have a row in settings.py."""
    envs: tuple[str, ...] = ()
    """Environments to run; none for all that have a row."""
    seeds: tuple[int, ...] = ()
    """Seeds to run; none for those of the row."""
    extra: str = ""
    """Options added to each command, such as --extra="--total-timesteps 1000"."""
    workers: int = os.cpu_count() or 1
    """Runs at a time, on this machine."""
    threads: int = 1
    """Threads that each run may use, so that runs do not fight over cores; 0 leaves it to the libraries."""
    timeout: float | None = None
    """Seconds after which a run is ended and counts as failed."""
    ray: tuple[str, ...] | None = None
    """Run on Ray: alone for one started on this machine, or with the address of a cluster."""
    retries: int = 3
    """Times that a run is started anew after its Ray worker was lost."""
    runs_dir: str | None = None
    """Where run folders stay; by default they go when their results are read."""
    results: Path = job.RESULTS
    """Folder for learning/ and curves/."""


@dataclass(frozen=True)
class Job:
    """A run to make."""

    script: str
    env_id: str
    seed: int
    options: str
    threads: int = 1
    timeout: float | None = None
    runs_dir: str | None = None

    @property
    def file(self) -> str:
        """Name of the CSV files that hold its results."""
        env = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in self.env_id)
        return f"{self.script}__{env}.csv"

    @property
    def arguments(self) -> str:
        """What follows the script's name."""
        return f"--env-id {self.env_id} --seed {self.seed} {self.options}".strip()

    def __str__(self) -> str:
        return f"{self.script} {self.env_id} seed {self.seed}"


def run_job(work: Job) -> dict:
    """Run a script; returns its row, its thinned learning curve, and its error if it failed."""
    outcome = job.run_script(
        work.script, work.arguments, threads=work.threads, timeout=work.timeout, runs_dir=work.runs_dir
    )
    error = outcome.error
    if outcome.returncode == 0 and outcome.evaluation is None:
        error = "the run ended without an evaluation: leave --eval-episodes above 0"
    if error or outcome.returncode:
        return {"error": error, "command": outcome.command}
    bar = BARS.get(work.env_id)
    reached = job.first_solved(outcome.rows, bar) if bar is not None else None
    row = {
        "seed": work.seed,
        "evaluation_mean": outcome.evaluation[0],
        "evaluation_std": outcome.evaluation[1],
        "total_timesteps": outcome.options["total_timesteps"],
        "solved_step": reached[0] if reached else "",
        "solved_seconds": round(outcome.start_seconds + reached[1], 2) if reached else "",
        "whole_seconds": round(outcome.whole_seconds, 2),
        "threads": work.threads or "default",
        "versions": job.versions(),
        "machine": job.machine(),
        "date": job.today(),
        "command": outcome.command,
        "options": json.dumps(outcome.options, separators=(",", ":")),
    }
    return {"row": row, "curve": thin(outcome, work.seed), "error": "", "command": outcome.command}


def thin(outcome: job.Outcome, seed: int) -> list[dict]:
    """A learning curve of at most `POINTS` points: mean training return over equal stretches of steps."""
    stretch = max(1, -(-outcome.rows[-1][0] // POINTS)) if outcome.rows else 1
    points = {}
    for step, seconds, mean_return, _ in outcome.rows:
        if mean_return is not None:
            points.setdefault((step - 1) // stretch, []).append((step, seconds, mean_return))
    return [
        {
            "seed": seed,
            "global_step": rows[-1][0],
            "seconds": round(outcome.start_seconds + rows[-1][1], 2),
            "episodic_return": f"{sum(row[2] for row in rows) / len(rows):.4g}",
        }
        for rows in points.values()
    ]


def plan(options: Options) -> list[Job]:
    """The runs that the command line asks for and that have no row yet.

    Raises:
        SystemExit: if settings.py has no row for what is asked.
    """
    tasks = [
        task
        for task in TASKS
        if task.script in (options.scripts or (task.script,))
        and task.env_id in (options.envs or (task.env_id,))
    ]
    if not tasks and options.scripts and options.envs:  # nobody has settled options: the defaults
        tasks = [Task(script, env_id) for script in options.scripts for env_id in options.envs]
    if not tasks:
        sys.exit("error: settings.py has no such row: see its TASKS, or give both --scripts and --envs")
    jobs = [
        Job(
            task.script,
            task.env_id,
            seed,
            f"{task.options} {options.extra}".strip(),
            options.threads,
            options.timeout,
            options.runs_dir,
        )
        for task in tasks
        for seed in options.seeds or range(task.seeds)
    ]
    return [work for work in jobs if not done(work, options.results)]


def done(work: Job, results: Path) -> bool:
    """Whether its row is there, of a run with the options that its command comes to today."""
    rows = [row for row in job.read_csv(results / "learning" / work.file) if row["seed"] == str(work.seed)]
    return any(job.is_of(row, job.resolved(work.script, work.arguments)) for row in rows)


def on_this_machine(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict]]:
    """Run `workers` at a time; yields each as it ends."""
    with ThreadPoolExecutor(workers) as pool:  # threads that wait: each run is a process of its own
        futures = {pool.submit(run_job, work): work for work in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], _result(future.result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def on_ray(jobs: list[Job], address: str | None, workers: int, retries: int) -> Iterator[tuple[Job, dict]]:
    """Run each job as a Ray task of one CPU; yields each as it ends. Those of a lost worker run again."""
    import ray

    excluded = [".git", ".venv", "runs", "wandb", "videos", "benchmarks/results"]
    ray.init(
        address=address or "local",
        num_cpus=None if address else workers,
        runtime_env={"working_dir": str(job.ROOT), "excludes": excluded},
        include_dashboard=None if address else False,
        log_to_driver=False,
    )
    try:
        task = ray.remote(num_cpus=1, max_retries=retries)(run_job)
        futures = {task.remote(work): work for work in jobs}
        while futures:
            (future,), _ = ray.wait(list(futures))
            work = futures.pop(future)
            yield work, _result(lambda future=future: ray.get(future))
    finally:
        ray.shutdown()


def _result(get) -> dict:
    try:
        return get()
    except Exception as error:  # a job that cannot run is listed; the others go on
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0], "command": ""}


def main(options: Options) -> int:
    """Run what is asked and not done; returns the number of runs that failed."""
    jobs = plan(options)
    print(f"{len(jobs)} runs to make", flush=True)
    if not jobs:
        return 0
    if options.ray is None:
        results = on_this_machine(jobs, options.workers)
    else:
        results = on_ray(jobs, next(iter(options.ray), None), options.workers, options.retries)
    failed = []
    for number, (work, result) in enumerate(results, 1):
        if result["error"]:
            failed.append((work, result))
            print(f"[{number}/{len(jobs)}] {work}: FAILED: {result['error']}", flush=True)
            continue
        row = result["row"]
        job.keep(options.results / "learning" / work.file, [row], ("seed",))
        if result["curve"]:
            job.keep(options.results / "curves" / work.file, result["curve"], ("seed",))
        reached = f"at the bar after {row['solved_step']:,} steps" if row["solved_step"] else "not at the bar"
        print(
            f"[{number}/{len(jobs)}] {work}: {row['evaluation_mean']} ± {row['evaluation_std']},"
            f" {reached}, {row['whole_seconds']:.1f} s",
            flush=True,
        )
    for work, result in failed:
        print(f"failed: {work}: {result['command']}\n        {result['error']}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} runs failed: the same command tries them again", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    try:
        sys.exit(min(1, main(tyro.cli(Options, description=__doc__))))
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")

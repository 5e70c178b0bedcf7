"""Learning over seeds: runs scripts on environments with several seeds, each run in its own process.

    python benchmarks/learning.py                                      every row of learning.toml
    python benchmarks/learning.py --scripts dqn --envs CartPole-v1     some rows
    python benchmarks/learning.py --ray                                on Ray, started on this machine
    python benchmarks/learning.py --ray 10.0.0.1:6379                  on an existing Ray cluster

A successful run adds a row to benchmarks/results/learning/<script>__<env>.csv and its thinned learning curve
to benchmarks/results/curves/; with `eval_frequency`, its evaluations during training are kept in
benchmarks/results/evaluations/. Runs that have a row are skipped, unless learning.toml or a default of the
script has changed since; so an interrupted command continues where it stopped. Failed runs are listed at the
end and repeated next time.
"""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
import json
import os
from pathlib import Path
import shlex
import sys

from common.checkpoint import last_checkpoint, read_counters
from common.errors import UserError
from common.run_folder import load_config

from benchmarks import cli, curves, job, options, records, workers
from benchmarks.settings import TASKS, THRESHOLDS, ScriptName, Task, select


@dataclass
class Options:
    """What to run, and where."""

    scripts: tuple[ScriptName, ...] = ()
    """Scripts to run (default: all in learning.toml)."""
    envs: tuple[str, ...] = ()
    """Environments to run (default: all in learning.toml)."""
    seeds: tuple[int, ...] = ()
    """Seeds to run (default: as many as the row says)."""
    extra: str = ""
    """Arguments added to each command, such as --extra="--total-timesteps 1000"; needs --results."""
    repeat: bool = False
    """Also repeat the runs that have a row, for example after a change of a script."""
    workers: int = os.cpu_count() or 1
    """Simultaneous runs on this machine."""
    threads: int = 1
    """Threads per run; 0 keeps the defaults of the libraries."""
    timeout: float | None = None
    """Seconds after which a run is killed and counts as failed."""
    ray: tuple[str, ...] | None = None
    """Run on Ray: on this machine, or on a cluster if its address is given."""
    retries: int = 3
    """Restarts of a run whose Ray worker was lost."""
    runs_dir: str | None = None
    """Folder that keeps the run folders (default: they are deleted); its runs without a row are continued."""
    results: Path = records.RESULTS
    """Folder of learning/, curves/ and evaluations/."""


@dataclass(frozen=True)
class Job:
    """One run: a task, a seed and additional arguments."""

    task: Task
    seed: int
    extra: str = ""

    @property
    def arguments(self) -> str:
        """Arguments of the script."""
        first = f"--env-id {self.task.env_id} --seed {self.seed}"
        return " ".join(filter(None, [first, self.task.arguments, self.extra]))

    def __str__(self) -> str:
        return f"{self.task.script} {self.task.title} seed {self.seed}"


def run_job(work: Job, chosen: Options) -> tuple[dict, list[dict], list[dict]]:
    """Run a script; return its results row, its thinned learning curve and its evaluations during training.

    An earlier run of the job is continued; one that had ended only plays its evaluation again. RuntimeError
    if the script fails, for example because that run goes on in another process.
    """
    limits = {"threads": chosen.threads, "timeout": chosen.timeout, "runs_dir": chosen.runs_dir}
    resumes = chosen.runs_dir and not chosen.repeat
    folder = earlier(work, Path(chosen.runs_dir)) if resumes else None
    before = read_counters(folder / "checkpoints") if folder else None
    resume = f" --resume {shlex.quote(str(folder))}" if folder else ""
    origin = records.origin()  # before the run, which reads the code at its start
    outcome = job.run_script(work.task.script, work.arguments + resume, **limits).check()
    if before:
        cut_off = before["global_step"] < outcome.options["total_timesteps"]
        comment = f"  # continued at step {before['global_step']}" if cut_off else ""
        outcome.command = outcome.command.replace(resume, comment)
        outcome.whole_seconds += before["seconds"]
    if outcome.evaluation is None:
        raise RuntimeError(f"{outcome.command}: the run has no evaluation: set --eval-episodes above 0")
    threshold = THRESHOLDS.get(work.task.env_id)
    solved = curves.first_solved(outcome.rows, threshold) if threshold is not None else None
    row = {
        "seed": work.seed,
        "evaluation_mean": round(outcome.evaluation[0], 3),
        "evaluation_std": round(outcome.evaluation[1], 3),
        "total_timesteps": outcome.options["total_timesteps"],
        "solved_step": solved[0] if solved else "",
        "solved_seconds": round(outcome.start_seconds + solved[1], 2) if solved else "",
        "whole_seconds": round(outcome.whole_seconds, 2),
        "threads": chosen.threads or "default",
        **origin,
        "command": outcome.command,
        "options": json.dumps(outcome.options, separators=(",", ":")),
    }
    columns = ("global_step", "mean_return", "std_return")
    evaluations = [{"seed": work.seed, **dict(zip(columns, values))} for values in outcome.evaluations]
    return row, curves.thin(outcome.rows, work.seed, outcome.start_seconds), evaluations


def earlier(work: Job, runs_dir: Path) -> Path | None:
    """Return the folder of the newest run of this job that has a checkpoint, if there is one."""
    today = options.resolved(work.task.script, work.arguments)
    frequency = options.eval_frequency(work.task.script, work.arguments)
    for folder in sorted(runs_dir.glob(f"*__{work.task.script}__{work.seed}__*"), reverse=True):
        if last_checkpoint(folder / "checkpoints"):
            recorded = load_config(folder)
            if options.of_learning(recorded) == today and recorded["eval_frequency"] == frequency:
                return folder.resolve()
    return None


def plan(chosen: Options) -> list[Job]:
    """Return the runs that the command line selects and that have no row yet.

    Raises:
        UserError: if it selects none, if there are no workers, or if `extra` would change the tables.
    """
    if chosen.workers < 1:
        raise UserError(f"--workers is {chosen.workers}: it must be at least 1")
    tasks = select(TASKS, chosen.scripts, chosen.envs)
    if not tasks and chosen.scripts and chosen.envs:  # not in learning.toml: the script's defaults
        tasks = [Task(script, env_id) for script in chosen.scripts for env_id in chosen.envs]
    if not tasks:
        raise UserError("learning.toml has no such row: choose one of its rows, or give --scripts and --envs")
    if chosen.extra and chosen.results.resolve() == records.RESULTS.resolve():
        raise UserError("--extra would replace rows of the tables: give another folder with --results")
    jobs = [Job(task, seed, chosen.extra) for task in tasks for seed in chosen.seeds or range(task.seeds)]
    return [work for work in jobs if chosen.repeat or not done(work, chosen.results)]


def done(work: Job, results: Path) -> bool:
    """Whether a results row has the job's seed and options, and its `eval_frequency` if it has one."""
    rows = records.read_csv(results / "learning" / work.task.file)
    defaults = options.defaults(work.task.script)
    today = options.resolved(work.task.script, work.arguments)
    rows = [
        row
        for row in rows
        if row["seed"] == str(work.seed) and options.matches(row["options"], today, defaults)
    ]
    if frequency := options.eval_frequency(work.task.script, work.arguments):
        commands = [row["command"].split(maxsplit=2)[2] for row in rows]
        return frequency in [options.eval_frequency(work.task.script, command) for command in commands]
    return bool(rows)


def save(work: Job, row: dict, curve: list[dict], evaluations: list[dict], results: Path) -> str:
    """Write row, curve and evaluations of a finished run; return a summary.

    The row comes last, because a run that has one is not repeated.
    """
    for folder, rows in (("curves", curve), ("evaluations", evaluations)):
        path = results / folder / work.task.file
        records.drop_rows(path, "seed", work.seed)  # of an earlier run
        if rows:
            records.replace_rows(path, rows, ("seed",))
    records.replace_rows(results / "learning" / work.task.file, [row], ("seed",))
    step = row["solved_step"]
    threshold = f"threshold reached after {step:,} steps" if step else "threshold not reached"
    evaluation = f"{row['evaluation_mean']} ± {row['evaluation_std']}"
    return f"{evaluation}, {threshold}, {row['whole_seconds']:.1f} s"


def main(chosen: Options) -> int:
    """Run the selected jobs that have no row yet; return the number of failed runs."""
    jobs = plan(chosen)
    print(f"runs to do: {len(jobs)}", flush=True)
    if not jobs:
        return 0
    failed = []
    with (
        workers.fan_out(chosen.workers, chosen.ray, chosen.retries) as run_all,
        closing(run_all(partial(run_job, chosen=chosen), jobs, saves=bool(chosen.runs_dir))) as results,
    ):
        for number, (work, result) in enumerate(results, 1):
            try:
                message = save(work, *result(), chosen.results)
            except Exception as error:  # continue with the others
                reason = workers.reason(error)
                failed.append(f"failed: {work}: {reason}")
                message = f"FAILED: {reason}"
            print(f"[{number}/{len(jobs)}] {work}: {message}", flush=True)
    for task in {work.task.file: work.task for work in jobs}.values():
        seeds = {work.seed for work in jobs if work.task is task and work.seed >= task.seeds}
        if seeds:
            shown = f"which show seeds below {task.seeds}: raise `seeds` in learning.toml"
            print(f"warning: {task.file}: seeds {sorted(seeds)} are not in the tables, {shown}")
    if failed:
        print(*failed, sep="\n", file=sys.stderr)
        print(f"{len(failed)} of {len(jobs)} runs failed: repeat the command to retry them", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    cli.run(main, Options, ": repeat the command to continue")

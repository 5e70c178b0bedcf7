"""Search for settings with Optuna. A trial runs a script with several seeds, none of them one of the tables'.

    python benchmarks/tune.py --scripts ppo --envs Hopper-v5                     a table of tune.toml
    python benchmarks/tune.py --scripts ppo --envs Swimmer-v5 --ranges ppo       any task, with named ranges
    python benchmarks/tune.py --scripts ppo --envs Hopper-v5 --ray               on Ray, as learning.py

The first trial is the base setting. The score of a trial is the mean over seeds of the mean return at the
end. A trial whose evaluations during training are worse than those of the others is ended early (pruned). All
trials are written to benchmarks/results/tune/<script>__<env>.csv. A repeated command continues the search,
and several commands at a time can share it.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import closing, suppress
import dataclasses
from functools import partial
import json
import os
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
import threading
from typing import Any, Literal

from common.errors import UserError

from benchmarks import cli, curves, job, options, ranges, records, workers
from benchmarks.learning import Job
from benchmarks.ranges import Search
from benchmarks.settings import Task

try:
    import optuna

    from benchmarks import studies
except ModuleNotFoundError:
    optuna = None

FIRST_SEED = 1_000  # the tables have seeds 0, 1, …; the seeds that judge a setting must not have chosen it


@dataclasses.dataclass
class Options:
    """What to search, and where."""

    scripts: tuple[str, ...] = ()
    """Scripts to tune (default: all in tune.toml)."""
    envs: tuple[str, ...] = ()
    """Environments to tune on (default: all in tune.toml)."""
    ranges: str | None = None
    """Name of the ranges in tune.toml for these scripts and environments (default: their own table)."""
    trials: int = 30
    """Trials of the search, those of earlier commands included."""
    seeds: tuple[int, ...] = (FIRST_SEED, FIRST_SEED + 1)
    """Seeds of each trial, 1000 or more."""
    eval_frequency: int | None = None
    """Environment steps between evaluations during training (default: a tenth of total_timesteps)."""
    eval_episodes: int = 20
    """Episodes of each evaluation, during training and at the end."""
    pruner: Literal["none", "median", "halving"] = "median"
    """End trials below the median of the others, by successive halving, or never."""
    storage: str | None = None
    """Database URL of Optuna, or path of a journal file (default: SQLite in build/tune)."""
    workers: int = os.cpu_count() or 1
    """Simultaneous runs. As many trials run at a time as have room for all their seeds, at least one."""
    threads: int = 1
    """Threads per run; 0 keeps the defaults of the libraries."""
    timeout: float | None = None
    """Seconds after which a run is killed and its trial fails."""
    ray: tuple[str, ...] | None = None
    """Run on Ray: on this machine, or on a cluster if its address is given."""
    retries: int = 3
    """Restarts of a run whose Ray worker was lost."""
    scratch: Path | None = None
    """Folder of the run folders while a trial lasts. On a cluster, trials are pruned only if all machines see
    this folder (default: the temporary folder of this machine)."""
    ranges_file: Path = records.ROOT / "benchmarks" / "tune.toml"
    """File of the base settings and ranges."""
    results: Path = records.RESULTS
    """Folder of tune/."""


def run_seed(work: Job, folder: Path, chosen: Options) -> float:
    """Run a script; return its mean return at the end; RuntimeError if it fails."""
    limits = {"threads": chosen.threads, "timeout": chosen.timeout, "runs_dir": str(folder / str(work.seed))}
    return job.run_script(work.task.script, work.arguments, **limits).check().evaluation[0]


def mean_returns(folder: Path, seeds: tuple[int, ...], frequency: int) -> dict[int, float]:
    """Return the mean over seeds at each evaluation that all seeds have reached.

    Steps are rounded down to multiples of `frequency`: evaluations follow rollouts, whose lengths may differ
    between trials.
    """
    curve = []
    for seed in seeds:
        files = sorted(folder.glob(f"{seed}/*/evaluations.csv"), key=os.path.getmtime)
        rows = curves.read_evaluations(files[-1]) if files else []  # several if Ray repeated the run
        curve.append({step - step % frequency: value for step, value, _ in rows})
    return {step: mean(returns[step] for returns in curve) for step in set.intersection(*map(set, curve))}


def run_trial(
    trial: "optuna.Trial", search: Search, chosen: Options, run_all: Callable, stop: threading.Event
) -> list[float]:
    """Run all seeds of a trial and return their mean returns at the end.

    Raises:
        optuna.TrialPruned: if the pruner ends the trial.
        KeyboardInterrupt: once `stop` is set.
        Exception: if a run fails. In each case the other runs are ended.
    """
    evaluations = {"eval_frequency": chosen.eval_frequency, "eval_episodes": chosen.eval_episodes}
    no_output = {"save_model": False, "checkpoint_frequency": 0}
    given = search.options | search.values(trial.params) | evaluations | no_output
    jobs = [Job(Task(search.script, search.env_id, given), seed) for seed in chosen.seeds]
    reported: set[int] = set()

    def report() -> None:
        returns = mean_returns(folder, chosen.seeds, chosen.eval_frequency)
        for step in sorted(returns.keys() - reported):
            trial.report(returns[step], step)
        reported.update(returns)

    def watch() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        report()
        if not search.is_base(trial.params) and trial.should_prune():
            raise optuna.TrialPruned

    trial.set_user_attr("origin", records.origin())
    with TemporaryDirectory(dir=chosen.scratch, ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        run = partial(run_seed, folder=folder, chosen=chosen)
        with closing(run_all(run, jobs, watch=watch)) as results:
            scores = {work.seed: result() for work, result in results}
        report()
    return [scores[seed] for seed in chosen.seeds]


def summary(study: "optuna.Study", search: Search, seeds: tuple[int, ...]) -> str:
    """Return the best setting as a table for learning.toml, and its score beside that of the base setting."""
    states = Counter(studies.state(trial) for trial in study.get_trials(deepcopy=False))
    line = ", ".join(f"{states[state]} {state}" for state in ("complete", "pruned", "failed"))
    if not states["complete"]:
        return f"{search.name}: {line}"
    best = study.best_trial
    base = [f"{trial.value:.1f}" for trial in studies.complete(study) if search.is_base(trial.params)]
    variant = {"env_id": search.env_id} if search.title != search.env_id else {}
    setting = variant | search.options | search.values(best.params)
    lines = [
        f"{search.name}: {line}; mean return with seeds {', '.join(map(str, seeds))}:"
        f" {best.value:.1f} (trial {best.number}), base setting: {next(iter(base), 'none')}",
        "",
        f'[{search.script}."{search.title}"]',
        *(f"{name} = {_toml(value)}" for name, value in setting.items()),
    ]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Write a value as TOML does: as JSON, except for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    return json.dumps(value)


def tune(search: Search, chosen: Options, run_all: Callable) -> bool:
    """Run trials until there are enough; return whether one is complete."""
    config = options.parse(search.script, search.arguments({}))
    frequency = chosen.eval_frequency or max(1, config.total_timesteps // 10)
    chosen = dataclasses.replace(chosen, eval_frequency=frequency)
    made_with = {"ranges": search.ranges, "seeds": list(chosen.seeds), "eval_frequency": frequency}
    made_with |= options.resolved(search.script, search.arguments({"eval_episodes": chosen.eval_episodes}))
    storage = chosen.storage or f"sqlite:///{records.ROOT}/build/tune/{search.name}.db"
    path = chosen.results / "tune" / f"{search.name}.csv"
    pruner = studies.pruner(chosen.pruner, frequency)
    study = studies.open_study(search, storage, pruner, made_with, path.parent)
    print(f"{search.name}: {chosen.trials} trials, evaluations every {frequency:,} steps", flush=True)

    def save() -> None:
        with records.locked(path.parent):
            records.write_csv(path, studies.table(study, search))

    stop = threading.Event()

    def run_trials() -> None:
        while not stop.is_set() and (trial := studies.next_trial(study, search, chosen.trials, path.parent)):
            try:
                scores = run_trial(trial, search, chosen, run_all, stop)
            except optuna.TrialPruned:
                done = study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            except Exception as error:  # continue with the others
                trial.set_user_attr("error", workers.reason(error))
                done = study.tell(trial, state=optuna.trial.TrialState.FAIL)
            except BaseException:
                studies.repeat(study, trial)
                save()
                raise
            else:
                trial.set_user_attr("scores", scores)
                done = study.tell(trial, mean(scores))
            save()
            result = done.user_attrs.get("error") or f"{done.value:.1f}"
            values = json.dumps(search.values(done.params))
            print(f"trial {done.number}: {studies.state(done)}: {result} {values}", flush=True)

    at_a_time = max(1, chosen.workers // len(chosen.seeds))
    with ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(run_trials) for _ in range(at_a_time)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            while not all(future.done() for future in futures):  # the scripts are being ended
                with suppress(KeyboardInterrupt):
                    wait(futures)
            raise
    save()
    print(summary(study, search, chosen.seeds), flush=True)
    return bool(studies.complete(study))


def main(chosen: Options) -> int:
    """Run the searches that the command selects; return the number of those without a complete trial.

    Raises:
        UserError: for a mistake in the options or in tune.toml, or without Optuna.
    """
    if optuna is None:
        raise UserError("tune.py needs Optuna: pip install -r benchmarks/requirements.txt")
    if min(chosen.seeds, default=0) < FIRST_SEED:
        raise UserError(f"--seeds must be {FIRST_SEED} or more: those below belong to the tables")
    for name in ("trials", "eval_frequency", "eval_episodes", "workers"):
        if getattr(chosen, name) is not None and getattr(chosen, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(chosen, name)}: it must be at least 1")
    if chosen.scratch and not chosen.scratch.is_dir():
        raise UserError(f"--scratch {chosen.scratch} is not a folder")
    searches = ranges.read(chosen.ranges_file, chosen.scripts, chosen.envs, chosen.ranges)
    with workers.fan_out(chosen.workers, chosen.ray, chosen.retries) as run_all:
        return sum(not tune(search, chosen, run_all) for search in searches)


if __name__ == "__main__":
    cli.run(main, Options, ": repeat the command to continue")

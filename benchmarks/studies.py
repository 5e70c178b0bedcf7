"""The Optuna studies of tune.py: created, continued after an interruption, shared by several processes."""

from collections import Counter
import json
import os
from pathlib import Path
import platform
from typing import Any

from common.errors import UserError
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
import psutil

from benchmarks import options, records, workers
from benchmarks.ranges import Search

optuna.logging.set_verbosity(optuna.logging.WARNING)


def pruner(name: str, eval_frequency: int) -> optuna.pruners.BasePruner:
    """Return the pruner "none", "median" or "halving" for trials with an evaluation every so many steps."""
    if name == "none":
        return optuna.pruners.NopPruner()
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=eval_frequency)
    return optuna.pruners.MedianPruner(n_warmup_steps=3 * eval_frequency)


def open_study(
    search: Search, storage: str, pruner: optuna.pruners.BasePruner, made_with: dict[str, Any], lock: Path
) -> optuna.Study:
    """Create the study of a search, with the base setting as its first trial, or continue it.

    Args:
        storage: database URL, or path of a journal file.
        made_with: what all trials must have in common, so that their scores can be compared.
        lock: folder whose lock the processes on this machine share.

    Raises:
        UserError: if the storage cannot be opened, or if its trials were made with something else.
    """
    with records.locked(lock):
        try:
            study = optuna.create_study(
                storage=_open_storage(storage),
                study_name=search.name,
                direction="maximize",
                sampler=optuna.samplers.TPESampler(constant_liar=True),  # for several trials at a time
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # each kind of storage has its own
            raise UserError(f"--storage cannot be opened: {workers.reason(error)}") from error
        if "made_with" not in study.user_attrs:
            study.enqueue_trial(search.params(search.base), skip_if_exists=True)
            study.set_user_attr("made_with", json.dumps(made_with))
        elif not options.matches(study.user_attrs["made_with"], made_with):
            raise UserError(
                f"the trials of {search.name} in this --storage have other options, ranges, seeds, or"
                " evaluations: restore these, or choose another --storage"
            )
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            if _was_killed(*trial.user_attrs.get("process", ("", 0, 0.0))):
                repeat(study, trial)
    return study


def _open_storage(storage: str) -> optuna.storages.BaseStorage:
    if "://" not in storage:
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    if not storage.startswith("sqlite:///"):
        return optuna.storages.RDBStorage(storage)
    Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(storage, engine_kwargs={"connect_args": {"timeout": 60}})


def _was_killed(machine: str, pid: int, started: float) -> bool:
    """Whether a process of this machine has gone; nothing is known about those of other machines."""
    try:
        return machine == platform.node() and psutil.Process(pid).create_time() != started
    except psutil.NoSuchProcess:
        return True


def repeat(study: optuna.Study, trial: Trial | FrozenTrial) -> None:
    """Give up a trial that was interrupted, and enqueue its setting again."""
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial(trial.params)


def next_trial(study: optuna.Study, search: Search, total: int, lock: Path) -> Trial | None:
    """Begin a trial, unless the study has `total` trials; those that were interrupted do not count."""
    with records.locked(lock):
        states = Counter(state(trial) for trial in study.get_trials(deepcopy=False))
        if states.total() - states["interrupted"] - states["waiting"] >= total:
            return None
        trial = study.ask()
        trial.set_user_attr("process", [platform.node(), os.getpid(), psutil.Process().create_time()])
        search.suggest(trial)
    return trial


def state(trial: FrozenTrial) -> str:
    """Return the state of a trial: complete, pruned, failed, interrupted, running or waiting."""
    if trial.state == TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "interrupted"
    return trial.state.name.lower()


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a score."""
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


def table(study: optuna.Study, search: Search) -> list[dict[str, Any]]:
    """Return a row for each trial that has begun."""
    return [
        {
            "trial": trial.number,
            "state": state(trial),
            "score": "" if trial.value is None else round(trial.value, 2),
            "scores": " ".join(f"{score:.2f}" for score in trial.user_attrs.get("scores", [])),
            "last_step": trial.last_step or "",
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else "",
            **dict.fromkeys(search.ranges, ""),
            **{name: json.dumps(value) for name, value in search.values(trial.params).items()},
            "error": trial.user_attrs.get("error", ""),
            **dict.fromkeys(records.ORIGIN, ""),
            **trial.user_attrs.get("origin", {}),  # of an older version: without columns that are new
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]

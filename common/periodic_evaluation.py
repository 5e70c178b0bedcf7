"""Evaluations during training: what they play, evaluations.csv, and the best model so far."""

from collections.abc import Callable
import dataclasses
import json
import math
from pathlib import Path
import sys
from typing import Any

from common.errors import UserError
from common.logger import Logger
from common.options import RunConfig
from common.run_folder import write_errors, write_text
from common.saved_model import save_model
from common.seeding import unchanged_generators
import numpy as np


class PeriodicEvaluation:
    """Evaluates the greedy policy during training and keeps the model with the highest mean return.

    Training goes on as if there were no evaluations: they have environments of their own and leave the
    global random generators as they were. All evaluations of a run play the same episodes, so that they can
    be compared. The seeds of these episodes are neither those of training nor those of the final evaluation:
    the best model was chosen by its returns, which are therefore too high an estimate, and
    `--evaluate best_model.keras` gives one that is not.

    Args:
        config: options of the run.
        folder: run folder. A resumed run finds the best model so far there.
        logger: where results are written.

    Raises:
        UserError: if best_model.json cannot be read.
    """

    def __init__(self, config: RunConfig, folder: Path, logger: Logger):
        (seed,) = np.random.SeedSequence([config.seed, 3]).generate_state(1).tolist()
        self.config = dataclasses.replace(config, seed=seed, render=False)
        self.folder, self.logger = folder, logger
        episodes = {name: getattr(config, name) for name in ("env_kwargs", "seed", "eval_episodes")}
        self.episodes = json.loads(json.dumps(episodes))
        self.best = read_best(folder / "best_model.json", self.episodes)

    def play(self, evaluate: Callable[..., np.ndarray], model: Any, global_step: int, seconds: float) -> None:
        """Evaluate a model, write the result, and save the model if it is better than all before.

        Args:
            evaluate: the script's `evaluate(model, config)`.
            model: network or table of the greedy policy.
            global_step: environment steps so far.
            seconds: seconds of training so far.

        Raises:
            UserError: as `play_episodes`; if a file cannot be written.
        """
        with unchanged_generators():
            returns = evaluate(model, self.config)
            row = {
                "global_step": global_step,
                "seconds": round(seconds, 3),
                "mean_return": float(returns.mean()),
                "std_return": float(returns.std()),
                "min_return": float(returns.min()),
                "max_return": float(returns.max()),
            }
            with write_errors(self.folder):
                self.logger.write_evaluation(row)
                if self.config.save_model and row["mean_return"] > self.best["mean_return"]:
                    self._save_best(model, row)

    def _save_best(self, model: Any, row: dict[str, float]) -> None:
        path = save_model(model, self.folder, "best_model")  # first: a crash between the two loses no model
        self.best = {"model": path.name} | {name: row[name] for name in ("global_step", "mean_return")}
        text = json.dumps(self.best | {"episodes": self.episodes})
        write_text(self.folder / "best_model.json", text + "\n")

    def print_best(self) -> None:
        """Print the path of the best model, its mean return, and its step, if there is one."""
        if name := self.best["model"]:
            result = f"mean return {self.best['mean_return']:.1f} at step {self.best['global_step']:,}"
            print(f"best model: {self.folder / name} ({result})", flush=True)


def read_best(path: Path, episodes: dict[str, Any]) -> dict[str, Any]:
    """Return file name, step, and mean return of the best model; without one, the return is -inf.

    A model that played other episodes than `episodes` describes, before the run was resumed, does not count.

    Raises:
        UserError: if the file cannot be read.
    """
    none = {"model": None, "global_step": 0, "mean_return": -math.inf}
    if not path.exists():
        return none
    try:
        best = json.loads(path.read_text())
        if best.get("episodes", episodes) != episodes:
            return none
        kinds = {"model": str, "global_step": int, "mean_return": float}
        return {name: kind(best[name]) for name, kind in kinds.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: delete it to forget the best model") from error


def check_evaluations(config: RunConfig) -> None:
    """Check the options of evaluations; warn if training ends before the first one.

    Raises:
        UserError: if evaluations have no episodes to play, or if a saved model should be evaluated.
    """
    if config.evaluate:
        raise UserError("evaluate is for the command line: train does not evaluate a saved model")
    for name in ("eval_frequency", "capture_video", "render"):
        if getattr(config, name) and not config.eval_episodes:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option} needs episodes to play, and --eval-episodes is 0: give at least 1, or no {option}"
            )
    if config.eval_frequency > config.total_timesteps:
        print(
            f"warning: training ends at step {config.total_timesteps:,}, before the first evaluation:"
            f" --eval-frequency is {config.eval_frequency:,}",
            file=sys.stderr,
        )

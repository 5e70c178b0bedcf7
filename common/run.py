"""One training run: its folder, progress bar, checkpoints, metrics, and final evaluation.

A script's `train` uses a `Run` like this:

    run = Run(config)                                  # validate the options, seed the generators
    run.checkpoint(agent=agent, rng=rng)               # create the folder, or restore a resumed run
    for global_step in run.steps(config.num_envs):     # progress bar, checkpoints, Ctrl-C
        ...
        run.record(infos)                              # returns of finished episodes
        run.log(td_loss=...)                           # a row of metrics.csv, if one is due
        run.evaluate(evaluate, agent.q_network)        # a row of evaluations.csv, if one is due
    return run.finish(evaluate, q_network=...)         # model, learning curve, evaluation
"""

from collections import deque
from collections.abc import Callable, Iterator
import dataclasses
import json
import math
from pathlib import Path
import shlex
import sys
import time
from typing import Any

from common.checkpoint import Checkpoints, read_counters
from common.envs import finished_episodes
from common.evaluation import check_display, check_video, print_evaluation
from common.logger import Logger, check_not_nan, draw_learning_curve
from common.options import RunConfig, validate
from common.periodic_evaluation import PeriodicEvaluation, check_evaluations
from common.run_folder import check_same_task, create_run_folder, lock, save_config, write_errors, write_text
from common.saved_model import save_model
from common.seeding import seed_everything
from common.signals import Stopped, StopSignal
import numpy as np
from tqdm import tqdm


@dataclasses.dataclass
class Result:
    """What `train` returns.

    Attributes:
        model: network of the greedy policy, a Keras model (a NumPy array for a table).
        networks: all online networks by name.
        episode_returns: undiscounted returns (episodes,) of the training episodes, in the order they ended.
        evaluation_returns: undiscounted returns (eval_episodes,) of the greedy policy.
        folder: run folder.
    """

    model: Any
    networks: dict[str, Any]
    episode_returns: np.ndarray
    evaluation_returns: np.ndarray
    folder: Path


class Run:
    """One training run.

    Args:
        config: options of the script.

    Raises:
        UserError: for an invalid option, an environment that cannot be shown or recorded as asked, or if
            `resume` is not a run folder of this script and environment.
    """

    def __init__(self, config: RunConfig):
        validate(config)
        seed_everything(config)
        check_display(config)
        check_video(config)
        check_evaluations(config)
        self.config = config
        self.global_step = self._steps_before = 0
        self.stop_signal = StopSignal()
        self.episode_returns: list[float] = []
        self._recent_returns: deque[float] = deque(maxlen=100)
        self._unlogged_episodes: list[tuple[float, int]] = []
        self._last_row_step: int | None = None
        self._last_metrics: dict[str, Any] = {}
        self._seconds_before = 0.0  # of a resumed run
        self._started = self._last_checkpoint_time = time.perf_counter()
        self._checkpoint_seconds = 0.0
        self._bar: tqdm | None = None
        if config.resume:
            self.folder = Path(config.resume)
            self._read_counters()

    @property
    def progress(self) -> float:
        """Fraction of the training that was done before the current iteration of `steps`, from 0 to 1."""
        return self._steps_before / self.config.total_timesteps

    @property
    def env_seeds(self) -> list[int]:
        """A seed for each environment's reset. Runs with another seed and resumed runs get others."""
        words = [self.config.seed, 0, self.global_step]
        return np.random.SeedSequence(words).generate_state(self.config.num_envs).tolist()

    # Checkpoints

    def checkpoint(self, **objects: Any) -> None:
        """Create the run folder and define what checkpoints hold; in a resumed run, restore all of it.

        Call this after the environments and networks exist: if one of them fails, no folder is left.

        Args:
            objects: what a checkpoint holds, as for `Checkpoints`.

        Raises:
            UserError: if the folder cannot be created or is in use, the disk has no room for two checkpoints,
                or the checkpoint does not fit the objects.
        """
        if not self.config.resume:
            self.folder = create_run_folder(self.config)
            with write_errors(self.folder):
                save_config(self.config, self.folder)
        self._lock = lock(self.folder)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", objects)
        self.checkpoints.check_space(self.folder)
        self.checkpoints.restore()
        with write_errors(self.folder):  # only now: a run that cannot be resumed stays as it was
            save_config(self.config, self.folder)
            self.logger = Logger(self.config, self.folder, first_step=self.global_step)
        self.periodic_evaluation = PeriodicEvaluation(self.config, self.folder, self.logger)
        print(f"run folder: {self.folder}", flush=True)
        if self.config.resume and not self.checkpoints.last:
            print("it has no checkpoint yet: training starts from the beginning", flush=True)
        self._started = time.perf_counter()

    def save_checkpoint(self) -> None:
        """Save a checkpoint of this step.

        Raises:
            UserError: if it cannot be written; the previous checkpoint is kept.
        """
        started = time.perf_counter()
        counters = {
            "global_step": self.global_step,
            "seconds": self._seconds,
            "last_row_step": self._last_row_step,
            "unlogged_episodes": self._unlogged_episodes,
            "episode_returns": self.episode_returns,
        }
        with write_errors(self.folder):
            self.checkpoints.save(self.global_step, counters)
        self._last_checkpoint_time = time.perf_counter()
        self._checkpoint_seconds = self._last_checkpoint_time - started

    def _checkpoint_is_due(self, increment: int) -> bool:
        """Whether a checkpoint is due; saving takes at most 2 % of the time."""
        frequency = self.config.checkpoint_frequency
        finished = self.global_step >= self.config.total_timesteps
        if not frequency or self.global_step % frequency >= increment or finished:
            return False
        return time.perf_counter() - self._last_checkpoint_time >= 49 * self._checkpoint_seconds

    def _read_counters(self) -> None:
        check_same_task(self.folder, self.config)
        if counters := read_counters(self.folder / "checkpoints"):
            self.global_step, self._seconds_before = counters["global_step"], counters["seconds"]
            self._last_row_step = counters["last_row_step"]
            self._unlogged_episodes = [tuple(episode) for episode in counters["unlogged_episodes"]]
            self.episode_returns = counters["episode_returns"]
            self._recent_returns.extend(self.episode_returns[-100:])

    # The training loop

    def steps(self, increment: int) -> Iterator[int]:
        """Yield the number of environment steps, including those of this iteration, up to `total_timesteps`.

        Each iteration is `increment` environment steps. Checkpoints are written between iterations. Ctrl-C
        or SIGTERM ends the loop after the current iteration; a second one ends the process at once.
        """
        total = self.config.total_timesteps
        interval = 0.1 if sys.stderr.isatty() else 10.0
        with (
            self.stop_signal,
            tqdm(
                total=total, initial=self.global_step, unit="step", mininterval=interval, smoothing=0.1
            ) as self._bar,
        ):
            while self.global_step < total and not self.stop_signal.number:
                self._steps_before = self.global_step
                self.global_step += increment
                yield self.global_step
                self._bar.update(min(increment, total - self._bar.n))
                if self._checkpoint_is_due(increment):
                    self.save_checkpoint()

    def record(self, infos: dict) -> None:
        """Record the episodes that ended in the last step of the environments."""
        for episode in finished_episodes(infos):
            self._unlogged_episodes.append(episode)
            self.episode_returns.append(episode[0])
            self._recent_returns.append(episode[0])
            if self._bar is not None:
                mean = sum(self._recent_returns) / len(self._recent_returns)
                self._bar.set_postfix_str(f"return {mean:.1f}", refresh=False)

    def log(self, **metrics: Any) -> None:
        """Write a row of metrics, at most one in each interval of `log_frequency` environment steps.

        `episodic_return` and `episodic_length` are means over the episodes that ended since the last row;
        they are empty if none did.

        Raises:
            UserError: if a metric of the row is NaN. Networks that have diverged replace no checkpoint then.
        """
        self._last_metrics = metrics
        if self.row_is_due:
            self._write_row()

    @property
    def row_is_due(self) -> bool:
        """Whether `log` would write a row now."""
        last, frequency = self._last_row_step, self.config.log_frequency
        return last is None or self.global_step // frequency > last // frequency

    def _write_row(self) -> None:
        metrics = {name: float(value) for name, value in self._last_metrics.items()}
        check_not_nan(metrics)
        self._last_row_step = self.global_step
        returns, lengths = zip(*self._unlogged_episodes, strict=True) if self._unlogged_episodes else ((), ())
        self._unlogged_episodes = []
        row = {
            "global_step": self.global_step,
            "seconds": round(self._seconds, 3),
            "episodic_return": float(np.mean(returns)) if returns else math.nan,
            "episodic_length": float(np.mean(lengths)) if lengths else math.nan,
            **metrics,
        }
        with write_errors(self.folder):
            self.logger.write(row)

    def evaluate(self, evaluate: Callable[..., np.ndarray], model: Any) -> None:
        """Evaluate `model` with the script's `evaluate`, once every `eval_frequency` environment steps.

        Meanwhile the clock stands still: `seconds` and the rate of the progress bar are those of training.
        """
        frequency = self.config.eval_frequency
        if not frequency or self.global_step // frequency == self._steps_before // frequency:
            return
        started = time.perf_counter()
        self.periodic_evaluation.play(evaluate, model, self.global_step, self._seconds)
        pause = time.perf_counter() - started
        self._started += pause
        if not self._bar.disable:  # by the environment variable TQDM_DISABLE
            self._bar.start_t += pause
            self._bar.last_print_t += pause

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    # The end

    def finish(self, evaluate: Callable[..., np.ndarray], **networks: Any) -> Result:
        """Save model and checkpoint, draw the learning curve, evaluate, and return the `Result`.

        Args:
            evaluate: the script's `evaluate(model, config, folder)`.
            networks: all online networks by name, the one of the greedy policy first.

        Raises:
            Stopped: after saving, if a signal ended the training loop.
        """
        model, returns = next(iter(networks.values())), np.zeros(0)
        if not (self._last_metrics or self.config.resume or self.stop_signal.number):
            print("warning: the run ended before its first update: raise --total-timesteps", file=sys.stderr)
        if self._last_row_step != self.global_step:
            self._write_row()
        self.save_checkpoint()
        with write_errors(self.folder):
            if self.config.save_model:
                print(f"model: {save_model(model, self.folder)}", flush=True)
            self.periodic_evaluation.print_best()
            if curve := draw_learning_curve(self.config, self.folder):
                print(f"learning curve: {curve}", flush=True)
            (self.folder / "evaluation.json").unlink(missing_ok=True)  # of the model before a resumed run
        if not self.stop_signal.number and self.config.eval_episodes:
            returns = evaluate(model, self.config, self.folder)
            with write_errors(self.folder):
                write_text(self.folder / "evaluation.json", json.dumps({"returns": returns.tolist()}))
                scalars = {"global_step": self.global_step, "evaluation_return": float(returns.mean())}
                self.logger.write_scalars(scalars)
        with write_errors(self.folder):
            self.logger.close()
        if self.stop_signal.number:
            raise Stopped(
                f"stopped at step {self.global_step:,}; continue with "
                + shlex.join(["python", self.config.script, "--resume", str(self.folder)]),
                self.stop_signal.number,
            )
        if len(returns):
            print_evaluation(returns)
        return Result(model, networks, np.array(self.episode_returns), returns, self.folder)

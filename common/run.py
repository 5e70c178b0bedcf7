"""A run from its first line to its last file: folder, metrics, progress, checkpoints, model, evaluation.

Nothing here knows an algorithm. A script's `train` uses a `Run` like this:

    run = Run(config, "dqn")                       # options checked, generators seeded, folder made
    run.checkpoint(q_network=..., buffer=...)      # what has to survive; read back here when resuming
    for step in run.steps(config.num_envs):        # progress bar, checkpoints, Ctrl-C
        ...
        run.record(infos)                          # episodes that ended
        run.log(td_loss=...)                       # a row of metrics.csv, where one is due
    return run.finish(model, networks, evaluate)   # model.keras, learning curve, evaluation
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
import csv
import dataclasses
from importlib.metadata import version
import json
import logging
import math
import os
from pathlib import Path
import platform
import random
import shutil
import signal
import sys
import threading
import time
from typing import Any, ClassVar
import uuid

from common.envs import episode_ends, make_env, make_video_env, view_options
from common.errors import UserError
from common.options import RunConfig, check, load_config, parse
from common.quiet import without_chatter
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm


@dataclasses.dataclass
class Result:
    """What `train` returns.

    Attributes:
        model: the policy, a Keras model.
        networks: every online network by name.
        episode_returns: undiscounted returns (episodes,) of the training episodes, in the order they ended.
        evaluation_returns: undiscounted returns (eval_episodes,) of the greedy policy.
        folder: the run folder.
    """

    model: Any
    networks: dict[str, Any]
    episode_returns: np.ndarray
    evaluation_returns: np.ndarray
    folder: Path


class Run:
    """One training run: its folder, and everything that is written there.

    Args:
        config: the options of the script.
        algorithm: the script's name.

    Raises:
        UserError: for an option out of its range, an environment that cannot be recorded, or a run folder
            to resume that is none.
    """

    def __init__(self, config: RunConfig, algorithm: str):
        check(config)
        self.config, self.algorithm = config, algorithm
        self.global_step = 0
        self.interrupted = False
        self.episode_returns: list[float] = []
        self._recent_returns: deque[float] = deque(maxlen=100)
        self._unlogged_episodes: list[tuple[float, int]] = []
        self._last_row_step: int | None = None
        self._last_metrics: dict[str, Any] = {}
        self._seconds_before = 0.0
        self.state: dict[str, Any] = {}
        self._bar: tqdm | None = None
        seed_everything(config)
        if config.capture_video:
            make_video_env(config.env_id, algorithm, "", **view_options(config)).env.close()
        self._started = time.perf_counter()
        self.folder = Path(config.resume or "")  # a new one is made when all else has been: see checkpoint
        if config.resume:
            self._read_counters()

    @property
    def env_seeds(self) -> list[int]:
        """A seed for the reset of each environment; runs of other seeds and resumed runs share none."""
        words = [self.config.seed, 0, self.global_step]
        return np.random.SeedSequence(words).generate_state(self.config.num_envs).tolist()

    # ---- what survives -----------------------------------------------------------------------------------

    def checkpoint(self, **state: Any) -> None:
        """Make the run folder and name what a checkpoint holds; when resuming, read it back.

        Nothing is written before: what was wrong with the environment or the networks leaves no folder.
        Each value is a Keras model or optimizer or another TensorFlow trackable, a `np.random.Generator`,
        a NumPy array, or an object with `save_state(path)` and `load_state(path)`.

        Raises:
            UserError: if the folder cannot be made, the disk has no room for two checkpoints, or the
                checkpoint does not fit.
        """
        self.state = state
        if not self.config.resume:
            try:
                self.folder = _new_folder(self.config, self.algorithm)
                self._write_config()
            except OSError as error:
                raise UserError(
                    f"cannot write to {self.config.runs_dir}: {error.strerror or error}: choose --runs-dir"
                ) from error
        needed = 2 * sum(getattr(value, "nbytes", 0) for value in state.values()) + 10_000_000
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder} has {free:,} bytes free and checkpoints may take {needed:,}:"
                " free some, or choose --runs-dir"
            )
        if folder := self._last_checkpoint():
            try:
                self._restore(folder)
            except Exception as error:  # whatever a file of other shapes makes its reader raise
                logging.getLogger("tensorflow").setLevel(logging.ERROR)  # lists what is left over
                raise UserError(f"{folder} does not fit: resume with the options the run had") from error
        with self._writing():  # only now: a run that cannot be resumed is left as it was
            self._write_config()
            self._metrics = _MetricsFile(self.folder / "metrics.csv", keep_until=self.global_step)
            # a queue that never fills: the writer's thread ends with the first write that fails
            self._tensorboard = SummaryWriter(
                str(self.folder), purge_step=self.global_step + 1, max_queue=10**9, flush_secs=5
            )
        self._wandb = _start_wandb(self.config, self.folder) if self.config.track else None
        print(f"run folder: {self.folder}", flush=True)
        self._started = time.perf_counter()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"cannot write to {self.folder}: {reason}: mend that, then go on with --resume {self.folder}"
            ) from error

    def save_checkpoint(self) -> None:
        """Write a checkpoint beside the last one, rename it into place, then drop the last one.

        Raises:
            UserError: if it cannot be written; the last one is still there.
        """
        root = self.folder / "checkpoints"
        final = root / f"{self.global_step:012d}"
        if final.exists():
            return
        with self._writing():
            self._write_checkpoint(root / ".partial")
            os.rename(root / ".partial", final)
        for old in root.iterdir():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    def _write_checkpoint(self, partial: Path) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        trackables, generators, arrays, others = self._kinds()
        if trackables:
            import tensorflow as tf

            try:
                tf.train.Checkpoint(**trackables).write(str(partial / "variables"))
            except tf.errors.OpError as error:
                raise OSError(f"TensorFlow cannot write {partial}") from error
        for name, value in others.items():
            value.save_state(str(partial / f"{name}.npz"))
        for name, value in arrays.items():
            np.save(partial / f"{name}.npy", value)
        state = {
            "global_step": self.global_step,
            "seconds": self._seconds(),
            "last_row_step": self._last_row_step,
            "unlogged_episodes": self._unlogged_episodes,
            "generators": {name: value.bit_generator.state for name, value in generators.items()},
        }
        (partial / "run.json").write_text(json.dumps(state))
        np.save(partial / "episode_returns.npy", np.array(self.episode_returns))

    def _kinds(self) -> tuple[dict, dict, dict, dict]:
        state = self.state
        others = {name: value for name, value in state.items() if hasattr(value, "save_state")}
        generators = {name: value for name, value in state.items() if isinstance(value, np.random.Generator)}
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        trackables = {
            name: value for name, value in state.items() if name not in others | generators | arrays
        }
        return trackables, generators, arrays, others

    def _last_checkpoint(self) -> Path | None:
        return max((self.folder / "checkpoints").glob("[0-9]*"), default=None)

    def _read_counters(self) -> None:
        """Take the run's own counters from the last checkpoint; a run killed before its first starts anew."""
        saved = load_config(self.folder)
        if (saved.get("algorithm"), saved.get("env_id")) != (self.algorithm, self.config.env_id):
            raise UserError(
                f"{self.folder} is a run of {saved.get('algorithm')} on {saved.get('env_id')}, not of"
                f" {self.algorithm} on {self.config.env_id}: resume it with its own script and environment"
            )
        if not (folder := self._last_checkpoint()):
            return
        try:
            state = json.loads((folder / "run.json").read_text())
            self.global_step, self._seconds_before = state["global_step"], state["seconds"]
            self._last_row_step = state["last_row_step"]
            self._unlogged_episodes = [tuple(episode) for episode in state["unlogged_episodes"]]
            self.episode_returns = np.load(folder / "episode_returns.npy").tolist()
            self._recent_returns.extend(self.episode_returns[-100:])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder} cannot be read: delete it to start the run anew") from error

    def _restore(self, folder: Path) -> None:
        trackables, generators, arrays, others = self._kinds()
        if trackables:
            import tensorflow as tf

            status = tf.train.Checkpoint(**trackables).read(str(folder / "variables"))
            status.assert_existing_objects_matched()
        states = json.loads((folder / "run.json").read_text())["generators"]
        for name, generator in generators.items():
            generator.bit_generator.state = states[name]
        for name, value in others.items():
            value.load_state(str(folder / f"{name}.npz"))
        for name, value in arrays.items():
            saved = np.load(folder / f"{name}.npy")
            if saved.shape != value.shape:  # one value would fill an array of any shape
                raise ValueError(f"{name} has shape {value.shape}, and the checkpoint {saved.shape}")
            value[...] = saved

    # ---- the loop ----------------------------------------------------------------------------------------

    def steps(self, increment: int) -> Iterator[int]:
        """Yield the number of environment steps, those of this round included, until `total_timesteps`.

        Each round is `increment` environment steps. Between rounds checkpoints are written; Ctrl-C ends
        the loop after the round, a second Ctrl-C at once.
        """
        frequency = self.config.checkpoint_frequency
        total = self.config.total_timesteps
        quiet = 0.1 if sys.stderr.isatty() else 10.0
        with (
            self._first_interrupt_ends_the_loop(),
            tqdm(
                total=total, initial=self.global_step, unit="step", mininterval=quiet, smoothing=0.1
            ) as self._bar,
        ):
            while self.global_step < total and not self.interrupted:
                self.global_step += increment
                yield self.global_step
                self._bar.update(increment)
                if frequency and self.global_step % frequency < increment and self.global_step < total:
                    self.save_checkpoint()

    @contextmanager
    def _first_interrupt_ends_the_loop(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return

        def on_interrupt(signum, frame):
            self.interrupted = True
            signal.signal(signal.SIGINT, previous)

        previous = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def record(self, infos: dict) -> None:
        """Take note of the episodes that ended in the last step of the environments."""
        for episode in episode_ends(infos):
            self._unlogged_episodes.append(episode)
            self.episode_returns.append(episode[0])
            self._recent_returns.append(episode[0])
            if self._bar is not None:
                mean = sum(self._recent_returns) / len(self._recent_returns)
                self._bar.set_postfix_str(f"return {mean:.1f}", refresh=False)

    def log(self, **metrics: Any) -> None:
        """Write a row to metrics.csv, TensorBoard and W&B, once in `log_frequency` environment steps.

        `episodic_return` and `episodic_length` are means over the episodes that ended since the last row,
        empty if none did.
        """
        self._last_metrics = metrics
        if self.row_is_due:
            self._write_row()

    def _write_row(self) -> None:
        self._last_row_step = self.global_step
        returns, lengths = zip(*self._unlogged_episodes, strict=True) if self._unlogged_episodes else ((), ())
        self._unlogged_episodes = []
        row = {
            "global_step": self.global_step,
            "seconds": round(self._seconds(), 3),
            "episodic_return": float(np.mean(returns)) if returns else math.nan,
            "episodic_length": float(np.mean(lengths)) if lengths else math.nan,
            **{name: float(value) for name, value in self._last_metrics.items()},
        }
        with self._writing():
            self._metrics.write(row)
        numbers = {name: value for name, value in row.items() if not math.isnan(value)}
        for name, value in numbers.items():
            self._tensorboard.add_scalar(name, value, self.global_step)
        if self._wandb:
            self._wandb.log(numbers)

    @property
    def row_is_due(self) -> bool:
        """Whether `log` would write a row now."""
        last, frequency = self._last_row_step, self.config.log_frequency
        return last is None or self.global_step // frequency > last // frequency

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    # ---- the end -----------------------------------------------------------------------------------------

    def finish(self, model: Any, networks: dict[str, Any], evaluate: Callable[..., np.ndarray]) -> Result:
        """Save the model and a last checkpoint, draw the learning curve, evaluate, and return the `Result`.

        Raises:
            KeyboardInterrupt: after saving, if Ctrl-C ended the loop.
        """
        if self._last_row_step != self.global_step:
            self._write_row()
        self.save_checkpoint()
        with self._writing():
            if self.config.save_model:
                save_model(model, self.folder)
            self._metrics.close()
            draw_learning_curve(self.folder)
        returns = np.zeros(0)
        if not self.interrupted and self.config.eval_episodes:
            returns = evaluate(model, self.config, self.folder)
            with self._writing():
                _write_atomically(self.folder / "evaluation.json", json.dumps({"returns": returns.tolist()}))
            self._tensorboard.add_scalar("evaluation_return", returns.mean(), self.global_step)
            if self._wandb:
                self._wandb.log({"evaluation_return": returns.mean(), "global_step": self.global_step})
        self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()
        if self.interrupted:
            raise KeyboardInterrupt(
                f"stopped at step {self.global_step:,}; go on with"
                f" python {self.algorithm}/{self.algorithm}.py --resume {self.folder}"
            )
        if len(returns):
            print_evaluation(returns)
        return Result(model, networks, np.array(self.episode_returns), returns, self.folder)

    def _write_config(self) -> None:
        packages = ("numpy", "gymnasium", *(name for name in ("tensorflow", "keras") if name in sys.modules))
        content = dataclasses.asdict(self.config) | {
            "algorithm": self.algorithm,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        }
        _write_atomically(self.folder / "config.json", json.dumps(content, indent=2) + "\n")


class _MetricsFile:
    """metrics.csv: a line a row, flushed as it is written, its columns those of the first row."""

    FIRST: ClassVar = ["global_step", "seconds", "episodic_return", "episodic_length"]

    def __init__(self, path: Path, keep_until: int):
        rows, self.columns = [], None
        if path.exists():  # resuming: rows later than the checkpoint will be written again
            with path.open(newline="") as file:
                self.columns, *rows = list(csv.reader(file)) or [None]
            rows = [row for row in rows if len(row) == len(self.columns) and int(row[0]) <= keep_until]
            if self.columns == self.FIRST and not rows:
                self.columns = None
        lines = [",".join(row) + "\n" for row in [self.columns or self.FIRST, *rows]]
        _write_atomically(path, "".join(lines))
        self.file = path.open("r+" if self.columns is None else "a", newline="")

    def write(self, row: dict[str, float]) -> None:
        if self.columns is None:
            self.columns = list(row)
            self.file.write(",".join(self.columns) + "\n")
        values = (row.get(name, math.nan) for name in self.columns)
        self.file.write(",".join("" if math.isnan(value) else f"{value:.10g}" for value in values) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def main(config_class: type[RunConfig], train: Callable, evaluate: Callable, algorithm: str) -> None:
    """Run a script from its command line: train, or play a saved model.

    What is the user's to mend is one line on stderr and exit code 2; Ctrl-C is exit code 130.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal without Greek letters still gets its --help
    try:
        config = parse(config_class)
        if config.evaluate:
            evaluate_saved_model(config, evaluate, algorithm)
        else:
            train(config)
    except UserError as error:
        sys.exit(_complain(str(error), 2))
    except KeyboardInterrupt as interrupt:
        sys.exit(_complain(str(interrupt) or "stopped", 130))


def seed_everything(config: RunConfig) -> None:
    """Seed Python, NumPy and, where the script uses it, TensorFlow and Keras; choose compiled or eager."""
    random.seed(config.seed)
    np.random.seed(config.seed)
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        tf.random.set_seed(config.seed)
        tf.config.run_functions_eagerly(config.eager)


def save_model(model: Any, folder: Path) -> None:
    """Write model.keras, or model.npz for a table (a NumPy array), atomically."""
    if isinstance(model, np.ndarray):
        np.savez(folder / "model.partial.npz", model=model)
        os.replace(folder / "model.partial.npz", folder / "model.npz")
        return
    model.save(folder / "model.partial.keras")
    os.replace(folder / "model.partial.keras", folder / "model.keras")


def evaluate_saved_model(config: RunConfig, evaluate: Callable[..., np.ndarray], algorithm: str) -> None:
    """Play the model of `config.evaluate` and print its evaluation; a video goes beside the model.

    Raises:
        UserError: if there is no such file, it is no Keras model, or it is one for another environment.
    """
    check(config)
    seed_everything(config)
    path = Path(config.evaluate)
    if path.is_dir():
        path = path / ("model.npz" if (path / "model.npz").exists() else "model.keras")
    if not path.is_file():
        raise UserError(f"there is no model {path}: give the model of a run folder")
    model, inputs, outputs = _load_model(path)
    with make_env(config.env_id, algorithm, **view_options(config)) as env:
        observations, actions = env.observation_space, env.action_space
        discrete = isinstance(model, np.ndarray) and hasattr(observations, "n")
        needed_inputs = (int(observations.n),) if discrete else observations.shape
        needed_outputs = int(actions.n) if hasattr(actions, "n") else int(np.prod(actions.shape))
        gaussian = 0 if hasattr(actions, "n") else 2 * needed_outputs  # a mean and a deviation each
        if inputs != needed_inputs or outputs not in (needed_outputs, gaussian):
            raise UserError(
                f"{path} maps {inputs} to ({outputs},), and {config.env_id} needs {needed_inputs} to"
                f" ({needed_outputs},): give the --env-id it was trained on"
            )
    returns = evaluate(model, config, path.parent)
    if len(returns):
        print_evaluation(returns)


def _load_model(path: Path) -> tuple[Any, tuple[int, ...], int]:
    """Read a saved model; return it, the shape of its inputs (states of a table), and its outputs."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as saved:
                table = saved["model"]
            return table, table.shape[:1], table.shape[1]
        with without_chatter():
            import keras

        model = keras.models.load_model(path, compile=False)
        return model, model.input_shape[1:], model.output_shape[-1]
    except Exception as error:  # Keras raises whatever the file's contents made it raise
        raise UserError(
            f"{path} is not a model that can be loaded: give the model of a run folder"
        ) from error


def print_evaluation(returns: np.ndarray) -> None:
    """Print the line that every run ends with: mean ± standard deviation over episodes."""
    print(
        f"evaluation: mean return {returns.mean():.1f} ± {returns.std():.1f} over {len(returns)} episodes",
        flush=True,
    )


def draw_learning_curve(folder: Path) -> None:
    """Leave learning_curve.png, the episodic return against environment steps, beside metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["episodic_return"]]
    if not rows:
        return
    from matplotlib.figure import Figure  # draws without a screen, and is needed here alone

    axes = Figure(figsize=(6, 4), layout="constrained").add_subplot()
    axes.plot([int(row["global_step"]) for row in rows], [float(row["episodic_return"]) for row in rows])
    axes.set(xlabel="environment steps", ylabel="episodic return", title=folder.name)
    axes.figure.savefig(folder / "learning_curve.png", dpi=100)


def _new_folder(config: RunConfig, algorithm: str) -> Path:
    env_name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in config.env_id)
    name = f"{env_name}__{algorithm}__{config.seed}__{int(time.time())}"
    Path(config.runs_dir).mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"_{k}" for k in range(1, 1000))):
        folder = Path(config.runs_dir) / (name + suffix)
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another run of this second
            continue
    raise UserError(f"{config.runs_dir} holds 1000 runs named {name}: choose another --runs-dir")


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _start_wandb(config: RunConfig, folder: Path) -> Any:
    import wandb

    identity = folder / "wandb_id.txt"  # a resumed run goes on in the same page
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex)
    try:
        run = wandb.init(
            project=config.wandb_project,
            name=folder.name,
            id=identity.read_text(),
            resume="allow",
            config=dataclasses.asdict(config),
        )
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--track: {reason} Log in with `wandb login`, or set WANDB_MODE=offline") from error
    run.define_metric("*", step_metric="global_step")  # rows that a resumed run writes again, it writes over
    return run


def _complain(message: str, code: int) -> int:
    print(f"{'error' if code == 2 else 'interrupted'}: {message}", file=sys.stderr)
    return code

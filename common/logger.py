"""Metrics of a run: metrics.csv, evaluations.csv, TensorBoard, Weights & Biases, and the learning curve."""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import math
import os
from pathlib import Path
import sys
from typing import Any
import uuid

from common.errors import UserError
from common.options import RunConfig
from common.run_folder import replacing, write_text
import gymnasium as gym
import numpy as np
from tensorboardX import SummaryWriter

METRICS_COLUMNS = ("global_step", "seconds", "episodic_return", "episodic_length")  # and the script's own
EVALUATION_COLUMNS = ("global_step", "seconds", "mean_return", "std_return", "min_return", "max_return")


class Logger:
    """Writes metrics to metrics.csv, evaluations to evaluations.csv, and both to TensorBoard and W&B.

    W&B takes part with `--track`, evaluations.csv with `--eval-frequency`.

    Args:
        config: options of the run.
        folder: run folder.
        first_step: rows of a resumed run after this step are dropped, because they will be written again.
    """

    def __init__(self, config: RunConfig, folder: Path, first_step: int):
        self.folder = folder
        self.csv = MetricsFile(folder / "metrics.csv", keep_until=first_step)
        evaluations = folder / "evaluations.csv"
        self.evaluations_csv = None
        if config.eval_frequency or evaluations.exists():
            self.evaluations_csv = MetricsFile(evaluations, first_step, EVALUATION_COLUMNS)
        # an unbounded queue, because the writer thread ends at the first write that fails
        self.tensorboard = SummaryWriter(
            str(folder), purge_step=first_step + 1, max_queue=10**9, flush_secs=5
        )
        self.wandb = start_wandb(config, folder) if config.track else None

    def write(self, row: dict[str, float]) -> None:
        """Write a row. It holds "global_step"; values that are NaN are left out.

        Raises:
            OSError: if metrics.csv or the TensorBoard file cannot be written.
        """
        self.csv.write(row)
        self.write_scalars(row)

    def write_evaluation(self, row: dict[str, float]) -> None:
        """Write the row of an evaluation; its scalars are in a group of their own.

        Raises:
            OSError: as `write`.
        """
        self.evaluations_csv.write(row)
        scalars = {f"evaluation/{name}": row[name] for name in row if name.endswith("_return")}
        self.write_scalars({"global_step": row["global_step"], **scalars})

    def write_scalars(self, row: dict[str, float]) -> None:
        """Write a row to TensorBoard and W&B only."""
        numbers = {name: value for name, value in row.items() if not math.isnan(value)}
        for name, value in numbers.items():
            self.tensorboard.add_scalar(name, value, row["global_step"])
        if not self.tensorboard.file_writer.event_writer._worker.is_alive():
            raise OSError("the TensorBoard writer has stopped, perhaps because the disk is full")
        if self.wandb:
            self.wandb.log(numbers)

    def close(self) -> None:
        """Finish all files."""
        self.csv.close()
        if self.evaluations_csv:
            self.evaluations_csv.close()
        self.tensorboard.close()
        if self.wandb:
            self.wandb.finish()


class MetricsFile:
    """A CSV file: one line per row, flushed at once, with the columns of the first row with metrics.

    Args:
        path: of the file; a resumed run appends to it.
        keep_until: rows after this step are dropped.
        header: columns of a file without rows.
    """

    def __init__(self, path: Path, keep_until: int, header: Sequence[str] = METRICS_COLUMNS):
        self.path, columns, rows = path, None, []
        if path.exists():
            with path.open(newline="") as file:
                columns, *rows = list(csv.reader(file)) or [None]
            rows = [row for row in rows if len(row) == len(columns) and int(row[0]) <= keep_until]
        self.columns = columns if rows else None
        lines = [",".join(row) + "\n" for row in [self.columns or header, *rows]]
        write_text(path, "".join(lines))
        self.file = path.open("a" if rows else "r+", newline="")
        self.left_out: set[str] = set()

    def write(self, row: dict[str, float]) -> None:
        """Append a row; the first one with metrics of the script decides the columns."""
        if self.columns is None:
            self.columns = list(row)
            self.file.truncate()  # the header of a run without rows
            self.file.write(",".join(self.columns) + "\n")
        if self.columns == list(METRICS_COLUMNS) and len(row) > len(self.columns):
            self._add_columns(list(row))
        if unknown := row.keys() - {*self.columns, *self.left_out}:
            self.left_out |= unknown
            names = ", ".join(sorted(unknown))
            where = f"{self.file.name} has no column for these metrics"
            print(f"warning: {where}, which are left out: {names}", file=sys.stderr)
        values = (row.get(name, math.nan) for name in self.columns)
        self.file.write(",".join("" if math.isnan(value) else f"{value:.10g}" for value in values) + "\n")
        self.file.flush()

    def _add_columns(self, columns: list[str]) -> None:
        """Give the rows that were written before the first update all columns."""
        self.file.close()
        _, *rows = self.path.read_text().splitlines()
        empty = "," * (len(columns) - len(self.columns))
        lines = [",".join(columns), *(row + empty for row in rows)]
        write_text(self.path, "\n".join(lines) + "\n")
        self.columns, self.file = columns, self.path.open("a", newline="")

    def close(self) -> None:
        """Sync and close the file."""
        os.fsync(self.file.fileno())
        self.file.close()


def check_not_nan(metrics: dict[str, float]) -> None:
    """Check that no metric is NaN.

    Raises:
        UserError: naming the first one that is.
    """
    for name, value in metrics.items():
        if math.isnan(value):
            raise UserError(
                f"the metric {name} is NaN: if it is a loss, training has diverged: lower the learning rate,"
                " and train again"
            )


def start_wandb(config: RunConfig, folder: Path) -> Any:
    """Start a run of Weights & Biases, or continue the one of a resumed run.

    Raises:
        UserError: if W&B cannot start, for example without an API key.
    """
    import wandb

    identity = folder / "wandb_id.txt"
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
        raise UserError(f"--track: {reason} Run `wandb login`, or set WANDB_MODE=offline") from error
    run.define_metric("*", step_metric="global_step")  # a resumed run overwrites the rows it repeats
    return run


def draw_learning_curve(config: RunConfig, folder: Path) -> Path | None:
    """Save learning_curve.png: returns of training episodes and their moving average, by environment steps.

    Evaluations during training are points. The dashed line is the reward threshold that Gymnasium gives for
    the environment, if it gives one, and if the run sets no options of the environment.
    """
    steps, returns = read_column(folder / "metrics.csv", "episodic_return")
    evaluation_steps, mean_returns = read_column(folder / "evaluations.csv", "mean_return")
    if not returns and not mean_returns:
        return None
    from matplotlib.figure import Figure  # slow to import, and used only here

    spec = gym.registry.get(config.env_id.rpartition(":")[2])
    axes = Figure(figsize=(6, 4), layout="constrained").add_subplot()
    axes.plot(steps, returns, color="tab:blue", alpha=0.25, label="mean return between two rows")
    axes.plot(steps, moving_average(returns), color="tab:blue", label="moving average")
    if mean_returns:
        label = "evaluation, greedy policy"
        axes.plot(evaluation_steps, mean_returns, "o", color="tab:orange", markersize=4, label=label)
    if spec is not None and spec.reward_threshold is not None and not config.env_kwargs:
        axes.axhline(spec.reward_threshold, color="gray", linestyle="--", label="reward threshold")
    axes.set(xlabel="environment steps", ylabel="return" if mean_returns else "return of training episodes")
    axes.set_title(f"{config.algorithm} on {config.env_id}, seed {config.seed}")
    axes.legend(loc="best", frameon=False)
    with replacing(folder / "learning_curve.png") as partial:
        axes.figure.savefig(partial, dpi=100)
    return folder / "learning_curve.png"


def read_column(path: Path, name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of a column of a CSV file without its empty cells; no file has no rows."""
    if not path.exists():
        return [], []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[name]]
    return [int(row["global_step"]) for row in rows], [float(row[name]) for row in rows]


def moving_average(values: Iterable[float]) -> np.ndarray:
    """Average each value with its neighbors, over a tenth of the curve; the window shrinks at both ends."""
    values = np.asarray(values)
    reach = len(values) // 20
    return np.array([values[max(0, k - reach) : k + reach + 1].mean() for k in range(len(values))])

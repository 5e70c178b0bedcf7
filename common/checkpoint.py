"""Checkpoints: TensorFlow objects, NumPy arrays and generators, and buffers, saved together."""

import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any

from common.errors import UserError
from common.run_folder import sync, write_text
import numpy as np


class Checkpoints:
    """The checkpoints of one run. Only the newest is kept.

    Args:
        folder: where checkpoints are written, one subfolder each, named by its step.
        objects: what a checkpoint holds, by name. Each value is a `tf.Module` or another trackable object
            of TensorFlow, a `np.random.Generator`, a NumPy array, or an object with `save_state(path)` and
            `load_state(path)`.
    """

    def __init__(self, folder: Path, objects: dict[str, Any]):
        self.folder = folder
        self.stateful = {name: value for name, value in objects.items() if hasattr(value, "save_state")}
        self.generators = {k: value for k, value in objects.items() if isinstance(value, np.random.Generator)}
        self.arrays = {name: value for name, value in objects.items() if isinstance(value, np.ndarray)}
        others = self.stateful | self.generators | self.arrays
        self.trackables = {name: value for name, value in objects.items() if name not in others}

    @property
    def nbytes(self) -> int:
        """Approximate bytes of one checkpoint, without the networks."""
        return sum(value.nbytes for value in (self.arrays | self.stateful).values())

    def check_space(self, folder: Path) -> None:
        """Check that the disk of the run folder has room for two checkpoints.

        Raises:
            UserError: if it has not.
        """
        needed, free = 2 * self.nbytes + 10_000_000, shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"checkpoints may need {needed:,} bytes, and {folder} has {free:,} bytes free:"
                " free some space, or choose another --runs-dir"
            )

    @property
    def last(self) -> Path | None:
        """The newest complete checkpoint."""
        return last_checkpoint(self.folder)

    def save(self, step: int, counters: dict[str, Any]) -> None:
        """Write the checkpoint of `step`, rename it into place, and delete the previous one.

        If this step has a checkpoint, only its counters are written again.

        Raises:
            OSError: if it cannot be written; the previous checkpoint is kept.
        """
        final, partial = self.folder / f"{step:012d}", self.folder / ".partial"
        generators = {name: value.bit_generator.state for name, value in self.generators.items()}
        counters = json.dumps(counters | {"generators": generators})
        if final.exists():
            write_text(final / "run.json", counters)
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if self.trackables:
            import tensorflow as tf

            try:
                tf.train.Checkpoint(**self.trackables).write(str(partial / "variables"))
            except tf.errors.OpError as error:
                raise OSError(f"TensorFlow cannot write {partial}") from error
        for name, value in self.stateful.items():
            value.save_state(str(partial / f"{name}.npz"))
        for name, value in self.arrays.items():
            np.save(partial / f"{name}.npy", value)
        (partial / "run.json").write_text(counters)
        sync(partial)
        os.rename(partial, final)
        for old in self.folder.iterdir():
            if old != final:
                shutil.rmtree(old, ignore_errors=True)

    def restore(self) -> None:
        """Set every object to its state in the newest checkpoint, if there is one.

        The learning rates of optimizers stay as they are: they are options of a run.

        Raises:
            UserError: if the checkpoint does not fit the objects.
        """
        if folder := self.last:
            try:
                self._restore(folder)
            except Exception as error:  # reading arrays of other shapes can raise anything
                logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it would list every unused value
                raise UserError(f"{folder} does not fit: resume with the options of that run") from error

    def _restore(self, folder: Path) -> None:
        if self.trackables:
            import keras
            import tensorflow as tf

            objects = list(self.trackables.values())
            objects += [value for one in objects for value in vars(one).values()]
            rates = [one.learning_rate for one in objects if isinstance(one, keras.optimizers.Optimizer)]
            rates = [rate for rate in rates if isinstance(rate, keras.Variable)]  # not one of a schedule
            options = [float(rate) for rate in rates]  # of this run; the saved ones may differ
            status = tf.train.Checkpoint(**self.trackables).read(str(folder / "variables"))
            status.assert_consumed()  # a run without its normalizer, for example, does not fit
            for rate, option in zip(rates, options):
                rate.assign(option)
        states = json.loads((folder / "run.json").read_text())["generators"]
        for name, generator in self.generators.items():
            generator.bit_generator.state = states[name]
        for name, value in self.stateful.items():
            value.load_state(str(folder / f"{name}.npz"))
        for name, value in self.arrays.items():
            saved = np.load(folder / f"{name}.npy")
            if saved.shape != value.shape:  # assignment would broadcast a smaller array
                raise ValueError(f"{name} has shape {value.shape}, the checkpoint has {saved.shape}")
            value[...] = saved


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`."""
    return max(folder.glob("[0-9]*"), default=None)


def read_counters(folder: Path) -> dict[str, Any] | None:
    """Return the counters of the newest checkpoint in `folder`, or None if there is no checkpoint.

    Raises:
        UserError: if it cannot be read.
    """
    if not (newest := last_checkpoint(folder)):
        return None
    try:
        return json.loads((newest / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{newest} cannot be read: delete it to train from the beginning") from error

"""Seeds of the global random generators, and code that must not draw from them."""

from collections.abc import Iterator
from contextlib import contextmanager
import random
import sys

from common.options import RunConfig
import numpy as np


def seed_everything(config: RunConfig) -> None:
    """Seed Python, NumPy and, if loaded, TensorFlow and Keras; switch to eager updates if asked."""
    random.seed(config.seed)
    np.random.seed(config.seed)
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        tf.random.set_seed(config.seed)
        tf.config.run_functions_eagerly(config.eager)


@contextmanager
def unchanged_generators() -> Iterator[None]:
    """Restore the global generators of Python and NumPy after this block.

    Keras draws from Python's when it builds layers, and an environment may draw from either.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def generators_seeded_with(seed: int) -> Iterator[None]:
    """Seed the global generators of Python and NumPy for this block, and restore them after it."""
    with unchanged_generators():
        random.seed(seed)
        np.random.seed(seed)
        yield

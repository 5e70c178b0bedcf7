"""Replay buffer: transitions in preallocated NumPy rings, sampled many minibatches at a time."""

import json
from typing import NamedTuple

from common.errors import UserError
import gymnasium as gym
import numpy as np
import psutil


class Transitions(NamedTuple):
    """Transitions, stacked along any leading axes.

    There is no `truncated`: a time limit ends an episode, but not the value of the state it was reached in,
    so the only mask of a bootstrapped target is `terminated` (Pardo et al. 2018, section 3).
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray


class ReplayBuffer:
    """The last `capacity` transitions (Lin 1992; D in Mnih et al. 2015, Algorithm 1).

    Observations and actions keep the dtype of their space (uint8 stays uint8); rewards are float32 and
    terminations bool. The rings take `capacity` times the bytes of one transition and nothing else.

    Args:
        capacity: number of transitions, over all environments.
        observation_space: of one environment: Box or Discrete.
        action_space: of one environment: Box or Discrete.
        seed: seeds the sampling, and nothing but the sampling.

    Raises:
        UserError: for a space that is no array of fixed size, or a buffer larger than the free memory.
    """

    def __init__(self, capacity: int, observation_space: gym.Space, action_space: gym.Space, seed: int = 0):
        if capacity < 1:
            raise UserError(
                f"a replay buffer of {capacity} transitions cannot be: buffer_size must be at least 1"
            )
        for space in (observation_space, action_space):
            if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
                raise UserError(
                    f"the replay buffer holds Box and Discrete spaces, not {space}: flatten it first"
                )
        fields = Transitions(
            observations=(observation_space.shape, observation_space.dtype),
            actions=(action_space.shape, action_space.dtype),
            rewards=((), np.float32),
            next_observations=(observation_space.shape, observation_space.dtype),
            terminated=((), np.bool_),
        )
        needed = capacity * sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in fields)
        available = psutil.virtual_memory().available
        if needed > available:
            raise UserError(
                f"a buffer of {capacity:,} transitions takes {needed:,} bytes, and {available:,} are free:"
                f" lower --buffer-size to at most {int(capacity * 0.9 * available / needed):,}"
            )
        self.capacity = capacity
        self.storage = Transitions(*(np.zeros((capacity, *shape), dtype) for shape, dtype in fields))
        self.rng = np.random.default_rng([seed, 1])  # [seed] alone is an environment's stream
        self.position = 0  # where the next transition goes
        self.size = 0

    def __len__(self) -> int:
        return self.size

    @property
    def nbytes(self) -> int:
        """Bytes of the rings."""
        return sum(ring.nbytes for ring in self.storage)

    def add(self, observations, actions, rewards, next_observations, terminated) -> None:
        """Store one transition of each environment; every argument is (num_envs, ...).

        `next_observations` are the true ones: at the end of an episode its final observation, not the
        first one of the next (see `common.envs.true_next_observations`).
        """
        num_envs = len(rewards)
        rows = slice(self.position, self.position + num_envs)
        if rows.stop > self.capacity:
            rows = np.arange(rows.start, rows.stop) % self.capacity
        values = (observations, actions, rewards, next_observations, terminated)
        for ring, value in zip(self.storage, values, strict=True):
            ring[rows] = value
        self.position = (self.position + num_envs) % self.capacity
        self.size = min(self.size + num_envs, self.capacity)

    def sample(self, num_batches: int, batch_size: int) -> Transitions:
        """Draw transitions uniformly with replacement: arrays (num_batches, batch_size, ...).

        The cost depends on the number drawn alone, not on the size of the buffer.

        Raises:
            UserError: if the buffer is empty.
        """
        if self.size == 0:
            raise UserError("an empty replay buffer has nothing to sample: add transitions first")
        rows = self.rng.integers(self.size, size=(num_batches, batch_size))
        return Transitions(*(ring.take(rows, axis=0) for ring in self.storage))

    def save_state(self, path: str) -> None:
        """Write the transitions, oldest first, and the generator's state to `path` (.npz, uncompressed)."""
        oldest = self.position if self.size == self.capacity else 0
        rows = (np.arange(self.size) + oldest) % self.capacity
        filled = {name: ring[rows] for name, ring in self.storage._asdict().items()}
        np.savez(path, rng=json.dumps(self.rng.bit_generator.state), **filled)

    def load_state(self, path: str) -> None:
        """Read what `save_state` wrote.

        Raises:
            UserError: if it holds more transitions than fit, or transitions of another shape or dtype.
        """
        with np.load(path) as saved:
            size = len(saved["rewards"])
            for name, ring in self.storage._asdict().items():
                rows = saved[name]
                if size > self.capacity or rows.shape[1:] != ring.shape[1:] or rows.dtype != ring.dtype:
                    raise UserError(
                        f"{path} holds {size:,} transitions that do not fit one of {self.capacity:,}"
                    )
                ring[:size] = rows
            self.size, self.position = size, size % self.capacity
            self.rng.bit_generator.state = json.loads(saved["rng"].item())

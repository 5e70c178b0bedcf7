"""Replay buffer: transitions in preallocated NumPy rings, sampled many minibatches at a time."""

import json
from typing import NamedTuple

from common.array_file import ArrayFile
from common.errors import UserError
from common.frame_ring import FrameRing
import gymnasium as gym
import numpy as np
import psutil


class Transitions(NamedTuple):
    """Transitions, stacked along any leading axes.

    There is no `truncated`: a time limit ends an episode, but the state at the limit still has a value.
    Only `terminated` masks the bootstrapped target (Pardo et al. 2018, section 3).
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray


class ReplayBuffer:
    """The last `capacity` transitions (Lin 1992; D in Mnih et al. 2015, Algorithm 1).

    Observations and actions keep the dtype of their space (uint8 stays uint8); rewards are float32,
    terminations bool. The rings take `capacity` times the bytes of one transition: 45 for CartPole. For
    images and frame stacks, each frame is stored once (see `FrameRing`); a transition then takes 1 + 1/32
    frames, 16 bytes for each frame of the stack, and 13 more: 7,354 bytes for 4 frames of 84 × 84, where two
    stacks would take 56,461. If episodes are shorter than 32 steps, fewer than `capacity` are stored.

    Args:
        capacity: number of transitions, over all environments.
        observation_space: observation space of one environment: Box or Discrete.
        action_space: action space of one environment: Box or Discrete.
        seed: seed of the sampling.
        frame_stack: above 1, the first axis of an observation holds that many successive frames.

    Raises:
        UserError: for a space of another kind, or a buffer larger than the free memory.
    """

    def __init__(
        self,
        capacity: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        seed: int = 0,
        *,
        frame_stack: int = 1,
    ):
        if capacity < 1:
            raise UserError(f"--buffer-size is {capacity}: it must be at least 1")
        for space in (observation_space, action_space):
            if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
                raise UserError(
                    f"the replay buffer holds Box and Discrete spaces, not {space}: flatten it first"
                )
        observation, frame_bytes = (observation_space.shape, observation_space.dtype), 0
        by_frames = frame_stack > 1 or len(observation_space.shape) > 1
        if by_frames:
            num_frames = capacity + capacity // 32 + 64
            frame_shape = observation_space.shape[frame_stack > 1 :]
            frame_bytes = num_frames * int(np.prod(frame_shape)) * observation_space.dtype.itemsize
            observation = ((frame_stack,), np.int64)  # numbers of its frames
        fields = Transitions(
            observations=observation,
            actions=(action_space.shape, action_space.dtype),
            rewards=((), np.float32),
            next_observations=observation,
            terminated=((), np.bool_),
        )
        needed = capacity * sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in fields)
        needed += frame_bytes
        available = psutil.virtual_memory().available
        if needed > available:
            raise UserError(
                f"a buffer of {capacity:,} transitions takes {needed:,} bytes, but {available:,} are free:"
                f" lower --buffer-size to at most {int(capacity * 0.9 * available / needed):,}"
            )
        self.capacity = capacity
        self.storage = Transitions(*(np.zeros((capacity, *shape), dtype) for shape, dtype in fields))
        self.frames = (
            FrameRing(num_frames, frame_stack, frame_shape, observation_space.dtype) if by_frames else None
        )
        self.rng = np.random.default_rng([seed, 1])  # [seed] alone is an environment's stream
        self.position = 0  # row of the next transition
        self.size = 0  # number of valid rows before it; a row whose frames are overwritten is not valid

    def __len__(self) -> int:
        return self.size

    @property
    def nbytes(self) -> int:
        """Size of the rings in bytes."""
        return sum(ring.nbytes for ring in self.storage) + (self.frames.nbytes if self.frames else 0)

    def add(self, observations, actions, rewards, next_observations, terminated) -> None:
        """Store one transition of each environment; every argument is (num_envs, ...).

        `next_observations` are the true ones: at the end of an episode its final observation, not the
        first one of the next episode (see `common.envs.true_next_observations`).
        """
        num_envs = len(rewards)
        if self.frames:
            observations, next_observations = self.frames.add(observations, next_observations)
        rows = slice(self.position, self.position + num_envs)
        if rows.stop > self.capacity:
            rows = np.arange(rows.start, rows.stop) % self.capacity
        values = (observations, actions, rewards, next_observations, terminated)
        for ring, value in zip(self.storage, values, strict=True):
            ring[rows] = value
        self.position = (self.position + num_envs) % self.capacity
        self.size = min(self.size + num_envs, self.capacity)
        if self.frames:  # rows that have just lost frames are among the oldest
            oldest = self.position - self.size + np.arange(min(self.size, self.frames.reach(num_envs)))
            gone = np.flatnonzero(self.storage.observations[oldest].min(axis=-1) < self.frames.oldest)
            self.size -= int(gone.max(initial=-1)) + 1

    def sample(self, num_batches: int, batch_size: int) -> Transitions:
        """Sample transitions uniformly with replacement: arrays (num_batches, batch_size, ...).

        The cost depends only on the number of draws, not on the size of the buffer.

        Raises:
            UserError: if the buffer is empty.
        """
        if self.size == 0:
            raise UserError(
                "the replay buffer is empty: add transitions before sampling, or raise --buffer-size"
            )
        ages = self.rng.integers(self.size, size=(num_batches, batch_size))
        rows = self.position - 1 - ages  # negative rows wrap around
        batch = Transitions(*(ring.take(rows, axis=0, mode="wrap") for ring in self.storage))
        if self.frames:
            batch = batch._replace(
                observations=self.frames.take(batch.observations),
                next_observations=self.frames.take(batch.next_observations),
            )
        return batch

    def save_state(self, path: str) -> None:
        """Write the transitions, oldest first, and the generator's state to `path` (.npz)."""
        with ArrayFile(path, "w") as file:
            for name, ring in self.storage._asdict().items():
                file.write(name, *self._in_order(ring))
            if self.frames:
                self.frames.save(file)
            state = json.dumps(self.rng.bit_generator.state).encode()
            file.write("rng", np.frombuffer(state, np.uint8))

    def load_state(self, path: str) -> None:
        """Read what `save_state` wrote.

        Raises:
            UserError: if the file has more transitions than fit, transitions of another shape or dtype, or
                the frames of a full ring of another capacity.
        """
        with ArrayFile(path, "r") as file:
            size = file.shape_and_dtype("rewards")[0][0]
            if size > self.capacity:
                raise UserError(f"{path} has {size:,} transitions, and {self.capacity:,} fit")
            self.size, self.position = size, size % self.capacity
            try:
                for name, ring in self.storage._asdict().items():
                    file.read_into(name, ring[:size])
                if self.frames:
                    self.frames.load(file)
            except ValueError as error:
                raise UserError(
                    f"{path} does not fit: {error}: give the options of that run, or train again"
                ) from error
            self.rng.bit_generator.state = json.loads(file.read("rng").tobytes())

    def _in_order(self, ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return views of the valid rows of a ring, oldest first, in two parts."""
        start = self.position - self.size
        if start >= 0:
            return ring[start : self.position], ring[:0]
        return ring[start:], ring[: self.position]

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
    terminations bool. The rings take `capacity` times the bytes of one transition and nothing else: 45 for
    CartPole. Of images and stacked frames every frame is kept once (see `FrameRing`), and a transition is
    1.125 frames, 16 bytes a frame of the stack, and 13 more: 8,015 bytes for 4 frames of 84 × 84, where
    both stacks would take 56,461. When episodes are shorter than 8 steps fewer than `capacity` are held.

    Args:
        capacity: number of transitions, over all environments.
        observation_space: of one environment: Box or Discrete.
        action_space: of one environment: Box or Discrete.
        seed: seeds the sampling, and nothing but the sampling.
        frame_stack: with more than 1, the first axis of an observation holds so many successive frames.

    Raises:
        UserError: for a space that is no array of fixed size, or a buffer larger than the free memory.
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
            raise UserError(
                f"a replay buffer of {capacity} transitions cannot be: buffer_size must be at least 1"
            )
        for space in (observation_space, action_space):
            if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
                raise UserError(
                    f"the replay buffer holds Box and Discrete spaces, not {space}: flatten it first"
                )
        observation = (observation_space.shape, observation_space.dtype)
        by_frames = frame_stack > 1 or len(observation_space.shape) > 1
        if by_frames:
            num_frames, frame_shape = (
                capacity + capacity // 8 + 64,
                observation_space.shape[frame_stack > 1 :],
            )
            frame_bytes = num_frames * int(np.prod(frame_shape)) * observation_space.dtype.itemsize
            observation = ((frame_stack,), np.int64)  # the numbers of its frames
        fields = Transitions(
            observations=observation,
            actions=(action_space.shape, action_space.dtype),
            rewards=((), np.float32),
            next_observations=observation,
            terminated=((), np.bool_),
        )
        needed = capacity * sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in fields)
        needed += frame_bytes if by_frames else 0
        available = psutil.virtual_memory().available
        if needed > available:
            raise UserError(
                f"a buffer of {capacity:,} transitions takes {needed:,} bytes, and {available:,} are free:"
                f" lower --buffer-size to at most {int(capacity * 0.9 * available / needed):,}"
            )
        self.capacity = capacity
        self.storage = Transitions(*(np.zeros((capacity, *shape), dtype) for shape, dtype in fields))
        self.frames = (
            FrameRing(num_frames, frame_stack, frame_shape, observation_space.dtype) if by_frames else None
        )
        self.rng = np.random.default_rng([seed, 1])  # [seed] alone is an environment's stream
        self.position = 0  # where the next transition goes
        self.size = 0  # the last rows before it: all that were written, but for those whose frames are gone

    def __len__(self) -> int:
        return self.size

    @property
    def nbytes(self) -> int:
        """Bytes of the rings."""
        return sum(ring.nbytes for ring in self.storage) + (self.frames.nbytes if self.frames else 0)

    def add(self, observations, actions, rewards, next_observations, terminated) -> None:
        """Store one transition of each environment; every argument is (num_envs, ...).

        `next_observations` are the true ones: at the end of an episode its final observation, not the
        first one of the next (see `common.envs.true_next_observations`).
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
        if self.frames:  # rows whose frames are gone are the oldest, and a stack's length out of order
            oldest = self.position - self.size + np.arange(min(self.size, self.frames.reach(num_envs)))
            gone = np.flatnonzero(self.storage.observations[oldest].min(axis=-1) < self.frames.oldest)
            self.size -= int(gone.max(initial=-1)) + 1

    def sample(self, num_batches: int, batch_size: int) -> Transitions:
        """Draw transitions uniformly with replacement: arrays (num_batches, batch_size, ...).

        The cost depends on the number drawn alone, not on the size of the buffer.

        Raises:
            UserError: if the buffer is empty.
        """
        if self.size == 0:
            raise UserError("an empty replay buffer has nothing to sample: add transitions first")
        rows = (
            self.position - 1 - self.rng.integers(self.size, size=(num_batches, batch_size))
        )  # some below 0
        batch = Transitions(*(ring.take(rows, axis=0, mode="wrap") for ring in self.storage))
        if self.frames:
            batch = batch._replace(
                observations=self.frames.take(batch.observations),
                next_observations=self.frames.take(batch.next_observations),
            )
        return batch

    def save_state(self, path: str) -> None:
        """Write the transitions, oldest first, and the generator's state to `path` (.npz, uncompressed)."""
        rows = (self.position - self.size + np.arange(self.size)) % self.capacity
        content = {name: ring[rows] for name, ring in self.storage._asdict().items()}
        if self.frames:
            content |= {"frames": self.frames.in_order(), "frames_written": self.frames.written}
        np.savez(path, rng=json.dumps(self.rng.bit_generator.state), **content)

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
            if self.frames:
                self.frames.put_back(saved["frames"], int(saved["frames_written"]))
            self.size, self.position = size, size % self.capacity
            self.rng.bit_generator.state = json.loads(saved["rng"].item())


class FrameRing:
    """The last frames of all environments, each stored once and known by its number.

    Successive observations are mostly the same frames: the next observation of one step is the observation
    of the next, and of a stack of k frames all but the newest were in the stack before.

    Args:
        capacity: number of frames.
        frame_stack: frames in an observation; 1 for observations that are one frame, without a stack's axis.
        shape: of one frame.
        dtype: of a frame.
    """

    def __init__(self, capacity: int, frame_stack: int, shape: tuple[int, ...], dtype: np.dtype):
        self.ring = np.empty((capacity, *shape), dtype)  # memory is taken where it is written, and no earlier
        self.frame_stack = frame_stack
        self.written = 0  # frame number n stands in row n % capacity
        self._last: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # of each environment: stack and numbers

    @property
    def nbytes(self) -> int:
        """Bytes of the ring."""
        return self.ring.nbytes

    @property
    def oldest(self) -> int:
        """The number of the oldest frame that is still there."""
        return max(0, self.written - len(self.ring))

    def reach(self, num_envs: int) -> int:
        """The most rows, counted from the oldest, whose frames one `add` may have written over."""
        return (self.frame_stack + 1) ** 2 * num_envs

    def add(self, observations: np.ndarray, next_observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Store the frames that are new; return the numbers (num_envs, frame_stack) of all of them."""
        numbers = np.empty((2, len(observations), self.frame_stack), np.int64)
        for env in range(len(observations)):
            stack, next_stack = (np.asarray(each[env]) for each in (observations, next_observations))
            if self.frame_stack == 1:
                stack, next_stack = stack[None], next_stack[None]
            last, last_numbers = self._last.get(env, (None, None))
            if last is not None and np.array_equal(stack, last):
                numbers[0, env] = last_numbers
            else:  # an episode begins: its first frame fills the stack
                for k, frame in enumerate(stack):
                    same = k > 0 and np.array_equal(frame, stack[k - 1])
                    numbers[0, env, k] = numbers[0, env, k - 1] if same else self._write(frame)
            for k, frame in enumerate(next_stack):
                same = k + 1 < self.frame_stack and np.array_equal(frame, stack[k + 1])
                numbers[1, env, k] = numbers[0, env, k + 1] if same else self._write(frame)
            self._last[env] = (next_stack.copy(), numbers[1, env])
        return numbers[0], numbers[1]

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the observations whose frames have these numbers (..., frame_stack)."""
        if self.frame_stack == 1:
            numbers = numbers[..., 0]
        return self.ring.take(numbers % len(self.ring), axis=0)

    def in_order(self) -> np.ndarray:
        """The frames that are there, oldest first."""
        return self.ring[np.arange(self.oldest, self.written) % len(self.ring)]

    def put_back(self, frames: np.ndarray, written: int) -> None:
        """Take frames in the order of `in_order`, the last of them number `written` − 1."""
        if frames.shape[1:] != self.ring.shape[1:] or frames.dtype != self.ring.dtype:
            raise UserError(f"frames of shape {frames.shape[1:]} do not fit a ring of {self.ring.shape[1:]}")
        self.written = written
        self.ring[np.arange(written - len(frames), written) % len(self.ring)] = frames

    def _write(self, frame: np.ndarray) -> int:
        self.ring[self.written % len(self.ring)] = frame
        self.written += 1
        return self.written - 1

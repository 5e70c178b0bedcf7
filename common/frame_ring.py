"""Frames of image observations and stacks, each stored once."""

from common.array_file import ArrayFile
import numpy as np


class FrameRing:
    """The last frames of all environments. Each frame is stored once and has a number.

    Successive observations share most frames: the next observation of one step is the observation of the
    next step, and all frames of a stack but the newest were in the stack before. Where a game continues after
    the loss of a life, this holds for its next stack too.

    Args:
        capacity: number of frames.
        frame_stack: frames in an observation; 1 for observations that are one frame, without a stack axis.
        shape: shape of one frame.
        dtype: dtype of a frame.
        grows: make room when `capacity` frames are stored, instead of overwriting the oldest ones.
    """

    def __init__(
        self,
        capacity: int,
        frame_stack: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        grows: bool = False,
    ):
        self.capacity, self.grows = capacity, grows
        self.ring = np.empty((capacity, *shape), dtype)  # uses memory only where it is written
        self.frame_stack = frame_stack
        self.written = 0  # frame number n is in row n % capacity
        self._last: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # stack and numbers of each environment

    @property
    def nbytes(self) -> int:
        """Size of the ring in bytes; if it grows, of the stored frames."""
        return (self.stored if self.grows else self.ring).nbytes

    @property
    def oldest(self) -> int:
        """The number of the oldest frame that is still stored."""
        return max(0, self.written - len(self.ring))

    def reach(self, num_envs: int) -> int:
        """Return the maximum number of the oldest rows that may lose frames in one call of `add`."""
        return (self.frame_stack + 1) ** 2 * num_envs

    def add(self, observations: np.ndarray, next_observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Store the frames that are new; return the numbers (num_envs, frame_stack) of all frames."""
        numbers = np.empty((2, len(observations), self.frame_stack), np.int64)
        for env in range(len(observations)):
            last, last_numbers = self._last.get(env, (None, None))
            if last is not None and np.array_equal(observations[env], last):
                numbers[0, env] = last_numbers
            else:
                numbers[0, env] = self.add_one(observations[env], env, starts=True)
            numbers[1, env] = self.add_one(next_observations[env], env)
        return numbers[0], numbers[1]

    def add_one(self, observation: np.ndarray, env: int = 0, *, starts: bool = False) -> np.ndarray:
        """Store the frames of the next observation of an environment that were not in its last one.

        Args:
            observation: a stack, or a frame if `frame_stack` is 1.
            env: number of the environment.
            starts: whether an episode starts, whose first frame may fill the stack.

        Returns:
            Numbers of its frames (frame_stack,).
        """
        stack = observation if self.frame_stack > 1 else observation[None]
        last, last_numbers = self._last.get(env, (None, None))
        numbers = np.empty(self.frame_stack, np.int64)
        for k, frame in enumerate(stack):
            if last is not None and k + 1 < len(stack) and np.array_equal(frame, last[k + 1]):
                numbers[k] = last_numbers[k + 1]
            elif starts and k > 0 and np.array_equal(frame, stack[k - 1]):
                numbers[k] = numbers[k - 1]
            else:
                numbers[k] = self._write(frame)
        self._last[env] = (observation.copy(), numbers)
        return numbers

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the observations whose frames have these numbers (..., frame_stack)."""
        if self.frame_stack == 1:
            numbers = numbers[..., 0]
        return self.ring.take(numbers % len(self.ring), axis=0)

    @property
    def stored(self) -> np.ndarray:
        """A view of the frames (written, *shape) of a ring that grows."""
        return self.ring[: self.written]

    def clear(self) -> None:
        """Forget all frames; the next one has the number 0."""
        # a new ring, because a tensor made from the old one may share its memory
        self.ring = np.empty((self.capacity, *self.ring.shape[1:]), self.ring.dtype)
        self.written = 0
        self._last = {}

    def save(self, file: ArrayFile) -> None:
        """Write the stored frames, oldest first."""
        file.write("frames", *self._in_order())
        file.write("frames_written", np.array([self.written]))

    def load(self, file: ArrayFile) -> None:
        """Restore what `save` wrote.

        Raises:
            ValueError: if number, shape, or dtype of the frames do not match.
        """
        self.written = int(file.read("frames_written")[0])
        file.read_into("frames", *self._in_order())
        self._last = {}

    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """Return views of the stored frames, oldest first, in two parts."""
        first, last = self.oldest % len(self.ring), self.written % len(self.ring)
        if self.written <= len(self.ring):
            return self.ring[: self.written], self.ring[:0]
        return self.ring[first:], self.ring[:last]

    def _write(self, frame: np.ndarray) -> int:
        if self.grows and self.written == len(self.ring):
            larger = np.empty((self.written + self.written // 4 + 16, *frame.shape), frame.dtype)
            larger[: self.written] = self.ring
            self.ring = larger
        self.ring[self.written % len(self.ring)] = frame
        self.written += 1
        return self.written - 1

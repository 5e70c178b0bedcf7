"""Rollouts: a fixed number of consecutive steps of every environment, for on-policy scripts."""

from collections.abc import Callable
from typing import NamedTuple

from common.frame_ring import FrameRing
from common.quiet import importing
import gymnasium as gym
import numpy as np

with importing():
    import tensorflow as tf


IMAGES_AT_ONCE = 64


class Images(NamedTuple):
    """Images whose frames are stored once: image i is `frames[numbers[i]]`.

    `frames` is (num_frames, height, width, channels), uint8. `numbers` is (...) for images of one frame and
    (..., frame_stack) for stacks.
    """

    frames: tf.Tensor | tf.Variable
    numbers: tf.Tensor


class Rollout(NamedTuple):
    """Transitions (num_steps, num_envs, ...), in the order of their steps.

    Observations are `Images` if the network is convolutional, else tensors.
    `next_observations` are the true ones, also at the end of an episode. Bootstrapping stops at
    `terminated`; the next row belongs to another episode after `terminated | truncated`.
    """

    observations: tf.Tensor | Images
    actions: tf.Tensor
    rewards: tf.Tensor
    next_observations: tf.Tensor | Images
    terminated: tf.Tensor
    truncated: tf.Tensor


class RolloutBuffer:
    """The last `num_steps` steps of all environments, in NumPy arrays that each rollout overwrites.

    Of images, each frame is stored once (see `FrameRing`).

    Args:
        num_steps: steps of each environment.
        num_envs: number of environments.
        observation_space: observation space of one environment.
        action_space: action space of one environment.
        frame_stack: above 1, the first axis of an observation holds that many successive frames.
    """

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        frame_stack: int = 1,
    ):
        action_dtype = np.int64 if isinstance(action_space, gym.spaces.Discrete) else np.float32
        num_frames = num_envs * (frame_stack + num_steps + num_steps // 32)  # one more for each new episode
        self.frames = make_frame_ring(num_frames, observation_space, frame_stack)
        observation = observation_space.shape, observation_space.dtype
        if self.frames:
            observation = observation_space.shape[:-3], np.int32  # numbers of its frames
        fields = Rollout(
            observations=observation,
            actions=(action_space.shape, action_dtype),
            rewards=((), np.float32),
            next_observations=observation,
            terminated=((), np.bool_),
            truncated=((), np.bool_),
        )
        self._arrays = Rollout(*(np.zeros((num_steps, num_envs, *shape), dtype) for shape, dtype in fields))
        self.num_steps = num_steps
        self.position = 0  # row to write next

    @property
    def nbytes(self) -> int:
        """Size of the steps in bytes."""
        return sum(array.nbytes for array in self._arrays) + (self.frames.nbytes if self.frames else 0)

    def add(self, observations, actions, rewards, next_observations, terminated, truncated) -> None:
        """Store one transition of each environment; every argument is (num_envs, ...)."""
        row = self.position
        if self.frames:
            if row == 0:
                self.frames.clear()
            numbers = self.frames.add(observations, next_observations)
            observations, next_observations = (
                n.reshape(self._arrays.observations[row].shape) for n in numbers
            )
        values = (observations, actions, rewards, next_observations, terminated, truncated)
        for array, value in zip(self._arrays, values):
            array[row] = value
        self.position = (row + 1) % self.num_steps

    @property
    def rollout(self) -> Rollout:
        """A copy of all steps, as tensors; complete after every `num_steps` calls of `add`."""
        rollout = Rollout(*map(tf.constant, self._arrays))  # left to the compiled call, this takes 0.3 ms
        if self.frames:
            frames = as_variable(self.frames.stored)
            rollout = rollout._replace(
                observations=Images(frames, rollout.observations),
                next_observations=Images(frames, rollout.next_observations),
            )
        return rollout


def make_frame_ring(capacity: int, observation_space: gym.Space, frame_stack: int) -> FrameRing | None:
    """Return a ring for at least `capacity` frames if the observations are images, else None."""
    shape = observation_space.shape[frame_stack > 1 :]
    if len(shape) != 3:
        return None
    return FrameRing(capacity, frame_stack, shape, observation_space.dtype, grows=True)


def as_variable(frames: np.ndarray) -> tf.Variable:
    """Return frames as a variable of any length: the update is traced once, whatever their number."""
    return tf.Variable(frames, trainable=False, shape=(None, *frames.shape[1:]))


def flatten(field: tf.Tensor | Images) -> tf.Tensor | Images:
    """Reshape (num_steps, num_envs, ...) to (num_steps * num_envs, ...)."""
    if isinstance(field, Images):
        return field._replace(numbers=flatten(field.numbers))
    return tf.reshape(field, (-1, *field.shape[2:]))


def take(field: tf.Tensor | Images, rows: tf.Tensor) -> tf.Tensor | Images:
    """Return the rows of a flattened field that have these numbers."""
    if isinstance(field, Images):
        return field._replace(numbers=take(field.numbers, rows))
    return tf.gather(field, rows)


def assemble(observations: tf.Tensor | Images) -> tf.Tensor:
    """Return observations as one tensor; images are put together from their frames."""
    if isinstance(observations, Images):
        return tf.gather(observations.frames, observations.numbers)
    return observations


def outputs_of(network: Callable[[tf.Tensor], tf.Tensor], rollout: Rollout) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the outputs (num_steps * num_envs, ...) for the observations and for the next observations.

    An image that is among both goes through the network once. `IMAGES_AT_ONCE` go through it at a time,
    because all of them would take much memory as float32.
    """
    observations, next_observations = flatten(rollout.observations), flatten(rollout.next_observations)
    if not isinstance(observations, Images):
        return network(observations), network(next_observations)
    numbers = tf.concat([observations.numbers, next_observations.numbers], axis=0)
    distinct, rows = tf.raw_ops.UniqueV2(x=numbers, axis=[0])
    num_images = tf.shape(distinct)[0]
    num_rows = -(-num_images // IMAGES_AT_ONCE) * IMAGES_AT_ONCE  # the last part is filled up
    parts = tf.gather(distinct, tf.reshape(tf.range(num_rows) % num_images, (-1, IMAGES_AT_ONCE)))

    def outputs_of_part(part: tf.Tensor) -> tf.Tensor:
        return network(tf.gather(observations.frames, part))

    outputs = tf.map_fn(outputs_of_part, parts, parallel_iterations=1, fn_output_signature=tf.float32)
    outputs, next_outputs = tf.split(tf.gather(flatten(outputs), rows), 2)
    return outputs, next_outputs


def shuffled_minibatches(
    rng: np.random.Generator, num_rows: int, num_epochs: int, num_minibatches: int
) -> np.ndarray:
    """Return row numbers (num_epochs * num_minibatches, minibatch_size), shuffled anew for each epoch.

    Rows that do not fill a minibatch are left out of their epoch.
    """
    size = num_rows // num_minibatches
    epochs = rng.permuted(np.tile(np.arange(num_rows), (num_epochs, 1)), axis=1)
    return epochs[:, : size * num_minibatches].reshape(-1, size)


def explained_variance(values: tf.Tensor, returns: tf.Tensor) -> tf.Tensor:
    """Return 1 − Var(R − V) / Var(R): 1 for a perfect critic, 0 for a constant one."""
    return 1.0 - tf.math.reduce_variance(returns - values) / (tf.math.reduce_variance(returns) + 1e-8)

"""Rollouts: a fixed number of consecutive steps of every environment, for on-policy scripts."""

from typing import NamedTuple

from common.quiet import without_noise
import gymnasium as gym
import numpy as np

with without_noise():
    import tensorflow as tf


class Rollout(NamedTuple):
    """Transitions (num_steps, num_envs, ...), in the order of their steps.

    `next_observations` are the true ones, also at the end of an episode. Bootstrapping stops at
    `terminated`; the next row belongs to another episode after `terminated | truncated`.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    next_observations: tf.Tensor
    terminated: tf.Tensor
    truncated: tf.Tensor


class RolloutBuffer:
    """The last `num_steps` steps of all environments, in NumPy arrays that each rollout overwrites.

    Args:
        num_steps: steps of each environment.
        num_envs: number of environments.
        observation_space: observation space of one environment.
        action_space: action space of one environment.
    """

    def __init__(self, num_steps: int, num_envs: int, observation_space: gym.Space, action_space: gym.Space):
        action_dtype = np.int64 if isinstance(action_space, gym.spaces.Discrete) else np.float32
        fields = Rollout(
            observations=(observation_space.shape, observation_space.dtype),
            actions=(action_space.shape, action_dtype),
            rewards=((), np.float32),
            next_observations=(observation_space.shape, observation_space.dtype),
            terminated=((), np.bool_),
            truncated=((), np.bool_),
        )
        self._arrays = [np.zeros((num_steps, num_envs, *shape), dtype) for shape, dtype in fields]
        self.num_steps = num_steps
        self.position = 0  # row to write next

    def add(self, observations, actions, rewards, next_observations, terminated, truncated) -> None:
        """Store one transition of each environment; every argument is (num_envs, ...)."""
        row = self.position
        values = (observations, actions, rewards, next_observations, terminated, truncated)
        for array, value in zip(self._arrays, values):
            array[row] = value
        self.position = (row + 1) % self.num_steps

    @property
    def rollout(self) -> Rollout:
        """A copy of all steps, as tensors; complete after every `num_steps` calls of `add`."""
        return Rollout(*map(tf.constant, self._arrays))  # left to the compiled call, this takes 0.3 ms


def flatten(field: tf.Tensor) -> tf.Tensor:
    """Reshape (num_steps, num_envs, ...) to (num_steps * num_envs, ...)."""
    return tf.reshape(field, (-1, *field.shape[2:]))


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

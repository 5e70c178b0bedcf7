"""The rollout: a fixed number of consecutive steps of every environment, for the on-policy scripts."""

from typing import NamedTuple

from common.quiet import without_chatter
import gymnasium as gym
import numpy as np

with without_chatter():
    import tensorflow as tf


class Rollout(NamedTuple):
    """Transitions (num_steps, num_envs, ...), in the order they were made.

    `next_observations` are the true ones, also where an episode ends. `terminated` says that there is no
    future to bootstrap from, `terminated | truncated` that the next row belongs to another episode.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    next_observations: tf.Tensor
    terminated: tf.Tensor
    truncated: tf.Tensor


class RolloutBuffer:
    """The last `num_steps` steps of all environments, in NumPy arrays that are written over and over.

    Args:
        num_steps: steps of each environment.
        num_envs: environments.
        observation_space: of one environment.
        action_space: of one environment.
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
        self.position = 0  # the row that is written next

    def add(self, observations, actions, rewards, next_observations, terminated, truncated) -> None:
        """Store one transition of each environment; every argument is (num_envs, ...)."""
        row = self.position
        values = (observations, actions, rewards, next_observations, terminated, truncated)
        for array, value in zip(self._arrays, values):
            array[row] = value
        self.position = (row + 1) % self.num_steps

    @property
    def rollout(self) -> Rollout:
        """A copy of the steps, as tensors; whole, and in order, after every `num_steps` calls of `add`."""
        return Rollout(*map(tf.constant, self._arrays))  # left to the compiled call, it takes 0.3 ms


def flatten(field):
    """Return a tensor (num_steps, num_envs, ...) as (num_steps * num_envs, ...)."""
    return tf.reshape(field, (-1, *field.shape[2:]))


def explained_variance(values, returns, weights=1.0):
    """Return 1 − Var(R − V) / Var(R): 1 for a perfect critic, 0 for one that is constant.

    All arguments are (batch_size,); rows of weight 0 do not count.
    """
    weights = weights * tf.ones_like(values)

    def variance(x):
        return tf.nn.weighted_moments(x, 0, weights)[1]

    return 1.0 - variance(returns - values) / (variance(returns) + 1e-8)

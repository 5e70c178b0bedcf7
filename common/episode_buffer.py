"""Episode buffer: whole episodes, for scripts that learn from complete returns."""

from typing import NamedTuple

import gymnasium as gym
import numpy as np


class Episode(NamedTuple):
    """The steps of one finished episode: arrays (num_steps, ...)."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


class EpisodeBuffer:
    """Collects the steps of all environments and returns them as whole episodes.

    Args:
        num_envs: number of environments.
        observation_space: observation space of one environment.
        action_space: action space of one environment.
    """

    def __init__(self, num_envs: int, observation_space: gym.Space, action_space: gym.Space):
        action_dtype = np.int64 if isinstance(action_space, gym.spaces.Discrete) else np.float32
        self._num_envs = num_envs
        self._arrays = [  # the unfinished episodes: row t * num_envs + k is step t of environment k
            np.zeros((512 * num_envs, *observation_space.shape), np.float32),
            np.zeros((512 * num_envs, *action_space.shape), action_dtype),
            np.zeros(512 * num_envs, np.float32),
        ]
        self._rows = np.arange(num_envs)  # where the next step of each environment goes
        self._finished: list[Episode] = []
        self.num_steps = 0  # of all finished episodes

    def add(self, observations, actions, rewards, dones) -> None:
        """Store one step of each environment; every argument is (num_envs, ...)."""
        try:
            self._arrays[2][self._rows] = rewards
        except IndexError:  # an episode is longer than all before
            self._arrays = [np.concatenate([array, np.zeros_like(array)]) for array in self._arrays]
            self._arrays[2][self._rows] = rewards
        self._arrays[0][self._rows] = observations
        self._arrays[1][self._rows] = actions
        self._rows += self._num_envs
        for env in np.flatnonzero(dones):
            rows = slice(env, self._rows[env], self._num_envs)
            self._finished.append(Episode(*(array[rows].copy() for array in self._arrays)))
            self.num_steps += len(self._finished[-1].rewards)
            self._rows[env] = env

    def pop_episodes(self) -> list[Episode]:
        """Return the finished episodes and forget them; unfinished ones stay."""
        episodes, self._finished, self.num_steps = self._finished, [], 0
        return episodes

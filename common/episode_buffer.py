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
        self._arrays = [  # (rows, num_envs, ...): the steps of the unfinished episodes, and of some finished
            np.zeros((512, num_envs, *observation_space.shape), np.float32),
            np.zeros((512, num_envs, *action_space.shape), action_dtype),
            np.zeros((512, num_envs), np.float32),
        ]
        self._row = 0  # to write next
        self._starts = np.zeros(num_envs, np.int64)  # the first row of each environment's episode
        self._finished: list[Episode] = []
        self.num_steps = 0  # of all finished episodes

    def add(self, observations, actions, rewards, dones) -> None:
        """Store one step of each environment; every argument is (num_envs, ...)."""
        if self._row == len(self._arrays[0]):
            self._make_room()
        for array, values in zip(self._arrays, (observations, actions, rewards)):
            array[self._row] = values
        self._row += 1
        for env in np.flatnonzero(dones):
            steps = slice(self._starts[env], self._row)
            self._finished.append(Episode(*(array[steps, env].copy() for array in self._arrays)))
            self.num_steps += len(self._finished[-1].rewards)
            self._starts[env] = self._row

    def _make_room(self) -> None:
        """Forget the rows before all unfinished episodes; add as many rows as are left."""
        oldest = self._starts.min()
        kept = [array[oldest:] for array in self._arrays]
        self._arrays = [
            np.concatenate([array, np.zeros((max(512, len(array)), *array.shape[1:]), array.dtype)])
            for array in kept
        ]
        self._row -= oldest
        self._starts -= oldest

    def pop_episodes(self) -> list[Episode]:
        """Return the finished episodes and forget them; unfinished ones stay."""
        episodes, self._finished, self.num_steps = self._finished, [], 0
        return episodes

"""Episode buffer: whole episodes, for scripts that learn from complete returns."""

from typing import NamedTuple

from common.rollout import Images, as_variable, make_frame_ring
import gymnasium as gym
import numpy as np


class Episode(NamedTuple):
    """The steps of one finished episode: arrays (num_steps, ...).

    Of images, `frames` (num_frames, height, width, channels) holds each frame once, and `observations` holds
    the numbers of their frames, as in `common.rollout.Images`.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    frames: np.ndarray | None = None


class EpisodeBuffer:
    """Collects the steps of all environments and returns them as whole episodes.

    Args:
        num_envs: number of environments.
        observation_space: observation space of one environment.
        action_space: action space of one environment.
        frame_stack: above 1, the first axis of an observation holds that many successive frames.
    """

    def __init__(
        self,
        num_envs: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        frame_stack: int = 1,
    ):
        action_dtype = np.int64 if isinstance(action_space, gym.spaces.Discrete) else np.float32
        rings = [make_frame_ring(16, observation_space, frame_stack) for _ in range(num_envs)]
        self.frames = rings if rings[0] else []  # of the unfinished episodes
        observation = observation_space.shape, np.float32
        if self.frames:
            observation = observation_space.shape[:-3], np.int32  # numbers of its frames
        self._arrays = [  # (rows, num_envs, ...): the steps of the unfinished episodes, and of some finished
            np.zeros((512, num_envs, *observation[0]), observation[1]),
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
        if self.frames:
            numbers = [
                ring.add_one(image, starts=not ring.written) for ring, image in zip(self.frames, observations)
            ]
            observations = np.reshape(numbers, self._arrays[0][self._row].shape)
        for array, values in zip(self._arrays, (observations, actions, rewards)):
            array[self._row] = values
        self._row += 1
        for env in np.flatnonzero(dones):
            steps = slice(self._starts[env], self._row)
            frames = None
            if self.frames:
                frames = self.frames[env].stored.copy()
                self.frames[env].clear()
            self._finished.append(Episode(*(array[steps, env].copy() for array in self._arrays), frames))
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


def join_observations(episodes: list[Episode]) -> np.ndarray | Images:
    """Return the observations (num_steps, ...) of all episodes, one after another."""
    if episodes[0].frames is None:
        return np.concatenate([episode.observations for episode in episodes])
    lengths = [len(episode.frames) for episode in episodes]
    first_frames = np.cumsum([0, *lengths[:-1]])
    numbers = [first + episode.observations for first, episode in zip(first_frames, episodes)]
    frames = np.concatenate([episode.frames for episode in episodes])
    return Images(as_variable(frames), np.concatenate(numbers).astype(np.int32))

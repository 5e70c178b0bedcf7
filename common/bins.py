"""Bins: a Box observation becomes one index, for a table."""

from collections.abc import Mapping, Sequence
import functools
import json
import math
from typing import Any

from common.create_env import create_env
from common.errors import UserError
from common.seeding import generators_seeded_with
from common.wrappers import HUGE
import gymnasium as gym
import numpy as np

MAX_CELLS = 10**8  # states of a table


class Bins(gym.ObservationWrapper):
    """Discretizes a Box: each number falls into one of several bins of equal width.

    The observation becomes the index of its cell. Numbers beyond the edges fall into the outermost bin.

    Args:
        env: an environment with a Box observation space.
        bins: number of bins of each number.
        low: lower edge of the first bin of each number.
        high: upper edge of the last bin of each number.
    """

    def __init__(self, env: gym.Env, bins: Sequence[int], low: Sequence[float], high: Sequence[float]):
        super().__init__(env)
        self.low = np.array(low, np.float64)
        self.scale = np.array(bins) / (np.array(high, np.float64) - self.low)
        self.last_bin = np.array(bins) - 1
        self.strides = np.cumprod([1, *bins[:0:-1]])[::-1]
        self.observation_space = gym.spaces.Discrete(int(np.prod(bins)))

    def observation(self, observation: np.ndarray) -> int:
        """Return the index of the cell.

        Raises:
            UserError: if a number is NaN.
        """
        places = np.minimum(np.maximum((observation.reshape(-1) - self.low) * self.scale, 0), self.last_bin)
        if np.isnan(places.sum()):
            raise UserError(f"{self.env.spec.id} returned an observation that is NaN: fix the environment")
        return int(places.astype(np.int64) @ self.strides)


def discretize(env: gym.Env, bins: Sequence[int], env_kwargs: Mapping[str, Any] | None = None) -> gym.Env:
    """Make the observation one index from 0, for a table.

    A Discrete observation keeps its index. The numbers of a Box are put into bins, and so are those of
    flattened Dict and Tuple observations. The edges are the bounds of the space; a number without bounds
    gets the range that random actions reach (see `random_range`).

    Args:
        env: an environment with a Discrete or Box observation space, or a Dict or Tuple of these.
        bins: number of bins: one count for all numbers, or one for each.
        env_kwargs: options with which the environment was made.

    Raises:
        UserError: if `bins` does not fit the observation, or makes more than `MAX_CELLS` cells.
    """
    space = env.observation_space
    if isinstance(space, gym.spaces.Discrete):
        start = space.start
        if start == 0:
            return env
        return gym.wrappers.TransformObservation(env, lambda k: k - start, gym.spaces.Discrete(space.n))
    if not isinstance(space, gym.spaces.Box):
        env = gym.wrappers.FlattenObservation(env)
        space = env.observation_space
    size = int(np.prod(space.shape))
    counts = tuple(bins) * size if len(bins) == 1 else tuple(bins)
    if len(counts) != size:
        raise UserError(f"{env.spec.id} observes {size} numbers: give --bins one count or {size}")
    if math.prod(counts) > MAX_CELLS:
        raise UserError(
            f"--bins makes more than {MAX_CELLS:,} cells of the {size} numbers that {env.spec.id} observes:"
            " lower it, or choose a script with a network"
        )
    low, high = space.low.reshape(-1).astype(float), space.high.reshape(-1).astype(float)
    unbounded = ~(np.abs(low) < HUGE) | ~(np.abs(high) < HUGE)
    if unbounded.any():
        options = json.dumps(dict(env_kwargs or {}), sort_keys=True)
        lowest, highest = map(np.array, random_range(env.spec.id, options))
        low, high = np.where(unbounded, lowest, low), np.where(unbounded, highest, high)
    return Bins(env, counts, low, np.where(low < high, high, low + 1.0))


@functools.cache
def random_range(
    env_id: str, env_kwargs: str = "{}", steps: int = 2_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the lowest and the highest value of each number that uniformly random actions reach.

    `env_kwargs` are the options of the environment, as JSON. The final observations of episodes do not
    count: no action is chosen there.
    """
    with generators_seeded_with(0):  # in training and evaluation alike, if the environment draws from them
        env = create_env(env_id, json.loads(env_kwargs))
        env = gym.wrappers.FlattenObservation(env)
        env.action_space.seed(0)
        observations = [env.reset(seed=0)[0]]
        for _ in range(steps):
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            observations.append(env.reset()[0] if terminated or truncated else observation)
    env.close()
    flat = np.array(observations, float)
    return tuple(flat.min(axis=0)), tuple(flat.max(axis=0))

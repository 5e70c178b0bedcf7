"""Environment wrappers: episode statistics, finite values, lives, images, bins, and hidden numbers."""

from collections.abc import Sequence
from copy import copy
import functools
import math
from typing import Any

from common.errors import UserError
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
import numpy as np

MAX_CELLS = 10**8  # states of a table
HUGE = 1e30  # some spaces use huge numbers for infinity


class KeepEpisodeInfo(gym.Wrapper):
    """Keeps only the episode statistics in `info`: collecting MuJoCo's entries costs 20 µs a step."""

    def step(self, action):
        """Step the environment; `info` has the key "episode" at the end of an episode, and nothing else."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {"episode": info["episode"]} if "episode" in info else {}
        if terminated or truncated:
            observation = copy(observation)  # the reset that follows may write into the same array
        return observation, reward, terminated, truncated, info


class FiniteGuard(gym.vector.VectorWrapper):
    """Stops at the first reward or observation that is NaN or infinite, before anything learns from it.

    Args:
        envs: environments that reuse their observation array (`copy=False`). This wrapper returns copies,
            ten times as fast as Gymnasium's deep copies.
        env_id: for the error message.
    """

    def __init__(self, envs: gym.vector.VectorEnv, env_id: str):
        super().__init__(envs)
        self.env_id = env_id
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        """Reset the environments.

        Raises:
            UserError: if an observation is not finite.
        """
        observations, infos = self.env.reset(seed=seed, options=options)
        if not np.isfinite(observations).all():
            raise self._not_finite("an observation")
        return observations.copy(), infos

    def step(self, actions):
        """Step the environments.

        Raises:
            UserError: if a reward or an observation is not finite, or an action that the environment rejects.
        """
        try:
            # a copy, because an environment may change its action
            observations, rewards, terminated, truncated, infos = self.env.step(actions.copy())
        except Exception:
            check_actions(actions)
            raise
        self.num_steps += self.num_envs
        # a sum is finite only if all of its terms are; float64, because large float32 values may overflow
        total = np.add.reduce(rewards)
        if observations.dtype.kind not in "iu":
            total += np.add.reduce(observations, axis=None, dtype=np.float64)
            if "final_obs" in infos:
                final = np.stack(infos["final_obs"][infos["_final_obs"]])
                total += np.add.reduce(final, axis=None, dtype=np.float64)
        if not math.isfinite(total):
            check_actions(actions)
            raise self._not_finite("an observation" if np.isfinite(rewards).all() else "a reward")
        return observations.copy(), rewards, terminated, truncated, infos

    def _not_finite(self, what: str) -> UserError:
        return UserError(
            f"{self.env_id} returned {what} that is not finite, at step {self.num_steps:,} of this process:"
            " fix the environment, then resume from the last checkpoint"
        )


def check_actions(actions: np.ndarray) -> None:
    """Check that actions, or the outputs from which they follow, are finite.

    Raises:
        UserError: if they are not.
    """
    if not np.isfinite(actions).all():
        raise UserError(
            "the policy's outputs are not finite: its training has diverged: lower the learning rate"
            " or the noise, and train again"
        )


class LifeLoss(gym.Wrapper):
    """Treats the loss of a life as termination; the reset that follows continues the same game.

    Mnih et al. 2015, Methods.

    Raises:
        UserError: if the environment has no lives.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.lives = 0
        self.game_over = True
        if not hasattr(env.unwrapped, "ale"):
            raise UserError(f"--terminal-on-life-loss needs an ALE game, and {env.spec.id} has no lives")

    def reset(self, *, seed=None, options=None):
        """Start a new game if the last one is over; otherwise continue it with a no-op.

        If the no-op ends the game, `info` has the statistics of that game under "episode".
        """
        episode = {}
        if not self.game_over and seed is None:
            observation, _, terminated, truncated, info = self.env.step(0)
            self.game_over = terminated or truncated
            episode = {"episode": info["episode"]} if "episode" in info else {}
        if self.game_over or seed is not None:
            observation, info = self.env.reset(seed=seed, options=options)
        self.game_over = False
        self.lives = self.env.unwrapped.ale.lives()
        return observation, info | episode

    def step(self, action):
        """Step the game; `terminated` is also true when a life is lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.game_over = terminated or truncated
        lives = self.env.unwrapped.ale.lives()
        lost, self.lives = lives < self.lives, lives
        return observation, reward, terminated or lost, truncated, info


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


def discretize(env: gym.Env, bins: Sequence[int]) -> gym.Env:
    """Make the observation one index from 0, for a table.

    A Discrete observation keeps its index. The numbers of a Box are put into bins, and so are those of
    flattened Dict and Tuple observations. The edges are the bounds of the space; a number without bounds
    gets the range that random actions reach (see `random_range`).

    Args:
        env: an environment with a Discrete or Box observation space, or a Dict or Tuple of these.
        bins: number of bins: one count for all numbers, or one for each.

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
        lowest, highest = (np.array(edges) for edges in random_range(env.spec.id))
        low, high = np.where(unbounded, lowest, low), np.where(unbounded, highest, high)
    return Bins(env, counts, low, np.where(low < high, high, low + 1.0))


@functools.cache
def random_range(env_id: str, steps: int = 2_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the lowest and the highest value of each number that uniformly random actions reach.

    The final observations of episodes do not count: no action is chosen there.
    """
    env = gym.wrappers.FlattenObservation(gym.make(env_id, disable_env_checker=True))
    env.action_space.seed(0)
    observations = [env.reset(seed=0)[0]]
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(env.reset()[0] if terminated or truncated else observation)
    env.close()
    flat = np.array(observations, float)
    return tuple(flat.min(axis=0)), tuple(flat.max(axis=0))


def as_image(env: gym.Env) -> gym.Env:
    """Give images the shape (height, width, channels) and pixels of type uint8 from 0 to 255.

    Raises:
        UserError: if the environment does not observe images.
    """
    space = env.observation_space
    if len(space.shape or ()) not in (2, 3) or space.dtype not in (np.uint8, np.bool_):
        raise UserError(
            f"--network cnn needs uint8 images (height, width, channels), and {env.spec.id} observes"
            f" {' '.join(str(space).split())}: use --network mlp"
        )
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return env
    shape = (*space.shape, 1)[:3]
    factor = np.uint8(255 if space.dtype == np.bool_ else 1)
    return gym.wrappers.TransformObservation(
        env, lambda image: image.reshape(shape) * factor, gym.spaces.Box(0, 255, shape, np.uint8)
    )


def with_flat_float32_actions(env: gym.Env) -> gym.Env:
    """Make Box actions float32 arrays of one axis; bounds of `HUGE` and beyond become infinite.

    Actions of an integer space are rounded: truncation would almost never give the highest one.
    """
    space = env.action_space
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    low, high = np.where(low > -HUGE, low, -np.inf), np.where(high < HUGE, high, np.inf)
    flat = gym.spaces.Box(low.astype(np.float32), high.astype(np.float32))
    if flat == space:
        return env

    def original(action: np.ndarray) -> np.ndarray:
        action = np.clip(np.reshape(action, space.shape), space.low, space.high)
        return (np.rint(action) if space.dtype.kind in "iu" else action).astype(space.dtype)

    return gym.wrappers.TransformAction(env, original, flat)


class KeepNumbers(gym.ObservationWrapper):
    """Keeps some numbers of a one-dimensional Box and hides the rest, so that a policy needs memory.

    Args:
        env: an environment with a one-dimensional Box observation space.
        kept: indices of the numbers to keep.
    """

    def __init__(self, env: gym.Env, kept: Sequence[int]):
        super().__init__(env)
        self.kept = list(kept)
        space = env.observation_space
        self.observation_space = gym.spaces.Box(
            space.low[self.kept], space.high[self.kept], dtype=space.dtype
        )

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the numbers that are kept."""
        return observation[self.kept]


def hidden_velocity_cartpole(**options: Any) -> gym.Env:
    """CartPole that shows the positions of cart and pole but not their velocities."""
    return KeepNumbers(CartPoleEnv(**options), kept=(0, 2))


gym.register("HiddenVelocityCartPole-v1", hidden_velocity_cartpole, max_episode_steps=500)

"""Environment wrappers: episode statistics, finite values, lives, images, actions, and hidden numbers."""

from collections.abc import Sequence
from copy import copy
import math
from typing import Any

from common.errors import UserError
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
import numpy as np

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


def as_image(env: gym.Env) -> gym.Env:
    """Give images the shape (height, width, channels) and pixels of type uint8 from 0 to 255.

    Raises:
        UserError: if the environment does not observe images, or observes (channels, height, width).
    """
    space = env.observation_space
    if len(space.shape or ()) not in (2, 3) or space.dtype not in (np.uint8, np.bool_):
        raise UserError(
            f"--network cnn needs uint8 images (height, width, channels), and {env.spec.id} observes"
            f" {' '.join(str(space).split())}: use --network mlp"
        )
    if len(space.shape) == 3 and space.shape[0] <= 4 and min(space.shape[1:]) >= 32:
        raise UserError(
            f"{env.spec.id} observes images {space.shape}, which look like (channels, height, width): return"
            " (height, width, channels), and single images with --frame-stack in place of your own stack"
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

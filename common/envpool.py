"""EnvPool (Weng et al. 2022): environments in C++, stepped together by threads."""

from collections.abc import Mapping
import importlib
from typing import Any
import warnings

from common.errors import UserError
from common.quiet import without_noise
import gymnasium as gym
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
import numpy as np

MAX_INT32 = 2**31 - 1
# EnvPool observes no contact forces of the first two, and moves the pendulum before it clips the speed.
DIFFERENT = ("Humanoid-v4", "HumanoidStandup-v4", "Pendulum-v1")
ATARI_FRAME_SKIP = 4  # of gymnasium.wrappers.AtariPreprocessing
ATARI_OPTIONS = ("repeat_action_probability", "full_action_space")  # with the names of ALE's own
FRAMES = "max_num_frames_per_episode"


class EnvPool(gym.vector.VectorEnv):
    """EnvPool's version of an environment, as `common.envs.make_envs` would make it otherwise.

    An episode that ends is reset in the same step, and `infos` has its final observation and statistics.
    The time limit is counted here: EnvPool reports an episode that terminates at its last step as
    truncated only. That of ALE games does not count the no-ops after a reset, up to 30 frames of 108,000.
    The final observation of a lost ALE game is another frame than Gymnasium's; no target depends on it.

    Args:
        env_id: id of the environment, as for `gymnasium.make`.
        env: Gymnasium's environment, with the spaces and the time limit that the copies should have.
        num_envs: number of copies.
        options: options of the environment, as for `gymnasium.make`.
        terminal_on_life_loss: as `common.wrappers.LifeLoss`.

    Raises:
        UserError: if EnvPool is missing, or lacks the environment or one of the options, or has other
            observations or actions.
    """

    def __init__(
        self,
        env_id: str,
        env: gym.Env,
        num_envs: int,
        *,
        options: Mapping[str, Any] | None = None,
        terminal_on_life_loss: bool = False,
    ):
        env_id = env_id.removeprefix("ale_py:")
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.terminal_on_life_loss = terminal_on_life_loss
        self.time_limit = env.spec.max_episode_steps or MAX_INT32
        self.task, self.options = env_id, {"max_episode_steps": MAX_INT32, "num_envs": num_envs}
        if env_id.startswith("ALE/"):
            self.task = env_id.removeprefix("ALE/")
            frames = env.spec.kwargs[FRAMES]  # none and 0: no limit
            self.time_limit = frames // ATARI_FRAME_SKIP if frames else MAX_INT32
            self.options |= _atari_options(env)
        self._envpool = _import_envpool()
        self._check(env_id, options or {})
        self._pool: Any = None
        self._all = np.arange(num_envs)
        self._returns = np.zeros(num_envs)  # of the episodes that are running
        self._lengths = np.zeros(num_envs, int)
        self._lives = np.zeros(num_envs, int)

    def reset(self, *, seed: int | list[int] | None = None, options: dict | None = None):
        """Start new episodes; with seeds, in new environments: EnvPool takes seeds only when it creates them.

        Args:
            seed: one seed per environment, or the first of `num_envs` successive ones.
            options: not used.
        """
        if seed is not None or self._pool is None:
            first = 0 if seed is None else seed
            seeds = first + self._all if np.ndim(first) == 0 else np.array(first)
            self.close_extras()
            self._pool = _quietly(
                self._envpool.make_gymnasium, self.task, seed=seeds & MAX_INT32, **self.options
            )
        return _quietly(self._restart, self._all), {}

    def step(self, actions: np.ndarray):
        """Step every environment; `infos` has "final_obs" and "episode" if episodes have ended."""
        observations, rewards, terminated, truncated, lives = self._advance(actions, self._all)
        game_over = terminated | truncated
        if self.terminal_on_life_loss:
            terminated |= lives < self._lives
            self._lives[:] = lives
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, {}
        infos = {"final_obs": observations, "_final_obs": ended}
        observations = observations.copy()
        alive = np.flatnonzero(ended & ~game_over)  # a life was lost: a no-op continues the game
        if alive.size:
            noops = np.zeros_like(actions[alive])
            observations[alive], _, *over, self._lives[alive] = self._advance(noops, alive)
            game_over[alive] = over[0] | over[1]
        if game_over.any():
            episode = {"r": self._returns.copy(), "l": self._lengths.copy()}
            infos |= {"episode": episode, "_episode": game_over}
            over = np.flatnonzero(game_over)
            observations[over] = self._restart(over)
        return observations, rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads."""
        self._pool = None

    def _advance(self, actions: np.ndarray, ids: np.ndarray) -> tuple:
        """Step some environments; return (observations, rewards, terminated, truncated, lives)."""
        observations, rewards, terminated, _, info = self._pool.step(actions, ids)
        self._returns[ids] += rewards
        self._lengths[ids] += 1
        truncated = self._lengths[ids] >= self.time_limit
        return self._view(observations), rewards.astype(float), terminated, truncated, info.get("lives", 0)

    def _restart(self, ids: np.ndarray) -> np.ndarray:
        """Reset some environments; return their observations."""
        observations, info = self._pool.reset(ids.astype(np.int32))
        self._returns[ids] = 0.0
        self._lengths[ids] = 0
        self._lives[ids] = info.get("lives", 0)
        return self._view(observations)

    def _view(self, observations: np.ndarray) -> np.ndarray:
        """Return observations with the shape and the dtype of the space."""
        space = self.single_observation_space
        return observations.reshape(len(observations), *space.shape).astype(space.dtype, copy=False)

    def _check(self, env_id: str, options: Mapping[str, Any]) -> None:
        """Check that EnvPool has the environment with these options, and with the same spaces."""
        if self.task not in self._envpool.list_all_envs() or self.task in DIFFERENT:
            raise UserError(f"EnvPool does not have Gymnasium's {env_id}: use --executor sync or async")
        known = (*ATARI_OPTIONS, FRAMES) if env_id.startswith("ALE/") else ("max_episode_steps",)
        for name in options.keys() - known:
            raise UserError(
                f"--executor envpool cannot set the option {name} of {env_id}, only {', '.join(known)}:"
                " use --executor sync or async"
            )
        spec = _quietly(self._envpool.make_spec, self.task, **self.options)
        ours, theirs = self.single_observation_space, _quietly(getattr, spec, "gymnasium_observation_space")
        other_image = ours.dtype == np.uint8 and not env_id.startswith("ALE/")  # EnvPool draws in its own way
        if _size(ours) != _size(theirs) or other_image:
            raise UserError(
                f"EnvPool cannot give the observations of {env_id} as these options want them,"
                f" {_shape(ours)}: use --executor sync"
            )
        ours, theirs = self.single_action_space, _quietly(getattr, spec, "gymnasium_action_space")
        if _size(ours) != _size(theirs):
            raise UserError(f"EnvPool has other actions for {env_id}: use --executor sync")


def _atari_options(env: gym.Env) -> dict[str, Any]:
    """Return the options of EnvPool that give what AtariPreprocessing and FrameStackObservation do."""
    space = env.observation_space
    return {
        "frame_skip": ATARI_FRAME_SKIP,
        "noop_max": 30,
        "stack_num": space.shape[0] if len(space.shape) == 4 else 1,
        "use_fire_reset": False,
        **{name: env.spec.kwargs[name] for name in ATARI_OPTIONS},
    }


def _import_envpool() -> Any:
    try:
        return _quietly(importlib.import_module, "envpool")
    except ImportError as error:
        raise UserError(
            f"--executor envpool needs EnvPool: {error}: pip install -r requirements-extras.txt, with Python"
            " 3.11 or newer"
        ) from error


def _quietly(function: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings(), without_noise():
        warnings.simplefilter("ignore")  # about bounds that lose precision
        return function(*arguments, **options)


def _size(space: gym.Space) -> tuple:
    """Return kind and shape of a space, without axes of length 1; for Discrete, the number of values."""
    if isinstance(space, gym.spaces.Discrete):
        return gym.spaces.Discrete, int(space.n)
    return type(space), tuple(length for length in space.shape or () if length != 1)


def _shape(space: gym.Space) -> str:
    return str(space) if isinstance(space, gym.spaces.Discrete) else f"arrays of shape {space.shape}"

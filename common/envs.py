"""Environments: created, checked, and stepped the same way for every script.

Every step is a transition (observation, action, reward, next_observation, terminated, truncated) with the
true next observation, also at the end of an episode.
"""

from collections.abc import Mapping, Sequence
import os
import signal
from typing import Any
import warnings

from common.bins import discretize
from common.create_env import create_env
from common.envpool import EnvPool
from common.errors import UserError
from common.options import RunConfig
from common.wrappers import (
    FiniteGuard,
    KeepEpisodeInfo,
    LifeLoss,
    as_image,
    with_flat_float32_actions,
)
import gymnasium as gym
from gymnasium.vector import AutoresetMode
import numpy as np

# Options of scripts that shape the environment, in training and evaluation alike
VIEW_OPTIONS = ("env_kwargs", "network", "frame_stack", "bins")


def make_env(
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    render_mode: str | None = None,
    network: str = "mlp",
    frame_stack: int = 1,
    bins: Sequence[int] | None = None,
) -> gym.Env:
    """Create one environment with observations and actions as the scripts expect them.

    Observations become arrays of one axis: a Box is flattened, Dict and Tuple observations of Box and
    Discrete parts are flattened and joined, a Discrete observation becomes one-hot, and float64 becomes
    float32. Box actions are flattened alike; Discrete actions start at 0.

    Args:
        env_id: any id that `gymnasium.make` accepts; ids of ALE and MinAtar are registered here.
        env_kwargs: options of the environment, as for `gymnasium.make`.
        render_mode: as for `gymnasium.make`.
        network: "cnn" keeps images as (height, width, channels), uint8.
        frame_stack: above 1, an observation is the last `frame_stack` ones along a new first axis.
        bins: turns the observation into one index, for a table: see `common.bins.discretize`.

    Raises:
        UserError: for an unknown id or option, a missing package, or an observation space that no network
            here reads.
    """
    env = create_env(env_id, env_kwargs, render_mode, atari=network == "cnn")
    space = env.observation_space
    if not _is_flat(space):
        raise UserError(
            f"{env_id} observes {' '.join(str(space).split())}; the scripts read Box and Discrete spaces, and"
            " Dict and Tuple of these: wrap the environment so that it returns one array"
        )
    if bins is not None:
        env = discretize(env, bins, env_kwargs)
    elif network == "cnn":
        env = as_image(env)
    elif _is_image(space):
        raise UserError(
            f"{env_id} observes images {space.shape}, and this network reads vectors: use"
            " --network cnn --frame-stack 4, or a script that has these options, such as ppo/ppo.py"
        )
    elif not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    if bins is None and env.observation_space.dtype not in (np.float32, np.uint8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bounds lose precision as well, which is intended
            env = gym.wrappers.DtypeObservation(env, np.float32)
    if network == "lstm" and frame_stack < 2:
        raise UserError("--network lstm reads a sequence: give --frame-stack 2 or more, such as 8")
    if frame_stack > 1:  # of copies, because an environment may return the same array at every step
        env = gym.wrappers.TransformObservation(env, np.array, env.observation_space)
        env = gym.wrappers.FrameStackObservation(env, frame_stack)
    if isinstance(env.action_space, gym.spaces.Box):
        env = with_flat_float32_actions(env)
    elif isinstance(env.action_space, gym.spaces.Discrete) and env.action_space.start != 0:
        start = env.action_space.start
        env = gym.wrappers.TransformAction(
            env, lambda action: action + start, gym.spaces.Discrete(env.action_space.n)
        )
    return env


def make_envs(config: RunConfig, *action_spaces: type[gym.Space], bounded: bool = False):
    """Create `config.num_envs` environments that are stepped together, with a seeded action space.

    `config.executor` says how: "sync" in a loop, "async" each in its own process, which pays off above 0.3 ms
    per step, "envpool" in the C++ threads of `common.envpool.EnvPool`.

    An episode that ends is reset in the same step (`AutoresetMode.SAME_STEP`), so that every step is a
    transition: `step` returns the first observation of the new episode, and `infos` has the final
    observation of the old one (see `true_next_observations`) and its return (see `finished_episodes`).

    Args:
        config: gives environment, number, seed, and how the script wants to see it.
        action_spaces: the kinds of action space that the script serves, such as `gym.spaces.Discrete`.
        bounded: whether Box actions must have finite bounds.

    Returns:
        A `gym.vector.VectorEnv`.

    Raises:
        UserError: as `make_env`; if the script does not serve the action space; if the loss of a life
            should end an episode in an environment without lives; if EnvPool cannot replace the environment.
    """
    view = view_options(config)
    life_loss = getattr(config, "terminal_on_life_loss", False)
    clip_rewards = getattr(config, "clip_rewards", False)

    process = os.getpid()

    def create():
        if os.getpid() != process:  # which handles Ctrl-C and ends its workers
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        env = make_env(config.env_id, **view)
        _check_action_space(env, config, action_spaces, bounded)
        env = KeepEpisodeInfo(gym.wrappers.RecordEpisodeStatistics(env))
        if life_loss:
            env = LifeLoss(env)
        return gym.wrappers.TransformReward(env, np.sign) if clip_rewards else env

    env = create()  # errors are raised here, not in a worker process
    if config.executor == "envpool":
        envs = EnvPool(
            config.env_id, env, config.num_envs, options=config.env_kwargs, terminal_on_life_loss=life_loss
        )
        envs = gym.wrappers.vector.TransformReward(envs, np.sign) if clip_rewards else envs
        env.close()
    else:
        env.close()  # first: an environment may be a device that only one program can use
        vector = gym.vector.AsyncVectorEnv if config.executor == "async" else gym.vector.SyncVectorEnv
        envs = vector([create] * config.num_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    envs = FiniteGuard(envs, config.env_id)
    envs.action_space.seed(config.seed)
    envs.single_action_space.seed(config.seed)
    return envs


def view_options(config: RunConfig) -> dict[str, Any]:
    """Return those options of a script that shape the environment, for `make_env`."""
    return {name: getattr(config, name) for name in VIEW_OPTIONS if hasattr(config, name)}


def true_next_observations(next_observations: np.ndarray, infos: dict) -> np.ndarray:
    """Return the observations (num_envs, ...) that the last actions led to.

    Where an episode has just ended, `next_observations` holds the first observation of the next episode.
    The policy acts on that one, but what is learned from is the final observation of the old episode.
    """
    if "final_obs" not in infos:
        return next_observations
    ended = infos["_final_obs"]
    result = next_observations.copy()
    result[ended] = np.stack(infos["final_obs"][ended])
    return result


def finished_episodes(infos: dict) -> list[tuple[float, int]]:
    """Return (undiscounted return, length in steps) of each episode that ended in the last step."""
    episodes = []
    for info in (infos.get("final_info", {}), infos):  # the second: games that ended in `LifeLoss.reset`
        if "episode" in info:
            ended, episode = info["_episode"], info["episode"]
            episodes += zip(episode["r"][ended].tolist(), episode["l"][ended].tolist(), strict=True)
    return episodes


def has_time_limit(env: gym.Env) -> bool:
    """Whether episodes of an environment end at a number of steps."""
    spec = env.spec
    if spec is None:
        return False
    return spec.max_episode_steps is not None or bool(spec.kwargs.get("max_num_frames_per_episode"))  # ALE's


def _is_flat(space: gym.Space) -> bool:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        parts = space.values() if isinstance(space, gym.spaces.Dict) else space
        return all(_is_flat(part) for part in parts)
    return isinstance(space, gym.spaces.Box | gym.spaces.Discrete)


def _is_image(space: gym.Space) -> bool:
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 3 and space.dtype in (np.uint8, np.bool_)


def _check_action_space(
    env: gym.Env, config: RunConfig, action_spaces: tuple[type[gym.Space], ...], bounded: bool
) -> None:
    space, script = env.action_space, config.algorithm
    if not isinstance(space, action_spaces):
        served = " or ".join(kind.__name__ for kind in action_spaces)
        raise UserError(
            f"{script} needs a {served} action space, and {config.env_id} has {space}: choose another"
            " script (README.md lists which action spaces each one serves)"
        )
    if bounded and not space.is_bounded():
        raise UserError(
            f"{script} scales its actions to their bounds, and {config.env_id} has {space}: give it"
            " finite bounds with gymnasium.wrappers.TransformAction, or choose another script (see README.md)"
        )

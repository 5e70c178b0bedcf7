"""Environments: made, checked, seeded and stepped the same way for every script.

Everywhere a step is the transition (observation, action, reward, next_observation, terminated, truncated)
with the true next observation, also where an episode ends.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
import warnings

from common.errors import UserError
import gymnasium as gym
from gymnasium.vector import AutoresetMode
import numpy as np

SCRIPTS = {  # which action spaces each script serves
    "q_learning": ("Discrete",),
    "dqn": ("Discrete",),
    "double_dqn": ("Discrete",),
    "dueling_dqn": ("Discrete",),
    "reinforce": ("Discrete", "Box"),
    "a2c": ("Discrete", "Box"),
    "trpo": ("Discrete", "Box"),
    "ppo": ("Discrete", "Box"),
    "ddpg": ("Box",),
    "td3": ("Box",),
}

BOUNDED = ("ddpg", "td3")  # their actors fill the range between the bounds of the action

Policy = Callable[[np.ndarray], np.ndarray]


def make_env(env_id: str, algorithm: str, *, render_mode: str | None = None) -> gym.Env:
    """One environment, as `algorithm` sees it.

    Observations become arrays of one axis: a Box is flattened, a Discrete space becomes one-hot, float64
    becomes float32 (what the networks compute in). So do Box actions; a Discrete action space starts at 0.

    Raises:
        UserError: for an unknown id, a missing dependency, or a space that `algorithm` cannot serve.
    """
    options = {"render_mode": render_mode} if render_mode else {}  # not every environment knows the word
    try:
        env = gym.make(env_id, disable_env_checker=True, **options)
    except (gym.error.Error, ImportError, ValueError, TypeError) as error:
        raise UserError(f"cannot make the environment {env_id!r}: {' '.join(str(error).split())}") from error
    _check_spaces(env, env_id, algorithm)
    if isinstance(env.observation_space, gym.spaces.Discrete) or len(env.observation_space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    if env.observation_space.dtype not in (np.float32, np.uint8):
        env = gym.wrappers.DtypeObservation(env, np.float32)
    if isinstance(env.action_space, gym.spaces.Box):
        env = _with_flat_float32_actions(env)
    elif isinstance(env.action_space, gym.spaces.Discrete) and env.action_space.start != 0:
        start = env.action_space.start
        env = gym.wrappers.TransformAction(
            env, lambda action: action + start, gym.spaces.Discrete(env.action_space.n)
        )
    return env


def make_envs(
    env_id: str, algorithm: str, num_envs: int = 1, seed: int = 0, *, async_envs: bool = False
) -> gym.vector.VectorEnv:
    """`num_envs` copies of an environment, stepped together; their action space is seeded.

    An episode that ends is reset in the same step (`AutoresetMode.SAME_STEP`), so that every step is a
    transition: `step` returns the first observation of the new episode, and the final one of the old in
    `infos` (see `true_next_observations`). Finished episodes stand in `infos` too (see `episode_ends`).

    Args:
        env_id: any id that `gymnasium.make` takes.
        algorithm: the script that asks, for the message when it cannot serve the action space.
        num_envs: number of copies.
        seed: of the action space; reset the environments with `reset(seed=...)`.
        async_envs: step each copy in a process of its own; pays for environments slower than 0.3 ms a step.

    Raises:
        UserError: as `make_env`.
    """

    def thunk():
        return gym.wrappers.RecordEpisodeStatistics(make_env(env_id, algorithm))

    thunk().close()  # a bad id or space is told once and here, not by a worker process
    vector = gym.vector.AsyncVectorEnv if async_envs else gym.vector.SyncVectorEnv
    envs = FiniteGuard(vector([thunk] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP), env_id)
    envs.action_space.seed(seed)
    envs.single_action_space.seed(seed)
    return envs


class FiniteGuard(gym.vector.VectorWrapper):
    """Stops at the first reward or observation that is NaN or infinite, before anything learns from it."""

    def __init__(self, envs: gym.vector.VectorEnv, env_id: str):
        super().__init__(envs)
        self.env_id = env_id
        self.num_steps = 0

    def step(self, actions):
        """Step the environments.

        Raises:
            UserError: if a reward or an observation is not finite.
        """
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self.num_steps += self.num_envs
        # one number says it all: a sum with a NaN or an infinity in it is not finite
        if not np.isfinite(rewards.sum() + observations.sum(dtype=np.float64)):
            what = "reward" if not np.isfinite(rewards).all() else "observation"
            raise UserError(
                f"{self.env_id} gave a {what} that is not finite, at step {self.num_steps:,} of this process:"
                " mend the environment; the last checkpoint is from before"
            )
        return observations, rewards, terminated, truncated, infos


def true_next_observations(next_observations: np.ndarray, infos: dict) -> np.ndarray:
    """The observations (num_envs, ...) that the last actions led to.

    `next_observations`, which the policy acts on next, hold the first observation of the new episode
    wherever an episode has just ended; what is learned from is the final observation of the old one.
    """
    if "final_obs" not in infos:
        return next_observations
    ended = infos["_final_obs"]
    result = next_observations.copy()
    result[ended] = np.stack(infos["final_obs"][ended])
    return result


def episode_ends(infos: dict) -> list[tuple[float, int]]:
    """The (undiscounted return, length in steps) of each episode that ended in the last step."""
    if "final_info" not in infos:
        return []
    ended, episode = infos["_final_info"], infos["final_info"]["episode"]
    return list(zip(episode["r"][ended].tolist(), episode["l"][ended].tolist(), strict=True))


def play(policy: Policy, config, algorithm: str, folder: Path | None = None) -> np.ndarray:
    """Play `config.eval_episodes` whole episodes; `policy` maps observations (n, ...) to actions (n, ...).

    Episode k starts from its own seed, apart from those of training with the same `config.seed`, and every
    episode counts: short ones are not favoured by ending first.

    Args:
        policy: the deterministic policy to play.
        config: says which environment, how many episodes, the seed, and whether to render or record.
        algorithm: as for `make_env`.
        folder: with `config.capture_video`, where the first episode is left as an mp4, under videos/.

    Returns:
        The undiscounted returns (eval_episodes,).

    Raises:
        UserError: as `make_env`; if a video is asked for and cannot be made.
    """
    episodes, env_id = config.eval_episodes, config.env_id
    record = config.capture_video and folder is not None and episodes > 0
    seeds = np.random.SeedSequence([config.seed, 1]).generate_state(episodes).tolist()
    returns = np.zeros(episodes)
    if record:
        with make_video_env(env_id, algorithm, folder / "videos") as env:
            returns[0] = _play_together(policy, [env], [seeds[0]])[0]
    mode, together = ("human", 1) if config.render else (None, 16)
    envs = [make_env(env_id, algorithm, render_mode=mode) for _ in range(together)]
    for k in range(int(record), episodes, together):
        returns[k : k + together] = _play_together(policy, envs, seeds[k : k + together])
    for env in envs:
        env.close()
    return returns


def make_video_env(env_id: str, algorithm: str, folder: str | Path) -> gym.Env:
    """An environment whose first episode is left in `folder` as an mp4, once it is closed.

    Raises:
        UserError: if the environment cannot render, or MoviePy is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of, it raises too
            env = make_env(env_id, algorithm, render_mode="rgb_array")
            env.reset(seed=0)
            env.render()
            return gym.wrappers.RecordVideo(
                env, str(folder), lambda episode: episode == 0, disable_logger=True
            )
    except Exception as error:  # missing extras raise whatever their renderer raises
        raise UserError(f"--capture-video cannot record {env_id}: {' '.join(str(error).split())}") from error


def _play_together(policy: Policy, envs: Sequence[gym.Env], seeds: Sequence[int]) -> np.ndarray:
    """Play one episode of each seed, those still running in one call of the policy."""
    returns = np.zeros(len(seeds))
    running = list(range(len(seeds)))
    observations = [envs[k].reset(seed=seeds[k])[0] for k in running]
    while running:
        actions = policy(np.stack(observations))
        still_running, observations = [], []
        for k, action in zip(running, actions, strict=True):
            observation, reward, terminated, truncated, _ = envs[k].step(action)
            returns[k] += reward
            if not (terminated or truncated):
                still_running.append(k)
                observations.append(observation)
        running = still_running
    return returns


def _with_flat_float32_actions(env: gym.Env) -> gym.Env:
    space = env.action_space
    if len(space.shape) == 1 and space.dtype == np.float32:
        return env
    low, high = space.low.ravel().astype(np.float32), space.high.ravel().astype(np.float32)
    return gym.wrappers.TransformAction(
        env,
        lambda action: np.clip(np.reshape(action, space.shape), space.low, space.high).astype(space.dtype),
        gym.spaces.Box(low, high),
    )


def _check_spaces(env: gym.Env, env_id: str, algorithm: str) -> None:
    observation_space, action_space = env.observation_space, env.action_space
    if not isinstance(observation_space, gym.spaces.Box | gym.spaces.Discrete):
        raise UserError(
            f"{env_id} observes {observation_space}; the scripts take Box and Discrete observations:"
            " wrap the environment so that it gives one array"
        )
    kind = type(action_space).__name__
    if kind not in SCRIPTS[algorithm]:
        able = [name for name, kinds in SCRIPTS.items() if kind in kinds]
        advice = f"try {', '.join(able)}" if able else "no script here serves that"
        raise UserError(
            f"{algorithm} needs a {' or '.join(SCRIPTS[algorithm])} action space,"
            f" and {env_id} has {action_space}: {advice}"
        )
    if algorithm in BOUNDED and not action_space.is_bounded():
        able = [name for name, kinds in SCRIPTS.items() if kind in kinds and name not in BOUNDED]
        raise UserError(
            f"{algorithm} scales its actions to their bounds, and {env_id} has {action_space}:"
            f" try {', '.join(able)}, or gymnasium.wrappers.RescaleAction"
        )

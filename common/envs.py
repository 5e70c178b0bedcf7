"""Environments: made, checked, seeded and stepped the same way for every script.

Everywhere a step is the transition (observation, action, reward, next_observation, terminated, truncated)
with the true next observation, also where an episode ends.
"""

from collections.abc import Callable, Sequence
import importlib
import itertools
import math
import multiprocessing
from pathlib import Path
import signal
from typing import Any
import warnings

from common.errors import UserError
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
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

VIEW_OPTIONS = ("network", "frame_stack", "bins", "low", "high")  # what a config may say of what is seen
BOUNDS = {  # where a space has none: the positions that end an episode, and speeds hardly ever exceeded
    "CartPole-v1": ((-2.4, -3.0, -0.21, -3.5), (2.4, 3.0, 0.21, 3.5)),
}
BOUNDED = ("ddpg", "td3")  # their actors fill the range between the bounds of the action

Policy = Callable[[np.ndarray], np.ndarray]


def make_env(
    env_id: str,
    algorithm: str,
    *,
    render_mode: str | None = None,
    network: str = "mlp",
    frame_stack: int = 1,
    bins: Sequence[int] | None = None,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
) -> gym.Env:
    """One environment, as `algorithm` sees it.

    Observations become arrays of one axis: a Box is flattened, a Discrete space becomes one-hot, float64
    becomes float32 (what the networks compute in). So do Box actions; a Discrete action space starts at 0.

    Args:
        env_id: any id that `gymnasium.make` takes, ALE/... and MinAtar/... and those registered here too.
        algorithm: the script that asks, for the message when it cannot serve a space.
        render_mode: as for `gymnasium.make`.
        network: "cnn" leaves images their axes: (height, width, channels), uint8.
        frame_stack: with more than 1, observations are the last `frame_stack` ones on a new first axis.
        bins: turn observations into one index, for a table: a Box is cut into that many bins a number
            (one count for all, or one each), Discrete observations stay the index that they are.
        low: lower edges of the bins; None for those of the space.
        high: upper edges of the bins; None for those of the space.

    Raises:
        UserError: for an unknown id, a missing dependency, or a space that `algorithm` cannot serve.
    """
    env = _make(env_id, render_mode, atari=network == "cnn")
    _check_spaces(env, env_id, algorithm)
    if bins is not None:
        env = _as_index(env, env_id, bins, low, high)
    elif network == "cnn":
        env = _as_image(env, env_id)
    elif isinstance(env.observation_space, gym.spaces.Discrete) or len(env.observation_space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    if bins is None and env.observation_space.dtype not in (np.float32, np.uint8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that bounds lose precision, too, is meant
            env = gym.wrappers.DtypeObservation(env, np.float32)
    if network == "lstm" and frame_stack < 2:
        raise UserError("--network lstm reads a sequence: give --frame-stack 2 or more, such as 8")
    if frame_stack > 1:
        env = gym.wrappers.FrameStackObservation(env, frame_stack)
    if isinstance(env.action_space, gym.spaces.Box):
        env = _with_flat_float32_actions(env)
    elif isinstance(env.action_space, gym.spaces.Discrete) and env.action_space.start != 0:
        start = env.action_space.start
        env = gym.wrappers.TransformAction(
            env, lambda action: action + start, gym.spaces.Discrete(env.action_space.n)
        )
    return env


def make_envs(
    env_id: str,
    algorithm: str,
    num_envs: int = 1,
    seed: int = 0,
    *,
    async_envs: bool = False,
    clip_rewards: bool = False,
    terminal_on_life_loss: bool = False,
    **view: Any,
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
        clip_rewards: learn from the sign of the reward; the recorded returns are of the rewards as they are.
        terminal_on_life_loss: a lost life terminates for the learner, while the game and its return go on.
        view: options of `make_env` (see `view_options`).

    Raises:
        UserError: as `make_env`; if lives are to count in an environment that has none.
    """

    def thunk():
        if multiprocessing.parent_process():  # Ctrl-C is for the parent, which ends its workers itself
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        env = EpisodeInfo(gym.wrappers.RecordEpisodeStatistics(make_env(env_id, algorithm, **view)))
        if terminal_on_life_loss:
            env = LifeLoss(env)
        return gym.wrappers.TransformReward(env, np.sign) if clip_rewards else env

    thunk().close()  # a bad id or space is told once and here, not by a worker process
    vector = gym.vector.AsyncVectorEnv if async_envs else gym.vector.SyncVectorEnv
    vector_env = vector([thunk] * num_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    envs = FiniteGuard(vector_env, env_id)
    envs.action_space.seed(seed)
    envs.single_action_space.seed(seed)
    return envs


class EpisodeInfo(gym.Wrapper):
    """Leaves of `info` what is read, the statistics of an episode that ended: MuJoCo's fill 20 µs a step."""

    def step(self, action):
        """Step the environment; `info` holds "episode" at the end of one, and nothing before."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {"episode": info["episode"]} if "episode" in info else {}
        return observation, reward, terminated, truncated, info


class FiniteGuard(gym.vector.VectorWrapper):
    """Stops at the first reward or observation that is NaN or infinite, before anything learns from it.

    Args:
        envs: environments that write every step into the same arrays (`copy=False`); what is returned here
            are copies, made in a tenth of the time that gymnasium takes.
        env_id: for the message.
    """

    def __init__(self, envs: gym.vector.VectorEnv, env_id: str):
        super().__init__(envs)
        self.env_id = env_id
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        """Reset the environments."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations.copy(), infos

    def step(self, actions):
        """Step the environments.

        Raises:
            UserError: if a reward or an observation is not finite.
        """
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self.num_steps += self.num_envs
        # one number says it all: a sum with a NaN or an infinity in it is not finite
        total = np.add.reduce(rewards) + np.add.reduce(observations, axis=None)
        if "final_obs" in infos:
            total += np.add.reduce(true_next_observations(observations, infos), axis=None)
        if not math.isfinite(total):
            what = "reward" if not np.isfinite(rewards).all() else "observation"
            raise UserError(
                f"{self.env_id} gave a {what} that is not finite, at step {self.num_steps:,} of this process:"
                " mend the environment; the last checkpoint is from before"
            )
        return observations.copy(), rewards, terminated, truncated, infos


class LifeLoss(gym.Wrapper):
    """A lost life terminates, and the reset after it goes on in the same game (Mnih et al. 2015, Methods).

    Raises:
        UserError: if the environment has no lives to lose.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.lives = 0
        self.game_over = True
        if not hasattr(env.unwrapped, "ale"):
            raise UserError(f"--terminal-on-life-loss needs an ALE game, and {env.spec.id} has no lives")

    def reset(self, *, seed=None, options=None):
        """Start a new game if the last one is over, or step over the loss of a life by doing nothing."""
        if not self.game_over:
            observation, _, terminated, truncated, info = self.env.step(0)
            self.game_over = terminated or truncated
        if self.game_over or seed is not None:
            observation, info = self.env.reset(seed=seed, options=options)
        self.game_over = False
        self.lives = self.env.unwrapped.ale.lives()
        return observation, info

    def step(self, action):
        """Step the game; `terminated` is true also where a life is lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.game_over = terminated or truncated
        lives = self.env.unwrapped.ale.lives()
        lost, self.lives = lives < self.lives, lives
        return observation, reward, terminated or lost, truncated, info


class Bins(gym.ObservationWrapper):
    """Cuts every number of a Box into bins of equal width: the observation becomes the index of its cell.

    What lies beyond an edge counts to the outer bin.

    Args:
        env: an environment that observes a Box.
        bins: number of bins for each number of the observation.
        low: lower edge of the first bins.
        high: upper edge of the last bins.
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
            UserError: if a number is NaN, which no bin holds.
        """
        places = np.minimum(np.maximum((observation.reshape(-1) - self.low) * self.scale, 0), self.last_bin)
        if np.isnan(places.sum()):
            raise UserError(
                f"{self.env.spec.id} gave an observation that is not a number: mend the environment"
            )
        return int(places.astype(np.int64) @ self.strides)


class KeepNumbers(gym.ObservationWrapper):
    """Hides all but some numbers of a Box of one axis, such as velocities: what is left needs a memory."""

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
    """CartPole that shows the positions of cart and pole, and not how fast they move."""
    return KeepNumbers(CartPoleEnv(**options), kept=(0, 2))


gym.register("HiddenVelocityCartPole-v1", hidden_velocity_cartpole, max_episode_steps=500)


def view_options(config: Any) -> dict[str, Any]:
    """Those options of a script that say what its environments show (`VIEW_OPTIONS`), for `make_env`."""
    return {name: getattr(config, name) for name in VIEW_OPTIONS if hasattr(config, name)}


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
    if "episode" not in infos["final_info"]:  # a life was lost, the game goes on
        return []
    ended, episode = infos["final_info"]["_episode"], infos["final_info"]["episode"]
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
        with make_video_env(env_id, algorithm, folder / "videos", **view_options(config)) as env:
            returns[0] = _play_together(policy, [env], [seeds[0]])[0]
    mode, together = ("human", 1) if config.render else (None, 16)
    envs = [make_env(env_id, algorithm, render_mode=mode, **view_options(config)) for _ in range(together)]
    for k in range(int(record), episodes, together):
        returns[k : k + together] = _play_together(policy, envs, seeds[k : k + together])
    for env in envs:
        env.close()
    return returns


def make_video_env(env_id: str, algorithm: str, folder: str | Path, **view: Any) -> gym.Env:
    """An environment whose first episode is left in `folder` as an mp4, once it is closed.

    Raises:
        UserError: if the environment cannot render, or MoviePy is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of, it raises too
            env = make_env(env_id, algorithm, render_mode="rgb_array", **view)
            env.reset(seed=0)
            env.render()
            return gym.wrappers.RecordVideo(
                env, str(folder), lambda episode: episode == 0, disable_logger=True
            )
    except Exception as error:  # missing extras raise whatever their renderer raises
        raise UserError(f"--capture-video cannot record {env_id}: {' '.join(str(error).split())}") from error


def _play_together(policy: Policy, envs: Sequence[gym.Env], seeds: Sequence[int]) -> np.ndarray:
    """Play one episode of each seed, those still running in one call of the policy.

    Where the environment sets no time limit, an episode counts as it stands after 10,000 steps.
    """
    limited = [env.spec is not None and _has_a_limit(env.spec) for env in envs]
    returns = np.zeros(len(seeds))
    running = list(range(len(seeds)))
    observations = [envs[k].reset(seed=seeds[k])[0] for k in running]
    space = envs[0].action_space
    for step in itertools.count(1):
        if not running:
            break
        actions = policy(np.stack(observations))
        if isinstance(space, gym.spaces.Box):  # an action at its bound may be a rounding error beyond it
            actions = np.clip(actions, space.low, space.high)
        still_running, observations = [], []
        for k, action in zip(running, actions, strict=True):
            observation, reward, terminated, truncated, _ = envs[k].step(action)
            returns[k] += reward
            if not (terminated or truncated or (step == 10_000 and not limited[k])):
                still_running.append(k)
                observations.append(observation)
        running = still_running
    return returns


def _has_a_limit(spec: Any) -> bool:
    return spec.max_episode_steps is not None or "max_num_frames_per_episode" in spec.kwargs  # ALE's own


def _make(env_id: str, render_mode: str | None, atari: bool) -> gym.Env:
    options = {"render_mode": render_mode} if render_mode else {}  # not every environment knows the word
    try:
        if env_id.startswith("ALE/"):
            gym.register_envs(importlib.import_module("ale_py"))
            options |= {"frameskip": 1} if atari else {}  # the preprocessing skips frames itself
        if env_id.startswith("MinAtar/") and env_id not in gym.registry:
            importlib.import_module("minatar.gym").register_envs()
            for name in [name for name in gym.registry if name.startswith("MinAtar/")]:
                gym.registry[name].max_episode_steps = 10_000  # a good policy may never lose
        env = gym.make(env_id, disable_env_checker=True, **options)
        if env_id.startswith("ALE/") and atari:
            env = gym.wrappers.AtariPreprocessing(env, grayscale_newaxis=True)
        return env
    except (gym.error.Error, ImportError, ValueError, TypeError) as error:
        raise UserError(f"cannot make the environment {env_id!r}: {' '.join(str(error).split())}") from error


def _as_image(env: gym.Env, env_id: str) -> gym.Env:
    """Give an image the shape (height, width, channels), and bytes from 0 to 255 to its pixels."""
    space = env.observation_space
    if len(space.shape) not in (2, 3) or space.dtype not in (np.uint8, np.bool_):
        raise UserError(
            f"--network cnn needs images of bytes (height, width, channels), and {env_id} observes"
            f" {' '.join(str(space).split())}: use --network mlp"
        )
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return env
    shape = (*space.shape, 1)[:3]
    factor = np.uint8(255 if space.dtype == np.bool_ else 1)
    return gym.wrappers.TransformObservation(
        env, lambda image: image.reshape(shape) * factor, gym.spaces.Box(0, 255, shape, np.uint8)
    )


def _as_index(env: gym.Env, env_id: str, bins, low, high) -> gym.Env:
    """Make the observation one index that starts at 0."""
    space = env.observation_space
    if isinstance(space, gym.spaces.Discrete):
        start = space.start
        if start == 0:
            return env
        return gym.wrappers.TransformObservation(env, lambda k: k - start, gym.spaces.Discrete(space.n))
    size = int(np.prod(space.shape))
    known = BOUNDS.get(env_id, (space.low.reshape(-1), space.high.reshape(-1)))
    low, high = (given or tuple(edges) for given, edges in zip((low or (), high or ()), known, strict=True))
    bins = tuple(bins) * size if len(bins) == 1 else tuple(bins)
    if {len(bins), len(low), len(high)} != {size}:
        raise UserError(
            f"{env_id} observes {size} numbers: give --bins one count or {size},"
            f" and --low and --high {size} bounds each"
        )
    if not np.isfinite([*low, *high]).all():
        raise UserError(
            f"{env_id} has observations without bounds, low {list(map(float, low))} and high"
            f" {list(map(float, high))}: give --low and --high, {size} numbers each"
        )
    if not np.less(low, high).all():
        raise UserError(f"--low {low} must be less than --high {high}, number by number")
    return Bins(env, bins, low, high)


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

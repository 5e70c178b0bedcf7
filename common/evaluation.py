"""Evaluation: greedy episodes of a network or table, shown or recorded if asked."""

from collections.abc import Callable, Sequence
import itertools
import os
from pathlib import Path
import sys
import warnings

from common.envs import has_time_limit, make_env, view_options
from common.errors import UserError
from common.options import RunConfig
from common.quiet import without_noise
from common.wrappers import check_actions
import gymnasium as gym
import numpy as np

EPISODES_AT_ONCE = 16
MAX_STEPS = 10_000  # of an episode in an environment without a time limit


def play_episodes(
    network: Callable[[np.ndarray], np.ndarray], config: RunConfig, folder: Path | None = None
) -> np.ndarray:
    """Play `config.eval_episodes` episodes with the greedy policy of a network.

    The greedy action is the argmax of the outputs for a Discrete action space, and the outputs themselves,
    clipped to their bounds, for a Box. Episode k has a seed of its own, which no training run uses. Every
    episode counts, so episodes that end early are not favored.

    Args:
        network: maps observations (n, ...) to outputs (n, actions).
        config: gives environment, seed, number of episodes, and whether to render or record.
        folder: run folder; with `config.capture_video`, the video of the first episode goes there.

    Returns:
        Undiscounted returns (eval_episodes,).

    Raises:
        UserError: as `make_env`; if a video is requested but cannot be made; for outputs that are not finite.
    """
    episodes, view = config.eval_episodes, view_options(config)
    seeds = np.random.SeedSequence([config.seed, 1]).generate_state(episodes).tolist()
    returns = np.zeros(episodes)
    record = config.capture_video and folder is not None and episodes > 0
    if record:
        with make_video_env(config, folder / "videos") as env:
            returns[0] = _play(network, [env], seeds[:1])[0]
        print(f"video: {next((folder / 'videos').glob(f'{_video_name(config)}-*.mp4'), None)}", flush=True)
    render_mode, at_once = ("human", 1) if config.render else (None, min(EPISODES_AT_ONCE, max(1, episodes)))
    envs = [make_env(config.env_id, render_mode=render_mode, **view) for _ in range(at_once)]
    for k in range(int(record), episodes, at_once):
        returns[k : k + at_once] = _play(network, envs, seeds[k : k + at_once])
    for env in envs:
        env.close()
    return returns


def _play(network: Callable, envs: Sequence[gym.Env], seeds: Sequence[int]) -> np.ndarray:
    """Play one episode per seed; one call of the network serves all episodes that are still running."""
    space, limited = envs[0].action_space, has_time_limit(envs[0])
    discrete = isinstance(space, gym.spaces.Discrete)
    returns = np.zeros(len(seeds))
    running = list(range(len(seeds)))
    observations = [envs[k].reset(seed=seeds[k])[0] for k in running]
    for step in itertools.count(1):
        if not running:
            return returns
        outputs = network(np.stack(observations))
        check_actions(outputs)
        actions = outputs.argmax(axis=-1) if discrete else np.clip(outputs, space.low, space.high)
        still_running, observations = [], []
        for k, action in zip(running, actions, strict=True):
            observation, reward, terminated, truncated, _ = envs[k].step(action)
            returns[k] += reward
            if not (terminated or truncated):
                still_running.append(k)
                observations.append(observation)
        if step == MAX_STEPS and not limited and still_running:
            count = len(still_running)
            print(
                f"warning: {count} evaluation episode{'s were' if count > 1 else ' was'} cut off after"
                f" {MAX_STEPS:,} steps: limit them with --env-kwargs max_episode_steps={MAX_STEPS}",
                file=sys.stderr,
            )
            return returns
        running = still_running
    return returns


def make_video_env(config: RunConfig, folder: Path | str) -> gym.Env:
    """Make an environment that saves its first episode as an mp4 in `folder` when it is closed.

    Raises:
        UserError: if the environment cannot render, or MoviePy is missing.
    """
    try:
        with warnings.catch_warnings(), without_noise():
            warnings.simplefilter("ignore")  # everything it warns about, it raises as well
            env = make_env(config.env_id, render_mode="rgb_array", **view_options(config))
            env.reset(seed=0)
            env.render()
            options = {"name_prefix": _video_name(config), "disable_logger": True}
            return gym.wrappers.RecordVideo(env, str(folder), lambda k: k == 0, **options)
    except Exception as error:  # a renderer whose packages are missing can raise anything
        reason = " ".join(str(error).split())
        raise UserError(f"--capture-video cannot record {config.env_id}: {reason}") from error


def _video_name(config: RunConfig) -> str:
    return "best_model" if Path(config.evaluate or "").stem == "best_model" else "model"


def check_video(config: RunConfig) -> None:
    """Check before training that `--capture-video` will work.

    Raises:
        UserError: as `make_video_env`.
    """
    if config.capture_video:
        make_video_env(config, "").env.close()


def check_display(config: RunConfig) -> None:
    """Check that there is a display for `--render`: without one, the window library crashes.

    Raises:
        UserError: if there is none.
    """
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if config.render and sys.platform == "linux" and not any(os.environ.get(name) for name in names):
        raise UserError("--render needs a display, and there is none: use --capture-video")


def print_evaluation(returns: np.ndarray) -> None:
    """Print the last line of a run: mean ± standard deviation over episodes."""
    mean, deviation, count = returns.mean(), returns.std(), len(returns)
    print(f"evaluation: mean return {mean:.1f} ± {deviation:.1f} over {count} episodes", flush=True)

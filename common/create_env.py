"""One environment from Gymnasium's registry, or one line that says why there is none."""

from collections.abc import Mapping
import copy
import importlib
import inspect
import sys
import traceback
from typing import Any
import warnings

from common.env_kwargs import to_arguments
from common.errors import UserError
from common.quiet import without_noise
import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

EXTRAS = "pip install -r requirements-extras.txt"
OLD_GAMES = "for an ALE game, use ALE/<game>-v5; --env-kwargs repeat_action_probability=0 repeats no action"
RESERVED = {
    "id": "use --env-id",
    "render_mode": "use --render or --capture-video",
    "disable_env_checker": "it is always disabled",
}
NO_OPTIONS = {"self", "kwargs", *RESERVED}
PREPROCESSED = dict.fromkeys(("frameskip", "obs_type"), "the preprocessing of --network cnn sets it")


def create_env(
    env_id: str, env_kwargs: Mapping[str, Any] | None, render_mode: str | None = None, *, atari: bool = False
) -> gym.Env:
    """Create an environment as Gymnasium has it; with `atari`, ALE games get the preprocessing for networks.

    Raises:
        UserError: for an unknown id, a missing package, or options that the environment does not accept.
    """
    is_game = env_id.startswith(("ALE/", "ale_py:"))
    env_id = env_id.removeprefix("ale_py:")
    given = copy.deepcopy(dict(env_kwargs or {}))  # an environment may change a list
    _check(given, is_game, atari)
    options = given | ({"render_mode": render_mode} if render_mode else {})  # not every one knows it
    try:
        with warnings.catch_warnings(record=True) as caught, without_noise():
            warnings.simplefilter("always")
            if is_game:
                gym.register_envs(importlib.import_module("ale_py"))
                options |= {"frameskip": 1} if atari else {}  # the preprocessing skips frames itself
            if env_id.startswith("MinAtar/") and env_id not in gym.registry:
                importlib.import_module("minatar.gym").register_envs()
                for name in [name for name in gym.registry if name.startswith("MinAtar/")]:
                    gym.registry[name].max_episode_steps = 10_000  # a good policy may never lose
            if "mujoco" in str(getattr(gym.registry.get(env_id), "entry_point", "")):
                _redirect_mujoco_warnings()
            env = gym.make(env_id, disable_env_checker=True, **options)
            if env_id.startswith("ALE/") and atari:
                env = gym.wrappers.AtariPreprocessing(env, grayscale_newaxis=True)
        _show_once([str(warning.message) for warning in caught])
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        module, advice = env_id.rpartition(":")[0], EXTRAS
        if module and isinstance(error, ImportError):
            missing = getattr(error.__cause__ or error, "name", None)
            here = missing and f"{module}.".startswith(f"{missing}.")
            advice = "is the module in the current folder?" if here else _place(error)
        raise _cannot_create(env_id, error, advice) from error
    except Exception as error:
        if given and gym.registry.get(env_id.rpartition(":")[2]):
            raise _does_not_accept(env_id, given, error) from error
        if not isinstance(error, gym.error.Error | ValueError | TypeError):
            raise
        needs_extras = "box2d" in str(error).lower() or env_id.startswith(("ALE/", "MinAtar/"))
        own = ":" in env_id and not isinstance(error, gym.error.Error)
        old = "NoFrameskip" in env_id or (is_game and not env_id.startswith("ALE/"))
        advice = OLD_GAMES if old else _place(error) if own else EXTRAS if needs_extras else ""
        raise _cannot_create(env_id, error, advice) from error
    if str(env.spec.entry_point).startswith("ale_py") and not env_id.startswith("ALE/"):
        raise UserError(f"{env_id} would be played without preprocessing: {OLD_GAMES}")
    return env


def _check(options: dict[str, Any], is_game: bool, atari: bool) -> None:
    """Refuse what Gymnasium or ALE would take silently, and write whole numbers of steps as integers."""
    reserved = RESERVED | (PREPROCESSED if is_game and atari else {})
    if is_game:
        reserved["max_episode_steps"] = "a game has max_num_frames_per_episode"
    for name in options.keys() & reserved:
        raise UserError(f"--env-kwargs cannot set {name}: {reserved[name]}")
    steps = options.get("max_episode_steps")
    if isinstance(steps, float) and steps.is_integer():  # such as 1e5
        options["max_episode_steps"] = int(steps)
    chance = options.get("repeat_action_probability", 0.0)
    if is_game and not (isinstance(chance, int | float) and 0.0 <= chance <= 1.0):
        raise UserError(f"--env-kwargs repeat_action_probability is {chance}: it must be from 0 to 1")


def _does_not_accept(env_id: str, options: dict[str, Any], error: Exception) -> UserError:
    """Say which options an environment did not accept, why, and which it has."""
    creator = gym.spec(env_id.rpartition(":")[2]).entry_point
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    names = [name for name in inspect.signature(creator).parameters if name not in NO_OPTIONS]
    reason = _one_line(error).partition(" was raised from")[0]
    return UserError(
        f"cannot create {env_id!r} with --env-kwargs {' '.join(to_arguments(options))}:"
        f" {type(error).__name__}: {reason}: its options are {', '.join([*names, 'max_episode_steps'])}"
    )


_SHOWN: set[str] = set()


def _show_once(messages: list[str]) -> None:
    """Print warnings about an environment on one line each, once per process."""
    for message in messages:
        if "environment" in message and message not in _SHOWN:
            _SHOWN.add(message)
            print(f"warning: {_one_line(message)}", file=sys.stderr)


def _redirect_mujoco_warnings() -> None:
    """Show a warning of MuJoCo once; by default it prints each one again and writes MUJOCO_LOG.TXT."""
    mujoco = importlib.import_module("mujoco")

    def show(message: str) -> None:
        if "deprecated" not in message:
            _show_once([f"the simulator of the environment says: {message}"])

    mujoco.set_mju_user_warning(show)


def _place(error: Exception) -> str:
    """Return the last place of an error that is neither in a library nor here; "" if there is none."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)  # Gymnasium raises some again
    libraries = ("site-packages", "<frozen", __file__)
    own = [frame for frame in frames if not any(part in frame.filename for part in libraries)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""


def _cannot_create(env_id: str, error: Exception, advice: str) -> UserError:
    return UserError(": ".join(filter(None, [f"cannot create {env_id!r}", _one_line(error), advice])))


def _one_line(text: object) -> str:
    plain = str(text).replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ")
    return " ".join(plain.split())

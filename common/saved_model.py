"""Saved models: model.keras, or model.npz for a table, in a run folder; and the best model likewise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.envs import make_env, view_options
from common.errors import UserError
from common.evaluation import check_display, print_evaluation
from common.options import RunConfig, validate
from common.quiet import importing
from common.run_folder import load_config, replacing
import gymnasium as gym
import numpy as np


def save_model(model: Any, folder: Path, name: str = "model") -> Path:
    """Save a Keras model as <name>.keras, or a table (a NumPy array) as <name>.npz; return the path."""
    table = isinstance(model, np.ndarray)
    path = folder / (f"{name}.npz" if table else f"{name}.keras")
    with replacing(path) as partial:
        np.savez(partial, model=model) if table else model.save(partial)
    return path


def evaluate_saved_model(config: RunConfig, evaluate: Callable[..., np.ndarray]) -> None:
    """Evaluate the model at `config.evaluate` and print the result; a video is saved next to the model.

    Args:
        config: options of the script.
        evaluate: the script's `evaluate(model, config, folder)`.

    Raises:
        UserError: if there is no such model, another script trained it, it does not fit the environment, or
            there are no episodes to play.
    """
    validate(config)
    if not config.eval_episodes:
        raise UserError("--evaluate needs episodes to play, and --eval-episodes is 0: give at least 1")
    check_display(config)
    path = Path(config.evaluate)
    if path.is_dir():
        path = path / ("model.npz" if (path / "model.npz").exists() else "model.keras")
    if not path.is_file():
        raise UserError(f"there is no model {path}: give a run folder, or the model in it")
    if (path.parent / "config.json").exists():
        trained_by = load_config(path.parent).get("algorithm")
        if trained_by != config.algorithm:
            raise UserError(
                f"{path} was trained by {trained_by}: evaluate it with"
                f" python {trained_by}/{trained_by}.py --evaluate {path}"
            )
    model, inputs, outputs = _load_model(path)
    with make_env(config.env_id, **view_options(config)) as env:
        observations, actions = env.observation_space, env.action_space
        if not isinstance(actions, gym.spaces.Discrete | gym.spaces.Box):
            raise UserError(f"{config.env_id} has {actions}: the scripts act in Discrete and Box spaces")
        table = isinstance(model, np.ndarray)
        needed_inputs = (int(observations.n),) if table else observations.shape
        needed_outputs = int(actions.n) if isinstance(actions, gym.spaces.Discrete) else actions.shape[0]
        if (inputs, outputs) != (needed_inputs, needed_outputs):
            raise UserError(
                f"{path} maps {inputs} to ({outputs},), but {config.env_id} needs {needed_inputs} to"
                f" ({needed_outputs},): give the --env-id and the --env-kwargs that it was trained with"
            )
    print_evaluation(evaluate(model, config, path.parent))


def _load_model(path: Path) -> tuple[Any, tuple[int, ...], int]:
    """Load a saved model; return it with the shape of its inputs (states of a table) and its outputs."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as saved:
                table = saved["model"]
            return table, table.shape[:1], table.shape[1]
        with importing():
            import keras

        model = keras.models.load_model(path, compile=False)
        return model, model.input_shape[1:], model.output_shape[-1]
    except Exception as error:  # Keras can raise anything for a file of other content
        raise UserError(f"{path} is not a model that can be loaded: give the model of a run") from error

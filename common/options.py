"""Options: those every script shares, what values they may have, and the command line they come from."""

import dataclasses
import json
from pathlib import Path
import typing
from typing import Annotated, Any

from annotated_types import BaseMetadata, Ge, Gt, Interval, Le, Lt
from common.errors import UserError
import tyro

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]


@dataclasses.dataclass(kw_only=True)
class RunConfig:
    """The options every script shares."""

    env_id: str = "CartPole-v1"
    """Environment: any id that gymnasium.make takes, package.module:Name-v0 too."""
    total_timesteps: PositiveInt = 50_000
    """Environment steps to train for, summed over all environments."""
    seed: Seed = 0
    """Seeds networks, sampling, exploration and environments: the same seed gives the same run."""
    num_envs: PositiveInt = 1
    """Copies of the environment that are stepped together."""
    async_envs: bool = False
    """Step each copy in a process of its own: pays for environments slower than 0.3 ms a step."""
    eval_episodes: NonNegativeInt = 100
    """Greedy episodes played after training, on environments seeded apart."""
    save_model: bool = True
    """Leave the model in the run folder: model.keras, or model.npz for a table."""
    capture_video: bool = False
    """Leave an mp4 of the first evaluation episode."""
    render: bool = False
    """Show the evaluation in a window."""
    track: bool = False
    """Log to Weights & Biases too; with WANDB_MODE=offline no account is needed."""
    wandb_project: str = "deep-rl-keras"
    """Weights & Biases project."""
    runs_dir: str = "runs"
    """Where run folders are made."""
    log_frequency: PositiveInt = 1_000
    """Environment steps between rows of metrics.csv, at the least."""
    checkpoint_frequency: NonNegativeInt = 10_000
    """Environment steps between checkpoints; 0 for one at the end only."""
    resume: str | None = None
    """Run folder to continue from its last checkpoint, with its options unless given anew."""
    evaluate: str | None = None
    """Saved model to play, instead of training."""
    eager: bool = False
    """Run the update uncompiled, so that print and a debugger work inside it."""


def parse(config_class: type[RunConfig], args: list[str] | None = None) -> RunConfig:
    """Parse the command line; `--resume` and `--evaluate` start from the options their run folder holds."""
    config = tyro.cli(config_class, args=args)
    path = Path(config.resume or config.evaluate or "")
    folder = path if path.is_dir() else path.parent
    if (config.resume or config.evaluate) and (folder / "config.json").exists():
        known = {field.name for field in dataclasses.fields(config_class)} - {"resume", "evaluate"}
        if config.evaluate:  # how it was trained, not how it is to be shown
            known -= {"render", "capture_video", "track", "eager"}
        saved = {name: value for name, value in load_config(folder).items() if name in known}
        saved = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        config = tyro.cli(config_class, args=args, default=config_class(**saved))
    return config


def check(config: RunConfig) -> None:
    """Check every option against the range its annotation gives.

    Raises:
        UserError: that names the option, its value and its range.
    """
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            choices = " or ".join(map(str, typing.get_args(hint)))
            raise UserError(f"--{name.replace('_', '-')} is {value}: it must be {choices}")
        inner = [hint, *typing.get_args(hint)]
        limits = [limit for kind in inner for limit in getattr(kind, "__metadata__", ())]
        for number in value if isinstance(value, tuple | list) else (value,):
            for limit in limits:
                _check_limit(name, number, limit)


def _check_limit(name: str, number: Any, limit: BaseMetadata) -> None:
    option = "--" + name.replace("_", "-")
    for bound in limit if isinstance(limit, Interval) else (limit,):
        match bound:
            case Gt(gt=low):
                fits, words = number > low, f"greater than {low}"
            case Ge(ge=low):
                fits, words = number >= low, f"at least {low}"
            case Lt(lt=high):
                fits, words = number < high, f"less than {high}"
            case Le(le=high):
                fits, words = number <= high, f"at most {high}"
            case _:
                continue
        if not fits:
            raise UserError(f"{option} is {number}: it must be {words}")


def load_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run folder.

    Raises:
        UserError: if there is none, or it is no JSON.
    """
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a run folder: it has no readable config.json") from error

"""Options that all scripts share, and the validation of option values."""

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le
from common.env_kwargs import plain
from common.errors import UserError
import pydantic

MAX_INT = 10**12  # a year of steps; a few numbers of this size can be multiplied without an overflow
MAX_FLOAT = 3.4e38  # float32, in which the networks compute

PositiveInt = Annotated[int, Gt(0), Le(MAX_INT)]
NonNegativeInt = Annotated[int, Ge(0), Le(MAX_INT)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveFraction = Annotated[float, Interval(gt=0, le=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]


@dataclasses.dataclass(kw_only=True)
class RunConfig:
    """Options that all scripts share."""

    env_id: str = "CartPole-v1"
    """Environment id: any that gymnasium.make accepts, or my_module:MyEnv-v0."""
    env_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the environment itself, such as is_slippery=False or max_episode_steps=1000."""
    total_timesteps: PositiveInt = 50_000
    """Environment steps to train for, summed over all environments."""
    seed: Seed = 0
    """Random seed of networks, sampling, exploration, and environments. Equal seeds give equal runs."""
    num_envs: PositiveInt = 1
    """Number of environments stepped together."""
    executor: Literal["sync", "async", "envpool"] = "sync"
    """How environments are stepped: one after the other, each in its own process, or in C++ threads."""
    eval_frequency: NonNegativeInt = 0
    """Environment steps between evaluations during training; 0 evaluates at the end only."""
    eval_episodes: NonNegativeInt = 100
    """Episodes of each evaluation, with the greedy policy and seeds of their own."""
    save_model: bool = True
    """Save model.keras (model.npz for a table) and, with --eval-frequency, the best model so far."""
    capture_video: bool = False
    """Record the first episode of the final evaluation as an mp4."""
    render: bool = False
    """Show the final evaluation in a window."""
    track: bool = False
    """Log to Weights & Biases as well. WANDB_MODE=offline needs no account."""
    wandb_project: str = "deep-rl-keras"
    """Weights & Biases project."""
    runs_dir: str = "runs"
    """Folder in which run folders are created."""
    log_frequency: PositiveInt = 1_000
    """Environment steps per row of metrics.csv: one row in each interval of this length."""
    checkpoint_frequency: NonNegativeInt = 10_000
    """Environment steps per checkpoint, or more if saving is slow; 0 saves one at the end only."""
    resume: str | None = None
    """Run folder to continue; on the command line, options that are not given are those of the run."""
    evaluate: str | None = None
    """Run folder or saved model to evaluate, without training."""
    eager: bool = False
    """Run updates uncompiled, so that print and a debugger work inside them."""

    @property
    def algorithm(self) -> str:
        """Name of the script that defines this config, such as "dqn"."""
        return Path(inspect.getfile(type(self))).stem

    @property
    def script(self) -> str:
        """Path of this script, relative to the current folder if it is below it."""
        path, here = Path(inspect.getfile(type(self))).resolve(), Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)


def validate(config: RunConfig) -> None:
    """Check every option against its type and range, and `num_envs` against `train_frequency`.

    Values of another type that mean the same are converted, such as 1e5 for a number of steps.

    Raises:
        UserError: naming the first invalid option, its value, and what it must be.
    """
    config.env_kwargs = plain(config.env_kwargs)
    try:
        valid = pydantic.TypeAdapter(type(config)).validate_python(dataclasses.asdict(config))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        requirement = first["msg"].replace("Input should be", "it must be")
        raise UserError(f"{option} is {first['input']}: {requirement}") from error
    vars(config).update(vars(valid))
    train_frequency = getattr(config, "train_frequency", config.num_envs)
    if config.num_envs > train_frequency and not config.evaluate:
        raise UserError(
            f"--num-envs is {config.num_envs}: it must be at most --train-frequency, {train_frequency}; raise"
            " --train-frequency and --gradient-steps by the same factor"
        )
    for name, value in vars(config).items():
        if isinstance(value, float) and not abs(value) <= MAX_FLOAT:  # or NaN
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is {value}: it must be a finite number of at most {MAX_FLOAT}")

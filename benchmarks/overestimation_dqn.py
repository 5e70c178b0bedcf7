"""How far DQN and Double DQN overestimate: the value they state against the return they get.

    python benchmarks/overestimation_dqn.py                          # CartPole-v1, seeds 0 to 4
    python benchmarks/overestimation_dqn.py --plot-only              # the figure again, from the table

While a script trains as it always does, its greedy policy is played from start states that are the same for
every measurement. `value` is the mean of max_a Q(s, a) over those states, `realised` the mean discounted
return from there to the end of the episode; `overestimation` is the first less the second. All three are
columns of the run's metrics.csv and scalars of its TensorBoard. The table and the figure stand beside this
file.
"""

from collections.abc import Callable
import csv
from dataclasses import dataclass
import importlib
from pathlib import Path
from typing import Any

from common.envs import make_env, view_options
from common.networks import fast_copy
from common.run import PositiveInt, Run
import keras
import numpy as np
import tyro

SCRIPTS = ("dqn", "double_dqn")
COLUMNS = ("algorithm", "seed", "global_step", "value", "realised", "overestimation")
HERE = Path(__file__).parent


@dataclass(kw_only=True)
class Options:
    """What is measured."""

    env_id: str = "CartPole-v1"
    """Environment."""
    total_timesteps: PositiveInt | None = None
    """Steps of each run; None for the default of the script."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of each script."""
    every: PositiveInt = 2_500
    """Environment steps between measurements."""
    episodes: PositiveInt = 20
    """Episodes of a measurement."""
    runs_dir: str = "runs"
    """Where the run folders are made."""
    plot_only: bool = False
    """Draw the figure from the table that is there."""


def measure(model: keras.Model, config: Any, episodes: int) -> dict[str, float]:
    """Compare the stated value of start states with the discounted return of the greedy policy from there."""
    q_network = fast_copy(model)
    stated, realised = np.zeros(episodes), np.zeros(episodes)
    with make_env(config.env_id, "dqn", **view_options(config)) as env:
        for episode in range(episodes):
            observation, _ = env.reset(seed=1_000_000 + episode)
            stated[episode] = q_network(observation[None]).max()
            discount, over = 1.0, False
            while not over:
                action = int(q_network(observation[None]).argmax())
                observation, reward, terminated, truncated, _ = env.step(action)
                realised[episode] += discount * reward
                discount *= config.gamma
                over = terminated or truncated
    means = {"value": stated.mean(), "realised": realised.mean()}
    return means | {"overestimation": means["value"] - means["realised"]}


def measuring_run(options: Options, rows: list[dict[str, Any]]) -> Callable[..., Run]:
    """Return a `Run` that measures wherever a row of metrics.csv is due."""

    class MeasuringRun(Run):
        def log(self, **metrics: Any) -> None:
            if self.row_is_due:
                means = measure(self.state["q_network"], self.config, options.episodes)
                rows.append(
                    {
                        "algorithm": self.algorithm,
                        "seed": self.config.seed,
                        "global_step": self.global_step,
                        **{name: round(float(value), 4) for name, value in means.items()},
                    }
                )
                super().log(**metrics, **means)

    return MeasuringRun


def run(options: Options) -> list[dict[str, Any]]:
    """Train each script on each seed, and return the measurements."""
    rows: list[dict[str, Any]] = []
    for name in SCRIPTS:
        script = importlib.import_module(f"{name}.{name}")
        script.Run = measuring_run(options, rows)
        for seed in options.seeds:
            config = script.Config(
                env_id=options.env_id,
                seed=seed,
                log_frequency=options.every,
                checkpoint_frequency=0,
                runs_dir=options.runs_dir,
            )
            config.total_timesteps = options.total_timesteps or config.total_timesteps
            script.train(config)
    return rows


def draw(rows: list[dict[str, Any]], env_id: str, path: Path) -> None:
    """Draw the stated values (lines) and the realised returns (dashes), means over the seeds."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(8, 3.4), layout="constrained").subplots(1, len(SCRIPTS), sharey=True)
    for axis, name in zip(axes, SCRIPTS):
        mine = [row for row in rows if row["algorithm"] == name]
        steps = sorted({int(row["global_step"]) for row in mine})
        for column, style, label in (
            ("value", "-", "stated: max Q of start states"),
            ("realised", "--", "realised discounted return"),
        ):
            values = [
                [float(row[column]) for row in mine if int(row["global_step"]) == step] for step in steps
            ]
            mean = np.array([np.mean(value) for value in values])
            (line,) = axis.plot(steps, mean, style, label=label)
            low, high = ([limit(value) for value in values] for limit in (min, max))
            axis.fill_between(steps, low, high, alpha=0.15, color=line.get_color())
        seeds = len({row["seed"] for row in mine})
        axis.set(title=f"{name} ({seeds} seeds)", xlabel=f"environment steps, {env_id}")
    axes[0].set_ylabel("discounted return")
    axes[0].legend(frameon=False)
    axes[0].figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, and leave the table and the figure."""
    options = tyro.cli(Options, description=__doc__)
    table = HERE / f"overestimation_{options.env_id}.csv"
    if not options.plot_only:
        rows = run(options)
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    draw(rows, options.env_id, table.with_suffix(".png"))
    half = max(int(row["global_step"]) for row in rows) / 2
    for name in SCRIPTS:
        late = [row for row in rows if row["algorithm"] == name and int(row["global_step"]) > half]
        mean = np.mean([float(row["overestimation"]) for row in late])
        print(f"{name}: overestimation {mean:+.2f}, mean over the second half of {options.env_id}")


if __name__ == "__main__":
    main()

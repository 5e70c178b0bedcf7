"""Overestimation of critics: the value that a critic predicts, compared with the return that its policy gets.

    python benchmarks/overestimation.py dqn double_dqn                 # the scripts' default task, 5 seeds
    python benchmarks/overestimation.py dqn double_dqn --env-id FrozenLake8x8-v1 --initial-value 0
    python benchmarks/overestimation.py dqn double_dqn --env-id MinAtar/Asterix-v1
    python benchmarks/overestimation.py ddpg td3
    python benchmarks/overestimation.py dqn double_dqn --plot-only     # only the figure, from the table

All scripts train for as many steps as the last one, with the options that learning.toml has for the last
one on the environment; the other options are their own defaults. Meanwhile, the greedy policy plays 20
episodes from the same first states at every row of metrics.csv, 50 times in a long run. `stated` is the mean
of max_a Q(s, a) over these states, or of Q(s, μ(s)) (TD3: its first critic); `realized` is the mean
discounted return of the episodes; `overestimation` is their difference. They are columns of metrics.csv and
of benchmarks/results/overestimation_<last script>.csv, next to its figure.
"""

from dataclasses import dataclass, replace
import importlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from common.envs import make_env, view_options
from common.errors import UserError
from common.run import Run
import gymnasium as gym
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
import numpy as np
import pandas as pd
import tyro

from benchmarks import cli, records
from benchmarks.figures import save
from benchmarks.options import parse
from benchmarks.settings import SCRIPTS, TASKS, select

EPISODES = 20  # per measurement
ROWS = 50  # of metrics.csv in a long run; shorter runs have one per `log_frequency` steps
NEGLIGIBLE = 1e-4  # discount at which an episode is cut off


@dataclass(kw_only=True)
class Options:
    """What to measure."""

    scripts: tyro.conf.Positional[tuple[Literal["dqn", "double_dqn", "dueling_dqn", "ddpg", "td3"], ...]]
    """Scripts to compare: dqn, double_dqn and dueling_dqn, or ddpg and td3."""
    env_id: str | None = None
    """Environment (default: the last script's)."""
    total_timesteps: int | None = None
    """Length of each run (default: the last script's)."""
    initial_value: float | None = None
    """Initial Q of dqn, double_dqn and dueling_dqn (default: theirs, which suits CartPole)."""
    seeds: int = 5
    """Number of runs per script."""
    results: Path = records.RESULTS
    """Folder of the table and the figure."""
    plot_only: bool = False
    """Draw the figure from the existing table."""


def measure(run: Run, episodes: int = EPISODES) -> dict[str, float]:
    """Compare the values of first states with the discounted returns of the greedy policy from them."""
    agent, config = run.checkpoints.trackables["agent"], run.config
    view = view_options(config)
    envs = gym.vector.SyncVectorEnv([lambda: make_env(config.env_id, **view)] * episodes)
    observations, _ = envs.reset(seed=1_000_000)
    learns_q = hasattr(agent, "q_network")
    outputs = agent.acting_network(observations)
    if learns_q:
        values = outputs.max(axis=-1)
    else:
        values = agent.critic(np.concatenate([observations, outputs], axis=-1)).numpy()

    realized, discount, running = np.zeros(episodes), 1.0, np.ones(episodes, bool)
    while running.any() and discount > NEGLIGIBLE:
        outputs = agent.acting_network(observations)
        actions = outputs.argmax(axis=-1) if learns_q else outputs
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        realized += discount * rewards * running
        discount *= config.gamma
        running &= ~(terminated | truncated)
    envs.close()
    means = {"stated": float(values.mean()), "realized": float(realized.mean())}
    return means | {"overestimation": means["stated"] - means["realized"]}


def train(options: Options) -> list[dict[str, Any]]:
    """Train each script with each seed and return the measurements."""
    rows: list[dict[str, Any]] = []

    class MeasuringRun(Run):
        """Measures before it writes a row of metrics.csv."""

        def log(self, **metrics: Any) -> None:
            if self.row_is_due:
                means = measure(self)
                row = {
                    "script": self.config.algorithm,
                    "env_id": self.config.env_id,
                    "seed": self.config.seed,
                }
                row |= {"global_step": self.global_step}
                rows.append(row | {name: round(value, 3) for name, value in means.items()})
                super().log(**metrics, **means)

    modules = [importlib.import_module(f"{name}.{name}") for name in options.scripts]
    env_id = options.env_id or modules[-1].Config().env_id
    tasks = select(TASKS, (options.scripts[-1],), (env_id,))
    arguments = f"--env-id {env_id} {tasks[0].arguments if tasks else ''}"
    total = options.total_timesteps or parse(options.scripts[-1], arguments).total_timesteps
    for name, module in zip(options.scripts, modules):
        module.Run = MeasuringRun
        config = parse(name, arguments)
        for seed in range(options.seeds):
            shared = {"seed": seed, "checkpoint_frequency": 0, "eval_episodes": 0, "save_model": False}
            shared |= {"total_timesteps": total}
            shared["log_frequency"] = max(config.log_frequency, total // ROWS)
            if options.initial_value is not None:
                shared["initial_value"] = options.initial_value
            with TemporaryDirectory() as scratch:
                module.train(replace(config, **shared, runs_dir=scratch))
    return rows


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Draw one panel per script: means over seeds, and their range."""
    scripts = list(frame["script"].unique())
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, len(scripts), sharey=True, squeeze=False)[0]
    for axes, script in zip(panels, scripts):
        runs = frame[frame["script"] == script]
        steps = runs.groupby("global_step")
        labels = {"stated": ("-", "predicted by the critic"), "realized": ("--", "discounted return")}
        for column, (style, label) in labels.items():
            values = steps[column].agg(["mean", "min", "max"])
            (line,) = axes.plot(values.index, values["mean"], style, label=label)
            axes.fill_between(values.index, values["min"], values["max"], alpha=0.15, color=line.get_color())
        axes.set_title(SCRIPTS[script].name, fontsize=9)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.25)
    task, seeds = frame["env_id"].iloc[0], frame["seed"].nunique()
    figure.suptitle(f"{task}: mean and range of {seeds} seeds", fontsize=10)
    panels[0].set_ylabel("value of first states")
    panels[0].legend(frameon=False)
    save(figure, path)


def main(options: Options) -> None:
    """Measure, and write the table and the figure.

    Raises:
        UserError: if no script is named, or with `plot_only` if there is no table.
    """
    if not options.scripts:
        raise UserError("name the scripts to compare, such as dqn double_dqn")
    table = options.results / f"overestimation_{options.scripts[-1]}.csv"
    if options.plot_only and not table.exists():
        raise UserError(f"there is no {table}: measure first, without --plot-only")
    if not options.plot_only:
        records.write_csv(table, train(options))
    frame = pd.read_csv(table)
    draw(frame, table.with_suffix(".png"))
    late = frame[frame["global_step"] > frame["global_step"].max() / 2]
    for script, mean in late.groupby("script", sort=False)["overestimation"].mean().items():
        print(f"{script}: overestimation {mean:+.2f}, mean over the second half of the training")


if __name__ == "__main__":
    cli.run(main, Options)

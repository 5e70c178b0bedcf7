"""How far critics overestimate: the value they state beside the return that their policy gets.

    python benchmarks/overestimation.py dqn double_dqn                 # on the scripts' default task, 5 seeds
    python benchmarks/overestimation.py ddpg td3
    python benchmarks/overestimation.py dqn double_dqn --plot-only     # the figure again, from the table

While a script trains with its defaults (but `--initial-value 0`, where it has that), its greedy policy is
played from first states that are the same for every measurement. `stated` is the mean over them of
max_a Q(s, a), or of Q(s, μ(s)) (of TD3's critics the one that the actor follows); `realised` is the mean
discounted return from there to the end of the episode; `overestimation` is the first less the second. All
three are columns of the run's metrics.csv and scalars of its TensorBoard, and over all seeds a table and a
figure, benchmarks/results/overestimation_<last script>.
"""

from collections.abc import Callable
from dataclasses import dataclass
import importlib
from pathlib import Path
from typing import Any

from common.envs import make_env, view_options
from common.networks import fast_copy
from common.options import PositiveInt
from common.run import Run
from matplotlib.figure import Figure
import numpy as np
import tyro

from benchmarks import job


@dataclass(kw_only=True)
class Options:
    """What is measured."""

    scripts: tyro.conf.Positional[tuple[str, ...]]
    """Scripts to compare, of the DQN family or ddpg and td3."""
    env_id: str | None = None
    """Environment; None for the scripts' default. Its episodes have to be long beside 1 / (1 − γ)."""
    total_timesteps: PositiveInt | None = None
    """Steps of each run; None for the last script's default."""
    seeds: PositiveInt = 5
    """Runs of each script, with seeds 0, 1, …"""
    every: PositiveInt = 1_000
    """Environment steps between measurements, at the least."""
    episodes: PositiveInt = 20
    """Episodes of a measurement."""
    runs_dir: str = "runs"
    """Where the run folders are made."""
    results: Path = job.RESULTS
    """Folder for the table and the figure."""
    plot_only: bool = False
    """Draw the figure from the table that is there."""


def measure(state: dict[str, Any], config: Any, algorithm: str, episodes: int) -> dict[str, float]:
    """Compare the stated value of first states with the discounted return of the greedy policy from there.

    Args:
        state: the networks of the run by name, "q_network" or "actor" and "critic".
        config: the options of the run.
        algorithm: the script's name.
        episodes: how many first states.
    """
    if "q_network" in state:
        q_network = fast_copy(state["q_network"])
        value = lambda s: q_network(s).max()  # noqa: E731
        policy = lambda s: q_network(s).argmax(axis=-1)  # noqa: E731
    else:
        policy, critic = fast_copy(state["actor"]), fast_copy(state["critic"])
        value = lambda s: critic(np.concatenate([s, policy(s)], axis=-1))[0, 0]  # noqa: E731
    stated, realised = np.zeros(episodes), np.zeros(episodes)
    with make_env(config.env_id, algorithm, **view_options(config)) as env:
        for episode in range(episodes):
            observation, _ = env.reset(seed=1_000_000 + episode)
            stated[episode] = value(observation[None])
            discount, over = 1.0, False
            while not over:
                observation, reward, terminated, truncated, _ = env.step(policy(observation[None])[0])
                realised[episode] += discount * reward
                discount *= config.gamma
                over = terminated or truncated
    means = {"stated": float(stated.mean()), "realised": float(realised.mean())}
    return means | {"overestimation": means["stated"] - means["realised"]}


def measuring_run(options: Options, rows: list[dict[str, Any]]) -> Callable[..., Run]:
    """Return a `Run` that measures wherever a row of metrics.csv is due."""

    class MeasuringRun(Run):
        def log(self, **metrics: Any) -> None:
            if self.row_is_due:
                means = measure(self.state, self.config, self.algorithm, options.episodes)
                rows.append(
                    {
                        "script": self.algorithm,
                        "env_id": self.config.env_id,
                        "seed": self.config.seed,
                        "global_step": self.global_step,
                        **{name: round(value, 3) for name, value in means.items()},
                    }
                )
                super().log(**metrics, **means)

    return MeasuringRun


def run(options: Options) -> list[dict[str, Any]]:
    """Train each script on each seed, and return the measurements."""
    rows: list[dict[str, Any]] = []
    modules = [importlib.import_module(f"{name}.{name}") for name in options.scripts]
    common = {
        "env_id": options.env_id or modules[-1].Config().env_id,
        "total_timesteps": options.total_timesteps or modules[-1].Config().total_timesteps,
        "log_frequency": options.every,
        "runs_dir": options.runs_dir,
        "checkpoint_frequency": 0,
        "eval_episodes": 0,
    }
    if hasattr(modules[-1].Config(), "initial_value"):
        common["initial_value"] = 0.0  # a Q that begins at 100 would hide what the maximum adds
    for module in modules:
        module.Run = measuring_run(options, rows)
        for seed in range(options.seeds):
            module.train(module.Config(**common, seed=seed))
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw what was stated and what was realised: a panel a script, the mean over seeds and their range."""
    scripts = list(dict.fromkeys(row["script"] for row in rows))
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, script in zip(figure.subplots(1, len(scripts), sharey=True), scripts):
        mine = [row for row in rows if row["script"] == script]
        seeds = {row["seed"] for row in mine}
        steps = sorted({int(row["global_step"]) for row in mine})
        for column, style, label in (
            ("stated", "-", "stated by the critic"),
            ("realised", "--", "realised discounted return"),
        ):
            values = [
                [float(row[column]) for row in mine if int(row["global_step"]) == step] for step in steps
            ]
            (line,) = axes.plot(steps, [np.mean(value) for value in values], style, label=label)
            low, high = ([limit(value) for value in values] for limit in (min, max))
            axes.fill_between(steps, low, high, alpha=0.15, color=line.get_color())
        axes.set(title=f"{script} ({len(seeds)} seeds)", xlabel=f"environment steps, {mine[0]['env_id']}")
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("value of first states")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(options: Options) -> None:
    """Measure, and leave the table and the figure."""
    table = options.results / f"overestimation_{options.scripts[-1]}.csv"
    if not options.plot_only:
        job.write_csv(table, run(options))
    rows = job.read_csv(table)
    draw(rows, table.with_suffix(".png"))
    half = max(int(row["global_step"]) for row in rows) / 2
    for script in options.scripts:
        late = [row for row in rows if row["script"] == script and int(row["global_step"]) > half]
        mean = np.mean([float(row["overestimation"]) for row in late])
        print(f"{script}: overestimation {mean:+.2f}, mean over the second half of the training")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""What the critic promises and what the policy gets: DDPG beside TD3.

    python benchmarks/overestimation_td3.py --seeds 5

While a script trains with its defaults, every `--every` steps its actor plays episodes without noise from
fresh first states s_0. The critic promises Q(s_0, μ(s_0)) (of TD3, the first critic, which the actor
follows); the policy gets Σ γ^t r_t. Writes overestimation_td3.csv and .png, means over seeds.
"""

import csv
from dataclasses import dataclass
import importlib
from pathlib import Path
import tempfile

from common.envs import make_env
from common.networks import NumpyNetwork
from matplotlib.figure import Figure
import numpy as np
import tyro

RESULTS = Path(__file__).resolve().parent / "results"
SCRIPTS = ("ddpg", "td3")


@dataclass
class Options:
    """What to measure, and how often."""

    env_id: str = "Pendulum-v1"
    """Environment; its episodes have to be long beside 1 / (1 − γ)."""
    total_timesteps: int = 20_000
    """Environment steps of each run."""
    seeds: int = 5
    """Runs of each script, with seeds 0, 1, …"""
    every: int = 1_000
    """Steps between measurements."""
    episodes: int = 50
    """Episodes in a measurement."""
    hidden_sizes: tuple[int, ...] = ()
    """Of both scripts; their defaults if empty."""
    results: Path = RESULTS
    """Folder for the table and the figure."""


def measure(agent, env, episodes: int) -> tuple[float, float]:
    """Return the means of Q(s_0, μ(s_0)) and of the discounted return, over the same episodes."""
    critic = NumpyNetwork(agent.critic)
    promised, got = np.zeros(episodes), np.zeros(episodes)
    for k in range(episodes):
        observation, _ = env.reset(seed=10_000 + k)
        action = agent.numpy_actor(observation[None])
        promised[k] = critic(np.concatenate([observation[None], action], axis=-1))[0, 0]
        discount, over = 1.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(agent.numpy_actor(observation[None])[0])
            got[k] += discount * reward
            discount *= agent.config.gamma
            over = terminated or truncated
    return promised.mean(), got.mean()


def watch(script: str, seed: int, options: Options) -> list[dict]:
    """Train a script with a look at its agent every `options.every` steps; returns the rows of the table."""
    module = importlib.import_module(f"{script}.{script}")
    env = make_env(options.env_id, script)
    rows = []

    class Watched(module.Agent):
        """The agent, measured where a measurement is due."""

        def act(self, observations, *, random):
            self.steps = getattr(self, "steps", 0) + len(observations)
            if not random and self.steps % options.every < len(observations):
                self.numpy_actor.refresh()
                promised, got = measure(self, env, options.episodes)
                row = {"global_step": self.steps, "promised": round(promised, 2), "got": round(got, 2)}
                rows.append({"script": script, "env_id": options.env_id, "seed": seed} | row)
            return super().act(observations, random=random)

    own_agent, module.Agent = module.Agent, Watched
    with tempfile.TemporaryDirectory() as folder:
        config = module.Config(
            env_id=options.env_id, total_timesteps=options.total_timesteps, seed=seed, eval_episodes=0
        )
        config.runs_dir, config.checkpoint_frequency, config.save_model = folder, 0, False
        config.hidden_sizes = options.hidden_sizes or config.hidden_sizes
        module.train(config)
    module.Agent = own_agent
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Draw what was promised and what was got: a panel a script, the mean over seeds and their range."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, script in zip(figure.subplots(1, 2, sharey=True), SCRIPTS):
        mine = [row for row in rows if row["script"] == script]
        steps = sorted({row["global_step"] for row in mine})
        for name, label in (("promised", "the critic promises"), ("got", "the policy gets")):
            values = np.array([[row[name] for row in mine if row["global_step"] == step] for step in steps])
            axes.plot(steps, values.mean(axis=1), label=label)
            axes.fill_between(steps, values.min(axis=1), values.max(axis=1), alpha=0.2)
        axes.set(title=script.upper(), xlabel="environment steps")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("discounted return from the first state")
    figure.axes[0].legend()
    figure.suptitle(mine[0]["env_id"])
    figure.savefig(path, dpi=120)


def main(options: Options) -> None:
    """Measure, and write the table and the figure."""
    rows = [
        row for script in SCRIPTS for seed in range(options.seeds) for row in watch(script, seed, options)
    ]
    options.results.mkdir(parents=True, exist_ok=True)
    with (options.results / "overestimation_td3.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, options.results / "overestimation_td3.png")
    for script in SCRIPTS:
        late = [r for r in rows if r["script"] == script and r["global_step"] > options.total_timesteps / 2]
        print(f"{script}: promised − got = {np.mean([r['promised'] - r['got'] for r in late]):.1f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""Which settings belong to which script and environment: README and pages take theirs from here.

`BARS` says what solved means, `PAPERS` where a script is from, `TASKS` what `learning.py` runs, `SPEEDS` what
`speed.py` runs side by side, `ZOO` the peers' own tuned settings for the race from the command to the solved
task.
"""

from dataclasses import dataclass, field
from typing import Any

BARS = {  # mean return of 100 greedy episodes from which a task counts as solved
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "Pendulum-v1": -200.0,
    "LunarLander-v3": 200.0,
    "LunarLanderContinuous-v3": 200.0,
    "MountainCar-v0": -110.0,
    "MountainCarContinuous-v0": 90.0,
}

PAPERS = {
    "dqn": "[Mnih et al. 2015](https://doi.org/10.1038/nature14236)",
}


@dataclass(frozen=True)
class Task:
    """A script on an environment.

    Attributes:
        script: such as "dqn".
        env_id: the environment.
        options: of the command line, `--env-id` and `--seed` aside; empty for the script's defaults.
        seeds: 0, 1, … up to this number.
        missing: for a task that is not solved: what is missing, and why.
    """

    script: str
    env_id: str
    options: str = ""
    seeds: int = 3
    missing: str = ""


TASKS = [
    Task("dqn", "CartPole-v1", seeds=10),
]


@dataclass(frozen=True)
class Speed:
    """A script beside its peers, with the same settings.

    Attributes:
        script: such as "dqn"; the peers' algorithm has the same name.
        env_id: the environment.
        options: of the script.
        peers: by library ("sb3", "sb3-contrib", "sbx"), its options where they go by other names.
        total_timesteps: of each measurement.
        warm_up: steps before the clock starts: what is compiled, is compiled in them.
        num_envs: copies of the environment.
        row_steps: steps between the looks at the peer's clock: whole rounds of rollout and update.
        goals: by library, the ratio to reach.
    """

    script: str
    env_id: str
    options: str
    peers: dict[str, dict[str, Any]]
    total_timesteps: int
    warm_up: int
    num_envs: int = 1
    row_steps: int = 1_000
    goals: dict[str, float] = field(default_factory=dict)


# CleanRL's settings for CartPole, its 1 update in 10 steps made as 10 in 100 by all three
_DQN = {
    "learning_rate": 2.5e-4,
    "buffer_size": 10_000,
    "batch_size": 128,
    "learning_starts": 1_000,
    "target_update_interval": 500,
    "train_freq": 100,
    "gradient_steps": 10,
    "exploration_fraction": 0.5,
    "policy_kwargs": {"net_arch": [120, 84]},
}

SPEEDS = [
    Speed(
        "dqn",
        "CartPole-v1",
        "--learning-rate 2.5e-4 --buffer-size 10000 --batch-size 128 --learning-starts 1000"
        " --target-network-frequency 50 --train-frequency 100 --gradient-steps 10"
        " --exploration-fraction 0.5 --end-epsilon 0.05 --hidden-sizes 120 84",
        {"sb3": _DQN, "sbx": _DQN},
        total_timesteps=40_000,
        warm_up=5_000,
        goals={"sb3": 2.5},
    ),
]


@dataclass(frozen=True)
class Zoo:
    """The peer's own tuned settings for a task that ours is raced on, from the command to solved.

    Attributes:
        script: such as "dqn"; ours runs with the options of its row in `TASKS`.
        env_id: the environment.
        library: "sb3" or "sb3-contrib".
        total_timesteps: that the zoo trains for.
        options: of the peer.
        num_envs: copies of the environment.
        source: where the settings stand.
    """

    script: str
    env_id: str
    library: str
    total_timesteps: int
    options: dict[str, Any]
    num_envs: int = 1
    source: str = "DLR-RM/rl-baselines3-zoo, hyperparams/<algorithm>.yml"


ZOO = [
    Zoo(
        "dqn",
        "CartPole-v1",
        "sb3",
        50_000,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
]

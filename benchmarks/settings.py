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
    "InvertedPendulum-v5": 950.0,
    "HalfCheetah-v5": 4_800.0,  # gymnasium's reward threshold
    "CliffWalking-v1": -13.0,  # the optimum
    "Taxi-v4": 7.5,
    "FrozenLake8x8-v1": 0.7,
    "HiddenVelocityCartPole-v1": 400.0,
    "MinAtar/Breakout-v1": 5.0,  # ten times what a random policy gets
}

PAPERS = {
    "dqn": "[Mnih et al. 2015](https://doi.org/10.1038/nature14236)",
    "double_dqn": "[van Hasselt et al. 2016](https://arxiv.org/abs/1509.06461)",
    "dueling_dqn": "[Wang et al. 2016](https://arxiv.org/abs/1511.06581)",
    "q_learning": "[Watkins & Dayan 1992](https://doi.org/10.1007/BF00992698)",
    "reinforce": "[Williams 1992](https://doi.org/10.1007/BF00992696)",
    "a2c": "[Mnih et al. 2016](https://arxiv.org/abs/1602.01783)",
    "trpo": "[Schulman et al. 2015](https://arxiv.org/abs/1502.05477)",
    "ppo": "[Schulman et al. 2017](https://arxiv.org/abs/1707.06347)",
    "ddpg": "[Lillicrap et al. 2016](https://arxiv.org/abs/1509.02971)",
    "td3": "[Fujimoto et al. 2018](https://arxiv.org/abs/1802.09477)",
}


@dataclass(frozen=True)
class Task:
    """A script on an environment.

    Attributes:
        script: such as "dqn".
        env_id: the environment.
        options: of the command line, `--env-id` and `--seed` aside; empty for the script's defaults.
        seeds: 0, 1, … up to this number.
        missing: for a task that is not solved, or below the published figure: what is missing, and why.
    """

    script: str
    env_id: str
    options: str = ""
    seeds: int = 3
    missing: str = ""


_NORMALIZED = "--normalize-observations --normalize-rewards"
_DQN_LANDER = (
    "--total-timesteps 250000 --buffer-size 100000 --learning-starts 5000 --train-frequency 64"
    " --gradient-steps 32 --tau 0.005 --target-network-frequency 1 --end-epsilon 0.04"
    " --initial-value 0"
)
_DQN_ACROBOT = "--total-timesteps 60000 --end-epsilon 0.05 --initial-value 0"
_DQN_MOUNTAIN_CAR = (  # RL Zoo's
    "--total-timesteps 120000 --gamma 0.98 --learning-rate 4e-3 --buffer-size 10000 --end-epsilon 0.07"
    " --target-network-frequency 300 --train-frequency 16 --gradient-steps 8 --initial-value 0"
)
_DQN_MINATAR = (
    "--network cnn --hidden-sizes 128 --num-envs 8 --total-timesteps 500000 --buffer-size 100000"
    " --batch-size 32 --train-frequency 64 --gradient-steps 16 --target-network-frequency 250"
    " --learning-rate 5e-4 --end-epsilon 0.02 --learning-starts 5000 --initial-value 0"
)
_DQN_MEMORY = (
    "--network lstm --frame-stack 8 --hidden-sizes 64 64 --num-envs 4 --total-timesteps 120000"
    " --learning-rate 2e-3 --end-epsilon 0.04 --initial-value 0"
)
_PPO_PENDULUM = "--gamma 0.9 --num-minibatches 32 --max-grad-norm inf --total-timesteps 600000"
_FLAG = f"{_NORMALIZED} --gae-lambda 0.98 --total-timesteps 300000"
_TRPO_LANDER = "--gae-lambda 0.98 --normalize-rewards"
_PPO_LANDER = (
    "--total-timesteps 1000000 --num-envs 16 --num-steps 512 --num-minibatches 32 --num-epochs 6"
    " --gamma 0.999 --gae-lambda 0.98 --entropy-coefficient 0.01"
)
_A2C_PENDULUM = (
    f"{_NORMALIZED} --gamma 0.95 --gae-lambda 0.95 --num-envs 32 --num-steps 8 --learning-rate 2e-3"
    " --max-grad-norm inf --total-timesteps 2000000"
)
_REINFORCE_PENDULUM = (
    "--normalize-observations --gamma 0.98 --num-envs 8 --num-steps 200 --learning-rate 1.5e-3"
    " --anneal-learning-rate 0.5 --max-grad-norm inf --total-timesteps 5000000"
)
# noise that does not cancel out from step to step finds the flag
_DDPG_FLAG = (
    "--total-timesteps 20000 --gamma 0.99 --learning-starts 0 --noise-reversion 0.1 --exploration-noise 0.5"
)
_TD3_FLAG = (
    "--total-timesteps 40000 --gamma 0.99 --learning-starts 0 --noise-reversion 0.05 --exploration-noise 0.5"
)
_FUJIMOTO = (  # the paper's settings
    "--total-timesteps 100000 --gamma 0.99 --tau 0.005 --batch-size 100 --hidden-sizes 400 300"
    " --buffer-size 1000000 --learning-starts 10000"
)

TASKS = [
    Task("q_learning", "CartPole-v1", seeds=10),
    Task("q_learning", "CliffWalking-v1", "--total-timesteps 50000 --learning-rate 0.5"),
    Task("q_learning", "Taxi-v4", "--total-timesteps 200000 --learning-rate 0.5"),
    Task(
        "q_learning",
        "FrozenLake8x8-v1",
        "--total-timesteps 300000 --learning-rate 0.1 --gamma 0.999 --initial-value 1",
    ),
    Task(
        "q_learning",
        "MountainCar-v0",
        "--total-timesteps 1000000 --bins 30 30",
        missing="the flag is reached, 40 to 70 steps late; finer or coarser bins, longer runs and another"
        " step size have not been tried.",
    ),
    Task("dqn", "CartPole-v1", seeds=10),
    Task("dqn", "Acrobot-v1", _DQN_ACROBOT),
    Task(
        "dqn",
        "MountainCar-v0",
        _DQN_MOUNTAIN_CAR,
        missing="solved, some steps later than the published run of as many steps, which has these settings"
        " but for the loss (Huber), Adam's ε and the annealed step size.",
    ),
    Task("dqn", "LunarLander-v3", _DQN_LANDER),
    Task("dqn", "MinAtar/Breakout-v1", _DQN_MINATAR, seeds=1),
    Task("dqn", "HiddenVelocityCartPole-v1", _DQN_MEMORY, seeds=1),
    Task("double_dqn", "CartPole-v1", seeds=10),
    Task("double_dqn", "Acrobot-v1", _DQN_ACROBOT),
    Task("double_dqn", "LunarLander-v3", _DQN_LANDER),
    Task("dueling_dqn", "CartPole-v1", seeds=10),
    Task("dueling_dqn", "Acrobot-v1", _DQN_ACROBOT),
    Task("dueling_dqn", "LunarLander-v3", _DQN_LANDER),
    Task("reinforce", "CartPole-v1", seeds=10),
    Task("reinforce", "Acrobot-v1", "--num-envs 16 --entropy-coefficient 0.01 --total-timesteps 1500000"),
    Task("reinforce", "Pendulum-v1", _REINFORCE_PENDULUM),
    Task("a2c", "CartPole-v1", seeds=10),
    Task("a2c", "Acrobot-v1", _NORMALIZED),
    Task(
        "a2c",
        "MountainCar-v0",
        f"{_NORMALIZED} --num-envs 16 --total-timesteps 1000000",
        missing="the flag is reached in every episode, about 25 steps late; 1,500,000 steps with a smaller"
        " step size and λ = 0.95 were tried on one seed and did no better.",
    ),
    Task(
        "a2c",
        "LunarLander-v3",
        f"{_NORMALIZED} --num-envs 16 --gamma 0.995 --total-timesteps 2000000",
        missing="two of three seeds are above the bar, seed 0 ended at 141.1; these were the first settings"
        " tried.",
    ),
    Task("a2c", "Pendulum-v1", _A2C_PENDULUM),
    Task("a2c", "MountainCarContinuous-v0", f"{_NORMALIZED} --total-timesteps 500000"),
    Task("trpo", "CartPole-v1", seeds=10),
    Task("trpo", "Acrobot-v1"),
    Task("trpo", "MountainCar-v0", f"{_NORMALIZED} --num-envs 16 --total-timesteps 600000"),
    Task(
        "trpo",
        "LunarLander-v3",
        f"{_TRPO_LANDER} --total-timesteps 1500000",
        missing="two of three seeds are above the bar, seed 1 ended at 175.4, ±115 between episodes.",
    ),
    Task("trpo", "Pendulum-v1", "--gamma 0.9 --normalize-rewards", seeds=10),
    Task("trpo", "MountainCarContinuous-v0", _FLAG),
    Task(
        "trpo",
        "LunarLanderContinuous-v3",
        f"{_TRPO_LANDER} --total-timesteps 600000",
        missing="solved, below the published figure; 1,500,000 steps were tried on two seeds and did no"
        " better.",
    ),
    Task("ppo", "CartPole-v1", seeds=10),
    Task(
        "ppo",
        "Acrobot-v1",
        "--total-timesteps 300000",
        missing="solved, one or two steps later than the published run, which is three times as long.",
    ),
    Task(
        "ppo",
        "MountainCar-v0",
        f"{_NORMALIZED} --num-envs 16 --gae-lambda 0.98 --total-timesteps 1000000",
    ),
    Task("ppo", "LunarLander-v3", _PPO_LANDER),
    Task("ppo", "Pendulum-v1", _PPO_PENDULUM, seeds=10),
    Task("ppo", "MountainCarContinuous-v0", _FLAG),
    Task("ppo", "LunarLanderContinuous-v3", _PPO_LANDER),
    Task("ddpg", "Pendulum-v1", seeds=10),
    Task(
        "ddpg",
        "MountainCarContinuous-v0",
        _DDPG_FLAG,
        missing="solved, 0.3 below the published figure in a fifteenth of its steps.",
    ),
    Task("ddpg", "InvertedPendulum-v5", "--total-timesteps 20000 --gamma 0.99"),
    Task("td3", "Pendulum-v1", seeds=10),
    Task("td3", "MountainCarContinuous-v0", _TD3_FLAG),
    Task("td3", "InvertedPendulum-v5", "--total-timesteps 20000 --gamma 0.99 --tau 0.01"),
    Task(
        "td3",
        "LunarLanderContinuous-v3",
        "--total-timesteps 200000 --gamma 0.99 --learning-starts 5000",
        missing="two of three seeds are above the bar, seed 1 ended at 188.0; these were the first settings"
        " tried.",
    ),
    Task("td3", "HalfCheetah-v5", _FUJIMOTO),
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

_TRPO_OURS = (  # one batch of 2,048 steps; the critic's 10 epochs of 16 minibatches
    "--num-envs 1 --num-steps 2048 --num-epochs 10 --num-minibatches 16 --learning-rate 1e-3"
    " --cg-iterations 10 --cg-damping 0.1 --line-search-steps 10 --target-kl 0.01 --anneal-learning-rate 0"
)
_TRPO = {
    "n_steps": 2_048,
    "batch_size": 128,
    "n_critic_updates": 10,
    "learning_rate": 1e-3,
    "cg_max_steps": 10,
    "cg_damping": 0.1,
    "line_search_max_iter": 10,
    "target_kl": 0.01,
}

# ours counts half the squared error of V, theirs the whole: its weight 0.5 is 1 here
_PPO_CARTPOLE = {
    "n_steps": 128,
    "batch_size": 128,
    "n_epochs": 4,
    "learning_rate": 2.5e-4,
    "ent_coef": 0.01,
}
_PPO_CHEETAH = {"n_steps": 2_048, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4}

_TD3_OURS = (  # as many updates as steps, in groups of 50
    "--batch-size 256 --hidden-sizes 256 256 --buffer-size 200000 --learning-starts 1000"
    " --train-frequency 50 --gradient-steps 50 --exploration-noise 0.1"
)
_TD3 = {
    "batch_size": 256,
    "buffer_size": 200_000,
    "learning_starts": 1_000,
    "train_freq": 50,
    "gradient_steps": 50,
    "noise_std": 0.1,
    "policy_kwargs": {"net_arch": [256, 256]},
}

SPEEDS = [
    Speed(
        "dqn",
        "CartPole-v1",
        "--learning-rate 2.5e-4 --buffer-size 10000 --batch-size 128 --learning-starts 1000"
        " --target-network-frequency 50 --train-frequency 100 --gradient-steps 10"
        " --exploration-fraction 0.5 --end-epsilon 0.05 --hidden-sizes 120 84 --loss huber"
        " --anneal-learning-rate 0 --initial-value 0",
        {"sb3": _DQN, "sbx": _DQN},
        total_timesteps=40_000,
        warm_up=5_000,
        goals={"sb3": 2.5},
    ),
    Speed(
        "a2c",
        "CartPole-v1",
        "--num-steps 5 --learning-rate 7e-4 --anneal-learning-rate 0 --value-coefficient 1",
        {"sb3": {"n_steps": 5}},
        total_timesteps=100_000,
        warm_up=10_000,
        num_envs=8,
        goals={"sb3": 2.5},
    ),
    Speed(
        "trpo",
        "CartPole-v1",
        _TRPO_OURS,
        {"sb3-contrib": _TRPO},
        total_timesteps=12 * 2_048,
        warm_up=2 * 2_048,
        row_steps=2_048,
        goals={"sb3-contrib": 8.0},
    ),
    Speed(
        "trpo",
        "HalfCheetah-v5",
        _TRPO_OURS,
        {"sb3-contrib": _TRPO},
        total_timesteps=12 * 2_048,
        warm_up=2 * 2_048,
        row_steps=2_048,
        goals={"sb3-contrib": 8.0},
    ),
    Speed(  # CleanRL's settings
        "ppo",
        "CartPole-v1",
        "--num-steps 128 --num-epochs 4 --num-minibatches 4"
        " --learning-rate 2.5e-4 --entropy-coefficient 0.01 --anneal-learning-rate 0 --value-coefficient 1",
        {"sb3": _PPO_CARTPOLE, "sbx": _PPO_CARTPOLE},
        total_timesteps=100_352,
        warm_up=10_240,
        num_envs=4,
        row_steps=1_024,
        goals={"sb3": 4.0, "sbx": 3.5},
    ),
    Speed(
        "ppo",
        "HalfCheetah-v5",
        "--num-steps 2048 --num-epochs 10 --num-minibatches 32 --learning-rate 3e-4 --anneal-learning-rate 0"
        " --value-coefficient 1",
        {"sb3": _PPO_CHEETAH, "sbx": _PPO_CHEETAH},
        total_timesteps=12 * 2_048,
        warm_up=2 * 2_048,
        row_steps=2_048,
        goals={"sb3": 3.5, "sbx": 3.0},
    ),
    Speed(
        "ddpg",
        "HalfCheetah-v5",
        _TD3_OURS,
        {"sb3": _TD3, "sbx": _TD3},
        total_timesteps=6_000,
        warm_up=2_000,
        goals={"sb3": 2.0, "sbx": 1.15},
    ),
    Speed(
        "td3",
        "HalfCheetah-v5",
        _TD3_OURS,
        {"sb3": _TD3, "sbx": _TD3},
        total_timesteps=6_000,
        warm_up=2_000,
        goals={"sb3": 1.7, "sbx": 1.15},
    ),
]


@dataclass(frozen=True)
class Zoo:
    """The peer's own tuned settings for a task that ours is raced on, from the command to solved.

    Attributes:
        script: such as "dqn"; ours runs with the options of its row in `TASKS`, and those of `ours`.
        env_id: the environment.
        library: "sb3" or "sb3-contrib".
        total_timesteps: that the zoo trains for.
        options: of the peer.
        num_envs: copies of the environment.
        ours: options of ours that are for speed alone.
        source: where the settings stand.
    """

    script: str
    env_id: str
    library: str
    total_timesteps: int
    options: dict[str, Any]
    num_envs: int = 1
    ours: str = ""
    source: str = "DLR-RM/rl-baselines3-zoo, hyperparams/<algorithm>.yml"


_ZOO_PENDULUM = {
    "gamma": 0.98,
    "buffer_size": 200_000,
    "learning_starts": 10_000,
    "noise_std": 0.1,
    "gradient_steps": 1,
    "train_freq": 1,
    "learning_rate": 1e-3,
    "policy_kwargs": {"net_arch": [400, 300]},
}

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
        ours="--hidden-sizes 128 128",  # learned CartPole-v1 on all of ten seeds, 100 to 109
    ),
    Zoo("a2c", "CartPole-v1", "sb3", 500_000, {"ent_coef": 0.0}, num_envs=8),
    Zoo(
        "trpo",
        "CartPole-v1",
        "sb3-contrib",
        100_000,
        {
            "n_steps": 512,
            "batch_size": 512,
            "cg_damping": 1e-3,
            "gae_lambda": 0.98,
            "gamma": 0.99,
            "learning_rate": 1e-3,
            "n_critic_updates": 20,
        },
        num_envs=2,
        ours="--total-timesteps 100000",  # as many as theirs; learned it on all of those ten seeds too
    ),
    Zoo(
        "ppo",
        "CartPole-v1",
        "sb3",
        100_000,
        {
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": "lin_0.001",
            "clip_range": "lin_0.2",
        },
        num_envs=8,
    ),
    Zoo("ddpg", "Pendulum-v1", "sb3", 20_000, _ZOO_PENDULUM),
    Zoo("td3", "Pendulum-v1", "sb3", 20_000, _ZOO_PENDULUM),
]

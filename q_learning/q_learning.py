"""Q-learning in a table.

Watkins & Dayan, "Q-learning", Machine Learning 8, 1992; Watkins, "Learning from delayed rewards", PhD
thesis, Cambridge 1989.

    a ← a uniformly random action with probability ε, else one of argmax_a Q(s, a)    (1)
    y = r + γ (1 − terminated) max_a' Q(s', a')                                       (2)
    Q(s, a) ← Q(s, a) + α (y − Q(s, a))                                               (3)

Key idea: the target (2) is the value of acting greedily from s' on, whatever is done in fact, so that the
values of the best policy are learned while exploring. With every pair (s, a) visited without end and a
step size α that falls as it should, Q converges to the optimum; no network here can say as much.

Differences from the paper: α and ε fall linearly with the steps, and not with the visits to a pair;
observations that are numbers are cut into bins, which makes the states Markov no more.

Run: python q_learning/q_learning.py           The next idea: a network in place of the table, dqn/dqn.py
"""

from dataclasses import dataclass
from pathlib import Path

from common.envs import make_envs, play, true_next_observations, view_options
from common.options import Fraction, Positive, PositiveInt, RunConfig
from common.run import Result, Run, main
import gymnasium as gym
import numpy as np

ALGORITHM = "q_learning"


@dataclass(kw_only=True)
class Config(RunConfig):
    """The options of Q-learning; those of every script stand in `common.options.RunConfig`."""

    env_id: str = "CartPole-v1"
    """Environment, with Discrete actions."""
    total_timesteps: PositiveInt = 200_000
    """Environment steps to train for, summed over all environments."""
    learning_rate: Fraction = 0.2
    """Step size α at the first step; 1 is right where nothing is random."""
    anneal_learning_rate: Fraction = 1.0
    """Share of the step size by which it falls, linearly, until the last step (paper: to 0, by visits)."""
    gamma: Fraction = 0.99
    """Discount γ."""
    start_epsilon: Fraction = 1.0
    """Exploration ε at the first step."""
    end_epsilon: Fraction = 0.05
    """Exploration ε from `exploration_fraction` on."""
    exploration_fraction: Positive = 0.5
    """Share of all steps over which ε falls linearly."""
    initial_value: float = 0.0
    """Every Q value at the start; above what can be had, it sends the agent where it has not been."""
    bins: tuple[PositiveInt, ...] = (6, 6, 12, 12)
    """Bins that each number of a Box observation is cut into; one count serves for all."""
    low: tuple[float, ...] = ()
    """Lower edges of the bins, where the space has no bounds or too wide ones; CartPole's are known."""
    high: tuple[float, ...] = ()
    """Upper edges of the bins, likewise."""


class Agent:
    """The table Q (states, actions), and its update."""

    def __init__(
        self, observation_space: gym.spaces.Discrete, action_space: gym.spaces.Discrete, config: Config
    ):
        self.config = config
        self.num_actions = int(action_space.n)
        self.q_table = np.full((int(observation_space.n), self.num_actions), config.initial_value)
        self.learning_rate = config.learning_rate
        self.means = np.zeros(2)  # of |y − Q(s, a)| and Q(s, a), over the last 1,000 steps or so
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray, epsilon: float) -> np.ndarray:
        """Choose ε-greedy actions (num_envs,) for observations (num_envs,)."""
        num_envs = len(observations)
        q_values = self.q_table[observations]
        ties = q_values == q_values.max(axis=-1, keepdims=True)
        greedy_actions = (ties * self.rng.random(ties.shape)).argmax(axis=-1)
        random_actions = self.rng.integers(self.num_actions, size=num_envs)
        return np.where(self.rng.random(num_envs) < epsilon, random_actions, greedy_actions)  # (1)

    def update(self, observations, actions, rewards, next_observations, terminated) -> dict[str, float]:
        """Learn from one transition of each environment; every argument is (num_envs,)."""
        next_q_values = self.q_table[next_observations].max(axis=-1)
        td_target = rewards + self.config.gamma * (1.0 - terminated) * next_q_values  # (2)
        q_values = self.q_table[observations, actions]
        td_errors = td_target - q_values
        pairs = observations * self.num_actions + actions
        shared = (pairs[:, None] == pairs).sum(axis=-1)  # environments in one pair make one step together
        np.add.at(self.q_table, (observations, actions), self.learning_rate * td_errors / shared)  # (3)
        self.means += 0.001 * (np.array([np.abs(td_errors).mean(), q_values.mean()]) - self.means)
        return {"td_error": self.means[0], "q_values": self.means[1]}


def train(config: Config) -> Result:
    """Train, evaluate, and leave a run folder."""
    run = Run(config, ALGORITHM)
    envs = make_envs(
        config.env_id,
        ALGORITHM,
        config.num_envs,
        config.seed,
        async_envs=config.async_envs,
        **view_options(config),
    )
    agent = Agent(envs.single_observation_space, envs.single_action_space, config)
    run.checkpoint(q_table=agent.q_table, means=agent.means, rng=agent.rng)

    observations, _ = envs.reset(seed=run.env_seeds)
    for global_step in run.steps(config.num_envs):
        progress = min(1.0, global_step / config.total_timesteps)
        explored = min(1.0, progress / config.exploration_fraction)
        epsilon = config.start_epsilon + explored * (config.end_epsilon - config.start_epsilon)
        actions = agent.act(observations, epsilon)
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true_next = true_next_observations(next_observations, infos)
        agent.learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * progress)
        metrics = agent.update(observations, actions, rewards, true_next, terminated)
        observations = next_observations
        run.record(infos)
        run.log(epsilon=epsilon, **metrics)

    envs.close()
    return run.finish(agent.q_table, {"q_table": agent.q_table}, evaluate)


def evaluate(model: np.ndarray, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the greedy policy, ε = 0."""
    return play(lambda observations: np.argmax(model[observations], axis=-1), config, ALGORITHM, folder)


if __name__ == "__main__":
    main(Config, train, evaluate, ALGORITHM)

"""Tabular Q-learning.

Watkins & Dayan, "Q-learning", Machine Learning 8, 1992; Watkins, "Learning from Delayed Rewards", PhD
thesis, Cambridge 1989.

    a = a uniformly random action with probability ε, else one of argmax_a Q(s, a)    (1)
    y = r + γ (1 − terminated) max_a' Q(s', a')                                       (2)
    Q(s, a) ← Q(s, a) + α (y − Q(s, a))                                               (3)

`terminated` is 1 if s' ends the episode; it is 0 if a time limit cuts the episode off at s'.

Key idea: the target (2) is the value of acting greedily from s' on, whatever the agent does there, so the
agent learns the optimal values while it explores. If it visits every pair (s, a) infinitely often and α
falls as the theorem asks, Q converges to these values. None of the scripts with a network has such a
guarantee.

Differences from the paper: α falls with the steps, not with the visits to a pair; actions are ε-greedy,
while the paper leaves the exploration open; continuous observations are put into bins, so the states are
only approximately Markov.

Run: python q_learning/q_learning.py          Next: dqn/dqn.py, with a network instead of the table
"""

from dataclasses import dataclass
from pathlib import Path

from common.cli import main
from common.envs import make_envs, true_next_observations
from common.evaluation import play_episodes
from common.options import Fraction, PositiveFraction, PositiveInt, RunConfig
from common.run import Result, Run
import gymnasium as gym
import numpy as np


@dataclass(kw_only=True)
class Config(RunConfig):
    """Tabular Q-learning (Watkins & Dayan 1992)."""

    env_id: str = "CartPole-v1"
    """Environment with a Discrete action space."""
    total_timesteps: PositiveInt = 1_000_000
    """Environment steps to train for, summed over all environments."""
    num_envs: PositiveInt = 8
    """Number of environments stepped together."""
    learning_rate: Fraction = 0.2
    """Initial learning rate α; 1 is right for a deterministic environment."""
    anneal_learning_rate: Fraction = 1.0
    """Fraction of the learning rate removed by the end of training, linearly (paper: to 0, by visits)."""
    gamma: Fraction = 0.99
    """Discount factor γ."""
    start_epsilon: Fraction = 1.0
    """Exploration rate ε at the first step."""
    end_epsilon: Fraction = 0.02
    """Exploration rate ε after the annealing."""
    exploration_fraction: PositiveFraction = 0.5
    """Fraction of training over which ε is annealed, linearly."""
    initial_value: float = 0.0
    """Initial Q of every pair (s, a). Optimistic values, above the highest return, drive exploration."""
    bins: tuple[PositiveInt, ...] = (10,)
    """Bins for each number of a Box observation: one count for all numbers, or one for each."""


class Agent:
    """The table Q (num_states, num_actions) and its update."""

    def __init__(
        self, observation_space: gym.spaces.Discrete, action_space: gym.spaces.Discrete, config: Config
    ):
        self.config = config
        self.num_actions = int(action_space.n)
        self.q_table = np.full((int(observation_space.n), self.num_actions), float(config.initial_value))
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray, epsilon: float) -> np.ndarray:
        """Return ε-greedy actions (num_envs,) for observations (num_envs,)."""
        num_envs = len(observations)
        q_values = self.q_table[observations]
        ties = q_values == q_values.max(axis=-1, keepdims=True)
        greedy_actions = (ties * self.rng.random(ties.shape)).argmax(axis=-1)
        random_actions = self.rng.integers(self.num_actions, size=num_envs)
        return np.where(self.rng.random(num_envs) < epsilon, random_actions, greedy_actions)  # (1)

    def update(
        self, observations, actions, rewards, next_observations, terminated, learning_rate: float
    ) -> dict[str, float]:
        """Learn from one transition of each environment; the arrays are (num_envs,)."""
        next_q_values = self.q_table[next_observations].max(axis=-1)
        td_target = rewards + self.config.gamma * (1.0 - terminated) * next_q_values  # (2)
        q_values = self.q_table[observations, actions]
        td_errors = td_target - q_values
        pairs = observations * self.num_actions + actions
        counts = (pairs[:, None] == pairs).sum(axis=-1)  # environments in the same pair share one update
        np.add.at(self.q_table, (observations, actions), learning_rate * td_errors / counts)  # (3)
        return {"td_error": np.abs(td_errors).mean(), "q_values": q_values.mean()}


def train(config: Config) -> Result:
    """Train, evaluate, and save everything in a run folder."""
    run = Run(config)
    envs = make_envs(config, gym.spaces.Discrete)
    agent = Agent(envs.single_observation_space, envs.single_action_space, config)
    run.checkpoint(q_table=agent.q_table, rng=agent.rng)

    observations, _ = envs.reset(seed=run.env_seeds)
    for _ in run.steps(config.num_envs):
        annealed = min(1.0, run.progress / config.exploration_fraction)
        epsilon = config.start_epsilon + annealed * (config.end_epsilon - config.start_epsilon)
        actions = agent.act(observations, epsilon)
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true_next = true_next_observations(next_observations, infos)
        learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * run.progress)
        metrics = agent.update(observations, actions, rewards, true_next, terminated, learning_rate)
        observations = next_observations
        run.record(infos)
        run.log(epsilon=epsilon, learning_rate=learning_rate, **metrics)
        run.evaluate(evaluate, agent.q_table)

    envs.close()
    return run.finish(evaluate, q_table=agent.q_table)


def evaluate(model: np.ndarray, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the greedy policy, argmax_a Q(s, a)."""
    return play_episodes(lambda observations: model[observations], config, folder)


if __name__ == "__main__":
    main(Config, train, evaluate)

"""REINFORCE, the Monte Carlo policy gradient, with a learned baseline.

Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
Machine Learning 8, 1992; the learned baseline from Sutton & Barto, "Reinforcement Learning", 2018, section
13.4.

    R_t = r_t + γ R_{t+1}, back from the end of the episode                           (1)
    A_t = R_t − V(s_t)                                                                (2)
    L_policy = −E[A log π(a|s; θ)]                                                    (3)
    minimize L_policy + c_1 E[(R − V(s))²] / 2 − c_2 E[entropy of π(·|s)]             (4)

Key idea: make each action more likely in proportion to the return that followed it. A baseline that does
not depend on the action leaves the expected gradient unchanged and reduces its variance.

The update uses whole episodes, each of them once: an episode that is unfinished at an update waits for a
later one, so its first steps may come from an older policy. A time limit counts as the end of the episode.

Differences from the paper: Adam; many episodes per update; discounted rewards-to-go, without a factor γ^t;
returns in units of their running standard deviation; normalized advantages.

Run: python reinforce/reinforce.py                    Next: diff reinforce/reinforce.py a2c/a2c.py
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from common.cli import main
from common.envs import make_envs
from common.episode_buffer import Episode, EpisodeBuffer, join_observations
from common.evaluation import play_episodes
from common.networks import orthogonal_network
from common.normalization import ObservationNormalizer, RunningMoments
from common.numpy_inference import fast_copy
from common.options import Fraction, NonNegative, Positive, PositiveInt, RunConfig
from common.rollout import Images, assemble, explained_variance
from common.run import Result, Run
from common.stochastic_policies import make_policy
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf


@dataclass(kw_only=True)
class Config(RunConfig):
    """REINFORCE (Williams 1992)."""

    env_id: str = "CartPole-v1"
    """Environment with a Discrete or Box action space."""
    total_timesteps: PositiveInt = 500_000
    """Environment steps to train for, summed over all environments."""
    num_envs: PositiveInt = 4
    """Number of environments stepped together (A3C: 16 threads; PPO for Atari: 8)."""
    batch_size: PositiveInt = 2048
    """Minimum number of steps, from finished episodes, in an update."""
    learning_rate: Positive = 1e-2
    """Initial learning rate of Adam."""
    anneal_learning_rate: Fraction = 1.0
    """Fraction of the learning rate removed by the end of training, linearly (A3C and PPO for Atari: 1)."""
    gamma: Fraction = 0.99
    """Discount factor γ (A3C, TRPO, and PPO: 0.99)."""
    baseline: bool = True
    """Subtract V(s) from the returns."""
    entropy_coefficient: NonNegative = 0.0
    """Weight c_2 of the entropy bonus (paper: none)."""
    value_coefficient: NonNegative = 0.5
    """Weight c_1 of the value loss."""
    normalize_advantages: bool = True
    """Normalize advantages to mean 0 and standard deviation 1 (authors' code of PPO and TRPO: yes)."""
    normalize_observations: bool = False
    """Normalize observations by their running mean and standard deviation (PPO's code for MuJoCo: yes)."""
    initial_log_std: float = 0.0
    """Initial log σ of a Gaussian policy, with σ in half ranges of the action."""
    network: Literal["mlp", "cnn"] = "mlp"
    """Networks of actor and critic: mlp for vectors, cnn for images (A3C, TRPO, and PPO for Atari)."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of the hidden layers; of a cnn, those after its convolutions (TRPO: 30 or 50; PPO: 64, 64)."""
    frame_stack: PositiveInt = 1
    """Number of last observations that form a state (A3C, TRPO, and PPO for Atari: 4)."""
    clip_rewards: bool = False
    """Learn from the sign of the reward (A3C and PPO for Atari)."""
    terminal_on_life_loss: bool = False
    """In ALE games, treat the loss of a life as termination during training (DQN; PPO for Atari)."""


class Batch(NamedTuple):
    """The steps of finished episodes with their returns, (batch_size, ...)."""

    observations: tf.Tensor | Images
    actions: tf.Tensor
    returns: tf.Tensor


class Agent(tf.Module):
    """The policy π(a|s; θ), the baseline V, and their update."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.Space, config: Config):
        super().__init__()
        self.config = config
        shape, hidden_sizes = observation_space.shape, config.hidden_sizes
        self.normalizer = ObservationNormalizer(shape) if config.normalize_observations else None
        self.return_moments = RunningMoments()
        first_layers = [self.normalizer.layer] if self.normalizer else []
        build_network = orthogonal_network(config.network, first_layers)
        self.policy = make_policy(
            observation_space, action_space, hidden_sizes, config.initial_log_std, build_network
        )
        self.critic = build_network(shape, hidden_sizes, 1, name="critic")
        self.parameters = [*self.policy.parameters, *self.critic.trainable_variables]
        self.optimizer = keras.optimizers.Adam()
        self.optimizer.build(self.parameters)
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Sample actions (num_envs, ...) for observations (num_envs, ...), not clipped to their bounds."""
        return self.policy.sample(observations, self.rng)

    @tf.function(reduce_retracing=True)
    def update(self, batch: Batch, learning_rate: tf.Tensor) -> dict[str, tf.Tensor]:
        """Take one gradient step on a batch (batch_size, ...)."""
        config, observations = self.config, assemble(batch.observations)
        self.optimizer.learning_rate.assign(learning_rate)
        self.return_moments.update(batch.returns)
        returns = batch.returns / tf.sqrt(self.return_moments.variance + 1e-8)
        with tf.GradientTape() as tape:
            values = self.critic(observations)[:, 0]
            advantages = returns - config.baseline * tf.stop_gradient(values)  # (2)
            if config.normalize_advantages:
                advantages -= tf.reduce_mean(advantages)
                advantages /= tf.math.reduce_std(advantages) + 1e-8
            pi = self.policy(observations)
            policy_loss = -tf.reduce_mean(advantages * pi.log_prob(batch.actions))  # (3)
            entropy = tf.reduce_mean(pi.entropy())
            value_loss = 0.5 * tf.reduce_mean(tf.square(returns - values))
            loss = policy_loss + config.value_coefficient * value_loss
            loss -= config.entropy_coefficient * entropy  # (4)
        gradients = tape.gradient(loss, self.parameters)
        self.optimizer.apply(gradients)
        if self.normalizer:  # last: the episodes were sampled with the previous statistics
            self.normalizer.update(observations)
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "grad_norm": tf.linalg.global_norm(gradients),
            "explained_variance": explained_variance(values, returns),
        }


def make_batch(episodes: list[Episode], gamma: float) -> Batch:
    """Join episodes to a batch (batch_size, ...)."""
    returns = [returns_to_go(episode.rewards, gamma) for episode in episodes]
    actions = [episode.actions for episode in episodes]
    return Batch(join_observations(episodes), np.concatenate(actions), np.concatenate(returns))


def returns_to_go(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Return R_t (num_steps,) for the rewards (num_steps,) of one episode."""
    returns, next_return = np.zeros_like(rewards), 0.0
    for t, reward in reversed(list(enumerate(rewards.tolist()))):
        returns[t] = next_return = reward + gamma * next_return  # (1)
    return returns


def train(config: Config) -> Result:
    """Train, evaluate, and save everything in a run folder."""
    run = Run(config)
    envs = make_envs(config, gym.spaces.Discrete, gym.spaces.Box)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = EpisodeBuffer(config.num_envs, *spaces, frame_stack=config.frame_stack)
    run.checkpoint(agent=agent, rng=agent.rng)

    observations, _ = envs.reset(seed=run.env_seeds)
    for _ in run.steps(config.num_envs):
        actions = agent.act(observations)
        clipped_actions = agent.policy.clip(actions)  # for the environment only
        next_observations, rewards, terminated, truncated, infos = envs.step(clipped_actions)
        buffer.add(observations, actions, rewards, terminated | truncated)
        observations = next_observations
        run.record(infos)

        if buffer.num_steps >= config.batch_size:
            learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * run.progress)
            batch = make_batch(buffer.pop_episodes(), config.gamma)
            metrics = agent.update(batch, tf.constant(np.float32(learning_rate)))  # floats cause retracing
            agent.policy.refresh()
            run.log(learning_rate=learning_rate, **metrics)
        run.evaluate(evaluate, agent.policy.network)

    envs.close()
    return run.finish(evaluate, actor=agent.policy.network, critic=agent.critic)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the most likely actions."""
    return play_episodes(fast_copy(model), config, folder)


if __name__ == "__main__":
    main(Config, train, evaluate)

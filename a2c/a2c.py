"""Advantage Actor-Critic (A2C), the synchronous form of A3C.

Mnih, Badia, Mirza, Graves et al., "Asynchronous Methods for Deep Reinforcement Learning", ICML 2016;
advantages from Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage
Estimation" (GAE), arXiv:1506.02438, 2015.

    δ_t = r_t + γ (1 − terminated_t) V(s_{t+1}) − V(s_t)                              (1)
    A_t = δ_t + γ λ (1 − done_t) A_{t+1}, where done = terminated or truncated        (2)
    L_policy = −E[A log π(a|s; θ)]                                                    (3)
    minimize L_policy + c_1 E[(R − V(s))²] / 2 − c_2 E[entropy of π(·|s)], R = A + V  (4)

Key idea: do not wait for the end of the episode. After n steps, the critic V estimates the rest of the
return. With λ = 1, (2) is the paper's n-step return minus V(s_t). Parallel environments replace replay.

Differences from the paper: all environments share one update, while each thread of A3C updates on its own;
actor and critic share no layers, except for images; one initial learning rate, not a sampled one; no entropy
bonus by default; values are bootstrapped at time limits (README.md lists the rest).

Run: python a2c/a2c.py                                                  Next: diff a2c/a2c.py ppo/ppo.py
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from common.cli import main
from common.envs import make_envs, true_next_observations
from common.evaluation import play_episodes
from common.networks import chain, orthogonal_network, tanh_mlp
from common.normalization import ObservationNormalizer, RewardScaler
from common.numpy_inference import fast_copy
from common.options import Fraction, NonNegative, Positive, PositiveInt, RunConfig
from common.rollout import (
    Images,
    Rollout,
    RolloutBuffer,
    assemble,
    explained_variance,
    flatten,
    outputs_of,
)
from common.run import Result, Run
from common.stochastic_policies import make_policy
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf


@dataclass(kw_only=True)
class Config(RunConfig):
    """Advantage Actor-Critic (Mnih et al. 2016)."""

    env_id: str = "CartPole-v1"
    """Environment with a Discrete or Box action space."""
    total_timesteps: PositiveInt = 500_000
    """Environment steps to train for, summed over all environments."""
    num_envs: PositiveInt = 8
    """Number of environments stepped together (A3C: 16 threads; PPO for Atari: 8)."""
    num_steps: PositiveInt = 16
    """Steps n of each environment in a rollout (paper: 5)."""
    learning_rate: Positive = 2e-3
    """Initial learning rate of RMSProp (paper: sampled from 1e-4 to 1e-2)."""
    anneal_learning_rate: Fraction = 1.0
    """Fraction of the learning rate removed by the end of training, linearly (A3C and PPO for Atari: 1)."""
    rmsprop_epsilon: Positive = 1e-5
    """ε of RMSProp, under the square root (the authors, by email: 0.1)."""
    gamma: Fraction = 0.99
    """Discount factor γ (A3C, TRPO, and PPO: 0.99)."""
    gae_lambda: Fraction = 1.0
    """λ of the advantages: 0 gives TD errors, 1 n-step returns (A3C: 1; GAE: 0.92 to 0.99; PPO: 0.95)."""
    entropy_coefficient: NonNegative = 0.0
    """Weight c_2 of the entropy bonus (A3C and PPO for Atari: 0.01)."""
    value_coefficient: NonNegative = 0.5
    """Weight c_1 of the value loss."""
    max_grad_norm: Positive | None = 0.5
    """Maximum norm of the gradient; None does not clip (A3C's authors: 40; authors' code of PPO: 0.5)."""
    normalize_advantages: bool = False
    """Normalize advantages to mean 0 and standard deviation 1 (authors' code of PPO and TRPO: yes)."""
    normalize_observations: bool = False
    """Normalize observations by their running mean and standard deviation (PPO's code for MuJoCo: yes)."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of discounted returns; clip to ±10 (PPO's code)."""
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
    """The steps of a rollout with their advantages and returns, (batch_size, ...)."""

    observations: tf.Tensor | Images
    actions: tf.Tensor
    advantages: tf.Tensor
    returns: tf.Tensor


class Agent(tf.Module):
    """The policy π(a|s; θ), the critic V, and their update."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.Space, config: Config):
        super().__init__()
        self.config = config
        shape, hidden_sizes = observation_space.shape, config.hidden_sizes
        self.normalizer = ObservationNormalizer(shape) if config.normalize_observations else None
        self.reward_scaler = RewardScaler(config.num_envs, config.gamma) if config.normalize_rewards else None
        first_layers = [self.normalizer.layer] if self.normalizer else []
        build_network = orthogonal_network(config.network, first_layers)
        # actor and critic share all hidden layers of a cnn, as A3C does; of an mlp, only the normalizer
        shared, own = (hidden_sizes, ()) if config.network == "cnn" else ((), hidden_sizes)
        self.trunk = build_network(shape, shared, None, name="trunk")
        self.policy = make_policy(
            observation_space, action_space, own, config.initial_log_std, trunk=self.trunk
        )
        self.critic = tanh_mlp(self.trunk.output_shape[1:], own, 1, name="critic")
        self.parameters = [*self.policy.parameters, *self.critic.trainable_variables]
        self.optimizer = keras.optimizers.RMSprop(
            rho=0.99, epsilon=config.rmsprop_epsilon, global_clipnorm=config.max_grad_norm
        )
        self.optimizer.build(self.parameters)
        self.rng = np.random.default_rng([config.seed, 2])
        self.update = tf.function(self.update, jit_compile=config.network != "cnn")  # XLA slows CNNs

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Sample actions (num_envs, ...) for observations (num_envs, ...), not clipped to their bounds."""
        return self.policy.sample(observations, self.rng)

    def update(self, rollout: Rollout, learning_rate: tf.Tensor) -> dict[str, tf.Tensor]:
        """Take one gradient step on a rollout (num_steps, num_envs, ...)."""
        self.optimizer.learning_rate.assign(learning_rate)
        batch = self.make_batch(rollout)
        metrics = self.learn(batch)
        if self.normalizer:  # last: the rollout was sampled with the previous statistics
            self.normalizer.update(batch.observations)
        values = batch.returns - batch.advantages
        return metrics | {"explained_variance": explained_variance(values, batch.returns)}

    def make_batch(self, rollout: Rollout) -> Batch:
        """Flatten a rollout to (batch_size, ...) and compute its advantages and returns."""
        shape = rollout.rewards.shape
        not_terminated = 1.0 - tf.cast(rollout.terminated, tf.float32)
        dones = rollout.terminated | rollout.truncated
        rewards = self.reward_scaler(rollout.rewards, dones) if self.reward_scaler else rollout.rewards

        features, next_features = outputs_of(self.trunk, rollout)
        values = tf.reshape(self.critic(features), shape)
        next_values = tf.reshape(self.critic(next_features), shape)
        deltas = rewards + self.config.gamma * not_terminated * next_values - values  # (1)
        advantages = self.gae(deltas, 1.0 - tf.cast(dones, tf.float32))
        returns = advantages + values
        return Batch(*map(flatten, (rollout.observations, rollout.actions, advantages, returns)))

    def gae(self, deltas: tf.Tensor, not_done: tf.Tensor) -> tf.Tensor:
        """Return the advantages (num_steps, num_envs), computed from the last step back to the first."""
        discount = self.config.gamma * self.config.gae_lambda

        def advantage(next_advantage, step):
            delta, not_done = step
            return delta + discount * not_done * next_advantage  # (2)

        return tf.scan(advantage, (deltas, not_done), tf.zeros_like(deltas[0]), reverse=True)

    def learn(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take one gradient step on a batch (batch_size, ...)."""
        config, advantages = self.config, batch.advantages
        if config.normalize_advantages:
            advantages -= tf.reduce_mean(advantages)
            advantages /= tf.math.reduce_std(advantages) + 1e-8
        with tf.GradientTape() as tape:
            features = self.trunk(assemble(batch.observations))
            pi = self.policy(features)
            policy_loss = -tf.reduce_mean(advantages * pi.log_prob(batch.actions))  # (3)
            entropy = tf.reduce_mean(pi.entropy())
            values = self.critic(features)[:, 0]
            value_loss = 0.5 * tf.reduce_mean(tf.square(batch.returns - values))
            loss = policy_loss + config.value_coefficient * value_loss
            loss -= config.entropy_coefficient * entropy  # (4)
        gradients = tape.gradient(loss, self.parameters)
        self.optimizer.apply(gradients)
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "grad_norm": tf.linalg.global_norm(gradients),
        }


def train(config: Config) -> Result:
    """Train as in Algorithm S3 of the paper, evaluate, and save everything in a run folder."""
    run = Run(config)
    envs = make_envs(config, gym.spaces.Discrete, gym.spaces.Box)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = RolloutBuffer(config.num_steps, config.num_envs, *spaces, frame_stack=config.frame_stack)
    run.checkpoint(agent=agent, rng=agent.rng)
    update = agent.update
    if not config.eager:  # saves the 0.2 ms in which tf.function looks up the compiled function
        update = update.get_concrete_function(buffer.rollout, tf.constant(0.0))

    observations, _ = envs.reset(seed=run.env_seeds)
    for _ in run.steps(config.num_envs * config.num_steps):
        for _ in range(config.num_steps):
            actions = agent.act(observations)
            clipped_actions = agent.policy.clip(actions)  # for the environment only
            next_observations, rewards, terminated, truncated, infos = envs.step(clipped_actions)
            true_next = true_next_observations(next_observations, infos)
            buffer.add(observations, actions, rewards, true_next, terminated, truncated)
            observations = next_observations
            run.record(infos)

        learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * run.progress)
        metrics = update(buffer.rollout, tf.constant(np.float32(learning_rate)))  # floats cause retracing
        agent.policy.refresh()
        run.log(learning_rate=learning_rate, **metrics)
        run.evaluate(evaluate, agent.policy.network)

    envs.close()
    return run.finish(evaluate, actor=agent.policy.network, critic=chain(agent.trunk, agent.critic))


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the most likely actions."""
    return play_episodes(fast_copy(model), config, folder)


if __name__ == "__main__":
    main(Config, train, evaluate)

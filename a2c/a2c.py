"""Advantage Actor-Critic (A2C), the synchronous form of A3C.

Mnih, Badia, Mirza, Graves et al., "Asynchronous Methods for Deep Reinforcement Learning", ICML 2016;
advantages as in Schulman et al., "High-Dimensional Continuous Control Using GAE", arXiv:1506.02438, 2015.

    δ_t = r_t + γ (1 − terminated_t) V(s_{t+1}) − V(s_t)                              (1)
    A_t = δ_t + γ λ (1 − terminated_t or truncated_t) A_{t+1}                         (2)
    L_policy = −E[A log π(a|s; θ)]                                                    (3)
    minimise L_policy + c_1 E[(V(s) − R)²] / 2 − c_2 E[entropy of π(·|s)]             (4)

Key ideas: do not wait for the episode to end: after a few steps the critic V stands for the rest of the
return. With λ = 1, equation (2) is the paper's n-step return minus V(s_t); one step, `--num-steps 1`, is the
TD actor-critic of the textbooks. Several environments at once take the place of a replay buffer.

Differences from the paper: environments step together and the batch of all of them makes one update, where
A3C's threads update one by one; actor and critic share no layers; λ by option.

Run: python a2c/a2c.py                                      The next idea: diff a2c/a2c.py ppo/ppo.py
"""

from dataclasses import dataclass
import math
from pathlib import Path
from typing import NamedTuple

from common.envs import make_envs, play, true_next_observations
from common.networks import NumpyPolicy, mlp, policy_head
from common.normalization import RewardScaling, RunningNormalization
from common.options import Fraction, NonNegative, Positive, PositiveInt, RunConfig
from common.rollout import Rollout, RolloutBuffer, explained_variance, flatten
from common.run import Result, Run, main
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

ALGORITHM = "a2c"


@dataclass(kw_only=True)
class Config(RunConfig):
    """The options of A2C; those of every script stand in `common.options.RunConfig`."""

    env_id: str = "CartPole-v1"
    """Environment, with Discrete or Box actions."""
    total_timesteps: PositiveInt = 500_000
    """Environment steps to train for, summed over all environments."""
    num_envs: PositiveInt = 8
    """Copies of the environment that are stepped together (paper: 16 threads)."""
    num_steps: PositiveInt = 16
    """Steps n of each environment in a rollout (paper: 5); 1 is the one-step TD actor-critic."""
    learning_rate: Positive = 2e-3
    """Step size of RMSProp (paper: sampled between 1e-4 and 1e-2)."""
    anneal_learning_rate: Fraction = 1.0
    """Share of the step size that is gone, linearly, by the last update (paper: 1)."""
    epsilon: Positive = 1e-5
    """ε of RMSProp, under the square root (the authors' code: 0.1)."""
    gamma: Fraction = 0.99
    """Discount γ (paper: 0.99)."""
    gae_lambda: Fraction = 1.0
    """λ of the advantages: 0 trusts V, 1 trusts the rewards of the whole rollout (paper: 1)."""
    entropy_coefficient: NonNegative = 0.0
    """c_2, the weight of the entropy bonus (paper: 0.01)."""
    value_coefficient: NonNegative = 0.5
    """c_1, the weight of the value loss (paper: 2 here, for its square is not halved)."""
    max_grad_norm: Positive = 0.5
    """Largest norm of the whole gradient; inf leaves it as it is."""
    normalize_advantages: bool = False
    """Shift and scale the advantages of each rollout to mean 0, deviation 1 (paper: no)."""
    normalize_observations: bool = False
    """Normalise observations by their running mean and deviation (paper: no)."""
    normalize_rewards: bool = False
    """Divide rewards by the running deviation of the discounted return (paper: no)."""
    initial_log_std: float = 0.0
    """log σ of a Gaussian policy at first, in units of half the range of the actions; it is learned."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of the hidden layers of actor and critic, each."""


class Batch(NamedTuple):
    """What is learned from, (batch_size, ...): the steps of a rollout, and what was made of them."""

    observations: tf.Tensor
    actions: tf.Tensor
    advantages: tf.Tensor
    returns: tf.Tensor
    values: tf.Tensor


class Agent:
    """The actor π(a|s; θ), the critic V, and the update of both from a rollout."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.Space, config: Config):
        self.config = config
        self.normalizer = RunningNormalization() if config.normalize_observations else None
        self.reward_scaling = RewardScaling(config.num_envs, config.gamma)
        options = {
            "activation": "tanh",
            "initializer": lambda: keras.initializers.Orthogonal(math.sqrt(2.0)),
            "output_initializer": keras.initializers.Orthogonal,
            "normalizer": self.normalizer,
        }
        shape, (size, head) = observation_space.shape, policy_head(action_space, config.initial_log_std)
        self.actor = mlp(
            shape, config.hidden_sizes, size, output_scale=0.01, head=head, name="actor", **options
        )
        self.critic = mlp(shape, config.hidden_sizes, 1, name="critic", **options)
        self.variables = self.actor.trainable_variables + self.critic.trainable_variables
        self.optimizer = keras.optimizers.RMSprop(config.learning_rate, 0.99, epsilon=config.epsilon)
        self.optimizer.build(self.variables)
        self.numpy_policy = NumpyPolicy(self.actor)
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Draw actions (num_envs, ...) for observations (num_envs, ...); nothing clips them here."""
        return self.numpy_policy.sample(observations, noise)

    @tf.function(jit_compile=True)
    def update(self, rollout: Rollout, progress: tf.Tensor) -> dict[str, tf.Tensor]:
        """Learn from a rollout (num_steps, num_envs, ...) in one compiled call.

        `progress` is the share of the training that was over before. Returns the metrics of `learn`, and the
        explained variance of the critic before the update.
        """
        config = self.config
        learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * progress)
        self.optimizer.learning_rate.assign(learning_rate)
        batch = self.make_batch(rollout)
        metrics = self.learn(batch)
        if self.normalizer:  # not before: the rollout was made with the statistics as they were
            self.normalizer.update(batch.observations)
        return metrics | {
            "explained_variance": explained_variance(batch.values, batch.returns),
            "learning_rate": learning_rate,
        }

    def make_batch(self, rollout: Rollout) -> Batch:
        """Return the steps of a rollout one after the other, with advantages (batch_size,) and returns."""
        config, shape = self.config, rollout.rewards.shape
        observations = tf.cast(flatten(rollout.observations), tf.float32)
        next_observations = tf.cast(flatten(rollout.next_observations), tf.float32)
        terminated = tf.cast(rollout.terminated, tf.float32)
        ends = rollout.terminated | rollout.truncated
        rewards = self.reward_scaling(rollout.rewards, ends) if config.normalize_rewards else rollout.rewards

        values = tf.reshape(self.critic(observations), shape)
        next_values = tf.reshape(self.critic(next_observations), shape)
        deltas = rewards + config.gamma * (1.0 - terminated) * next_values - values  # (1)
        decay = config.gamma * config.gae_lambda * (1.0 - tf.cast(ends, tf.float32))
        advantages = discounted_sums(deltas, decay)  # (2)
        returns = advantages + values
        return Batch(observations, *map(flatten, (rollout.actions, advantages, returns, values)))

    def learn(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take one gradient step on a batch (batch_size, ...)."""
        config = self.config
        advantages = batch.advantages
        if config.normalize_advantages:
            advantages = normalize(advantages)
        with tf.GradientTape() as tape:
            outputs = self.actor(batch.observations)
            policy_loss = -tf.reduce_mean(log_prob(outputs, batch.actions) * advantages)  # (3)
            entropy = tf.reduce_mean(entropies(outputs, batch.actions))
            values = self.critic(batch.observations)[:, 0]
            errors = tf.square(values - batch.returns)
            value_loss = 0.5 * tf.reduce_mean(errors)
            loss = policy_loss + config.value_coefficient * value_loss
            loss -= config.entropy_coefficient * entropy  # (4)
        gradients = tape.gradient(loss, self.variables)
        grad_norm = tf.linalg.global_norm(gradients)
        shrink = tf.minimum(1.0, config.max_grad_norm / grad_norm)
        self.optimizer.apply([shrink * gradient for gradient in gradients])

        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "grad_norm": grad_norm,
        }


def log_prob(outputs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Return log π(a|s): of logits for Discrete actions, of means and log deviations for Box actions."""
    if actions.dtype.is_integer:
        return -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, outputs)
    mean, log_std = tf.split(outputs, 2, axis=-1)
    squares = tf.square((actions - mean) / tf.exp(log_std))
    return -0.5 * tf.reduce_sum(squares + 2.0 * log_std + math.log(2.0 * math.pi), axis=-1)


def entropies(outputs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Return the entropy of π(·|s), for outputs as above; of the actions only the dtype matters."""
    if actions.dtype.is_integer:
        return -tf.reduce_sum(tf.nn.softmax(outputs) * tf.nn.log_softmax(outputs), axis=-1)
    _, log_std = tf.split(outputs, 2, axis=-1)
    return tf.reduce_sum(log_std + 0.5 * math.log(2.0 * math.pi * math.e), axis=-1)


def discounted_sums(terms: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """Return x_t + d_t (x_{t+1} + d_{t+1} (...)) for terms x and decay d, both (num_steps, num_envs)."""
    return tf.scan(
        lambda later, now: now[0] + now[1] * later, (terms, decay), tf.zeros_like(terms[0]), reverse=True
    )


def normalize(x: tf.Tensor) -> tf.Tensor:
    """Shift and scale to mean 0, deviation 1."""
    return (x - tf.reduce_mean(x)) / (tf.math.reduce_std(x) + 1e-8)


def train(config: Config) -> Result:
    """Train as in the paper's Algorithm S3, evaluate, and leave a run folder."""
    run = Run(config, ALGORITHM)
    envs = make_envs(config.env_id, ALGORITHM, config.num_envs, config.seed, async_envs=config.async_envs)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = RolloutBuffer(config.num_steps, config.num_envs, *spaces)
    networks = {"actor": agent.actor, "critic": agent.critic}
    run.checkpoint(**networks, optimizer=agent.optimizer, moments=agent.reward_scaling.moments, rng=agent.rng)
    agent.numpy_policy.refresh()
    update = agent.update
    if not config.eager:  # the compiled call itself: to look it up anew each time costs 0.2 ms
        update = update.get_concrete_function(buffer.rollout, tf.constant(0.0))

    observations, _ = envs.reset(seed=run.env_seeds)
    rollout_steps = config.num_envs * config.num_steps
    for global_step in run.steps(rollout_steps):
        noise = agent.numpy_policy.noise(agent.rng, config.num_steps, config.num_envs)
        for step in range(config.num_steps):
            actions = agent.act(observations, noise[step])
            clipped_actions = agent.numpy_policy.clip(actions)  # for the environment alone
            next_observations, rewards, terminated, truncated, infos = envs.step(clipped_actions)
            true_next = true_next_observations(next_observations, infos)
            buffer.add(observations, actions, rewards, true_next, terminated, truncated)
            observations = next_observations
            run.record(infos)

        progress = (global_step - rollout_steps) / config.total_timesteps
        metrics = update(buffer.rollout, tf.constant(progress, tf.float32))
        agent.numpy_policy.refresh()
        run.log(**metrics)

    envs.close()
    return run.finish(agent.actor, networks, evaluate)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the likeliest actions: the mean, or the mode."""
    return play(NumpyPolicy(model).best, config, ALGORITHM, folder)


if __name__ == "__main__":
    main(Config, train, evaluate, ALGORITHM)

"""Soft Actor-Critic (SAC).

Haarnoja, Zhou, Abbeel & Levine, "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning
with a Stochastic Actor", ICML 2018. Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018.

    a = center + half range · tanh(u), where u = μ(s; φ) + σ(s; φ) ε and ε ~ N(0, 1)  (1)
    y = r + γ (1 − terminated) (min_i Q'_i(s', a') − α log π(a'|s')), a' ~ π(·|s')    (2)
    L = Σ_i E[(y − Q_i(s, a))²] over transitions sampled from the replay buffer       (3)
    maximize J(φ) = E[min_i Q_i(s, a) − α log π(a|s)], a by (1), by gradient ascent   (4)
    Q'_i ← τ Q_i + (1 − τ) Q'_i after every update                                    (5)
    log π(a|s) = Σ_j (log N(u_j; μ_j, σ_j²) − log(1 − tanh²(u_j)))                    (6)
    minimize J(α) = E[−α (log π(a|s) + H̄)] by gradient descent on log α               (7)

Q' are the target networks. `terminated` is 1 if s' ends the episode, 0 if a time limit cuts it off.

Key ideas: like TD3, SAC puts the smaller of two critics' values into the target (idea 1). Its policy is
stochastic and maximizes its entropy together with the return, so it keeps exploring (idea 2). The weight of
the entropy, the temperature α, is adapted so that the entropy stays near a target H̄ = −dim(A) (idea 3).

Differences from the papers: learning rates; sizes of networks and buffer; densities in half ranges of the
action; many updates in one call.

Run: python sac/sac.py                                            Parent: diff td3/td3.py sac/sac.py
"""

from dataclasses import dataclass
import math
from pathlib import Path

from common.cli import main
from common.envs import make_envs, true_next_observations
from common.evaluation import play_episodes
from common.networks import copy_network, mlp
from common.numpy_inference import fast_copy
from common.options import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, RunConfig
from common.replay_buffer import ReplayBuffer, Transitions
from common.run import Result, Run
from common.stochastic_policies import SquashedGaussianPolicy
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf


@dataclass(kw_only=True)
class Config(RunConfig):
    """Soft Actor-Critic (Haarnoja et al. 2018)."""

    env_id: str = "Pendulum-v1"
    """Environment with a Box action space."""
    total_timesteps: PositiveInt = 15_000
    """Environment steps to train for, summed over all environments."""
    actor_learning_rate: Positive = 1e-3
    """Learning rate of the actor's Adam (TD3: 1e-3; SAC: 3e-4)."""
    critic_learning_rate: Positive = 1e-3
    """Learning rate of the critic's Adam (TD3: 1e-3; SAC: 3e-4)."""
    temperature_learning_rate: NonNegative = 1e-3
    """Learning rate of the Adam of log α (SAC: 3e-4); 0 keeps the temperature fixed."""
    temperature: Positive = 1.0
    """Initial temperature α (the authors' code: 1); a resumed run has that of its checkpoint."""
    target_entropy: float = -1.0
    """Target H̄ of the entropy, divided by the number of dimensions of the action (SAC: −1)."""
    buffer_size: PositiveInt = 200_000
    """Capacity of the replay buffer, in transitions (TD3: the entire history; SAC: 1,000,000)."""
    gamma: Fraction = 0.99
    """Discount factor γ (TD3 and SAC: 0.99)."""
    tau: Fraction = 0.005
    """Target update rate τ (TD3 and SAC: 0.005)."""
    batch_size: PositiveInt = 256
    """Transitions in a minibatch (TD3: 100; SAC: 256)."""
    learning_starts: NonNegativeInt = 1_000
    """Steps of uniformly random actions before the first update (TD3 and SAC's code: 1,000 or 10,000)."""
    train_frequency: PositiveInt = 50
    """Environment steps, over all environments, between calls of the update (TD3 and SAC: 1)."""
    gradient_steps: PositiveInt = 50
    """Gradient steps in one call of the update (TD3 and SAC: 1)."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of the hidden layers of each network (TD3: 400, 300; SAC: 256, 256)."""


class Agent(tf.Module):
    """The policy π, the critics Q_1 and Q_2, their target networks, the temperature α, and their update."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.spaces.Box, config: Config):
        super().__init__()
        self.config = config
        self.low, self.high = action_space.low, action_space.high
        num_observations, num_actions = observation_space.shape[0], action_space.shape[0]
        hidden_layers = mlp((num_observations,), config.hidden_sizes, None, name="hidden_layers")
        self.policy = SquashedGaussianPolicy(hidden_layers, action_space)
        self.critic = mlp((num_observations + num_actions,), config.hidden_sizes, 1, name="critic")
        self.critic_2 = mlp((num_observations + num_actions,), config.hidden_sizes, 1, name="critic_2")
        self.critic_parameters = self.critic.trainable_variables + self.critic_2.trainable_variables
        self.target_critic = copy_network(self.critic)
        self.target_critic_2 = copy_network(self.critic_2)
        self.actor_optimizer = keras.optimizers.Adam(config.actor_learning_rate)
        self.actor_optimizer.build(self.policy.parameters)
        self.critic_optimizer = keras.optimizers.Adam(config.critic_learning_rate)
        self.critic_optimizer.build(self.critic_parameters)
        self.log_temperature = keras.Variable(np.log(config.temperature), dtype="float32")
        self.temperature_optimizer = keras.optimizers.Adam(config.temperature_learning_rate)
        self.temperature_optimizer.build([self.log_temperature])
        self.target_entropy = config.target_entropy * num_actions
        self.rng = np.random.default_rng([config.seed, 2])
        self.update_rng = tf.random.Generator.from_seed(config.seed)

    def act(self, observations: np.ndarray, *, random: bool) -> np.ndarray:
        """Return actions (num_envs, num_actions): uniformly random, or sampled from the policy."""
        if random:
            actions = self.rng.uniform(self.low, self.high, (len(observations), len(self.low)))
            return actions.astype(np.float32)
        return self.policy.sample(observations, self.rng)

    @tf.function(jit_compile=True)
    def update(self, batches: Transitions) -> dict[str, tf.Tensor]:
        """Take a gradient step on each minibatch of `batches` (gradient_steps, batch_size, ...).

        Returns the metrics of the last minibatch.
        """
        metrics = {"td_loss": 0.0, "q_values": 0.0, "entropy": 0.0, "temperature": 0.0}
        for k in tf.range(len(batches.rewards)):
            batch = Transitions(*(field[k] for field in batches))
            metrics = self.learn_critic(batch) | self.learn_actor(batch)
        return metrics

    def learn_critic(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """Take one gradient step of both critics on a minibatch (batch_size, ...)."""
        next_actions, next_log_probs = self.sample(batch.next_observations)
        next_q_values = q_values_of(self.target_critic, batch.next_observations, next_actions)
        next_q_values_2 = q_values_of(self.target_critic_2, batch.next_observations, next_actions)
        next_q_values = tf.minimum(next_q_values, next_q_values_2)  # idea 1: the smaller value
        next_q_values -= tf.exp(self.log_temperature) * next_log_probs  # idea 2: entropy
        not_terminated = 1.0 - tf.cast(batch.terminated, tf.float32)
        td_target = batch.rewards + self.config.gamma * not_terminated * next_q_values  # (2)

        with tf.GradientTape() as tape:
            q_values = q_values_of(self.critic, batch.observations, batch.actions)
            q_values_2 = q_values_of(self.critic_2, batch.observations, batch.actions)
            td_loss = tf.reduce_mean(tf.square(td_target - q_values))  # (3)
            td_loss += tf.reduce_mean(tf.square(td_target - q_values_2))
        gradients = tape.gradient(td_loss, self.critic_parameters)
        self.critic_optimizer.apply(gradients)
        return {"td_loss": td_loss, "q_values": tf.reduce_mean(q_values)}

    def learn_actor(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """Take one gradient step of policy and temperature on a minibatch, and update the target networks."""
        temperature = tf.exp(self.log_temperature)
        with tf.GradientTape() as tape:
            actions, log_probs = self.sample(batch.observations)
            q_values = q_values_of(self.critic, batch.observations, actions)
            q_values_2 = q_values_of(self.critic_2, batch.observations, actions)
            q_values = tf.minimum(q_values, q_values_2)
            actor_loss = -tf.reduce_mean(q_values - temperature * log_probs)  # (4)
        gradients = tape.gradient(actor_loss, self.policy.parameters)
        self.actor_optimizer.apply(gradients)

        entropy = -tf.reduce_mean(log_probs)
        with tf.GradientTape() as tape:  # idea 3: adapted temperature
            temperature_loss = tf.exp(self.log_temperature) * (entropy - self.target_entropy)  # (7)
        gradients = tape.gradient(temperature_loss, [self.log_temperature])
        self.temperature_optimizer.apply(gradients)
        self.soft_update(self.target_critic, self.critic)
        self.soft_update(self.target_critic_2, self.critic_2)
        return {"entropy": entropy, "temperature": temperature}

    def sample(self, observations: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sample actions (batch_size, num_actions); return them with their log π(a|s) (batch_size,).

        Both are differentiable functions of μ and σ (the reparameterization trick).
        """
        normal = self.policy(observations)
        u = normal.mean + tf.exp(normal.log_std) * self.update_rng.normal(tf.shape(normal.mean))
        actions = self.policy.center + self.policy.half_range * tf.tanh(u)  # (1)
        log_derivative = 2.0 * (math.log(2.0) - u - tf.nn.softplus(-2.0 * u))  # log(1 − tanh²(u))
        return actions, normal.log_prob(u) - tf.reduce_sum(log_derivative, axis=-1)  # (6)

    def soft_update(self, target_network: keras.Model, network: keras.Model) -> None:
        """Move a target network toward its online network."""
        tau = self.config.tau
        for target, online in zip(target_network.trainable_variables, network.trainable_variables):
            target.assign(tau * online + (1.0 - tau) * target)  # (5)


def q_values_of(critic: keras.Model, observations: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Return Q(s, a) (batch_size,)."""
    return critic(tf.concat([tf.cast(observations, tf.float32), actions], axis=-1))[:, 0]


def train(config: Config) -> Result:
    """Train as in Algorithm 1 of the second paper, evaluate, and save everything in a run folder."""
    run = Run(config)
    envs = make_envs(config, gym.spaces.Box, bounded=True)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = ReplayBuffer(config.buffer_size, *spaces, config.seed)
    run.checkpoint(agent=agent, buffer=buffer, rng=agent.rng)

    observations, _ = envs.reset(seed=run.env_seeds)
    for global_step in run.steps(config.num_envs):
        actions = agent.act(observations, random=global_step <= config.learning_starts)
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true_next = true_next_observations(next_observations, infos)
        buffer.add(observations, actions, rewards, true_next, terminated)
        observations = next_observations
        run.record(infos)

        if global_step > config.learning_starts and global_step % config.train_frequency < config.num_envs:
            metrics = agent.update(buffer.sample(config.gradient_steps, config.batch_size))
            agent.policy.refresh()
            run.log(**metrics)
        run.evaluate(evaluate, agent.policy.network)

    envs.close()
    return run.finish(evaluate, actor=agent.policy.network, critic=agent.critic, critic_2=agent.critic_2)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the actor without noise."""
    return play_episodes(fast_copy(model), config, folder)


if __name__ == "__main__":
    main(Config, train, evaluate)

"""Twin Delayed Deep Deterministic Policy Gradient (TD3).

Fujimoto, van Hoof & Meger, "Addressing Function Approximation Error in Actor-Critic Methods", ICML 2018.

    a = clip(μ(s; φ) + n, low, high), where n ← (1 − θ) n + σ ε and ε ~ N(0, 1)       (1)
    y = r + γ (1 − terminated) min_i Q'_i(s', a'), i = 1, 2                           (2)
    L = Σ_i E[(y − Q_i(s, a))²] over transitions sampled from the replay buffer       (3)
    maximize J(φ) = E[Q_1(s, μ(s; φ))] by gradient ascent, every d-th update          (4)
    Q'_i ← τ Q_i + (1 − τ) Q'_i, μ' ← τ μ + (1 − τ) μ' every d-th update              (5)
    a' = clip(μ'(s') + clip(σ̃ ε, −c, c), low, high) in (2), where ε ~ N(0, 1)         (6)

Q' and μ' are the target networks. `terminated` is 1 if s' ends the episode, 0 if a time limit cuts it off.

Key ideas: DDPG's actor exploits the errors of its critic. TD3 puts the smaller of two critics' values into
the target (idea 1), updates actor and targets less often than the critics (idea 2), and adds noise to the
target action, so that the actor cannot exploit a narrow peak of Q (idea 3).

Differences from the paper: Glorot initialization; sizes of networks, buffer, and minibatch; noise in half
ranges of the action; many updates in one call.

Run: python td3/td3.py                                            Parent: diff ddpg/ddpg.py td3/td3.py
"""

from dataclasses import dataclass
from pathlib import Path

from common.cli import main
from common.envs import make_envs, true_next_observations
from common.evaluation import play_episodes
from common.networks import copy_network, mlp
from common.numpy_inference import fast_copy
from common.options import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, RunConfig
from common.replay_buffer import ReplayBuffer, Transitions
from common.run import Result, Run
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf


@dataclass(kw_only=True)
class Config(RunConfig):
    """Twin Delayed DDPG (Fujimoto et al. 2018)."""

    env_id: str = "Pendulum-v1"
    """Environment with a Box action space."""
    total_timesteps: PositiveInt = 30_000
    """Environment steps to train for, summed over all environments."""
    actor_learning_rate: Positive = 1e-3
    """Learning rate of the actor's Adam (DDPG: 1e-4; TD3: 1e-3)."""
    critic_learning_rate: Positive = 1e-3
    """Learning rate of the critic's Adam (DDPG: 1e-3; TD3: 1e-3)."""
    buffer_size: PositiveInt = 200_000
    """Capacity of the replay buffer, in transitions (DDPG: 1,000,000; TD3: the entire history)."""
    gamma: Fraction = 0.99
    """Discount factor γ (DDPG and TD3: 0.99)."""
    tau: Fraction = 0.005
    """Target update rate τ (DDPG: 0.001; TD3: 0.005)."""
    batch_size: PositiveInt = 256
    """Transitions in a minibatch (DDPG: 64; TD3: 100)."""
    exploration_noise: NonNegative = 0.1
    """Standard deviation σ of the exploration noise, in half ranges of the action (DDPG: 0.2; TD3: 0.1)."""
    noise_reversion: Fraction = 1.0
    """Reversion rate θ: 1 is Gaussian noise (TD3), less is Ornstein-Uhlenbeck noise (DDPG: 0.15)."""
    learning_starts: NonNegativeInt = 1_000
    """Steps of uniformly random actions before the first update (DDPG: 0; TD3: 1,000 or 10,000)."""
    train_frequency: PositiveInt = 50
    """Environment steps, over all environments, between calls of the update (DDPG and TD3: 1)."""
    gradient_steps: PositiveInt = 50
    """Gradient steps in one call of the update (DDPG and TD3: 1)."""
    policy_frequency: PositiveInt = 2
    """Updates d of the critics per update of the actor and the target networks (paper: 2)."""
    target_noise: NonNegative = 0.2
    """Standard deviation σ̃ of the noise on the target action, in half ranges of the action (paper: 0.2)."""
    target_noise_clip: NonNegative = 0.5
    """Bound c of that noise, in half ranges of the action (paper: 0.5)."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of the hidden layers of each network (DDPG and TD3: 400, 300)."""


class Agent(tf.Module):
    """The actor μ, the critics Q_1 and Q_2, their target networks, and their update."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.spaces.Box, config: Config):
        super().__init__()
        self.config = config
        self.low, self.high = action_space.low, action_space.high
        self.half_range = (self.high - self.low) / 2
        num_observations, num_actions = observation_space.shape[0], action_space.shape[0]
        self.actor = mlp((num_observations,), config.hidden_sizes, num_actions, name="actor")
        self.actor.add(keras.layers.Activation("tanh"))
        self.actor.add(keras.layers.Rescaling(self.half_range, self.low + self.half_range))
        self.critic = mlp((num_observations + num_actions,), config.hidden_sizes, 1, name="critic")
        self.critic_2 = mlp((num_observations + num_actions,), config.hidden_sizes, 1, name="critic_2")
        self.critic_parameters = self.critic.trainable_variables + self.critic_2.trainable_variables
        self.target_actor = copy_network(self.actor)
        self.target_critic = copy_network(self.critic)
        self.target_critic_2 = copy_network(self.critic_2)
        self.actor_optimizer = keras.optimizers.Adam(config.actor_learning_rate)
        self.actor_optimizer.build(self.actor.trainable_variables)
        self.critic_optimizer = keras.optimizers.Adam(config.critic_learning_rate)
        self.critic_optimizer.build(self.critic_parameters)
        self.acting_network = fast_copy(self.actor)
        self.noise = np.zeros((config.num_envs, num_actions), np.float32)
        self.rng = np.random.default_rng([config.seed, 2])
        self.update_rng = tf.random.Generator.from_seed(config.seed)

    def act(self, observations: np.ndarray, *, random: bool) -> np.ndarray:
        """Return actions (num_envs, num_actions): uniformly random, or the actor's with noise."""
        if random:
            return self.rng.uniform(self.low, self.high, self.noise.shape).astype(np.float32)
        new_noise = self.config.exploration_noise * self.rng.standard_normal(self.noise.shape, np.float32)
        self.noise = (1.0 - self.config.noise_reversion) * self.noise + self.half_range * new_noise
        return np.clip(self.acting_network(observations) + self.noise, self.low, self.high)  # (1)

    @tf.function(jit_compile=True)
    def update(self, batches: Transitions) -> dict[str, tf.Tensor]:
        """Take a gradient step on each minibatch of `batches` (gradient_steps, batch_size, ...).

        Returns the metrics of the last minibatch.
        """
        metrics = {"td_loss": 0.0, "q_values": 0.0}
        for k in tf.range(len(batches.rewards)):
            batch = Transitions(*(field[k] for field in batches))
            metrics = self.learn_critic(batch)
            if self.critic_optimizer.iterations % self.config.policy_frequency == 0:  # idea 2: delay
                self.learn_actor(batch)
        return metrics

    def learn_critic(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """Take one gradient step of both critics on a minibatch (batch_size, ...)."""
        noise = self.update_rng.normal(tf.shape(batch.actions), stddev=self.config.target_noise)
        bound = self.config.target_noise_clip
        noise = self.half_range * tf.clip_by_value(noise, -bound, bound)
        next_actions = self.target_actor(batch.next_observations) + noise  # idea 3: smoothing
        next_actions = tf.clip_by_value(next_actions, self.low, self.high)  # (6)
        next_q_values = q_values_of(self.target_critic, batch.next_observations, next_actions)
        next_q_values_2 = q_values_of(self.target_critic_2, batch.next_observations, next_actions)
        next_q_values = tf.minimum(next_q_values, next_q_values_2)  # idea 1: the smaller value
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

    def learn_actor(self, batch: Transitions) -> None:
        """Take one gradient step of the actor on a minibatch, and update the target networks."""
        with tf.GradientTape() as tape:
            actions = self.actor(batch.observations)
            actor_loss = -tf.reduce_mean(q_values_of(self.critic, batch.observations, actions))  # (4)
        gradients = tape.gradient(actor_loss, self.actor.trainable_variables)
        self.actor_optimizer.apply(gradients)
        self.soft_update(self.target_actor, self.actor)
        self.soft_update(self.target_critic, self.critic)
        self.soft_update(self.target_critic_2, self.critic_2)

    def soft_update(self, target_network: keras.Model, network: keras.Model) -> None:
        """Move a target network toward its online network."""
        tau = self.config.tau
        for target, online in zip(target_network.trainable_variables, network.trainable_variables):
            target.assign(tau * online + (1.0 - tau) * target)  # (5)


def q_values_of(critic: keras.Model, observations: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Return Q(s, a) (batch_size,)."""
    return critic(tf.concat([tf.cast(observations, tf.float32), actions], axis=-1))[:, 0]


def train(config: Config) -> Result:
    """Train as in Algorithm 1 of the paper, evaluate, and save everything in a run folder."""
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
        agent.noise[terminated | truncated] = 0.0  # a new noise process for each episode
        run.record(infos)

        if global_step > config.learning_starts and global_step % config.train_frequency < config.num_envs:
            metrics = agent.update(buffer.sample(config.gradient_steps, config.batch_size))
            agent.acting_network.refresh()
            run.log(**metrics)
        run.evaluate(evaluate, agent.actor)

    envs.close()
    return run.finish(evaluate, actor=agent.actor, critic=agent.critic, critic_2=agent.critic_2)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the actor without noise."""
    return play_episodes(fast_copy(model), config, folder)


if __name__ == "__main__":
    main(Config, train, evaluate)

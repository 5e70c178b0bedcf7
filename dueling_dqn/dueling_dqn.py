"""Dueling DQN.

Wang, Schaul, Hessel et al., "Dueling Network Architectures for Deep Reinforcement Learning", ICML 2016.

    a = a uniformly random action with probability ε, else argmax_a Q(s, a; θ)        (1)
    y = r + γ (1 − terminated) Q(s', argmax_a' Q(s', a'; θ); θ⁻)                      (2)
    L(θ) = E[ℓ(y − Q(s, a; θ))] over transitions sampled from the replay buffer       (3)
    θ⁻ ← τ θ + (1 − τ) θ⁻ every C updates (paper: τ = 1)                              (4)
    Q(s, a; θ) = V(s; θ) + A(s, a; θ) − mean_a' A(s, a'; θ)                           (5)

`terminated` is 1 if s' ends the episode; it is 0 if a time limit cuts the episode off at s'.

Key idea: two streams on top of shared layers estimate V(s) and the advantage of each action, so that every
transition improves V, whichever action was taken. Subtracting the mean in (5) makes V and A identifiable; V
does not change which action is best, so acting needs A alone. (2) is Double DQN's, as in the paper.

Differences from the paper: dense layers on vectors by default (--network cnn --frame-stack 4 for images);
Adam with an annealed learning rate, not RMSProp; squared errors, not clipped ones (--loss huber); many
updates in one call; sizes and schedules for small tasks; an optimistic initial Q; uniform replay, as in the
paper's first Atari experiment; the gradient that enters the shared layers is not scaled by 1/√2.

Run: python dueling_dqn/dueling_dqn.py  Parent: diff double_dqn/double_dqn.py dueling_dqn/dueling_dqn.py
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli import main
from common.envs import make_envs, true_next_observations
from common.evaluation import play_episodes
from common.networks import NETWORKS, copy_network, mlp
from common.numpy_inference import fast_copy
from common.options import Fraction, NonNegativeInt, Positive, PositiveFraction, PositiveInt, RunConfig
from common.replay_buffer import ReplayBuffer, Transitions
from common.run import Result, Run
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf


@dataclass(kw_only=True)
class Config(RunConfig):
    """Dueling DQN (Wang et al. 2016)."""

    env_id: str = "CartPole-v1"
    """Environment with a Discrete action space."""
    total_timesteps: PositiveInt = 50_000
    """Environment steps to train for, summed over all environments."""
    learning_rate: Positive = 1e-3
    """Initial learning rate of Adam (DQN: 2.5e-4, RMSProp)."""
    anneal_learning_rate: Fraction = 1.0
    """Fraction of the learning rate removed by the end of training, linearly (paper: 0)."""
    adam_epsilon: Positive = 3.125e-4
    """ε of Adam (Dopamine's DQN on CartPole: 3.125e-4)."""
    buffer_size: PositiveInt = 25_000
    """Capacity of the replay buffer, in transitions (paper: 1,000,000)."""
    gamma: Fraction = 0.99
    """Discount factor γ (paper: 0.99)."""
    tau: Fraction = 1.0
    """Target update rate τ: 1 copies the online network (paper)."""
    target_network_frequency: PositiveInt = 100
    """Gradient steps C between target updates (DQN: 10,000; tuned Double DQN: 30,000 frames)."""
    batch_size: PositiveInt = 128
    """Transitions in a minibatch (paper: 32)."""
    start_epsilon: Fraction = 1.0
    """Exploration rate ε at the first step (paper: 1)."""
    end_epsilon: Fraction = 0.02
    """Exploration rate ε after the annealing (DQN: 0.1; tuned Double DQN: 0.01)."""
    exploration_fraction: PositiveFraction = 0.2
    """Fraction of training over which ε is annealed, linearly (paper: 0.02)."""
    learning_starts: NonNegativeInt = 1_000
    """Environment steps before the first update (paper: 50,000)."""
    train_frequency: PositiveInt = 128
    """Environment steps, over all environments, between calls of the update (paper: 4)."""
    gradient_steps: PositiveInt = 64
    """Gradient steps in one call of the update (paper: 1)."""
    network: Literal["mlp", "cnn", "lstm"] = "mlp"
    """Q network: mlp for vectors, cnn for images (paper), lstm for sequences of `frame_stack` vectors."""
    hidden_sizes: tuple[PositiveInt, ...] = (256, 256)
    """Units of the shared layers (the LSTM first), then of one layer in each stream (paper: 512 in each)."""
    initial_value: float = 100.0
    """Initial Q: optimistic for CartPole, 1 / (1 − γ); 0 suits most other tasks (paper: near 0)."""
    frame_stack: PositiveInt = 1
    """Number of last observations that form a state (paper: 4)."""
    clip_rewards: bool = False
    """Learn from the sign of the reward (paper)."""
    terminal_on_life_loss: bool = False
    """In ALE games, treat the loss of a life as termination during training (paper)."""
    max_grad_norm: Positive | None = 10.0
    """Maximum norm of the gradient; None does not clip (DQN: None; Dueling DQN: 10)."""
    loss: Literal["squared", "huber"] = "squared"
    """ℓ: half the squared error, or the Huber loss, whose gradient is the paper's clipped error."""


def dueling_network(input_shape: tuple[int, ...], num_actions: int, config: Config) -> keras.Model:
    """Build Q (batch, *input_shape) -> (batch, num_actions). Each stream has its own last hidden layer."""
    shared = NETWORKS[config.network](input_shape, config.hidden_sizes[:-1], None)
    features, stream_sizes = shared.outputs[0], config.hidden_sizes[-1:]
    weights = {"orthogonal_weights": config.network == "cnn"}  # as the layers before the streams
    value_stream = mlp(features.shape[1:], stream_sizes, 1, **weights, name="value")
    value_stream.layers[-1].bias.assign([config.initial_value])
    advantage = mlp(features.shape[1:], stream_sizes, num_actions, **weights, name="advantage")(features)
    value = value_stream(features)
    q_values = value + advantage - keras.ops.mean(advantage, axis=-1, keepdims=True)  # (5)
    return keras.Model(shared.inputs[0], q_values, name="q_network")


def advantage_stream(q_network: keras.Model) -> keras.Model:
    """Return A (batch, *input_shape) -> (batch, num_actions), which has the same argmax as Q."""
    return keras.Model(q_network.inputs[0], q_network.get_layer("advantage").output)


class Agent(tf.Module):
    """The online network θ, the target network θ⁻, and their update."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.spaces.Discrete, config: Config):
        super().__init__()
        self.config = config
        self.num_actions = int(action_space.n)
        self.q_network = dueling_network(observation_space.shape, self.num_actions, config)
        self.target_network = copy_network(self.q_network)
        self.optimizer = keras.optimizers.Adam(
            epsilon=config.adam_epsilon, global_clipnorm=config.max_grad_norm
        )
        self.optimizer.build(self.q_network.trainable_variables)
        self.acting_network = fast_copy(advantage_stream(self.q_network))
        self.rng = np.random.default_rng([config.seed, 2])
        self.update = tf.function(self.update, jit_compile=config.network != "cnn")  # XLA slows CNNs

    def act(self, observations: np.ndarray, epsilon: float) -> np.ndarray:
        """Return ε-greedy actions (num_envs,) for observations (num_envs, ...)."""
        num_envs = len(observations)
        greedy_actions = self.acting_network(observations).argmax(axis=-1)
        random_actions = self.rng.integers(self.num_actions, size=num_envs)
        return np.where(self.rng.random(num_envs) < epsilon, random_actions, greedy_actions)  # (1)

    def update(self, batches: Transitions, learning_rate: tf.Tensor) -> dict[str, tf.Tensor]:
        """Take a gradient step on each minibatch of `batches` (gradient_steps, batch_size, ...).

        Returns the metrics of the last minibatch.
        """
        self.optimizer.learning_rate.assign(learning_rate)
        metrics = {"td_loss": 0.0, "q_values": 0.0, "grad_norm": 0.0}
        for k in tf.range(len(batches.rewards)):
            metrics = self.learn(Transitions(*(field[k] for field in batches)))
            if self.optimizer.iterations % self.config.target_network_frequency == 0:
                self.soft_update(self.target_network, self.q_network)
        return metrics

    def learn(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """Take one gradient step on a minibatch (batch_size, ...)."""
        next_actions = tf.argmax(self.q_network(batch.next_observations), axis=-1)
        next_mask = tf.one_hot(next_actions, self.num_actions)
        next_q_values = tf.reduce_sum(next_mask * self.target_network(batch.next_observations), axis=-1)
        not_terminated = 1.0 - tf.cast(batch.terminated, tf.float32)
        td_target = batch.rewards + self.config.gamma * not_terminated * next_q_values  # (2)

        with tf.GradientTape() as tape:
            action_mask = tf.one_hot(batch.actions, self.num_actions)
            q_values = tf.reduce_sum(action_mask * self.q_network(batch.observations), axis=-1)
            if self.config.loss == "huber":
                td_loss = keras.losses.huber(td_target, q_values)
            else:
                td_loss = 0.5 * keras.losses.mean_squared_error(td_target, q_values)  # (3)
        gradients = tape.gradient(td_loss, self.q_network.trainable_variables)
        self.optimizer.apply(gradients)
        return {
            "td_loss": td_loss,
            "q_values": tf.reduce_mean(q_values),
            "grad_norm": tf.linalg.global_norm(gradients),
        }

    def soft_update(self, target_network: keras.Model, network: keras.Model) -> None:
        """Move the target network toward the online network."""
        tau = self.config.tau
        for target, online in zip(target_network.trainable_variables, network.trainable_variables):
            target.assign(tau * online + (1.0 - tau) * target)  # (4)


def train(config: Config) -> Result:
    """Train as in Algorithm 1 of Mnih et al. (2015), evaluate, and save everything in a run folder."""
    run = Run(config)
    envs = make_envs(config, gym.spaces.Discrete)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = ReplayBuffer(config.buffer_size, *spaces, config.seed, frame_stack=config.frame_stack)
    run.checkpoint(agent=agent, buffer=buffer, rng=agent.rng)

    observations, _ = envs.reset(seed=run.env_seeds)
    for global_step in run.steps(config.num_envs):
        annealed = min(1.0, run.progress / config.exploration_fraction)
        epsilon = config.start_epsilon + annealed * (config.end_epsilon - config.start_epsilon)
        actions = agent.act(observations, epsilon)
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true_next = true_next_observations(next_observations, infos)
        buffer.add(observations, actions, rewards, true_next, terminated)
        observations = next_observations
        run.record(infos)

        if global_step > config.learning_starts and global_step % config.train_frequency < config.num_envs:
            learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * run.progress)
            batches = buffer.sample(config.gradient_steps, config.batch_size)
            metrics = agent.update(batches, tf.constant(np.float32(learning_rate)))  # floats cause retracing
            agent.acting_network.refresh()
            run.log(epsilon=epsilon, learning_rate=learning_rate, **metrics)
        run.evaluate(evaluate, agent.q_network)

    envs.close()
    return run.finish(evaluate, q_network=agent.q_network)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the greedy policy, argmax_a Q(s, a)."""
    return play_episodes(fast_copy(advantage_stream(model)), config, folder)


if __name__ == "__main__":
    main(Config, train, evaluate)

"""Dueling DQN.

Wang, Schaul, Hessel, van Hasselt, Lanctot & de Freitas, "Dueling network architectures for deep
reinforcement learning", ICML 2016.

    a ← a uniformly random action with probability ε, else argmax_a A(s, a; θ)        (1)
    y = r + γ (1 − terminated) Q(s', argmax_a' Q(s', a'; θ); θ⁻)                      (2)
    L(θ) = E[ℓ(y − Q(s, a; θ))] over transitions drawn from the replay buffer         (3)
    θ⁻ ← τ θ + (1 − τ) θ⁻ every C updates; the paper has τ = 1                        (4)
    Q(s, a; θ) = V(s; θ) + A(s, a; θ) − mean_a' A(s, a'; θ)                           (5)

Key ideas: two streams above shared layers, one for the value of a state and one for what each action adds
to it, so that every transition teaches the value, whichever action it took; the mean advantage is
subtracted, or V and A would be known only up to a constant; and V does not change the order of the
actions, so that the advantage stream alone acts.

Differences from the paper: the gradient that enters the shared layers is not scaled by 1/√2; uniform
replay alone; Adam with a step size that falls to 0, in place of RMSProp; squared errors, unclipped unless
--loss huber; several updates at a time, every so often; convolutions and stacked frames by option; an
optimistic first V.

Run: python dueling_dqn/dueling_dqn.py
What changed: diff double_dqn/double_dqn.py dueling_dqn/dueling_dqn.py
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.envs import make_envs, play, true_next_observations, view_options
from common.networks import NETWORKS, fast_copy, mlp
from common.options import Fraction, NonNegativeInt, Positive, PositiveInt, RunConfig
from common.replay_buffer import ReplayBuffer, Transitions
from common.run import Result, Run, main
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

ALGORITHM = "dueling_dqn"


@dataclass(kw_only=True)
class Config(RunConfig):
    """The options of Dueling DQN; those of every script stand in `common.options.RunConfig`."""

    env_id: str = "CartPole-v1"
    """Environment, with Discrete actions."""
    total_timesteps: PositiveInt = 50_000
    """Environment steps to train for, summed over all environments."""
    learning_rate: Positive = 1e-3
    """Step size of Adam at the first step (DQN: 2.5e-4, paper: a little less, RMSProp)."""
    anneal_learning_rate: Fraction = 1.0
    """Share of the step size taken away, linearly, by the last step: 1 ends at 0, 0 keeps it (paper)."""
    adam_epsilon: Positive = 3.125e-4
    """ε of Adam: gradients smaller than that move the weights less than the step size (Dopamine)."""
    buffer_size: PositiveInt = 25_000
    """Transitions that the replay buffer holds (paper: 1,000,000)."""
    gamma: Fraction = 0.99
    """Discount γ (paper: 0.99)."""
    tau: Fraction = 1.0
    """Share τ of the online network in a target update: 1 copies it (paper), less moves softly."""
    target_network_frequency: PositiveInt = 100
    """Updates C between target updates (DQN: 10,000, Double DQN: 30,000); updates, not environment steps."""
    batch_size: PositiveInt = 128
    """Transitions in a minibatch (paper: 32)."""
    start_epsilon: Fraction = 1.0
    """Exploration ε at the first step (paper: 1)."""
    end_epsilon: Fraction = 0.02
    """Exploration ε from `exploration_fraction` on (DQN: 0.1, Double DQN: 0.01)."""
    exploration_fraction: Positive = 0.2
    """Share of all steps over which ε falls linearly (paper: 0.02)."""
    learning_starts: NonNegativeInt = 1_000
    """Steps before the first update (paper: 50,000)."""
    train_frequency: PositiveInt = 128
    """Environment steps, over all environments, between update calls (paper: 4)."""
    gradient_steps: PositiveInt = 64
    """Updates in one such call (paper: 1)."""
    network: Literal["mlp", "cnn", "lstm"] = "mlp"
    """Kind of Q network: for vectors, for images (paper), or for the last `frame_stack` vectors in turn."""
    hidden_sizes: tuple[PositiveInt, ...] = (256, 256)
    """Units of the hidden layers; the dense ones behind the convolutions (paper: 512), or LSTM then dense."""
    initial_value: float = 100.0
    """First bias of V, and so of every Q; 100 is 1 / (1 − γ), the return of never failing (paper: near 0)."""
    frame_stack: PositiveInt = 1
    """Last observations that make a state (paper: 4)."""
    clip_rewards: bool = False
    """Learn from the sign of the reward (paper)."""
    terminal_on_life_loss: bool = False
    """Let the loss of a life in an ALE game terminate, for the learner alone (paper)."""
    max_grad_norm: Positive = 10.0
    """Largest norm of the whole gradient; inf leaves it as it is."""
    loss: Literal["squared", "huber"] = "squared"
    """ℓ: half the square, or Huber's, whose gradient is the paper's error clipped to [−1, 1]."""


def dueling_network(input_shape: tuple[int, ...], num_actions: int, config: Config) -> keras.Model:
    """Return Q (batch, *input_shape) -> (batch, num_actions); the last hidden layer is one in each stream."""
    shared = NETWORKS[config.network](input_shape, config.hidden_sizes[:-1], None)
    features, stream_sizes = shared.outputs[0], config.hidden_sizes[-1:]
    value = mlp(features.shape[1:], stream_sizes, 1, output_bias=config.initial_value, name="value")(features)
    advantage = mlp(features.shape[1:], stream_sizes, num_actions, name="advantage")(features)
    q_values = value + advantage - keras.ops.mean(advantage, axis=-1, keepdims=True)  # (5)
    return keras.Model(shared.inputs[0], q_values, name="q_network")


def advantage_stream(q_network: keras.Model) -> keras.Model:
    """Return A (batch, *input_shape) -> (batch, num_actions) before its mean is subtracted."""
    return keras.Model(q_network.inputs[0], q_network.get_layer("advantage").output)


class Agent:
    """The online network θ, the target network θ⁻, and the update of the first from the second."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.spaces.Discrete, config: Config):
        self.config = config
        self.num_actions = int(action_space.n)
        self.q_network = dueling_network(observation_space.shape, self.num_actions, config)
        self.target_network = keras.models.clone_model(self.q_network)
        self.target_network.set_weights(self.q_network.get_weights())
        self.optimizer = keras.optimizers.Adam(config.learning_rate, epsilon=config.adam_epsilon)
        self.optimizer.build(self.q_network.trainable_variables)
        self.fast_network = fast_copy(advantage_stream(self.q_network))
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray, epsilon: float) -> np.ndarray:
        """Choose ε-greedy actions (num_envs,) for observations (num_envs, ...)."""
        num_envs = len(observations)
        greedy_actions = self.fast_network(observations).argmax(axis=-1)
        random_actions = self.rng.integers(self.num_actions, size=num_envs)
        return np.where(self.rng.random(num_envs) < epsilon, random_actions, greedy_actions)  # (1)

    @tf.function(jit_compile=True)
    def update(self, batches: Transitions) -> dict[str, tf.Tensor]:
        """Learn from each minibatch of `batches`, (gradient_steps, batch_size, ...), in one compiled call.

        Returns the metrics of `learn`, averaged over the minibatches.
        """
        num_batches = len(batches.rewards)
        sums = {"td_loss": 0.0, "q_values": 0.0, "grad_norm": 0.0}
        for k in tf.range(num_batches):
            metrics = self.learn(Transitions(*(field[k] for field in batches)))
            sums = {name: sums[name] + metrics[name] for name in sums}
        return {name: sums[name] / num_batches for name in sums}

    def learn(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """Take one gradient step on a minibatch (batch_size, ...), and update the target network if due."""
        best = tf.one_hot(tf.argmax(self.q_network(batch.next_observations), axis=-1), self.num_actions)
        next_q_values = tf.reduce_sum(best * self.target_network(batch.next_observations), axis=-1)
        not_terminated = 1.0 - tf.cast(batch.terminated, tf.float32)
        td_target = batch.rewards + self.config.gamma * not_terminated * next_q_values  # (2)

        with tf.GradientTape() as tape:
            action_mask = tf.one_hot(batch.actions, self.num_actions)
            q_values = tf.reduce_sum(action_mask * self.q_network(batch.observations), axis=-1)
            td_loss = tf.reduce_mean(self.loss(td_target - q_values))  # (3)
        gradients = tape.gradient(td_loss, self.q_network.trainable_variables)
        grad_norm = tf.linalg.global_norm(gradients)
        shrink = tf.minimum(1.0, self.config.max_grad_norm / grad_norm)
        self.optimizer.apply([shrink * gradient for gradient in gradients])

        if self.optimizer.iterations % self.config.target_network_frequency == 0:
            for target, online in zip(self.target_network.variables, self.q_network.variables):
                target.assign(self.config.tau * online + (1.0 - self.config.tau) * target)  # (4)
        return {"td_loss": td_loss, "q_values": tf.reduce_mean(q_values), "grad_norm": grad_norm}

    def loss(self, td_errors: tf.Tensor) -> tf.Tensor:
        """Return ℓ of each TD error, elementwise."""
        if self.config.loss == "squared":
            return 0.5 * tf.square(td_errors)
        size = tf.abs(td_errors)
        return tf.where(size <= 1.0, 0.5 * tf.square(td_errors), size - 0.5)


def train(config: Config) -> Result:
    """Train as in the paper's Algorithm 1, evaluate, and leave a run folder."""
    run = Run(config, ALGORITHM)
    envs = make_envs(
        config.env_id,
        ALGORITHM,
        config.num_envs,
        config.seed,
        async_envs=config.async_envs,
        clip_rewards=config.clip_rewards,
        terminal_on_life_loss=config.terminal_on_life_loss,
        **view_options(config),
    )
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = ReplayBuffer(config.buffer_size, *spaces, config.seed, frame_stack=config.frame_stack)
    run.checkpoint(  # what every checkpoint holds; a resumed run gets it back here
        q_network=agent.q_network,
        target_network=agent.target_network,
        optimizer=agent.optimizer,
        rng=agent.rng,
        buffer=buffer,
    )
    agent.fast_network.refresh()  # a resumed run has just read other weights

    observations, _ = envs.reset(seed=run.env_seeds)
    for global_step in run.steps(config.num_envs):
        progress = min(1.0, global_step / config.total_timesteps)
        explored = min(1.0, progress / config.exploration_fraction)
        epsilon = config.start_epsilon + explored * (config.end_epsilon - config.start_epsilon)
        actions = agent.act(observations, epsilon)
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true_next = true_next_observations(next_observations, infos)
        buffer.add(observations, actions, rewards, true_next, terminated)
        observations = next_observations
        run.record(infos)

        if global_step > config.learning_starts and global_step % config.train_frequency < config.num_envs:
            remaining = 1.0 - config.anneal_learning_rate * progress
            agent.optimizer.learning_rate = config.learning_rate * remaining
            metrics = agent.update(buffer.sample(config.gradient_steps, config.batch_size))
            agent.fast_network.refresh()
            run.log(epsilon=epsilon, **metrics)

    envs.close()
    return run.finish(agent.q_network, {"q_network": agent.q_network}, evaluate)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the greedy policy, ε = 0."""
    fast_network = fast_copy(advantage_stream(model))
    return play(
        lambda observations: np.argmax(fast_network(observations), axis=-1), config, ALGORITHM, folder
    )


if __name__ == "__main__":
    main(Config, train, evaluate, ALGORITHM)

"""Deep Deterministic Policy Gradient (DDPG).

Lillicrap, Hunt, Pritzel et al., "Continuous control with deep reinforcement learning", ICLR 2016.

    a ← clip(μ(s; φ) + n, low, high);  n ← (1 − θ) n + σ ε,  ε ~ N(0, 1)              (1)
    y = r + γ (1 − terminated) Q'(s', μ'(s'))                                         (2)
    L = E[(y − Q(s, a))²] over transitions drawn from the replay buffer               (3)
    J = E[Q(s, μ(s; φ))], climbed along ∇_φ J = E[∇_a Q(s, a)|_(a=μ(s)) ∇_φ μ(s; φ)]  (4)
    Q' ← τ Q + (1 − τ) Q',  μ' ← τ μ + (1 − τ) μ' after every update                  (5)

Key ideas: where actions are real numbers there is no max_a Q(s, a) to take, so a second network, the actor μ,
learns to give it, by following the critic's slope along the action; and the targets Q' and μ' follow
their networks slowly instead of by jumps.

Differences from the paper: white Gaussian noise (θ = 1) by default, Ornstein–Uhlenbeck noise by option;
uniformly random actions at first; no batch normalisation and no weight decay; the action enters the
critic at its first layer; Glorot initialisation; updates in chunks of `gradient_steps`.

Run: python ddpg/ddpg.py                                The next idea: diff ddpg/ddpg.py td3/td3.py
"""

from dataclasses import dataclass
from pathlib import Path

from common.envs import make_envs, play, true_next_observations
from common.networks import NumpyNetwork, mlp
from common.options import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, RunConfig
from common.replay_buffer import ReplayBuffer, Transitions
from common.run import Result, Run, main
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

ALGORITHM = "ddpg"


@dataclass(kw_only=True)
class Config(RunConfig):
    """The options of DDPG; those of every script stand in `common.options.RunConfig`."""

    env_id: str = "Pendulum-v1"
    """Environment, with Box actions."""
    total_timesteps: PositiveInt = 10_000
    """Environment steps to train for, summed over all environments."""
    actor_learning_rate: Positive = 1e-3
    """Step size of the actor's Adam (paper: 1e-4)."""
    critic_learning_rate: Positive = 1e-3
    """Step size of the critic's Adam (paper: 1e-3)."""
    buffer_size: PositiveInt = 200_000
    """Transitions that the replay buffer holds (paper: 1,000,000)."""
    gamma: Fraction = 0.98
    """Discount γ (paper: 0.99; RL Zoo has 0.98 for Pendulum)."""
    tau: Fraction = 0.005
    """Share τ of the online networks in a target update (paper: 0.001)."""
    batch_size: PositiveInt = 256
    """Transitions in a minibatch (paper: 64)."""
    exploration_noise: NonNegative = 0.1
    """Scale σ of the exploration noise, in half ranges of the action (paper: 0.2)."""
    noise_reversion: Fraction = 1.0
    """Share θ that the noise loses in a step: 1 is white noise, 0.15 the paper's Ornstein–Uhlenbeck."""
    learning_starts: NonNegativeInt = 1_000
    """Steps of uniformly random actions before the first update."""
    train_frequency: PositiveInt = 50
    """Environment steps, over all environments, between update calls (paper: 1)."""
    gradient_steps: PositiveInt = 50
    """Updates in one such call (paper: 1)."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of the hidden layers of actor and critic (paper: 400, 300)."""


class Agent:
    """The actor μ, the critic Q, their slow copies μ' and Q', and the update of all four."""

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.spaces.Box, config: Config):
        self.config = config
        self.low, self.high = action_space.low, action_space.high
        self.half_range = (self.high - self.low) / 2
        num_observations, num_actions = observation_space.shape[0], action_space.shape[0]
        self.actor = mlp((num_observations,), config.hidden_sizes, num_actions, name="actor")
        self.actor.add(keras.layers.Activation("tanh"))
        self.actor.add(keras.layers.Rescaling(self.half_range, self.low + self.half_range))
        self.critic = mlp((num_observations + num_actions,), config.hidden_sizes, 1, name="critic")
        self.critic_variables = self.critic.trainable_variables
        self.target_actor = copy_of(self.actor)
        self.target_critic = copy_of(self.critic)
        self.actor_optimizer = keras.optimizers.Adam(config.actor_learning_rate)
        self.actor_optimizer.build(self.actor.trainable_variables)
        self.critic_optimizer = keras.optimizers.Adam(config.critic_learning_rate)
        self.critic_optimizer.build(self.critic_variables)
        self.numpy_actor = NumpyNetwork(self.actor)
        self.noise = np.zeros((config.num_envs, num_actions), np.float32)
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray, *, random: bool) -> np.ndarray:
        """Choose actions (num_envs, num_actions): uniformly random ones, or the actor's and noise."""
        if random:
            return self.rng.uniform(self.low, self.high, self.noise.shape).astype(np.float32)
        kicks = self.config.exploration_noise * self.rng.standard_normal(self.noise.shape, np.float32)
        self.noise = (1.0 - self.config.noise_reversion) * self.noise + self.half_range * kicks
        return np.clip(self.numpy_actor(observations) + self.noise, self.low, self.high)  # (1)

    @tf.function(jit_compile=True)
    def update(self, batches: Transitions) -> dict[str, tf.Tensor]:
        """Learn from each minibatch of `batches`, (gradient_steps, batch_size, ...), in one compiled call.

        Returns the metrics of `learn_critic`, averaged over the minibatches.
        """
        num_batches = len(batches.rewards)
        sums = {"td_loss": 0.0, "q_values": 0.0}
        for k in tf.range(num_batches):
            batch = Transitions(*(field[k] for field in batches))
            metrics = self.learn_critic(batch)
            self.learn_actor(batch)
            sums = {name: sums[name] + metrics[name] for name in sums}
        return {name: sums[name] / num_batches for name in sums}

    def learn_critic(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """Take one step of the critic on a minibatch (batch_size, ...)."""
        next_actions = self.target_actor(batch.next_observations)
        next_q_values = q_values_of(self.target_critic, batch.next_observations, next_actions)
        not_terminated = 1.0 - tf.cast(batch.terminated, tf.float32)
        td_target = batch.rewards + self.config.gamma * not_terminated * next_q_values  # (2)

        with tf.GradientTape() as tape:
            q_values = q_values_of(self.critic, batch.observations, batch.actions)
            td_loss = tf.reduce_mean(tf.square(td_target - q_values))  # (3)
        gradients = tape.gradient(td_loss, self.critic_variables)
        self.critic_optimizer.apply(gradients)
        return {"td_loss": td_loss, "q_values": tf.reduce_mean(q_values)}

    def learn_actor(self, batch: Transitions) -> None:
        """Take one step of the actor on a minibatch, then one of the targets."""
        with tf.GradientTape() as tape:
            actions = self.actor(batch.observations)
            actor_loss = -tf.reduce_mean(q_values_of(self.critic, batch.observations, actions))  # (4)
        gradients = tape.gradient(actor_loss, self.actor.trainable_variables)
        self.actor_optimizer.apply(gradients)
        self.move(self.target_actor, self.actor)
        self.move(self.target_critic, self.critic)

    def move(self, target_network: keras.Model, network: keras.Model) -> None:
        """Let a target network take a small step towards its network."""
        for target, online in zip(target_network.variables, network.variables):
            target.assign(self.config.tau * online + (1.0 - self.config.tau) * target)  # (5)


def copy_of(model: keras.Sequential) -> keras.Sequential:
    """Return a network of the same layers and weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def q_values_of(critic: keras.Model, observations: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Return Q(s, a) (batch_size,)."""
    return critic(keras.ops.concatenate([observations, actions], axis=-1))[:, 0]


def train(config: Config) -> Result:
    """Train as in the paper's Algorithm 1, evaluate, and leave a run folder."""
    run = Run(config, ALGORITHM)
    envs = make_envs(config.env_id, ALGORITHM, config.num_envs, config.seed, async_envs=config.async_envs)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = ReplayBuffer(config.buffer_size, *spaces, config.seed)
    run.checkpoint(  # what every checkpoint holds; a resumed run gets it back here
        actor=agent.actor,
        critic=agent.critic,
        target_actor=agent.target_actor,
        target_critic=agent.target_critic,
        actor_optimizer=agent.actor_optimizer,
        critic_optimizer=agent.critic_optimizer,
        rng=agent.rng,
        buffer=buffer,
    )
    agent.numpy_actor.refresh()  # a resumed run has just read other weights

    observations, _ = envs.reset(seed=run.env_seeds)
    for global_step in run.steps(config.num_envs):
        actions = agent.act(observations, random=global_step <= config.learning_starts)
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true_next = true_next_observations(next_observations, infos)
        buffer.add(observations, actions, rewards, true_next, terminated)
        observations = next_observations
        agent.noise[terminated | truncated] = 0.0  # each episode has a noise process of its own
        run.record(infos)

        if global_step > config.learning_starts and global_step % config.train_frequency < config.num_envs:
            metrics = agent.update(buffer.sample(config.gradient_steps, config.batch_size))
            agent.numpy_actor.refresh()
            run.log(**metrics)

    envs.close()
    networks = {"actor": agent.actor, "critic": agent.critic}
    return run.finish(agent.actor, networks, evaluate)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the actor without noise."""
    return play(NumpyNetwork(model), config, ALGORITHM, folder)


if __name__ == "__main__":
    main(Config, train, evaluate, ALGORITHM)

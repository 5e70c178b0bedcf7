"""Trust Region Policy Optimization (TRPO).

Schulman, Levine, Moritz, Jordan, Abbeel, "Trust Region Policy Optimization", ICML 2015 (arXiv:1502.05477);
advantages as in Schulman et al., "High-Dimensional Continuous Control Using GAE", arXiv:1506.02438, 2015.

    δ_t = r_t + γ (1 − terminated_t) V(s_{t+1}) − V(s_t)                              (1)
    A_t = δ_t + γ λ (1 − terminated_t or truncated_t) A_{t+1}                         (2)
    maximise L(θ) = E[π(a|s; θ) / π(a|s; θ_old) A]                                    (3)
    subject to D(θ) = E[KL(π(·|s; θ_old) ‖ π(·|s; θ))] ≤ δ                            (4)
    F v = Jᵀ M J v + damping v, the Fisher matrix times a vector, at θ_old            (5)
    θ = θ_old + α^k √(2 δ / xᵀ F x) x, where F x = ∇L, for the least k that fits      (6)

where J is the Jacobian of the actor's outputs by θ, and M the second derivative of D by those outputs, at
θ_old, where the slope of D is 0 and nothing else is left of its curvature.

Key ideas: the policy may move as far as its action probabilities, not its parameters, stay close. Within
the region L is a line and D a parabola, which gives the direction x, by conjugate gradients; a line search
then makes sure that the true L has grown and the true D is within δ, or leaves the policy as it was.

Differences from the paper: GAE and a critic, fitted by Adam in minibatches, in place of the returns of single
paths; F is computed on the whole rollout, not on a tenth of it.

Run: python trpo/trpo.py                              What it came from: diff ppo/ppo.py trpo/trpo.py
"""

from dataclasses import dataclass
import math
from pathlib import Path
from typing import NamedTuple

from common.envs import make_envs, play, true_next_observations
from common.errors import UserError
from common.networks import NumpyPolicy, mlp, policy_head
from common.normalization import RewardScaling, RunningNormalization
from common.options import Fraction, NonNegative, Positive, PositiveInt, RunConfig
from common.rollout import Rollout, RolloutBuffer, explained_variance, flatten
from common.run import Result, Run, main
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

ALGORITHM = "trpo"


@dataclass(kw_only=True)
class Config(RunConfig):
    """The options of TRPO; those of every script stand in `common.options.RunConfig`."""

    env_id: str = "CartPole-v1"
    """Environment, with Discrete or Box actions."""
    total_timesteps: PositiveInt = 200_000
    """Environment steps to train for, summed over all environments."""
    num_envs: PositiveInt = 8
    """Copies of the environment that are stepped together."""
    num_steps: PositiveInt = 256
    """Steps of each environment in a rollout (paper: 50,000 and more, of all environments)."""
    learning_rate: Positive = 1e-3
    """Step size of Adam, for the critic."""
    anneal_learning_rate: Fraction = 1.0
    """Share of the step size that is gone, linearly, by the last update."""
    gamma: Fraction = 0.99
    """Discount γ (paper: 0.99)."""
    gae_lambda: Fraction = 0.95
    """λ of the advantages: 0 trusts V, 1 trusts the returns (Schulman et al. 2015b: 0.92 to 0.99)."""
    num_epochs: PositiveInt = 10
    """Times that the critic sees each rollout."""
    num_minibatches: PositiveInt = 16
    """Minibatches of an epoch of the critic."""
    target_kl: Positive = 0.01
    """δ: the KL divergence that one update may reach (paper: 0.01)."""
    cg_iterations: PositiveInt = 10
    """Iterations of conjugate gradients (paper: 10)."""
    cg_damping: NonNegative = 0.1
    """What is added to the diagonal of F, so that x stays finite (OpenAI Baselines for MuJoCo: 0.1)."""
    line_search_steps: PositiveInt = 10
    """Steps that are tried, each α times as long as the last (the authors' code: 10)."""
    backtrack_coefficient: Fraction = 0.5
    """α (the authors' code: 0.5)."""
    max_grad_norm: Positive = 0.5
    """Largest norm of the critic's gradient; inf leaves it as it is."""
    normalize_advantages: bool = True
    """Shift and scale the advantages of each rollout to mean 0, deviation 1 (the authors' code)."""
    normalize_observations: bool = False
    """Normalise observations by their running mean and deviation (paper: no)."""
    normalize_rewards: bool = False
    """Divide rewards by the running deviation of the discounted return (paper: no)."""
    initial_log_std: float = 0.0
    """log σ of a Gaussian policy at first, in units of half the range of the actions; it is learned."""
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """Units of the hidden layers of actor and critic, each (paper: one layer of 30 or 50)."""


class Batch(NamedTuple):
    """What is learned from, (batch_size, ...): the steps of a rollout, and what was made of them."""

    observations: tf.Tensor
    actions: tf.Tensor
    advantages: tf.Tensor
    returns: tf.Tensor
    log_probs: tf.Tensor
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
        self.variables = self.critic.trainable_variables
        self.optimizer = keras.optimizers.Adam(config.learning_rate, epsilon=1e-5)
        self.optimizer.build(self.variables)
        self.numpy_policy = NumpyPolicy(self.actor)
        self.rng = np.random.default_rng([config.seed, 2])

    def act(self, observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Draw actions (num_envs, ...) for observations (num_envs, ...); nothing clips them here."""
        return self.numpy_policy.sample(observations, noise)

    @tf.function(jit_compile=True)
    def update(self, rollout: Rollout, order: tf.Tensor, progress: tf.Tensor) -> dict[str, tf.Tensor]:
        """Learn from a rollout (num_steps, num_envs, ...): policy step and critic, in one compiled call.

        `order` (num_epochs, num_steps * num_envs) shuffles the steps anew for each epoch; `progress` is the
        share of the training that was over before. Returns the metrics of `improve_policy`,
        those of `learn`, averaged over the minibatches, and the explained variance of the critic before.
        """
        config = self.config
        learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * progress)
        self.optimizer.learning_rate.assign(learning_rate)
        batch = self.make_batch(rollout)
        policy_metrics = self.improve_policy(batch)
        minibatch_size = len(batch.returns) // config.num_minibatches
        order = order[:, : minibatch_size * config.num_minibatches]  # a remainder waits for the next epoch

        sums = {"value_loss": 0.0, "grad_norm": 0.0}
        for rows in tf.reshape(order, (-1, minibatch_size)):
            metrics = self.learn(Batch(*(tf.gather(field, rows) for field in batch)))
            sums = {name: sums[name] + metrics[name] for name in sums}
        if self.normalizer:  # not before: the rollout was made with the statistics as they were
            self.normalizer.update(batch.observations)
        metrics = {name: total / (config.num_epochs * config.num_minibatches) for name, total in sums.items()}
        return {
            **policy_metrics,
            **metrics,
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
        actions = flatten(rollout.actions)
        log_probs = log_prob(self.actor(observations), actions)
        return Batch(observations, actions, *map(flatten, (advantages, returns)), log_probs, flatten(values))

    def improve_policy(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take one natural gradient step of the policy, as far as the trust region allows."""
        config = self.config
        old_parameters = to_vector(self.actor.trainable_variables)
        old_outputs = self.actor(batch.observations)
        with tf.GradientTape() as tape:
            old_surrogate = self.surrogate(batch)
        gradient = to_vector(tape.gradient(old_surrogate, self.actor.trainable_variables))
        direction, residual = self.conjugate_gradients(batch, gradient)
        curvature = tf.reduce_sum(direction * (gradient - residual))  # xᵀ F x: F x is b − residual
        full_step = tf.sqrt(2.0 * config.target_kl / tf.maximum(curvature, 1e-20)) * direction

        fraction, improvement, kl, accepted = 1.0, 0.0, 0.0, False
        for k in tf.range(config.line_search_steps):
            fraction = config.backtrack_coefficient ** tf.cast(k, tf.float32)
            self.set_parameters(old_parameters + fraction * full_step)  # (6)
            improvement = self.surrogate(batch) - old_surrogate
            kl = divergence(old_outputs, self.actor(batch.observations), batch.actions)  # (4)
            accepted = improvement > 0.0 and kl <= config.target_kl  # false, too, if one is not a number
            if accepted:
                break
        if not accepted:
            self.set_parameters(old_parameters)
            fraction, improvement, kl = 0.0, 0.0, 0.0
        return {
            "improvement": improvement,
            "kl": kl,
            "step_fraction": fraction,
            "cg_residual": tf.norm(residual),
            "entropy": tf.reduce_mean(entropies(old_outputs, batch.actions)),
        }

    def surrogate(self, batch: Batch) -> tf.Tensor:
        """Return L, what the actor as it is now is expected to gain over the one of the rollout."""
        advantages = normalize(batch.advantages) if self.config.normalize_advantages else batch.advantages
        log_probs = log_prob(self.actor(batch.observations), batch.actions)
        return tf.reduce_mean(tf.exp(log_probs - batch.log_probs) * advantages)  # (3)

    def conjugate_gradients(self, batch: Batch, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Solve F x = b, without ever making the matrix F; return x and the residual b − F x."""
        x, residual, direction = tf.zeros_like(b), b, b
        square = tf.reduce_sum(tf.square(residual))
        for _ in tf.range(self.config.cg_iterations):
            image = self.fisher_vector_product(batch, direction)
            length = square / tf.maximum(tf.reduce_sum(direction * image), 1e-20)
            x += length * direction
            residual -= length * image
            last_square, square = square, tf.reduce_sum(tf.square(residual))
            direction = residual + square / tf.maximum(last_square, 1e-20) * direction
        return x, residual

    def fisher_vector_product(self, batch: Batch, vector: tf.Tensor) -> tf.Tensor:
        """Return F times `vector` (parameters,), Jᵀ M J v of appendix C, by double back-propagation."""
        variables = self.actor.trainable_variables
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape(persistent=True) as inner:
                outputs = self.actor(batch.observations)
                kl = divergence(tf.stop_gradient(outputs), outputs, batch.actions)
            weights = tf.zeros_like(outputs)
            outer.watch(weights)
            weighted = to_vector(inner.gradient(outputs, variables, weights))  # Jᵀ w
            slope = inner.gradient(kl, outputs)
        product = outer.gradient(weighted, weights, vector)  # J v, for Jᵀ w is linear in w
        product = outer.gradient(slope, outputs, product)  # M J v
        return to_vector(inner.gradient(outputs, variables, product)) + self.config.cg_damping * vector  # (5)

    def set_parameters(self, vector: tf.Tensor) -> None:
        """Set the actor's parameters θ to those of `vector` (parameters,)."""
        variables = self.actor.trainable_variables
        for variable, values in zip(variables, tf.split(vector, [math.prod(v.shape) for v in variables])):
            variable.assign(tf.reshape(values, variable.shape))

    def learn(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take one gradient step of the critic on a minibatch (minibatch_size, ...)."""
        config = self.config
        with tf.GradientTape() as tape:
            values = self.critic(batch.observations)[:, 0]
            errors = tf.square(values - batch.returns)
            value_loss = 0.5 * tf.reduce_mean(errors)
        gradients = tape.gradient(value_loss, self.variables)
        grad_norm = tf.linalg.global_norm(gradients)
        shrink = tf.minimum(1.0, config.max_grad_norm / grad_norm)
        self.optimizer.apply([shrink * gradient for gradient in gradients])

        return {
            "value_loss": value_loss,
            "grad_norm": grad_norm,
        }


def to_vector(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Return tensors of any shapes as one vector."""
    return tf.concat([tf.reshape(tensor, (-1,)) for tensor in tensors], axis=0)


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


def divergence(old: tf.Tensor, new: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Return the mean of KL(π_old(·|s) ‖ π_new(·|s)) over the states, for outputs as above."""
    if actions.dtype.is_integer:
        log_ratio = tf.nn.log_softmax(old) - tf.nn.log_softmax(new)
        return tf.reduce_mean(tf.reduce_sum(tf.nn.softmax(old) * log_ratio, axis=-1))
    (old_mean, old_log_std), (mean, log_std) = tf.split(old, 2, axis=-1), tf.split(new, 2, axis=-1)
    squares = (tf.exp(2.0 * old_log_std) + tf.square(old_mean - mean)) / tf.exp(2.0 * log_std)
    return tf.reduce_mean(tf.reduce_sum(log_std - old_log_std + 0.5 * squares - 0.5, axis=-1))


def discounted_sums(terms: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """Return x_t + d_t (x_{t+1} + d_{t+1} (...)) for terms x and decay d, both (num_steps, num_envs)."""
    return tf.scan(
        lambda later, now: now[0] + now[1] * later, (terms, decay), tf.zeros_like(terms[0]), reverse=True
    )


def normalize(x: tf.Tensor) -> tf.Tensor:
    """Shift and scale to mean 0, deviation 1."""
    return (x - tf.reduce_mean(x)) / (tf.math.reduce_std(x) + 1e-8)


def train(config: Config) -> Result:
    """Train as in the paper's Algorithm 1, evaluate, and leave a run folder."""
    run = Run(config, ALGORITHM)
    if config.num_envs * config.num_steps < 2 * config.num_minibatches:
        raise UserError("--num-minibatches leaves fewer than 2 steps in each: lower it, or raise --num-steps")
    envs = make_envs(config.env_id, ALGORITHM, config.num_envs, config.seed, async_envs=config.async_envs)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = RolloutBuffer(config.num_steps, config.num_envs, *spaces)
    networks = {"actor": agent.actor, "critic": agent.critic}
    run.checkpoint(**networks, optimizer=agent.optimizer, moments=agent.reward_scaling.moments, rng=agent.rng)
    agent.numpy_policy.refresh()

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
        order = agent.rng.permuted(np.tile(np.arange(rollout_steps), (config.num_epochs, 1)), axis=1)
        metrics = agent.update(buffer.rollout, order, tf.constant(progress, tf.float32))
        agent.numpy_policy.refresh()
        run.log(**metrics)

    envs.close()
    return run.finish(agent.actor, networks, evaluate)


def evaluate(model: keras.Model, config: Config, folder: Path | None = None) -> np.ndarray:
    """Return the undiscounted returns (eval_episodes,) of the likeliest actions: the mean, or the mode."""
    return play(NumpyPolicy(model).best, config, ALGORITHM, folder)


if __name__ == "__main__":
    main(Config, train, evaluate, ALGORITHM)

"""Trust Region Policy Optimization (TRPO).

Schulman, Levine, Moritz, Jordan & Abbeel, "Trust Region Policy Optimization", ICML 2015, arXiv:1502.05477;
advantages from Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage
Estimation" (GAE), arXiv:1506.02438, 2015.

    δ_t = r_t + γ (1 − terminated_t) V(s_{t+1}) − V(s_t)                              (1)
    A_t = δ_t + γ λ (1 − done_t) A_{t+1}, where done = terminated or truncated        (2)
    maximize L(θ) = E[π(a|s; θ) / π(a|s; θ_old) A]                                    (3)
    subject to D(θ) = E[KL(π(·|s; θ_old) ‖ π(·|s; θ))] ≤ δ                            (4)
    F p = Jᵀ M J p + damping p, the damped Fisher matrix times a vector, at θ_old     (5)
    θ = θ_old + α^k √(2 δ / xᵀ F x) x, where F x = ∇L, for the first accepted k       (6)

δ_t is a TD error, δ the size of the trust region. J is the Jacobian of the policy's outputs with respect to
θ, and M the Hessian of D with respect to these outputs (appendix C). At θ_old, the gradient of D with respect
to the outputs is 0, so Jᵀ M J is the whole Hessian of D.

Key idea: take the largest step that keeps the action distributions, rather than the parameters, close.
Inside the trust region (4), L is almost linear and D almost quadratic, so the best direction x solves
F x = ∇L; the conjugate gradient method finds it. A line search then accepts the first step that improves L
and satisfies (4), or keeps the old policy.

Differences from the paper: a critic with GAE, fitted by Adam in minibatches, not the returns of single
paths; bootstrapping at time limits; normalized advantages; damping in (5); F is computed on the whole
rollout, not on a tenth of it.

Run: python trpo/trpo.py                                           Parent: diff ppo/ppo.py trpo/trpo.py
"""

from dataclasses import dataclass
import math
from pathlib import Path
from typing import Literal, NamedTuple

from common.cli import main
from common.envs import make_envs, true_next_observations
from common.errors import UserError
from common.evaluation import play_episodes
from common.networks import orthogonal_network
from common.normalization import ObservationNormalizer, RewardScaler
from common.numpy_inference import fast_copy
from common.options import Fraction, NonNegative, Positive, PositiveFraction, PositiveInt, RunConfig
from common.rollout import (
    Rollout,
    RolloutBuffer,
    assemble,
    explained_variance,
    flatten,
    outputs_of,
    shuffled_minibatches,
)
from common.run import Result, Run
from common.stochastic_policies import make_policy
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

METRICS = ("value_loss", "grad_norm")


@dataclass(kw_only=True)
class Config(RunConfig):
    """Trust Region Policy Optimization (Schulman et al. 2015)."""

    env_id: str = "CartPole-v1"
    """Environment with a Discrete or Box action space."""
    total_timesteps: PositiveInt = 200_000
    """Environment steps to train for, summed over all environments."""
    num_envs: PositiveInt = 8
    """Number of environments stepped together (A3C: 16 threads; PPO for Atari: 8)."""
    num_steps: PositiveInt = 256
    """Steps of each environment in a rollout (paper: 50,000 and more, over all environments)."""
    learning_rate: Positive = 1e-3
    """Initial learning rate of the critic's Adam."""
    anneal_learning_rate: Fraction = 1.0
    """Fraction of the learning rate removed by the end of training, linearly (A3C and PPO for Atari: 1)."""
    adam_epsilon: Positive = 1e-5
    """ε of Adam."""
    gamma: Fraction = 0.99
    """Discount factor γ (A3C, TRPO, and PPO: 0.99)."""
    gae_lambda: Fraction = 0.95
    """λ of the advantages: 0 gives TD errors, 1 n-step returns (A3C: 1; GAE: 0.92 to 0.99; PPO: 0.95)."""
    num_epochs: PositiveInt = 10
    """Epochs of the critic per rollout."""
    num_minibatches: PositiveInt = 16
    """Minibatches of the critic per epoch."""
    target_kl: Positive = 0.01
    """Trust region δ: the maximum mean KL divergence of one update (paper: 0.01)."""
    cg_iterations: PositiveInt = 10
    """Iterations of the conjugate gradient method (paper: 10)."""
    cg_damping: NonNegative = 0.1
    """Damping: added to the diagonal of F (OpenAI Baselines for MuJoCo: 0.1)."""
    line_search_steps: PositiveInt = 10
    """Maximum number of steps that the line search tries (the authors' code: 10)."""
    backtrack_coefficient: PositiveFraction = 0.5
    """Factor α between the steps of the line search (the authors' code: 0.5)."""
    max_grad_norm: Positive | None = 0.5
    """Maximum norm of the critic's gradient; None does not clip."""
    normalize_advantages: bool = True
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

    observations: tf.Tensor
    actions: tf.Tensor
    advantages: tf.Tensor
    returns: tf.Tensor
    log_probs: tf.Tensor


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
        self.policy = make_policy(
            observation_space, action_space, hidden_sizes, config.initial_log_std, build_network
        )
        self.critic = build_network(shape, hidden_sizes, 1, name="critic")
        self.optimizer = keras.optimizers.Adam(
            epsilon=config.adam_epsilon, global_clipnorm=config.max_grad_norm
        )
        self.optimizer.build(self.critic.trainable_variables)
        self.rng = np.random.default_rng([config.seed, 2])
        self.update = tf.function(self.update, jit_compile=config.network != "cnn")  # XLA slows CNNs

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Sample actions (num_envs, ...) for observations (num_envs, ...), not clipped to their bounds."""
        return self.policy.sample(observations, self.rng)

    def update(
        self, rollout: Rollout, minibatches: tf.Tensor, learning_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Take a step of the policy on a rollout (num_steps, num_envs, ...), and many steps of the critic.

        `minibatches` (num_epochs * num_minibatches, minibatch_size) are row numbers of the flattened rollout.
        Returns the metrics of the policy step and the last minibatch. A float learning rate causes retracing.
        """
        self.optimizer.learning_rate.assign(learning_rate)
        batch = self.make_batch(rollout)
        policy_metrics = self.improve_policy(batch)
        metrics = dict.fromkeys(METRICS, 0.0)
        for rows in minibatches:
            metrics = self.learn(Batch(*(tf.gather(field, rows) for field in batch)))
        if self.normalizer:  # last: the rollout was sampled with the previous statistics
            self.normalizer.update(batch.observations)
        values = batch.returns - batch.advantages
        return policy_metrics | metrics | {"explained_variance": explained_variance(values, batch.returns)}

    def make_batch(self, rollout: Rollout) -> Batch:
        """Flatten a rollout to (batch_size, ...) and compute its advantages and returns."""
        shape = rollout.rewards.shape
        not_terminated = 1.0 - tf.cast(rollout.terminated, tf.float32)
        dones = rollout.terminated | rollout.truncated
        rewards = self.reward_scaler(rollout.rewards, dones) if self.reward_scaler else rollout.rewards

        values, next_values = (tf.reshape(values, shape) for values in outputs_of(self.critic, rollout))
        deltas = rewards + self.config.gamma * not_terminated * next_values - values  # (1)
        advantages = self.gae(deltas, 1.0 - tf.cast(dones, tf.float32))
        returns = advantages + values
        observations, actions = assemble(flatten(rollout.observations)), flatten(rollout.actions)
        log_probs = self.policy(observations).log_prob(actions)  # of θ_old
        return Batch(observations, actions, flatten(advantages), flatten(returns), log_probs)

    def gae(self, deltas: tf.Tensor, not_done: tf.Tensor) -> tf.Tensor:
        """Return the advantages (num_steps, num_envs), computed from the last step back to the first."""
        discount = self.config.gamma * self.config.gae_lambda

        def advantage(next_advantage, step):
            delta, not_done = step
            return delta + discount * not_done * next_advantage  # (2)

        return tf.scan(advantage, (deltas, not_done), tf.zeros_like(deltas[0]), reverse=True)

    def improve_policy(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take the largest natural gradient step that the trust region and the line search allow."""
        config, parameters = self.config, self.policy.parameters
        old_parameters = to_vector(parameters)
        with tf.GradientTape() as tape:
            old_pi = self.policy(batch.observations)
            old_objective = self.objective(batch, old_pi.log_prob(batch.actions))
        gradient = to_vector(tape.gradient(old_objective, parameters))
        direction, residual = self.conjugate_gradient(batch, gradient)
        curvature = tf.reduce_sum(direction * (gradient - residual))  # xᵀ F x, as F x = ∇L − residual
        full_step = tf.sqrt(2.0 * config.target_kl / tf.maximum(curvature, 1e-20)) * direction

        fraction, improvement, kl, accepted = 1.0, 0.0, 0.0, False
        for k in tf.range(config.line_search_steps):
            fraction = config.backtrack_coefficient ** tf.cast(k, tf.float32)
            self.set_parameters(old_parameters + fraction * full_step)  # (6)
            pi = self.policy(batch.observations)
            improvement = self.objective(batch, pi.log_prob(batch.actions)) - old_objective
            kl = tf.reduce_mean(old_pi.kl(pi))  # (4)
            accepted = improvement > 0.0 and kl <= config.target_kl  # also false for NaN
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
            "entropy": tf.reduce_mean(old_pi.entropy()),
        }

    def objective(self, batch: Batch, log_probs: tf.Tensor) -> tf.Tensor:
        """Return the surrogate objective L, a scalar, of a policy with these log π(a|s; θ) (batch_size,)."""
        advantages = batch.advantages
        if self.config.normalize_advantages:
            advantages -= tf.reduce_mean(advantages)
            advantages /= tf.math.reduce_std(advantages) + 1e-8
        return tf.reduce_mean(tf.exp(log_probs - batch.log_probs) * advantages)  # (3)

    def conjugate_gradient(self, batch: Batch, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Solve F x = b without building the matrix F; return x and the residual b − F x."""
        x, r, p = tf.zeros_like(b), b, b
        r_dot_r = tf.reduce_sum(tf.square(r))
        for _ in tf.range(self.config.cg_iterations):
            Fp = self.fisher_vector_product(batch, p)
            step_size = r_dot_r / tf.maximum(tf.reduce_sum(p * Fp), 1e-20)
            x += step_size * p
            r -= step_size * Fp
            last_r_dot_r, r_dot_r = r_dot_r, tf.reduce_sum(tf.square(r))
            p = r + r_dot_r / tf.maximum(last_r_dot_r, 1e-20) * p
        return x, r

    def fisher_vector_product(self, batch: Batch, p: tf.Tensor) -> tf.Tensor:
        """Return F p for a vector p (num_parameters,), by double backpropagation."""
        parameters = self.policy.parameters
        with tf.GradientTape(persistent=True) as outer_tape:
            with tf.GradientTape(persistent=True) as inner_tape:
                pi = self.policy(batch.observations)
                kl = tf.reduce_mean(pi.stop_gradient().kl(pi))
            w = [tf.zeros_like(x) for x in pi]
            outer_tape.watch(w)
            JT_w = to_vector(inner_tape.gradient(list(pi), parameters, w))
            kl_gradient = inner_tape.gradient(kl, list(pi))
        J_p = outer_tape.gradient(JT_w, w, p)  # Jᵀ w is linear in w, so backpropagating p gives J p
        M_J_p = outer_tape.gradient(kl_gradient, list(pi), J_p)
        JT_M_J_p = inner_tape.gradient(list(pi), parameters, M_J_p)
        return to_vector(JT_M_J_p) + self.config.cg_damping * p  # (5)

    def set_parameters(self, vector: tf.Tensor) -> None:
        """Set the policy's parameters θ to the entries of a vector (num_parameters,)."""
        parameters = self.policy.parameters
        for parameter, entries in zip(parameters, tf.split(vector, [math.prod(p.shape) for p in parameters])):
            parameter.assign(tf.reshape(entries, parameter.shape))

    def learn(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take one gradient step of the critic on a minibatch (minibatch_size, ...)."""
        with tf.GradientTape() as tape:
            values = self.critic(batch.observations)[:, 0]
            value_loss = 0.5 * tf.reduce_mean(tf.square(batch.returns - values))
        gradients = tape.gradient(value_loss, self.critic.trainable_variables)
        self.optimizer.apply(gradients)
        return {
            "value_loss": value_loss,
            "grad_norm": tf.linalg.global_norm(gradients),
        }


def to_vector(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Concatenate tensors of any shapes into one vector."""
    return tf.concat([tf.reshape(tensor, (-1,)) for tensor in tensors], axis=0)


def train(config: Config) -> Result:
    """Train, evaluate, and save everything in a run folder."""
    run = Run(config)
    batch_size = config.num_envs * config.num_steps
    if batch_size < 2 * config.num_minibatches:
        raise UserError("--num-minibatches leaves fewer than 2 steps in each: lower it, or raise --num-steps")
    envs = make_envs(config, gym.spaces.Discrete, gym.spaces.Box)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = Agent(*spaces, config)
    buffer = RolloutBuffer(config.num_steps, config.num_envs, *spaces, frame_stack=config.frame_stack)
    run.checkpoint(agent=agent, rng=agent.rng)

    observations, _ = envs.reset(seed=run.env_seeds)
    for _ in run.steps(batch_size):
        for _ in range(config.num_steps):
            actions = agent.act(observations)
            clipped_actions = agent.policy.clip(actions)  # for the environment only
            next_observations, rewards, terminated, truncated, infos = envs.step(clipped_actions)
            true_next = true_next_observations(next_observations, infos)
            buffer.add(observations, actions, rewards, true_next, terminated, truncated)
            observations = next_observations
            run.record(infos)

        learning_rate = config.learning_rate * (1.0 - config.anneal_learning_rate * run.progress)
        minibatches = shuffled_minibatches(agent.rng, batch_size, config.num_epochs, config.num_minibatches)
        metrics = agent.update(buffer.rollout, minibatches, tf.constant(np.float32(learning_rate)))
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

"""Rollouts with every kind of end, and agents of the on-policy scripts to learn from them."""

from common.rollout import Rollout
import gymnasium as gym
import numpy as np

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = {
    "discrete": gym.spaces.Discrete(3),
    "box": gym.spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([3.0, 10.0], np.float32)),
}
SCRIPTS = ("reinforce", "a2c", "ppo", "trpo")


def random_rollout(num_steps=20, num_envs=3, actions="discrete", seed=0):
    """Transitions with terminations, truncations, and steps that are both."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    return Rollout(
        observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        actions=rng.integers(3, size=shape)
        if actions == "discrete"
        else rng.normal(4.0, 4.0, size=(*shape, 2)).astype(np.float32),
        rewards=rng.normal(size=shape).astype(np.float32),
        next_observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        terminated=rng.random(shape) < 0.2,
        truncated=rng.random(shape) < 0.2,
    )


def make_agent(module, actions="discrete", num_envs=3, **options):
    """An agent of a script for the spaces above, its weights moved away from where they start."""
    plain = {"hidden_sizes": (5,), "normalize_advantages": False, "normalize_rewards": False}
    options = plain | options
    agent = module.Agent(OBSERVATIONS, ACTIONS[actions], module.Config(num_envs=num_envs, **options))
    rng = np.random.default_rng(1)
    for network in (agent.actor, agent.critic):
        for weights in network.trainable_variables:
            weights.assign(weights + 0.5 * rng.normal(size=weights.shape))
    agent.numpy_policy.refresh()
    return agent


def update(agent, rollout, progress=0.0):
    """Learn from a rollout, its steps shuffled for each epoch where the script has epochs."""
    order = ()
    if hasattr(agent.config, "num_epochs"):
        rows = np.tile(np.arange(rollout.rewards.size), (agent.config.num_epochs, 1))
        order = (np.random.default_rng(2).permuted(rows, axis=1),)
    return agent.update(rollout, *order, np.array(progress, np.float32))


def dense(network, x):
    """The output of a one-hidden-layer tanh network in float64, without its head."""
    kernel, bias, out_kernel, out_bias = (w.numpy().astype(np.float64) for w in network.weights[:4])
    return np.tanh(x.astype(np.float64) @ kernel + bias) @ out_kernel + out_bias


def log_probabilities(actor, weights, observations, actions):
    """log π(a|s) and the entropy in float64, from the weights of an actor with one hidden layer."""
    kernel, bias, out_kernel, out_bias = weights[:4]
    outputs = np.tanh(observations.astype(np.float64) @ kernel + bias) @ out_kernel + out_bias
    if len(weights) == 4:
        log_p = outputs - np.log(np.exp(outputs).sum(axis=-1, keepdims=True))
        taken = np.take_along_axis(log_p, actions[:, None], axis=-1)[:, 0]
        return taken, -(np.exp(log_p) * log_p).sum(axis=-1)
    head = actor.layers[-1]
    mean = head.center + head.scale * outputs
    std = np.exp(weights[4]) * head.scale
    density = np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return np.log(density).sum(axis=-1), np.full(len(actions), np.log(std * np.sqrt(2 * np.pi * np.e)).sum())


def gradients_of(agent, monkeypatch, call):
    """The gradients that `call` hands to the agent's optimizer, in place of a step."""
    handed = []
    monkeypatch.setattr(agent.optimizer, "apply", lambda gradients: handed.append(gradients))
    call()
    (gradients,) = handed
    return [gradient.numpy() for gradient in gradients]


def train_briefly(module, tmp_path, **options):
    """A short run of a script, called from Python."""
    return module.train(module.Config(runs_dir=str(tmp_path), eval_episodes=2, **options))


def assert_slope(loss, weights, gradients):
    """The gradients are those of `loss(weights)`, by finite differences in float64."""
    for w, gradient in zip(weights, gradients):
        for index in np.ndindex(w.shape):
            before = w[index]
            w[index] = before + 1e-5
            up = loss(weights)
            w[index] = before - 1e-5
            np.testing.assert_allclose(gradient[index], (up - loss(weights)) / 2e-5, rtol=0, atol=1e-3)
            w[index] = before

"""What the tests of the on-policy scripts share: rollouts, agents, environments, and equations in NumPy."""

import importlib

from common.rollout import Rollout, flatten
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = {
    "discrete": gym.spaces.Discrete(3),
    "box": gym.spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([3.0, 10.0], np.float32)),
}
CENTER, HALF_RANGE = np.array([1.0, 6.0]), np.array([2.0, 4.0])  # of the Box
SCRIPTS = ("reinforce", "a2c", "ppo", "trpo")
LEARNING_RATE = 1e-3

# Ratios π(a|s; θ) / π(a|s; θ_old) below, in, and above the clip range 0.2, for either sign of the advantage
RATIOS = np.array([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0] * 2, np.float32)
ADVANTAGES = np.array(
    [1.5, 1.0, 0.5, 2.0, 1.0, 1.5, 2.5, -0.5, -1.0, -0.2, -1.5, -1.0, -0.7, -2.0], np.float32
)


def random_rollout(num_steps=20, num_envs=3, actions="discrete", seed=0):
    """Return transitions with terminations, truncations, and steps that are both."""
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
    """Return an agent for the spaces above, with parameters unlike the initial ones."""
    options = {"hidden_sizes": (5,), "normalize_advantages": False} | options
    keras.utils.set_random_seed(0)
    agent = module.Agent(OBSERVATIONS, ACTIONS[actions], module.Config(num_envs=num_envs, **options))
    rng = np.random.default_rng(1)
    for parameter in (*agent.policy.parameters, *agent.critic.trainable_variables):
        parameter.assign(parameter + 0.5 * rng.normal(size=parameter.shape))
    agent.policy.refresh()
    return agent


def update(agent, rollout, learning_rate=LEARNING_RATE):
    """Call `agent.update` with a rollout, and with shuffled minibatches if the script has them.

    REINFORCE learns from all steps of the rollout, with the rewards as returns.
    """
    script = importlib.import_module(type(agent).__module__)
    config, learning_rate = agent.config, tf.constant(learning_rate)
    if script.__name__ == "reinforce.reinforce":
        fields = rollout.observations, rollout.actions, rollout.rewards
        return agent.update(script.Batch(*(flatten(tf.constant(field)) for field in fields)), learning_rate)
    if not hasattr(config, "num_epochs"):
        return agent.update(rollout, learning_rate)
    rows = np.tile(np.arange(rollout.rewards.size), (config.num_epochs, 1))
    rows = np.random.default_rng(2).permuted(rows, axis=1)
    return agent.update(rollout, rows.reshape(config.num_epochs * config.num_minibatches, -1), learning_rate)


def batch_with_ratios(agent, actions="discrete"):
    """Return a batch of 14 steps with the advantages ADVANTAGES and the probability ratios RATIOS."""
    batch = agent.make_batch(random_rollout(num_steps=14, num_envs=1, actions=actions))
    log_probs = batch.log_probs - tf.math.log(tf.constant(RATIOS))
    return batch._replace(advantages=tf.constant(ADVANTAGES), log_probs=log_probs)


def parameters_of(agent):
    """Return copies, in float64, of the parameters of policy and critic."""
    return [
        [parameter.numpy().astype(np.float64) for parameter in parameters]
        for parameters in (agent.policy.parameters, agent.critic.trainable_variables)
    ]


def dense(weights, x):
    """Return the outputs of a network with one tanh layer, in float64."""
    kernel, bias, out_kernel, out_bias = (np.asarray(w, np.float64) for w in weights)
    return np.tanh(np.asarray(x, np.float64) @ kernel + bias) @ out_kernel + out_bias


def values_of(agent, observations):
    """Return V(s) in float64."""
    return dense(parameters_of(agent)[1], observations)[..., 0]


def log_probs_and_entropy(policy_parameters, observations, actions):
    """Return log π(a|s) and the entropy of π(·|s), in float64, of a policy with one hidden layer."""
    outputs = dense(policy_parameters[:4], observations)
    if len(policy_parameters) == 4:
        log_p = outputs - np.log(np.exp(outputs).sum(axis=-1, keepdims=True))
        taken = np.take_along_axis(log_p, np.asarray(actions)[:, None], axis=-1)[:, 0]
        return taken, -(np.exp(log_p) * log_p).sum(axis=-1)
    mean, std = CENTER + HALF_RANGE * outputs, np.exp(policy_parameters[4])
    density = np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return np.log(density).sum(axis=-1), np.full(len(mean), np.log(std * np.sqrt(2 * np.pi * np.e)).sum())


def normalized(x):
    """Return x with mean 0 and standard deviation 1."""
    return (x - x.mean()) / x.std()


def record_gradients(agent, monkeypatch, step=True):
    """Return a list that receives the gradients of each `optimizer.apply`; without `step` none is applied."""
    recorded, apply = [], agent.optimizer.apply

    def record(gradients):
        recorded.append([gradient.numpy() for gradient in gradients])
        if step:
            apply(gradients)

    monkeypatch.setattr(agent.optimizer, "apply", record)
    return recorded


def assert_gradient(loss, parameters, gradients):
    """Compare gradients with finite differences of `loss()`, which reads the arrays `parameters`."""
    assert len(parameters) == len(gradients)
    for parameter, gradient in zip(parameters, gradients):
        assert parameter.shape == gradient.shape
        for index in np.ndindex(parameter.shape):
            before = parameter[index]
            parameter[index] = before + 1e-5
            up = loss()
            parameter[index] = before - 1e-5
            np.testing.assert_allclose(gradient[index], (up - loss()) / 2e-5, rtol=1e-3, atol=2e-5)
            parameter[index] = before


def train_briefly(module, tmp_path, **options):
    """Run `train` of a script."""
    return module.train(module.Config(runs_dir=str(tmp_path), **{"eval_episodes": 2} | options))


class ScriptedEnvs:
    """Vector environments with given rewards and ends, in which no two observations are equal.

    Observation t of environment k is (t * num_envs + k + 1); the final one of an episode is negative.
    """

    def __init__(self, num_steps, num_envs, actions="discrete", ends=0.3, seed=0):
        rng = np.random.default_rng(seed)
        shape = (num_steps, num_envs)
        self.rewards = rng.normal(size=shape)
        self.terminated, self.truncated = rng.random(shape) < ends / 2, rng.random(shape) < ends / 2
        self.ended = self.terminated | self.truncated
        numbers = 1 + np.arange((num_steps + 1) * num_envs, dtype=np.float32).reshape(-1, num_envs, 1)
        self.observations, self.following = numbers[:-1], numbers[1:]
        self.true_next = np.where(self.ended[..., None], -self.following, self.following)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = ACTIONS[actions]
        self.actions = []  # as the environments got them

    def reset(self, seed=None):
        return self.observations[0], {}

    def step(self, actions):
        t, infos = len(self.actions), {}
        self.actions.append(actions)
        if self.ended[t].any():
            final = np.full(len(self.ended[t]), None, object)
            for k in np.flatnonzero(self.ended[t]):
                final[k] = self.true_next[t, k]
            infos = {"final_obs": final, "_final_obs": self.ended[t]}
        return self.following[t], self.rewards[t], self.terminated[t], self.truncated[t], infos

    def close(self):
        pass


def train_on(envs, module, monkeypatch, tmp_path, **options):
    """Train on scripted environments without learning; return the calls of `act` and of `update`.

    Returns:
        sampled: the actions that the policy sampled, (num_steps, num_envs, ...).
        updates: the arguments of each call of `Agent.update`.
    """
    sampled, updates, act = [], [], module.Agent.act

    def record_act(agent, *args):
        sampled.append(act(agent, *args))
        return sampled[-1].copy()

    monkeypatch.setattr(module, "make_envs", lambda *args: envs)
    monkeypatch.setattr(module.Agent, "act", record_act)
    monkeypatch.setattr(module.Agent, "update", lambda agent, *args: updates.append(args) or {})
    num_steps, num_envs = envs.rewards.shape
    options |= {"num_envs": num_envs, "total_timesteps": num_steps * num_envs, "eval_episodes": 0}
    options |= {"eager": True}  # `update` is a plain function here
    train_briefly(module, tmp_path, **options)
    return np.stack(sampled), updates

"""SAC against the same computation in NumPy: the soft target, the policy's gradient, and the temperature."""

import math

from common.replay_buffer import Transitions
import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

from sac import sac
from sac.sac import Agent, Config, train
from tests import environments
from tests.conftest import metrics
from tests.test_ddpg import (
    ACTIONS,
    HIGH,
    LOW,
    OBSERVATIONS,
    NumpyNet,
    assert_same_weights,
    random_batches,
)
from tests.test_off_policy import quick

CRITICS = ("critic", "critic_2", "target_critic", "target_critic_2")
CENTER, HALF_RANGE = (LOW + HIGH) / 2.0, (HIGH - LOW) / 2.0


def policy_weights(agent):
    """Kernel and bias of the hidden layer, then of both outputs, means before log σ."""
    kernel, bias, mean_kernel, mean_bias, std_kernel, std_bias = (w.numpy() for w in agent.policy.parameters)
    return [kernel, bias, np.hstack([mean_kernel, std_kernel]), np.hstack([mean_bias, std_bias])]


class NumpyPolicy(NumpyNet):
    """Samples of a squashed Gaussian and the gradient of their Q and of their log-probability, by hand."""

    def sample(self, observations, noise):
        self.noise = noise
        mean, log_std = np.split(self.forward(observations), 2, axis=1)
        self.inside = (log_std > -20) & (log_std < 2)
        log_std = np.clip(log_std, -20, 2)
        self.std = np.exp(log_std)
        u = mean + self.std * noise
        self.squashed = np.tanh(u)
        log_density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        log_probs = (log_density + 2 * np.log(np.cosh(u))).sum(axis=1)  # 1 − tanh² = 1 / cosh²
        return CENTER + HALF_RANGE * self.squashed, log_probs

    def ascend(self, action_slope, temperature):
        """Raise mean(Q − α log π), given the slope of mean(Q) by the action."""
        size = len(action_slope)
        u_slope = action_slope * HALF_RANGE * (1 - self.squashed**2) - temperature * 2 * self.squashed / size
        log_std_slope = u_slope * self.std * self.noise + temperature / size
        slope = np.hstack([u_slope, np.where(self.inside, log_std_slope, 0.0)])
        self.adam(self.backward(-slope)[0])


class NumpySAC:
    def __init__(self, agent, config):
        for name in CRITICS:
            setattr(self, name, NumpyNet(getattr(agent, name).get_weights(), config.critic_learning_rate))
        self.policy = NumpyPolicy(policy_weights(agent), config.actor_learning_rate)
        self.log_temperature = NumpyNet([np.log([config.temperature])], config.temperature_learning_rate)
        self.config = config

    def update(self, batch, next_noise, noise):
        config, size = self.config, len(batch.rewards)
        temperature = np.exp(self.log_temperature.weights[0][0])
        next_actions, next_log_probs = self.policy.sample(batch.next_observations, next_noise)
        inputs = np.hstack([batch.next_observations, next_actions])
        first, second = self.target_critic.forward(inputs), self.target_critic_2.forward(inputs)
        self.share_of_first = (first < second).mean()
        next_q = np.minimum(first, second)[:, 0]
        soft_value = next_q - temperature * next_log_probs
        target = batch.rewards + config.gamma * np.where(batch.terminated, 0.0, soft_value)
        loss = 0.0
        for critic in (self.critic_2, self.critic):
            q = critic.forward(np.hstack([batch.observations, batch.actions]))[:, 0]
            critic.adam(critic.backward(2 * (q - target)[:, None] / size)[0])
            loss += ((q - target) ** 2).mean()

        actions, log_probs = self.policy.sample(batch.observations, noise)
        inputs = np.hstack([batch.observations, actions])
        first, second = self.critic.forward(inputs), self.critic_2.forward(inputs)
        slope = self.critic.backward((first < second) / size)[1][:, 3:]
        slope += self.critic_2.backward((first >= second) / size)[1][:, 3:]
        self.policy.ascend(slope, temperature)
        entropy = -log_probs.mean()
        self.log_temperature.adam([temperature * (entropy - 2 * config.target_entropy)])
        for name in ("critic", "critic_2"):
            getattr(self, f"target_{name}").follow(getattr(self, name), config.tau)
        return {"td_loss": loss, "q_values": q.mean(), "entropy": entropy, "temperature": temperature}


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_updates_equal_numpy(temperature):
    config = Config(
        hidden_sizes=(16,),
        gamma=0.9,
        tau=0.1,
        actor_learning_rate=0.003,
        critic_learning_rate=0.01,
        temperature_learning_rate=0.02,
        temperature=temperature,
        target_entropy=-0.7,
        seed=5,
    )
    keras.utils.set_random_seed(config.seed)
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    agent.policy.parameters[5].assign([0.3, 1.9])  # log σ of some observations is clipped
    for critic in (agent.critic, agent.target_critic):  # each critic gives the smaller value somewhere
        critic.layers[-1].bias.assign([-3.5])
    expected = NumpySAC(agent, config)
    batches = random_batches(num_batches=7, batch_size=32)
    logged = agent.update(batches)
    generator = tf.random.Generator.from_seed(config.seed)
    draw = tf.function(lambda: generator.normal((32, 2)), jit_compile=True)
    clipped = []
    for k in range(7):
        batch = Transitions(*(field[k] for field in batches))
        last = expected.update(batch, draw().numpy(), draw().numpy())
        clipped.append(1 - expected.policy.inside.mean())
        assert 0.1 < expected.share_of_first < 0.9
    assert 0.05 < np.mean(clipped) < 0.5
    assert set(logged) == set(last)  # those of the last minibatch
    for name, value in last.items():
        np.testing.assert_allclose(logged[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert_same_weights(agent, expected, CRITICS)
    for weights, same in zip(policy_weights(agent), expected.policy.weights):
        np.testing.assert_allclose(weights, same, atol=1e-5)
    np.testing.assert_allclose(agent.log_temperature, expected.log_temperature.weights[0][0], atol=1e-5)


def agent_of_one_distribution(mean, log_std, low=(-1.0, -1.0), high=(1.0, 1.0)):
    """An agent with the same μ and σ in every state."""
    bounds = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
    agent = Agent(OBSERVATIONS, bounds, Config(hidden_sizes=()))
    mean_kernel, mean_bias, std_kernel, std_bias = agent.policy.parameters
    for variable, value in ((mean_kernel, 0), (mean_bias, mean), (std_kernel, 0), (std_bias, log_std)):
        variable.assign(tf.zeros(variable.shape) + value)
    return agent


def squashed_log_density(u, mean, log_std):
    """log π of the actions of u in float64, per half range: 1 − tanh² = 1 / cosh²."""
    z = (u - mean) / np.exp(log_std)
    log_cosh = np.abs(u) + np.log1p(np.exp(-2 * np.abs(u))) - np.log(2)
    return (-0.5 * z**2 - np.array(log_std) - 0.5 * np.log(2 * np.pi) + 2 * log_cosh).sum(axis=-1)


@pytest.mark.parametrize(
    ("low", "high", "mean", "log_std"),
    [
        ([-1.0, -1.0], [1.0, 1.0], [0.0, 0.3], [0.0, -1.0]),
        ([-1.0, 2.0], [3.0, 10.0], [0.8, -0.5], [-0.5, 0.3]),
        ([-0.1, -500.0], [0.0, 100.0], [-1.0, 0.2], [-1.5, 0.0]),
    ],
)
def test_samples_have_the_density_that_is_stated(low, high, mean, log_std):
    """It integrates to 1 over the bounds, and samples lie below a point as often as it says."""
    shares = (np.arange(800) + 0.5) / 800  # of the way from low to high
    x = np.stack(np.meshgrid(shares, shares, indexing="ij"), axis=-1).reshape(-1, 2)
    probabilities = np.exp(squashed_log_density(np.arctanh(2 * x - 1), mean, log_std)) * (2 / 800) ** 2
    np.testing.assert_allclose(probabilities.sum(), 1.0, atol=1e-3)

    agent = agent_of_one_distribution(mean, log_std, low, high)
    actions, log_probs = agent.sample(tf.zeros((20_000, 3)))
    assert actions.shape == (20_000, 2) and log_probs.shape == (20_000,)
    samples = (actions.numpy() - np.array(low)) / (np.array(high) - low)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.02
    for point in ([0.2, 0.9], [0.5, 0.5], [0.9, 0.3]):
        expected = probabilities[(x < point).all(axis=1)].sum()
        np.testing.assert_allclose((samples < point).all(axis=1).mean(), expected, atol=0.015)
    inside = (np.abs(2 * samples - 1) < 0.99).all(axis=1)  # near a bound, float32 does not give u back
    u = np.arctanh(2 * samples[inside] - 1)
    expected = squashed_log_density(u, mean, log_std)
    np.testing.assert_allclose(log_probs.numpy()[inside], expected, atol=0.01)


def test_density_and_gradient_are_exact_where_tanh_is_1_in_float32():
    mean, log_std = np.array([30.0, -60.0]), np.array([2.0, 1.5])
    agent = agent_of_one_distribution(mean, log_std)
    with tf.GradientTape() as tape:
        _, log_probs = agent.sample(tf.zeros((1, 3)))
    noise = tf.random.Generator.from_seed(0).normal((1, 2)).numpy()
    u = mean + np.exp(log_std) * noise
    np.testing.assert_allclose(log_probs, squashed_log_density(u, mean, log_std), rtol=1e-5)
    slopes = [2 * np.tanh(u[0]), 2 * np.tanh(u[0]) * np.exp(log_std) * noise[0] - 1]
    gradients = tape.gradient(log_probs, [agent.policy.parameters[1], agent.policy.parameters[3]])
    np.testing.assert_allclose(gradients, slopes, rtol=1e-4)


def test_gradients_reach_mean_and_log_std_through_the_sample():
    """Those of the action and of log π equal differences of both with the same noise."""
    agent = agent_of_one_distribution([0.2, -0.4], [-0.3, 0.5], [-1.0, 2.0], [3.0, 10.0])
    biases = [agent.policy.parameters[1], agent.policy.parameters[3]]

    def sampled():
        agent.update_rng.reset_from_seed(3)
        actions, log_probs = agent.sample(tf.zeros((1, 3)))
        return tf.reduce_sum(actions) + 3.0 * log_probs[0]

    with tf.GradientTape() as tape:
        result = sampled()
    for bias, gradient in zip(biases, tape.gradient(result, biases)):
        before = bias.numpy()
        for k, step in enumerate(1e-2 * np.eye(2, dtype=np.float32)):
            bias.assign(before + step)
            above = sampled()
            bias.assign(before - step)
            np.testing.assert_allclose(gradient[k], (above - sampled()) / 2e-2, rtol=5e-3, atol=5e-3)
            bias.assign(before)


def test_everything_moves_at_every_update():
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,)))
    for one, two in zip(agent.critic.get_weights()[::2], agent.critic_2.get_weights()[::2]):
        assert (one != two).all()
    for twin, target in ((agent.critic, agent.target_critic), (agent.critic_2, agent.target_critic_2)):
        for one, two in zip(twin.get_weights(), target.get_weights()):
            np.testing.assert_array_equal(one, two)
    for k in range(3):
        variables = [v for name in CRITICS for v in getattr(agent, name).trainable_variables]
        variables += [*agent.policy.parameters, agent.log_temperature]
        before = [v.numpy() for v in variables]
        agent.update(random_batches(1, 32, seed=k))
        assert all((v.numpy() != old).any() for v, old in zip(variables, before))
    assert agent.update.experimental_get_tracing_count() == 1


def test_a_fixed_temperature_stays_as_it_is():
    config = Config(hidden_sizes=(16,), temperature=0.2, temperature_learning_rate=0.0)
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    for seed in range(3):
        np.testing.assert_allclose(agent.update(random_batches(4, 32, seed))["temperature"], 0.2, rtol=1e-6)


@pytest.mark.parametrize("excess", [-1.0, 1.0])
def test_the_temperature_rises_where_the_entropy_is_below_its_target(excess):
    """By the learning rate with the first step of Adam; the target is for each dimension of the action."""
    config = Config(hidden_sizes=(16,), temperature_learning_rate=0.01)
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    batch = Transitions(*(field[0] for field in random_batches(1, 4096)))
    _, log_probs = agent.sample(batch.observations)
    assert agent.target_entropy == -2.0
    agent.target_entropy = -float(np.mean(log_probs)) - excess
    agent.learn_actor(batch)
    np.testing.assert_allclose(agent.log_temperature, -0.01 * np.sign(excess), rtol=1e-4)


@pytest.mark.parametrize("target_entropy", [-1.0, -0.5])
def test_the_entropy_settles_at_its_target(target_entropy, tmp_path, monkeypatch):
    """One state, reward −|a − center|²: π ∝ exp(Q / α) is a Gaussian with the variance α / (2 half range²).

    Its entropy, 0.5 log(2 π e variance) for each dimension, gives the temperature.
    """
    monkeypatch.setattr(environments.Quadratic, "best", CENTER)
    config = quick(sac, "Quadratic", tmp_path, total_timesteps=10_000, target_entropy=target_entropy)
    config.temperature_learning_rate = 0.01
    columns = metrics(train(config).folder)
    np.testing.assert_allclose(columns["entropy"][-5:].mean(), 2 * target_entropy, atol=0.2)
    variance = math.exp(2 * target_entropy) / (2 * math.pi * math.e)  # geometric mean over the dimensions
    temperature = 2 * HALF_RANGE.prod() * variance
    np.testing.assert_allclose(columns["temperature"][-5:].mean(), temperature, rtol=0.15)


def test_actions_are_samples_of_the_newest_policy(tmp_path, monkeypatch):
    """Before every step, the NumPy copy gives what the networks give with the same noise."""
    act, seen = Agent.act, []

    def checked(self, observations, *, random):
        if random:
            return act(self, observations, random=True)
        state = self.rng.bit_generator.state
        actions = act(self, observations, random=False)
        after, self.rng.bit_generator.state = self.rng.bit_generator.state, state
        pi = self.policy(observations)
        u = pi.mean + np.exp(pi.log_std) * self.rng.standard_normal(actions.shape, np.float32)
        np.testing.assert_allclose(actions, CENTER + HALF_RANGE * np.tanh(u), rtol=1e-4, atol=1e-4)
        assert self.rng.bit_generator.state == after
        seen.append(float(pi.mean[0, 0]))
        return actions

    monkeypatch.setattr(Agent, "act", checked)
    config = Config(env_id="tests.environments:Quadratic-v0", num_envs=2, actor_learning_rate=0.01)
    config.total_timesteps, config.learning_starts, config.train_frequency = 100, 20, 10
    config.runs_dir, config.eval_episodes, config.gradient_steps = str(tmp_path), 0, 4
    train(config)
    assert len(seen) == 40 and len(set(seen)) > 5  # of 50, without the random ones


def test_temperature_and_generator_are_in_the_checkpoint(tmp_path):
    """They are there with the values that they had reached."""
    result = train(quick(sac, "Quadratic", tmp_path, total_timesteps=600))
    (checkpoint,) = (result.folder / "checkpoints").iterdir()
    path = str(checkpoint / "variables")
    saved = {
        part: [
            tf.train.load_variable(path, name) for name, _ in tf.train.list_variables(path) if part in name
        ]
        for part in ("update_rng", "/log_temperature/", "temperature_optimizer/")
    }
    assert (saved["update_rng"][0] != tf.random.Generator.from_seed(0).state.numpy()).any()
    assert saved["/log_temperature/"][0] < 0.0
    assert any(np.all(value == 100) for value in saved["temperature_optimizer/"])  # its number of updates

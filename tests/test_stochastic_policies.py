"""Policies: their first actions, gradients, samples, and saved networks."""

from common.distributions import DiagonalGaussian
from common.networks import mlp
from common.stochastic_policies import (
    CategoricalPolicy,
    GaussianPolicy,
    SquashedGaussianPolicy,
    action_units,
    make_policy,
)
import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
INPUTS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
CENTER, HALF_RANGE = np.array([1.0, 6.0], np.float32), np.array([2.0, 4.0], np.float32)


def box(low, high):
    return gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def moved(policy):
    """Move the parameters of a policy away from their initial values."""
    for parameter in policy.parameters:
        parameter.assign(parameter + np.linspace(0.1, 0.5, np.prod(parameter.shape)).reshape(parameter.shape))
    policy.refresh()
    return policy


def test_policy_for_discrete_actions():
    policy = make_policy(OBSERVATIONS, gym.spaces.Discrete(3), (8,), 0.0)
    assert isinstance(policy, CategoricalPolicy) and len(policy.parameters) == 4
    p = tf.nn.softmax(policy(INPUTS).logits).numpy()
    np.testing.assert_allclose(p, np.full((5, 3), 1 / 3), atol=0.02)  # almost uniform
    np.testing.assert_allclose(moved(policy)(INPUTS).logits, policy.network(INPUTS), rtol=1e-6)


def test_policy_for_box_actions_starts_in_units_of_the_bounds():
    space = box([-1.0, 2.0, -np.inf, 3.0, -np.inf], [3.0, 10.0, np.inf, np.inf, -2.0])
    policy = make_policy(OBSERVATIONS, space, (8,), -1.0)
    assert isinstance(policy, GaussianPolicy) and policy.parameters[-1] is policy.log_std
    pi = policy(INPUTS)
    center, half_range = [1.0, 6.0, 0.0, 3.0, -2.0], np.array([2.0, 4.0, 1.0, 1.0, 1.0])  # or nearest to 0
    assert (np.abs(pi.mean - np.array(center)) < 0.1 * half_range).all()
    np.testing.assert_allclose(np.exp(pi.log_std + 1.0), half_range, rtol=1e-6)
    moved(policy)
    np.testing.assert_allclose(policy(INPUTS).mean, policy.network(INPUTS), rtol=1e-6)
    np.testing.assert_allclose(policy(INPUTS).log_std, policy.log_std.numpy(), rtol=1e-6)


def test_an_action_with_equal_bounds_has_a_finite_deviation():
    space = box([0.5, -1.0], [0.5, 1.0])
    center, half_range = action_units(space)
    np.testing.assert_array_equal(center, [0.5, 0.0])
    np.testing.assert_array_equal(half_range, [1.0, 1.0])
    policy = make_policy(OBSERVATIONS, space, (8,), 0.0)
    np.testing.assert_array_equal(policy.log_std.numpy(), np.zeros(2))
    actions = policy.sample(INPUTS, np.random.default_rng(0))
    assert np.isfinite(actions).all() and np.isfinite(policy(INPUTS).log_prob(actions)).all()
    np.testing.assert_array_equal(policy.clip(actions)[:, 0], np.full(5, 0.5, np.float32))


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), box([-1.0, 2.0], [3.0, 10.0])])
def test_a_distribution_keeps_the_parameters_it_was_made_with(space):
    """TRPO compares the new policy with the old one after it has changed the variables."""
    policy = moved(make_policy(OBSERVATIONS, space, (8,), 0.0))
    actions = tf.constant(policy.sample(INPUTS, np.random.default_rng(0)))
    old_pi = policy(INPUTS)
    log_probs, entropy = old_pi.log_prob(actions).numpy(), old_pi.entropy().numpy()
    moved(policy)
    np.testing.assert_array_equal(old_pi.log_prob(actions), log_probs)
    np.testing.assert_array_equal(old_pi.entropy(), entropy)
    assert (old_pi.kl(policy(INPUTS)) > 1e-4).numpy().all()


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), box([-1.0, 2.0], [3.0, 10.0])])
def test_gradients_reach_every_parameter(space):
    policy = moved(make_policy(OBSERVATIONS, space, (8,), 0.0))
    actions = tf.constant(policy.sample(INPUTS, np.random.default_rng(0)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(policy(INPUTS).log_prob(actions))
    for gradient in tape.gradient(total, policy.parameters):
        assert (gradient.numpy() != 0).any()


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), box([-1.0, 2.0], [3.0, 10.0])])
def test_samples_follow_the_parameters_at_refresh_and_not_before(space):
    policy = make_policy(OBSERVATIONS, space, (8,), 0.0)
    inputs = np.repeat(INPUTS[:1], 5_000, axis=0)
    first = policy.sample(inputs, np.random.default_rng(0))
    bias = policy.parameters[3]
    bias.assign([0.0, 3.0, 1.0] if isinstance(space, gym.spaces.Discrete) else [3.0, -2.0])
    if isinstance(space, gym.spaces.Box):
        policy.log_std.assign([-1.0, 2.0])
    np.testing.assert_array_equal(policy.sample(inputs, np.random.default_rng(0)), first)
    policy.refresh()
    samples, pi = policy.sample(inputs, np.random.default_rng(0)), policy(INPUTS[:1])
    if isinstance(space, gym.spaces.Discrete):
        p = tf.nn.softmax(pi.logits)[0]
        np.testing.assert_allclose(np.bincount(samples, minlength=3) / 5_000, p, atol=0.02)
    else:
        std = np.exp([-1.0, 2.0])
        np.testing.assert_allclose((samples.mean(axis=0) - pi.mean[0]) / std, np.zeros(2), atol=0.05)
        np.testing.assert_allclose(samples.std(axis=0), std, rtol=0.05)
        assert samples.dtype == np.float32
        assert (samples < space.low).any() and (samples > space.high).any()
        np.testing.assert_array_equal(policy.clip(samples), np.clip(samples, space.low, space.high))


def test_saved_network_is_made_of_keras_layers_only(tmp_path):
    policy = moved(make_policy(OBSERVATIONS, box([-1.0, 2.0], [3.0, 10.0]), (8,), 0.0))
    assert all(type(layer).__module__.startswith("keras.") for layer in policy.network.layers)
    policy.network.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(saved(INPUTS), policy(INPUTS).mean)


def squashed_policy(hidden_sizes=(8,)):
    """A policy of two actions with the bounds [−1, 3] and [2, 10]."""
    keras.utils.set_random_seed(0)
    return SquashedGaussianPolicy(mlp((4,), hidden_sizes, None), box([-1.0, 2.0], [3.0, 10.0]))


@pytest.mark.parametrize("hidden_sizes", [(), (8,), (16, 8)])
def test_squashed_policy(hidden_sizes):
    policy = squashed_policy(hidden_sizes)
    assert len(policy.parameters) == 2 * len(hidden_sizes) + 4
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(policy(INPUTS).log_prob(tf.ones((5, 2))))
    for gradient in tape.gradient(total, policy.parameters):
        assert (gradient.numpy() != 0).any()
    pi = moved(policy)(INPUTS)
    assert type(pi) is DiagonalGaussian and pi.mean.shape == pi.log_std.shape == (5, 2)
    np.testing.assert_array_equal([policy.center, policy.half_range], [CENTER, HALF_RANGE])
    np.testing.assert_allclose(policy.network(INPUTS), CENTER + HALF_RANGE * np.tanh(pi.mean), rtol=1e-5)
    for far, bound in ((-100.0, -20.0), (100.0, 2.0)):
        policy.parameters[-1].assign([far, far])
        np.testing.assert_array_equal(policy(INPUTS).log_std, np.full((5, 2), bound))


def test_samples_of_a_squashed_policy():
    """They are tanh of normal numbers with the mean and the deviation of the networks, from `refresh` on."""
    policy = squashed_policy()
    inputs = np.repeat(INPUTS[:1], 5_000, axis=0)
    first = policy.sample(inputs, np.random.default_rng(0))
    for parameter in policy.parameters:
        parameter.assign(parameter + 0.3)
    policy.parameters[-1].assign([-2.0, -2.5])  # log σ is not clipped
    np.testing.assert_array_equal(policy.sample(inputs, np.random.default_rng(0)), first)
    policy.refresh()
    samples, pi = policy.sample(inputs, np.random.default_rng(0)), policy(INPUTS[:1])
    assert samples.dtype == np.float32 and samples.shape == (5_000, 2)
    u = np.arctanh((samples - CENTER) / HALF_RANGE * 0.999999)
    z = (u - pi.mean.numpy()) / np.exp(pi.log_std.numpy())
    np.testing.assert_allclose(np.median(z, axis=0), np.zeros(2), atol=0.05)
    np.testing.assert_allclose(np.quantile(z, [0.1587, 0.8413], axis=0), [[-1, -1], [1, 1]], atol=0.08)
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.05
    policy.parameters[-1].assign([50.0, 50.0])  # clipped to 2
    policy.refresh()
    samples = policy.sample(inputs, np.random.default_rng(0))
    np.testing.assert_array_equal([samples.min(axis=0), samples.max(axis=0)], [[-1.0, 2.0], [3.0, 10.0]])
    inside = np.abs(np.arctanh((samples - CENTER) / HALF_RANGE * 0.999999)) < 3.0
    share = np.mean(np.abs(np.random.default_rng(1).normal(0.0, np.exp(2.0), 100_000)) < 3.0)
    np.testing.assert_allclose(inside.mean(), share, atol=0.03)


def test_the_greedy_network_of_a_squashed_policy_is_made_of_keras_layers_only(tmp_path):
    policy = moved(squashed_policy())
    policy.network.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(saved(INPUTS), policy.network(INPUTS))
    actions = CENTER + HALF_RANGE * np.tanh(policy(INPUTS).mean)
    np.testing.assert_allclose(saved(INPUTS), actions, rtol=1e-6)

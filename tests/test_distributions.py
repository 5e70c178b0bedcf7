"""Policies and their distributions, against sums and integrals in NumPy."""

from common.distributions import (
    Categorical,
    CategoricalPolicy,
    DiagonalGaussian,
    GaussianPolicy,
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
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(10)  # ∫ f(x) N(x; 0, 1) dx = Σ weights f(nodes) / √2π


def box(low, high):
    return gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def moved(policy):
    """Move the parameters of a policy away from their initial values."""
    for parameter in policy.parameters:
        parameter.assign(parameter + np.linspace(0.1, 0.5, np.prod(parameter.shape)).reshape(parameter.shape))
    policy.refresh()
    return policy


def gaussian_log_densities(x, mean, log_std):
    return np.log(
        np.exp(-0.5 * ((x - mean) / np.exp(log_std)) ** 2) / np.sqrt(2 * np.pi * np.exp(2 * log_std))
    )


def gaussian_mean(function, mean, log_std):
    """Return the mean of a quadratic function(x), summed over the last axis, over a diagonal Gaussian."""
    x = mean[..., None] + np.exp(log_std)[..., None] * NODES
    return (function(x) @ WEIGHTS / np.sqrt(2 * np.pi)).sum(axis=-1)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(scale=2.0, size=(2, 6, 3))


@pytest.fixture(params=["state-independent", "state-dependent"])
def gaussians(request):
    """Mean and log σ of two diagonal Gaussians; log σ is (n,) or (batch, n)."""
    rng = np.random.default_rng(0)
    shape = (2, 2) if request.param == "state-independent" else (2, 6, 2)
    return [*zip(rng.normal(size=(2, 6, 2)), 0.7 * rng.normal(size=shape))]


def test_categorical(logits):
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    one, two = (Categorical(tf.constant(x, tf.float32)) for x in logits)
    for action in range(3):
        actions = np.full(6, action)
        np.testing.assert_allclose(one.log_prob(actions), np.log(p[0, :, action]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one.entropy(), -(p[0] * np.log(p[0])).sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(one.kl(two), (p[0] * np.log(p[0] / p[1])).sum(axis=-1), rtol=1e-4)
    np.testing.assert_allclose(two.kl(one), (p[1] * np.log(p[1] / p[0])).sum(axis=-1), rtol=1e-4)
    np.testing.assert_array_equal(one.kl(one), np.zeros(6))
    np.testing.assert_array_equal(one.mode(), logits[0].argmax(axis=-1))


def test_diagonal_gaussian(gaussians):
    one, two = (DiagonalGaussian(*(tf.constant(x, tf.float32) for x in pair)) for pair in gaussians)
    (mean, log_std), (mean_2, log_std_2) = gaussians
    actions = np.random.default_rng(1).normal(size=(6, 2))
    expected = gaussian_log_densities(actions, mean, log_std).sum(axis=-1)
    np.testing.assert_allclose(one.log_prob(actions.astype(np.float32)), expected, rtol=1e-4)

    def log_density(mean, log_std):
        return lambda x: gaussian_log_densities(x, mean[..., None], log_std[..., None])

    log_p, log_q = log_density(mean, log_std), log_density(mean_2, log_std_2)
    np.testing.assert_allclose(one.entropy(), -gaussian_mean(log_p, mean, log_std), rtol=1e-4)
    kl = gaussian_mean(lambda x: log_p(x) - log_q(x), mean, log_std)
    np.testing.assert_allclose(one.kl(two), kl, rtol=1e-4)
    reverse_kl = gaussian_mean(lambda x: log_q(x) - log_p(x), mean_2, log_std_2)
    np.testing.assert_allclose(two.kl(one), reverse_kl, rtol=1e-4)
    assert (np.abs(kl - reverse_kl) > 0.01).all()
    np.testing.assert_allclose(one.kl(one), np.zeros(6), atol=1e-6)
    np.testing.assert_array_equal(one.mode(), mean.astype(np.float32))
    assert one.log_prob(one.mean).shape == one.entropy().shape == one.kl(two).shape == (6,)


@pytest.mark.parametrize("distribution", [Categorical, DiagonalGaussian])
def test_stop_gradient(distribution):
    parameters = [tf.Variable(tf.ones((3, 2)) * k) for k, _ in enumerate(distribution._fields, 1)]
    with tf.GradientTape() as tape:
        pi = distribution(*(parameter.value() for parameter in parameters))
        constant = pi.stop_gradient()
        assert type(constant) is distribution
        for field, expected in zip(constant, pi):
            np.testing.assert_array_equal(field, expected)
        total = tf.add_n([tf.reduce_sum(field) for field in constant])
    assert tape.gradient(total, parameters) == [None] * len(parameters)


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

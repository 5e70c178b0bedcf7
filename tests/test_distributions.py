"""Distributions over actions, against sums and integrals in NumPy."""

from common.distributions import Categorical, DiagonalGaussian
import numpy as np
import pytest
import tensorflow as tf

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(10)  # ∫ f(x) N(x; 0, 1) dx = Σ weights f(nodes) / √2π


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

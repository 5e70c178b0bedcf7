"""Distributions over actions, against sums and integrals in NumPy."""

from common.distributions import Categorical, DiagonalGaussian, SquashedGaussian
import numpy as np
import pytest
import tensorflow as tf

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(10)  # ∫ f(x) N(x; 0, 1) dx = Σ weights f(nodes) / √2π
CENTER, HALF_RANGE = np.array([1.0, 6.0], np.float32), np.array([2.0, 4.0], np.float32)


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


def squashed(low, high, mean, log_std):
    low, high = np.array(low, np.float32), np.array(high, np.float32)
    mean, log_std = (tf.constant([x], tf.float32) for x in (mean, log_std))
    return SquashedGaussian(mean, log_std, (low + high) / 2, (high - low) / 2)


@pytest.mark.parametrize(
    ("low", "high", "mean", "log_std"),
    [
        ([-1.0, -1.0], [1.0, 1.0], [0.0, 0.3], [0.0, -1.0]),
        ([-1.0, 2.0], [3.0, 10.0], [0.8, -0.5], [-0.5, 0.3]),
        ([-0.1, -500.0], [0.0, 100.0], [-1.0, 0.2], [-1.5, 0.0]),
    ],
)
def test_squashed_gaussian_integrates_to_1_over_its_box(low, high, mean, log_std):
    """In half ranges of the action. Its probabilities below an action are those of the samples."""
    pi = squashed(low, high, mean, log_std)
    shares = (np.arange(800) + 0.5) / 800  # of the way from low to high
    x = np.stack(np.meshgrid(shares, shares, indexing="ij"), axis=-1).reshape(-1, 2)
    actions = np.array(low) + x * (np.array(high) - low)
    u = np.arctanh((actions - pi.center) / pi.half_range)
    log_density = pi.log_prob(u.astype(np.float32)).numpy()
    density = np.exp(log_density)
    cell = np.prod((np.array(high) - low) / 800 / pi.half_range)
    np.testing.assert_allclose(density.sum() * cell, 1.0, atol=1e-3)

    pi = SquashedGaussian(tf.tile(pi.mean, (20_000, 1)), tf.tile(pi.log_std, (20_000, 1)), *pi[2:])
    samples, log_probs = pi.sample(tf.random.Generator.from_seed(0))
    assert samples.shape == (20_000, 2) and log_probs.shape == (20_000,)
    samples = (samples.numpy() - low) / (np.array(high) - low)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.02
    for point in ([0.2, 0.9], [0.5, 0.5], [0.9, 0.3]):
        probability = density[(x < point).all(axis=1)].sum() * cell
        np.testing.assert_allclose((samples < point).all(axis=1).mean(), probability, atol=0.015)
    entropy = -(density * log_density).sum() * cell
    np.testing.assert_allclose(-np.mean(log_probs), entropy, atol=0.03)


def test_squashed_gaussian_far_from_0():
    """Where tanh(u) is 1 in float32, log π and its gradient stay exact."""
    u = np.array([[0.0, 3.0], [-8.0, 12.0], [30.0, -60.0]])
    pi = squashed([-1.0, 2.0], [3.0, 10.0], [1.0, -1.0], [2.0, 1.5])
    mean, log_std = np.array([1.0, -1.0]), np.array([2.0, 1.5])
    log_derivative = -2 * (np.abs(u) + np.log1p(np.exp(-2 * np.abs(u))) - np.log(2))  # of 1 / cosh²
    expected = (gaussian_log_densities(u, mean, log_std) - log_derivative).sum(axis=-1)
    variable = tf.Variable(u, dtype=tf.float32)
    with tf.GradientTape() as tape:
        log_prob = pi.log_prob(variable)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    slope = (mean - u) / np.exp(2 * log_std) + 2 * np.tanh(u)
    np.testing.assert_allclose(tape.gradient(log_prob, variable), slope, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pi.mode(), 1.0 * pi.center + pi.half_range * np.tanh([mean]), rtol=1e-6)


def test_gradients_reach_mean_and_log_std_through_the_sample():
    """Those of the action and of log π equal differences of both with the same noise."""

    def sample(parameters):
        pi = SquashedGaussian(parameters[:, :2], parameters[:, 2:], CENTER, HALF_RANGE)
        actions, log_probs = pi.sample(tf.random.Generator.from_seed(3))
        return tf.reduce_sum(actions, axis=-1) + 3.0 * log_probs

    parameters = tf.Variable([[0.2, -0.4, -0.3, 0.5]])
    with tf.GradientTape() as tape:
        result = sample(parameters)
    gradient = tape.gradient(result, parameters).numpy()[0]
    for k, step in enumerate(1e-2 * np.eye(4, dtype=np.float32)):
        difference = (sample(parameters + step) - sample(parameters - step)).numpy()[0] / 2e-2
        np.testing.assert_allclose(gradient[k], difference, rtol=5e-3, atol=5e-3)


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

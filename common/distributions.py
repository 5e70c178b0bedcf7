"""Distributions over actions π(·|s), one for each row of a batch: categorical, Gaussian, squashed Gaussian.

They compute in TensorFlow, for the update. Their parameters are the outputs of a policy's network.
"""

import math
from typing import NamedTuple

from common.quiet import without_noise
import numpy as np

with without_noise():
    import tensorflow as tf


class Categorical(NamedTuple):
    """Distributions over actions 0, …, n − 1, one for each row of `logits` (batch, n)."""

    logits: tf.Tensor

    def log_prob(self, actions: tf.Tensor) -> tf.Tensor:
        """Return log π(a|s) (batch,) of integer actions (batch,)."""
        return -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, self.logits)

    def entropy(self) -> tf.Tensor:
        """Return the entropy (batch,)."""
        return -tf.reduce_sum(tf.nn.softmax(self.logits) * tf.nn.log_softmax(self.logits), axis=-1)

    def kl(self, other: "Categorical") -> tf.Tensor:
        """Return KL(self ‖ other) (batch,)."""
        log_ratio = tf.nn.log_softmax(self.logits) - tf.nn.log_softmax(other.logits)
        return tf.reduce_sum(tf.nn.softmax(self.logits) * log_ratio, axis=-1)

    def mode(self) -> tf.Tensor:
        """Return the most likely actions (batch,)."""
        return tf.argmax(self.logits, axis=-1)

    def stop_gradient(self) -> "Categorical":
        """Return the same distributions as constants."""
        return Categorical(tf.stop_gradient(self.logits))


class DiagonalGaussian(NamedTuple):
    """Normal distributions with independent components, one for each row of `mean` (batch, n).

    `log_std`, log σ, is (n,) or (batch, n).
    """

    mean: tf.Tensor
    log_std: tf.Tensor

    def log_prob(self, actions: tf.Tensor) -> tf.Tensor:
        """Return log π(a|s) (batch,) of actions (batch, n)."""
        z = (actions - self.mean) / tf.exp(self.log_std)
        return -tf.reduce_sum(0.5 * tf.square(z) + self.log_std + 0.5 * math.log(2.0 * math.pi), axis=-1)

    def entropy(self) -> tf.Tensor:
        """Return the entropy (batch,)."""
        entropies = self.log_std + 0.5 * math.log(2.0 * math.pi * math.e) + tf.zeros_like(self.mean)
        return tf.reduce_sum(entropies, axis=-1)

    def kl(self, other: "DiagonalGaussian") -> tf.Tensor:
        """Return KL(self ‖ other) (batch,)."""
        variance_ratio = tf.exp(2.0 * (self.log_std - other.log_std))
        squared_distance = tf.square((self.mean - other.mean) / tf.exp(other.log_std))
        log_ratio = other.log_std - self.log_std
        return tf.reduce_sum(log_ratio + 0.5 * (variance_ratio + squared_distance - 1.0), axis=-1)

    def mode(self) -> tf.Tensor:
        """Return the most likely actions (batch, n), the means."""
        return self.mean

    def stop_gradient(self) -> "DiagonalGaussian":
        """Return the same distributions as constants."""
        return DiagonalGaussian(tf.stop_gradient(self.mean), tf.stop_gradient(self.log_std))


class SquashedGaussian(NamedTuple):
    """Distributions over a = center + half_range · tanh(u), where u is normal with independent components.

    `mean` and `log_std`, log σ, are those of u (batch, n); `center` and `half_range` (n,) are those of the
    bounds of the action. Densities are per half range of the action, so they do not depend on its units.
    """

    mean: tf.Tensor
    log_std: tf.Tensor
    center: np.ndarray
    half_range: np.ndarray

    def log_prob(self, u: tf.Tensor) -> tf.Tensor:
        """Return log π(a|s) (batch,) of the actions of u (batch, n).

        The density of u is divided by the derivative of tanh,
        1 − tanh²(u) = 4 / (exp(u) + exp(−u))² = exp(2 (log 2 − u − softplus(−2 u))). The last form does not
        round to 0 where tanh(u) rounds to 1.
        """
        log_derivative = 2.0 * (math.log(2.0) - u - tf.nn.softplus(-2.0 * u))
        log_density = DiagonalGaussian(self.mean, self.log_std).log_prob(u)
        return log_density - tf.reduce_sum(log_derivative, axis=-1)

    def sample(self, generator: tf.random.Generator) -> tuple[tf.Tensor, tf.Tensor]:
        """Sample actions (batch, n); return them with their log π(a|s) (batch,).

        Both are differentiable functions of `mean` and `log_std` (the reparameterization trick).
        """
        u = self.mean + tf.exp(self.log_std) * generator.normal(tf.shape(self.mean))
        return self.center + self.half_range * tf.tanh(u), self.log_prob(u)

    def mode(self) -> tf.Tensor:
        """Return the actions (batch, n) of the most likely u, the means."""
        return self.center + self.half_range * tf.tanh(self.mean)

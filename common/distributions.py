"""Distributions over actions π(·|s), one for each row of a batch: categorical, Gaussian, squashed Gaussian.

They compute in TensorFlow, for the update. Their parameters are the outputs of a policy's network.
"""

import math
from typing import NamedTuple

from common.quiet import importing

with importing():
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

"""Policies π(·|s): networks that give the parameters of a distribution over actions.

In the update, a policy returns distributions that compute in TensorFlow. For acting, it samples in NumPy.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from common.distributions import Categorical, DiagonalGaussian
from common.networks import chain, tanh_mlp
from common.numpy_inference import NumpyNetwork, as_array, fast_copy
from common.quiet import importing
import gymnasium as gym
import numpy as np

with importing():
    import keras
    import tensorflow as tf


class CategoricalPolicy(tf.Module):
    """A policy for Discrete actions: the network gives the logits.

    `network` maps observations to logits: it is the trunk, followed by the head.

    Args:
        head: features (batch, ...) -> logits (batch, n).
        trunk: observations (batch, ...) -> features, layers that other networks may share. Without a trunk,
            the features are the observations.
    """

    def __init__(self, head: keras.Sequential, trunk: keras.Sequential | None = None):
        super().__init__()
        self.head, self.network = head, chain(trunk, head, name=head.name) if trunk else head
        self.parameters = self.network.trainable_variables
        self._acting_network = fast_copy(self.network)

    def __call__(self, features: tf.Tensor) -> Categorical:
        """Return π(·|s) for the features (batch, ...) of the observations."""
        return Categorical(self.head(features))

    def refresh(self) -> None:
        """Sample with the current parameters from now on; call it after each update."""
        self._acting_network.refresh()

    def sample(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sample actions (num_envs,) for observations (num_envs, ...), by the Gumbel-max trick."""
        logits = self._acting_network(observations)
        return (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions as they are: all of them are valid."""
        return actions


class GaussianPolicy(tf.Module):
    """A policy for Box actions: the network gives the means; log σ does not depend on the state.

    `log_std` is a variable of this object, with σ in the units of the action. Samples are neither squashed
    nor clipped: `clip` is for the environment only.

    Args:
        head: features (batch, ...) -> means (batch, n).
        action_space: gives the bounds.
        initial_log_std: initial log σ, with σ in half ranges of the action (in units of 1 where the range is
            infinite).
        trunk: see `CategoricalPolicy`.
    """

    def __init__(
        self,
        head: keras.Sequential,
        action_space: gym.spaces.Box,
        initial_log_std: float,
        trunk: keras.Sequential | None = None,
    ):
        super().__init__()
        self.head, self.network = head, chain(trunk, head, name=head.name) if trunk else head
        self.low, self.high = action_space.low, action_space.high
        _, half_range = action_units(action_space)
        self.log_std = keras.Variable(initial_log_std + np.log(half_range), name="log_std")
        self.parameters = [*self.network.trainable_variables, self.log_std]
        self._acting_network = fast_copy(self.network)
        self._std: np.ndarray | None = None

    def __call__(self, features: tf.Tensor) -> DiagonalGaussian:
        """Return π(·|s) for the features (batch, ...) of the observations."""
        return DiagonalGaussian(self.head(features), tf.convert_to_tensor(self.log_std))

    def refresh(self) -> None:
        """Sample with the current parameters from now on; call it after each update."""
        self._acting_network.refresh()
        self._std = None

    def sample(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sample actions (num_envs, n) for observations (num_envs, ...), not clipped to their bounds."""
        if self._std is None:
            self._std = np.exp(as_array(self.log_std))
        means = self._acting_network(observations)
        return means + self._std * rng.standard_normal(means.shape, np.float32)

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions clipped to their bounds, as the environment needs them."""
        return np.minimum(np.maximum(actions, self.low), self.high)


class SquashedGaussianPolicy(tf.Module):
    """A policy for bounded Box actions: a = center + half range · tanh(u), where u is normal.

    The mean and log σ of u depend on the state: each is a linear function of the last hidden layer. log σ is
    clipped to `LOG_STD_BOUNDS`. `network` gives the actions without noise, center + half range · tanh(mean).

    Args:
        hidden_layers: observations (batch, ...) -> outputs of the last hidden layer (batch, units).
        action_space: gives the bounds, which must be finite.
    """

    LOG_STD_BOUNDS: ClassVar = (-20.0, 2.0)  # as in the code of Haarnoja et al. (2018)

    def __init__(self, hidden_layers: keras.Sequential, action_space: gym.spaces.Box):
        super().__init__()
        self.low, self.high = action_space.low, action_space.high
        self.half_range = (self.high - self.low) / 2
        self.center = self.low + self.half_range
        self.hidden_layers = hidden_layers
        inputs, num_actions = keras.Input(hidden_layers.output_shape[1:]), action_space.shape[0]
        self.mean = keras.Sequential([inputs, keras.layers.Dense(num_actions)], name="mean")
        self.log_std = keras.Sequential([inputs, keras.layers.Dense(num_actions)], name="log_std")
        self.network = keras.Sequential([keras.Input(hidden_layers.input_shape[1:])], name="actor")
        self.network.add(hidden_layers)
        self.network.add(self.mean)
        self.network.add(keras.layers.Activation("tanh"))
        self.network.add(keras.layers.Rescaling(self.half_range, self.center))
        self.parameters = [*self.network.trainable_variables, *self.log_std.trainable_variables]
        self._numpy_networks = [NumpyNetwork(part) for part in (hidden_layers, self.mean, self.log_std)]

    def __call__(self, observations: tf.Tensor) -> DiagonalGaussian:
        """Return the distributions of u for observations (batch, ...)."""
        hidden = self.hidden_layers(observations)
        log_std = tf.clip_by_value(self.log_std(hidden), *self.LOG_STD_BOUNDS)
        return DiagonalGaussian(self.mean(hidden), log_std)

    def refresh(self) -> None:
        """Sample with the current parameters from now on; call it after each update."""
        for network in self._numpy_networks:
            network.refresh()

    def sample(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sample actions (num_envs, n) for observations (num_envs, ...)."""
        hidden_layers, mean, log_std = self._numpy_networks
        hidden = hidden_layers(observations)
        std = np.exp(np.clip(log_std(hidden), *self.LOG_STD_BOUNDS))
        means = mean(hidden)
        u = means + std * rng.standard_normal(means.shape, np.float32)
        actions = self.center + self.half_range * np.tanh(u)
        return np.minimum(np.maximum(actions, self.low), self.high)  # rounding can exceed a bound


def make_policy(
    observation_space: gym.spaces.Box,
    action_space: gym.Space,
    hidden_sizes: Sequence[int],
    initial_log_std: float,
    build_network: Callable[..., keras.Sequential] = tanh_mlp,
    *,
    trunk: keras.Sequential | None = None,
) -> CategoricalPolicy | GaussianPolicy:
    """Build the policy for an action space: categorical for Discrete, diagonal Gaussian for Box.

    The output layer starts with a gain of 0.01, so that the first policy is almost uniform, or centered
    between the bounds of the action.

    Args:
        observation_space: gives the shape of an observation.
        action_space: Discrete or Box.
        hidden_sizes: units of each hidden layer, after the trunk if there is one.
        initial_log_std: see `GaussianPolicy`.
        build_network: builder with the arguments of `common.networks.tanh_mlp`.
        trunk: layers before the others that are shared with the critic: see `CategoricalPolicy`.
    """
    shape = trunk.output_shape[1:] if trunk else observation_space.shape
    options = {"output_gain": 0.01, "name": "actor"}
    if isinstance(action_space, gym.spaces.Discrete):
        return CategoricalPolicy(build_network(shape, hidden_sizes, int(action_space.n), **options), trunk)
    center, half_range = action_units(action_space)
    options["last_layers"] = [keras.layers.Rescaling(half_range, center)]
    head = build_network(shape, hidden_sizes, action_space.shape[0], **options)
    return GaussianPolicy(head, action_space, initial_log_std, trunk)


def action_units(action_space: gym.spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return center and half range (n,) of each action.

    The half range is the unit in which a policy works: one set of hyperparameters then fits torques of ±0.1
    and of ±100. Without two finite bounds, or with equal ones, the unit is 1, and the center is the valid
    value nearest to 0.
    """
    low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    low_or_0, high_or_0 = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0)
    center = np.where(bounded, (low_or_0 + high_or_0) / 2, np.clip(0.0, low, high))
    half_range = np.where(low_or_0 < high_or_0, (high_or_0 - low_or_0) / 2, 1.0)
    return center.astype(np.float32), half_range.astype(np.float32)

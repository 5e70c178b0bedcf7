"""Networks: Keras builders, and the forward pass that acts, in NumPy or as one compiled call."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from common.errors import UserError
from common.quiet import without_chatter
import gymnasium as gym
import numpy as np

with without_chatter():
    import keras
    import tensorflow as tf


def mlp(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    activation: str = "relu",
    initializer: Callable[[], keras.Initializer] = keras.initializers.GlorotUniform,
    output_initializer: Callable[[], keras.Initializer] | None = None,
    output_scale: float = 1.0,
    output_bias: float = 0.0,
    normalizer: keras.Layer | None = None,
    head: keras.Layer | None = None,
    name: str | None = None,
) -> keras.Sequential:
    """A multi-layer perceptron (batch, *input_shape) -> (batch, output_size) with a linear output.

    Args:
        input_shape: shape of one input, flattened if it has more than one axis.
        hidden_sizes: units of each hidden layer; () makes the network linear.
        output_size: units of the output layer; None leaves it out, and the last hidden layer is the output.
        activation: of the hidden layers, by its Keras name.
        initializer: makes the initializer of a layer's kernel; called once a layer, because one Keras
            initializer shared between layers gives them equal weights.
        output_initializer: the same for the output layer; `initializer` if None.
        output_scale: factor on the output layer's first weights (0.01 makes a policy start near uniform).
        output_bias: first bias of each output.
        normalizer: a layer in front of all others; networks may share it.
        head: a layer after the linear output.
        name: of the model.
    """
    layers = [keras.Input(input_shape)]
    if normalizer is not None:
        layers.append(normalizer)
    if len(input_shape) > 1 or output_size is None:  # without an output there must be some layer
        layers.append(keras.layers.Flatten())
    layers += [
        keras.layers.Dense(size, activation, kernel_initializer=initializer()) for size in hidden_sizes
    ]
    if output_size is None:
        return keras.Sequential(layers, name=name)
    output = _output_layer(output_size, output_bias, (output_initializer or initializer)())
    layers.append(output)
    if head is not None:
        layers.append(head)
    model = keras.Sequential(layers, name=name)
    output.kernel.assign(output_scale * output.kernel)
    return model


def cnn(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    output_bias: float = 0.0,
    name: str | None = None,
) -> keras.Sequential:
    """A convolutional network (batch, *input_shape) -> (batch, output_size) with a linear output.

    Images of 36 pixels or more go through the three convolutions of Mnih et al. (2015), smaller ones
    through the one of MinAtar (Young & Tian 2019); then come dense layers (theirs: 512, and 128).

    Args:
        input_shape: (height, width, channels), or (frames, height, width, channels) of stacked frames;
            pixels from 0 to 255, which the model scales itself.
        hidden_sizes: units of each dense layer behind the convolutions.
        output_size: units of the output layer; None leaves it out.
        output_bias: first bias of each output.
        name: of the model.
    """
    *frames, height, width, channels = input_shape
    layers = [keras.Input(input_shape)]
    if frames:  # the frames become channels
        layers.append(keras.layers.Permute((2, 3, 1, 4)))
        layers.append(keras.layers.Reshape((height, width, frames[0] * channels)))
    layers.append(keras.layers.Rescaling(1 / 255))
    kinds = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(height, width) >= 36 else [(16, 3, 1)]
    layers += [keras.layers.Conv2D(*kind, activation="relu") for kind in kinds]
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(size, "relu") for size in hidden_sizes]
    if output_size is not None:
        layers.append(_output_layer(output_size, output_bias))
    return keras.Sequential(layers, name=name)


def lstm(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    output_bias: float = 0.0,
    name: str | None = None,
) -> keras.Sequential:
    """A recurrent network (batch, frames, features) -> (batch, output_size) with a linear output.

    The LSTM reads the frames from the oldest to the newest, from a state of zeros, and the layers behind
    it see its last output (Hausknecht & Stone 2015, "bootstrapped random updates" over a window).

    Args:
        input_shape: (frames, features).
        hidden_sizes: units of the LSTM, and of the dense layers behind it.
        output_size: units of the output layer; None leaves it out.
        output_bias: first bias of each output.
        name: of the model.
    """
    if not hidden_sizes:
        raise UserError(
            "--network lstm needs a size for the LSTM: give --hidden-sizes a number or more, dueling_dqn two"
        )
    lstm_size, *dense_sizes = hidden_sizes
    layers = [keras.Input(input_shape), keras.layers.LSTM(lstm_size, unroll=True)]
    layers += [keras.layers.Dense(size, "relu") for size in dense_sizes]
    if output_size is not None:
        layers.append(_output_layer(output_size, output_bias))
    return keras.Sequential(layers, name=name)


def _output_layer(size: int, bias: float, initializer: keras.Initializer | str = "glorot_uniform"):
    return keras.layers.Dense(
        size, kernel_initializer=initializer, bias_initializer=keras.initializers.Constant(bias)
    )


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": lstm}


def as_array(variable: keras.Variable) -> np.ndarray:
    """The value of a variable, in a quarter of the time of `variable.numpy()`.

    The copies that act read every weight after each update.
    """
    value = variable.value
    return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype).numpy()


def fast_copy(model: keras.Model) -> "NumpyNetwork | CompiledNetwork":
    """The fastest way to act with a model: in NumPy for a stack of Dense layers, else one compiled call."""
    try:
        return NumpyNetwork(model)
    except TypeError:
        return CompiledNetwork(model)


class CompiledNetwork:
    """A model of any layers as one compiled call, with the interface of `NumpyNetwork`.

    It reads the weights of the model itself, so that there is nothing to refresh.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._call = tf.function(lambda inputs: model(inputs), input_signature=[signature])

    def refresh(self) -> None:
        """Do nothing: the weights are the model's own."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the model's outputs (batch, output_size), float32, for inputs (batch, *input_shape)."""
        return self._call(np.asarray(inputs, np.float32)).numpy()


@keras.saving.register_keras_serializable("common")
class GaussianHead(keras.layers.Layer):
    """Means (batch, n) -> means and log standard deviations (batch, 2 n) of a diagonal Gaussian policy.

    The deviation does not depend on the state: `log_std` is a weight of this layer, and so trained and saved
    with the model. Where both bounds of an action are finite, the policy starts in the middle of them, and
    means and deviations are in units of half their range: one set of hyperparameters serves torques of ±0.1
    and of ±100. Nothing is squashed or clipped.

    Args:
        low: lower bounds (n,) of the actions; may be -inf.
        high: upper bounds (n,) of the actions; may be inf.
        initial_log_std: log standard deviation to begin with, in the units above.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], initial_log_std: float = 0.0, **options):
        super().__init__(**options)
        self.low, self.high = [float(x) for x in low], [float(x) for x in high]
        self.initial_log_std = initial_log_std
        low, high = np.array(self.low), np.array(self.high)
        bounded = np.isfinite(low) & np.isfinite(high)
        nearest_to_zero = np.clip(0.0, low, high)
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        self.center = np.where(bounded, (low + high) / 2, nearest_to_zero).astype(np.float32)
        self.scale = ((high - low) / 2).astype(np.float32)

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.initial_log_std)
        self.log_std = self.add_weight(shape=input_shape[1:], initializer=initializer, name="log_std")

    def call(self, inputs):
        """Return the means and, beside them, the log standard deviations."""
        mean = self.center + self.scale * inputs
        log_std = self.log_std + np.log(self.scale)
        return keras.ops.concatenate([mean, keras.ops.broadcast_to(log_std, keras.ops.shape(mean))], axis=-1)

    def numpy_step(self) -> Callable[[np.ndarray], np.ndarray]:
        """The layer as a function of NumPy arrays, with `log_std` as it is."""
        log_std = as_array(self.log_std) + np.log(self.scale)
        size = len(log_std)

        def gaussian_head(x):
            outputs = np.empty((len(x), 2 * size), np.float32)
            np.multiply(x, self.scale, out=outputs[:, :size])
            outputs[:, :size] += self.center
            outputs[:, size:] = log_std
            return outputs

        return gaussian_head

    def get_config(self):
        own = {"low": self.low, "high": self.high, "initial_log_std": self.initial_log_std}
        return super().get_config() | own


def policy_head(action_space: gym.Space, initial_log_std: float = 0.0) -> tuple[int, GaussianHead | None]:
    """Return how many outputs the network of a policy needs for `action_space`, and the layer after them."""
    if isinstance(action_space, gym.spaces.Discrete):
        return int(action_space.n), None
    return action_space.shape[0], GaussianHead(action_space.low, action_space.high, initial_log_std)


class NumpyNetwork:
    """A copy of a stack of Dense layers that answers in about 10 µs, where a Keras model takes 150 to 1,700.

    Acting is one such call per environment step. The copy stays as it is until `refresh()`.

    Args:
        model: a Keras model whose layers form a chain: Dense, Activation, Flatten, Rescaling, layers with
            a method `numpy_step` (the layer as a function of NumPy arrays), or such chains.

    Raises:
        TypeError: for a layer of another kind, or an activation not listed in `ACTIVATIONS`.
    """

    ACTIVATIONS: ClassVar = {
        "linear": lambda x: x,
        "relu": lambda x: np.maximum(x, 0.0, out=x),
        "tanh": lambda x: np.tanh(x, out=x),
    }

    def __init__(self, model: keras.Model):
        self.model = model
        self._steps: list[Callable[[np.ndarray], np.ndarray]] = []
        self.refresh()

    def refresh(self) -> None:
        """Copy the model's weights as they are now."""
        self._steps = [
            self._step(layer) for layer in self.model.layers if not isinstance(layer, keras.layers.InputLayer)
        ]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the model's outputs (batch, output_size), float32, for inputs (batch, *input_shape)."""
        x = inputs.astype(np.float32, copy=False)
        for step in self._steps:
            x = step(x)
        return x

    def _step(self, layer: keras.Layer) -> Callable[[np.ndarray], np.ndarray]:
        if isinstance(layer, keras.Sequential):
            return NumpyNetwork(layer)
        if hasattr(layer, "numpy_step"):
            return layer.numpy_step()
        if isinstance(layer, keras.layers.Flatten):
            return lambda x: x.reshape(len(x), -1)
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = np.float32(layer.scale), np.float32(layer.offset)
            return lambda x: x * scale + offset
        if isinstance(layer, keras.layers.Activation) and layer.activation.__name__ in self.ACTIVATIONS:
            return self.ACTIVATIONS[layer.activation.__name__]
        if isinstance(layer, keras.layers.Dense) and layer.activation.__name__ in self.ACTIVATIONS:
            kernel, bias = as_array(layer.kernel), as_array(layer.bias)
            activation = self.ACTIVATIONS[layer.activation.__name__]

            def dense(x):
                x = x.dot(kernel)  # a third of the time of x @ kernel, for one row
                x += bias
                return activation(x)

            return dense
        raise TypeError(
            f"NumpyNetwork cannot copy {layer}: it knows Dense and Activation (linear, relu, tanh), Flatten"
            " and Rescaling"
        )


class NumpyPolicy:
    """Acts with a NumPy copy of an actor: Gaussian if its last layer is a `GaussianHead`, else Categorical.

    The actor's outputs are means and log standard deviations (batch, 2 n), or logits (batch, n). Noise is
    drawn apart from the actions, because one call for a whole rollout costs as much as one for a step.

    Args:
        actor: a Keras model that `NumpyNetwork` can copy.
    """

    def __init__(self, actor: keras.Model):
        self.actor = NumpyNetwork(actor)
        head = actor.layers[-1]
        self.discrete = not isinstance(head, GaussianHead)
        self.size = actor.output_shape[-1] if self.discrete else len(head.low)
        if not self.discrete:
            self.low, self.high = np.array(head.low, np.float32), np.array(head.high, np.float32)

    def refresh(self) -> None:
        """Copy the actor's weights as they are now."""
        self.actor.refresh()

    def noise(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Draw noise (*shape, size): what makes an action a sample, Gumbel or normal."""
        if self.discrete:
            return rng.gumbel(size=(*shape, self.size))
        return rng.standard_normal((*shape, self.size), np.float32)

    def sample(self, observations: np.ndarray, noise: np.ndarray | float) -> np.ndarray:
        """Return actions for observations (batch, ...), unclipped; without noise (0) the likeliest ones."""
        outputs = self.actor(observations)
        if self.discrete:
            return (outputs + noise).argmax(axis=-1)  # the Gumbel-max trick
        return outputs[:, : self.size] + np.exp(outputs[:, self.size :]) * noise

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Return actions within the bounds of their space, as the environment must get them."""
        return actions if self.discrete else np.minimum(np.maximum(actions, self.low), self.high)

    def best(self, observations: np.ndarray) -> np.ndarray:
        """Return the likeliest actions within the bounds."""
        return self.clip(self.sample(observations, 0.0))

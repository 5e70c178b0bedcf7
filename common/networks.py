"""Networks: Keras builders, and the forward pass that acts, in NumPy or as one compiled call."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from common.errors import UserError
from common.quiet import without_chatter
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
        name: of the model.
    """
    layers = [keras.Input(input_shape)]
    if len(input_shape) > 1 or output_size is None:  # without an output there must be some layer
        layers.append(keras.layers.Flatten())
    layers += [
        keras.layers.Dense(size, activation, kernel_initializer=initializer()) for size in hidden_sizes
    ]
    if output_size is None:
        return keras.Sequential(layers, name=name)
    layers.append(keras.layers.Dense(output_size, kernel_initializer=(output_initializer or initializer)()))
    model = keras.Sequential(layers, name=name)
    kernel = model.layers[-1].kernel
    kernel.assign(output_scale * kernel)
    return model


def cnn(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
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
        layers.append(keras.layers.Dense(output_size))
    return keras.Sequential(layers, name=name)


def lstm(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    name: str | None = None,
) -> keras.Sequential:
    """A recurrent network (batch, frames, features) -> (batch, output_size) with a linear output.

    The LSTM reads the frames from the oldest to the newest, from a state of zeros, and the layers behind
    it see its last output (Hausknecht & Stone 2015, "bootstrapped random updates" over a window).

    Args:
        input_shape: (frames, features).
        hidden_sizes: units of the LSTM, and of the dense layers behind it.
        output_size: units of the output layer; None leaves it out.
        name: of the model.
    """
    if not hidden_sizes:
        raise UserError("--network lstm needs a size for the LSTM: give --hidden-sizes one number or more")
    lstm_size, *dense_sizes = hidden_sizes
    layers = [keras.Input(input_shape), keras.layers.LSTM(lstm_size, unroll=True)]
    layers += [keras.layers.Dense(size, "relu") for size in dense_sizes]
    if output_size is not None:
        layers.append(keras.layers.Dense(output_size))
    return keras.Sequential(layers, name=name)


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": lstm}


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


class NumpyNetwork:
    """A copy of a stack of Dense layers that answers in about 10 µs, where a Keras model takes 150 to 1,700.

    Acting is one such call per environment step. The copy stays as it is until `refresh()`.

    Args:
        model: a Keras model whose layers form a chain of Dense, Activation, Flatten and Rescaling, or of such.

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
        x = inputs
        for step in self._steps:
            x = step(x)
        return x

    def _step(self, layer: keras.Layer) -> Callable[[np.ndarray], np.ndarray]:
        if isinstance(layer, keras.Sequential):
            return NumpyNetwork(layer)
        if isinstance(layer, keras.layers.Flatten):
            return lambda x: x.reshape(len(x), -1)
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = np.float32(layer.scale), np.float32(layer.offset)
            return lambda x: x * scale + offset
        if isinstance(layer, keras.layers.Activation) and layer.activation.__name__ in self.ACTIVATIONS:
            return self.ACTIVATIONS[layer.activation.__name__]
        if isinstance(layer, keras.layers.Dense) and layer.activation.__name__ in self.ACTIVATIONS:
            kernel, bias = (variable.value.numpy() for variable in (layer.kernel, layer.bias))
            activation = self.ACTIVATIONS[layer.activation.__name__]

            def dense(x):
                x = x.astype(np.float32, copy=False) @ kernel
                x += bias
                return activation(x)

            return dense
        raise TypeError(
            f"NumpyNetwork cannot copy {layer}: it knows Dense and Activation (linear, relu, tanh), Flatten"
            " and Rescaling"
        )

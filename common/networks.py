"""Networks: Keras builders, and the NumPy forward pass that acts with a copy of their weights."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from common.quiet import without_chatter
import numpy as np

with without_chatter():
    import keras


def mlp(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int,
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
        output_size: units of the output layer.
        activation: of the hidden layers, by its Keras name.
        initializer: makes the initializer of a layer's kernel; called once a layer, because one Keras
            initializer shared between layers gives them equal weights.
        output_initializer: the same for the output layer; `initializer` if None.
        output_scale: factor on the output layer's first weights (0.01 makes a policy start near uniform).
        name: of the model.
    """
    layers = [keras.Input(input_shape)]
    if len(input_shape) > 1:
        layers.append(keras.layers.Flatten())
    layers += [
        keras.layers.Dense(size, activation, kernel_initializer=initializer()) for size in hidden_sizes
    ]
    layers.append(keras.layers.Dense(output_size, kernel_initializer=(output_initializer or initializer)()))
    model = keras.Sequential(layers, name=name)
    kernel = model.layers[-1].kernel
    kernel.assign(output_scale * kernel)
    return model


class NumpyNetwork:
    """A copy of a stack of Dense layers that answers in about 10 µs, where a Keras model takes 150 to 1,700.

    Acting is one such call per environment step. The copy stays as it is until `refresh()`.

    Args:
        model: a Keras model whose layers form a chain of Dense, Activation, Flatten and Rescaling layers.

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

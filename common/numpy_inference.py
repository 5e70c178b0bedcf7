"""Forward passes for acting: in NumPy for stacks of Dense layers, compiled for all other networks."""

from collections.abc import Callable
from typing import ClassVar

from common.quiet import importing
import numpy as np

with importing():
    import keras
    import tensorflow as tf


def as_array(variable: keras.Variable) -> np.ndarray:
    """Return the value of a variable, in a quarter of the time of `variable.numpy()`."""
    value = variable.value
    return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype).numpy()


def fast_copy(model: keras.Model) -> "NumpyNetwork | CompiledNetwork":
    """Return the fastest way to act with a model: NumPy if all layers allow it, else a compiled call."""
    try:
        return NumpyNetwork(model)
    except TypeError:
        return CompiledNetwork(model)


class CompiledNetwork:
    """A model of any layers as one compiled call, with the interface of `NumpyNetwork`.

    Pixels are handed over as they are, uint8: the model converts them.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._calls: dict[tf.DType, Callable[[tf.Tensor], tf.Tensor]] = {}  # by dtype of the inputs

    def refresh(self) -> None:
        """Do nothing: the weights are the model's own."""

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs (batch, output_size), float32, for inputs (batch, *input_shape)."""
        dtype = tf.uint8 if inputs.dtype == np.uint8 else tf.float32
        if dtype not in self._calls:
            signature = tf.TensorSpec((None, *self._model.input_shape[1:]), dtype)
            call = tf.function(lambda inputs: self._model(inputs), input_signature=[signature])
            self._calls[dtype] = call.get_concrete_function()  # TensorFlow warns if a call traces too often
        return self._calls[dtype](tf.constant(inputs, dtype)).numpy()


class NumpyNetwork:
    """A copy of a stack of Dense layers that takes about 10 µs a call; a Keras model takes 150 to 1,700.

    Acting is one such call per environment step. The weights are copied at the first call, and again at the
    first call after `refresh()`.

    Args:
        model: a Keras model whose layers form a chain of Dense, Activation, Flatten, Rescaling, and
            BatchNormalization without `center` and `scale`, or of such chains.

    Raises:
        TypeError: for another layer, an activation that is not in `ACTIVATIONS`, or layers that are not used
            one after the other.
    """

    ACTIVATIONS: ClassVar = {
        "linear": lambda x: x,
        "relu": lambda x: np.maximum(x, 0.0, out=x),
        "tanh": lambda x: np.tanh(x, out=x),
    }

    def __init__(self, model: keras.Model):
        self._layers = _chain(model)
        self._steps: list[Callable[[np.ndarray], np.ndarray]] = []
        inputs = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype(np.float32)
        if not np.allclose(self(inputs), model(inputs), rtol=1e-3, atol=1e-5, equal_nan=True):
            raise TypeError(f"NumpyNetwork cannot copy {model}: its layers are not a chain")
        self.refresh()

    def refresh(self) -> None:
        """Copy the model's weights again before the next call."""
        self._steps = []

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs (batch, output_size), float32, for inputs (batch, *input_shape)."""
        if not self._steps:
            self._copy_weights()
        x = inputs.astype(np.float32, copy=False)
        for step in self._steps:
            x = step(x)
        return x

    def _copy_weights(self) -> None:
        self._steps = [self._step(layer) for layer in self._layers]

    def _step(self, layer: keras.Layer) -> Callable[[np.ndarray], np.ndarray]:
        if isinstance(layer, keras.layers.Flatten):
            return lambda x: x.reshape(len(x), -1)
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = np.float32(layer.scale), np.float32(layer.offset)
            return lambda x: x * scale + offset
        if isinstance(layer, keras.layers.BatchNormalization) and not (layer.center or layer.scale):
            mean, variance = as_array(layer.moving_mean), as_array(layer.moving_variance)
            inverse_std = np.float32(1.0) / np.sqrt(variance + np.float32(layer.epsilon))
            return lambda x: (x - mean) * inverse_std
        name = getattr(getattr(layer, "activation", None), "__name__", "")
        activation = self.ACTIVATIONS.get(name)
        if isinstance(layer, keras.layers.Activation) and activation:
            return lambda x: activation(x.copy())  # x may be the caller's
        if isinstance(layer, keras.layers.Dense) and layer.use_bias and activation:
            kernel, bias = as_array(layer.kernel), as_array(layer.bias)

            def dense(x):
                x = x.dot(kernel)  # for one row, three times as fast as x @ kernel
                x += bias
                return activation(x)

            return dense
        raise TypeError(
            f"NumpyNetwork cannot copy {layer}: it knows Dense with bias and Activation (linear, relu, tanh),"
            " Flatten, Rescaling, and BatchNormalization without center and scale"
        )


def _chain(model: keras.Model) -> list[keras.Layer]:
    """Return the layers of a model, those of nested chains in their place.

    Raises:
        TypeError: if the model has operations that are not layers, so that it is more than a chain.
    """
    layers = []
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, keras.Sequential):
            layers += _chain(operation)
        elif not isinstance(operation, keras.Layer):
            raise TypeError(f"NumpyNetwork cannot copy {operation}: it knows chains of layers only")
        elif not isinstance(operation, keras.layers.InputLayer):
            layers.append(operation)
    return layers

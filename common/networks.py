"""Keras builders: a multi-layer perceptron, a convolutional network, and an LSTM."""

from collections.abc import Callable, Sequence
import functools
import math

from common.errors import UserError
from common.quiet import importing

with importing():
    import keras


def mlp(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    orthogonal_weights: bool = False,
    name: str | None = None,
) -> keras.Sequential:
    """Build a perceptron (batch, *input_shape) -> (batch, output_size): ReLU layers, then a linear output.

    Args:
        input_shape: shape of one input; it is flattened if it has more than one axis.
        hidden_sizes: units of each hidden layer; () makes the network linear.
        output_size: units of the output layer; None leaves it out.
        orthogonal_weights: start with orthogonal weights, as those of `cnn`, not with Keras' default.
        name: name of the model.
    """
    weights = orthogonal if orthogonal_weights else lambda gain: {}
    layers = [keras.Input(input_shape)]
    if len(input_shape) > 1 or output_size is None:  # without an output layer there must be some layer
        layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(size, "relu", **weights(math.sqrt(2.0))) for size in hidden_sizes]
    if output_size is not None:
        layers.append(keras.layers.Dense(output_size, **weights(1.0)))
    return keras.Sequential(layers, name=name)


def tanh_mlp(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    output_gain: float = 1.0,
    first_layers: Sequence[keras.Layer] = (),
    last_layers: Sequence[keras.Layer] = (),
    name: str | None = None,
) -> keras.Sequential:
    """Build a perceptron of tanh layers with orthogonal initial weights, as policy-gradient papers use it.

    The gain of the hidden layers is √2 (detail 2 of Huang et al. 2022, "The 37 Implementation Details of
    PPO").

    Args:
        input_shape: shape of one input; it is flattened if it has more than one axis.
        hidden_sizes: units of each hidden layer.
        output_size: units of the linear output layer; None leaves it out.
        output_gain: gain of the output layer; 0.01 makes a policy start close to uniform.
        first_layers: layers before all others, such as a normalization; networks may share them.
        last_layers: layers after the linear output, such as a rescaling to the range of the actions.
        name: name of the model.
    """
    layers = [keras.Input(input_shape), *first_layers]
    if len(input_shape) > 1 or output_size is None:  # without an output layer there must be some layer
        layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(size, "tanh", **orthogonal(math.sqrt(2.0))) for size in hidden_sizes]
    if output_size is not None:
        layers.append(keras.layers.Dense(output_size, **orthogonal(output_gain)))
    return keras.Sequential([*layers, *last_layers], name=name)


def orthogonal(gain: float) -> dict[str, keras.Initializer]:
    """Return the option of a layer that makes its initial weights orthogonal."""
    return {"kernel_initializer": keras.initializers.Orthogonal(gain)}


def cnn(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    output_gain: float = 1.0,
    first_layers: Sequence[keras.Layer] = (),
    last_layers: Sequence[keras.Layer] = (),
    name: str | None = None,
) -> keras.Sequential:
    """Build a convolutional network (batch, *input_shape) -> (batch, output_size) with a linear output.

    Images of at least 36 pixels go through the three convolutions of Mnih et al. (2015), smaller ones
    through the single one of MinAtar (Young & Tian 2019). Dense layers follow (512 units there, 128 here).
    The weights start as those of `tanh_mlp`. With Keras' default, they are so small that a frame hardly
    changes the output, and on Pong, Adam can switch nearly all units off before Q depends on the state.

    Args:
        input_shape: (height, width, channels), or (frames, height, width, channels) for stacked frames;
            pixels from 0 to 255, which the model scales itself.
        hidden_sizes: units of each dense layer after the convolutions.
        output_size: units of the output layer; None leaves it out.
        output_gain, first_layers, last_layers: as for `tanh_mlp`.
        name: name of the model.

    Raises:
        UserError: for images that are too small for a convolution.
    """
    *frames, height, width, channels = input_shape
    if min(height, width) < 3:
        raise UserError(
            f"--network cnn needs images of 3 × 3 pixels or more, and these have {height} × {width}"
        )

    layers = [keras.Input(input_shape), *first_layers]
    if frames:  # the frames become channels
        layers.append(keras.layers.Permute((2, 3, 1, 4)))
        layers.append(keras.layers.Reshape((height, width, frames[0] * channels)))
    layers.append(keras.layers.Rescaling(1 / 255))
    kinds = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(height, width) >= 36 else [(16, 3, 1)]
    layers += [keras.layers.Conv2D(*kind, activation="relu", **orthogonal(math.sqrt(2.0))) for kind in kinds]
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(size, "relu", **orthogonal(math.sqrt(2.0))) for size in hidden_sizes]
    if output_size is not None:
        layers.append(keras.layers.Dense(output_size, **orthogonal(output_gain)))
    return keras.Sequential([*layers, *last_layers], name=name)


def lstm(
    input_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    output_size: int | None,
    *,
    name: str | None = None,
) -> keras.Sequential:
    """Build a recurrent network (batch, frames, features) -> (batch, output_size) with a linear output.

    The LSTM starts from a zero state and reads the frames from the oldest to the newest; the layers after
    it see its last output (Hausknecht & Stone 2015, "bootstrapped random updates" over a window).

    Args:
        input_shape: (frames, features).
        hidden_sizes: units of the LSTM, then of each dense layer after it.
        output_size: units of the output layer; None leaves it out.
        name: name of the model.

    Raises:
        UserError: if `hidden_sizes` is empty.
    """
    if not hidden_sizes:
        raise UserError("--network lstm needs a size for the LSTM: give --hidden-sizes one more number")
    lstm_size, *dense_sizes = hidden_sizes
    layers = [keras.Input(input_shape), keras.layers.LSTM(lstm_size, unroll=True)]
    layers += [keras.layers.Dense(size, "relu") for size in dense_sizes]
    if output_size is not None:
        layers.append(keras.layers.Dense(output_size))
    return keras.Sequential(layers, name=name)


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": lstm}


def orthogonal_network(
    network: str, first_layers: Sequence[keras.Layer] = ()
) -> Callable[..., keras.Sequential]:
    """Return the builder that policy-gradient scripts use for a kind of network: `tanh_mlp` or `cnn`."""
    return functools.partial(cnn if network == "cnn" else tanh_mlp, first_layers=first_layers)


def chain(first: keras.Sequential, second: keras.Sequential, *, name: str | None = None) -> keras.Sequential:
    """Return the network that applies one network after another. It has the layers of both, not copies."""
    layers = [*first.layers, *second.layers]
    return keras.Sequential([keras.Input(first.input_shape[1:]), *layers], name=name)


def copy_network(network: keras.Model) -> keras.Model:
    """Return a network of the same architecture with the same weights."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy

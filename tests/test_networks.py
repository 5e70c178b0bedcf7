"""The network builders."""

import math

from common.errors import UserError
from common.networks import chain, cnn, copy_network, lstm, mlp, orthogonal_network, tanh_mlp
import keras
import numpy as np
import pytest


@pytest.mark.parametrize(("input_shape", "hidden_sizes"), [((4,), (120, 84)), ((3, 2), (32,)), ((5,), ())])
def test_mlp_is_relu_layers_and_a_linear_output(input_shape, hidden_sizes):
    model = mlp(input_shape, hidden_sizes, 3, name="q_network")
    inputs = np.random.default_rng(0).normal(size=(8, *input_shape)).astype(np.float32)
    x, weights = inputs.reshape(8, -1), model.get_weights()
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
        x = np.maximum(x @ kernel + bias, 0.0)
    np.testing.assert_allclose(model(inputs), x @ weights[-2] + weights[-1], atol=1e-5)
    assert [kernel.shape[1] for kernel in weights[::2]] == [*hidden_sizes, 3]
    assert model.name == "q_network"


def test_mlp_without_an_output_layer():
    assert mlp((4,), (8, 6), None).output_shape == (None, 6)
    assert mlp((3, 2), (), None).output_shape == (None, 6)


@pytest.mark.parametrize("gain", [0.01, 1.0])
def test_tanh_mlp_is_orthogonal(gain):
    """Wᵀ W = gain² I, with the gain √2 in the hidden layers."""
    model = tanh_mlp((20,), (10, 8), 3, output_gain=gain)
    kernels, biases = model.get_weights()[::2], model.get_weights()[1::2]
    for kernel, expected in zip(kernels, (math.sqrt(2.0), math.sqrt(2.0), gain)):
        identity = np.eye(kernel.shape[1])
        np.testing.assert_allclose(kernel.T @ kernel, expected**2 * identity, atol=1e-5 * expected**2)
    assert not any(bias.any() for bias in biases)
    inputs = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    expected = np.tanh(np.tanh(inputs @ kernels[0]) @ kernels[1]) @ kernels[2]
    np.testing.assert_allclose(model(inputs), expected, rtol=1e-4, atol=1e-5)


def test_tanh_mlp_has_first_and_last_layers():
    first, last = keras.layers.Rescaling(2.0), keras.layers.Rescaling(3.0, 1.0)
    model = tanh_mlp((2, 3), (8,), 2, first_layers=[first], last_layers=[last])
    other = tanh_mlp((2, 3), (8,), 2, first_layers=[first])
    assert model.layers[0] is other.layers[0] is first and model.layers[-1] is last
    kernel, bias, out_kernel, out_bias = model.get_weights()
    inputs = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    outputs = np.tanh(2.0 * inputs.reshape(5, 6) @ kernel + bias) @ out_kernel + out_bias
    np.testing.assert_allclose(model(inputs), 3.0 * outputs + 1.0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("build", "shape"), [(mlp, (4,)), (tanh_mlp, (4,)), (cnn, (3, 3, 1))])
def test_layers_do_not_share_an_initializer(build, shape):
    kernels = build(shape, (4, 4, 4), 4).get_weights()[-6::2]
    ratios = [kernels[1] / kernels[0], kernels[2] / kernels[1]]
    assert not any(np.allclose(ratio, ratio[0, 0]) for ratio in ratios)


def test_a_copied_network_has_weights_of_its_own():
    network = mlp((4,), (8,), 2)
    network.add(keras.layers.Rescaling([2.0, 3.0]))
    copy, inputs = copy_network(network), np.ones((1, 4), np.float32)
    before = network(inputs).numpy()
    np.testing.assert_array_equal(copy(inputs), before)
    network.set_weights([weights + 1.0 for weights in network.get_weights()])
    np.testing.assert_array_equal(copy(inputs), before)


@pytest.mark.parametrize(
    ("shape", "kernels"),
    [
        ((84, 84, 4), [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)]),
        ((4, 84, 84, 1), [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)]),
        ((4, 84, 84, 3), [(8, 8, 12, 32), (4, 4, 32, 64), (3, 3, 64, 64)]),
        ((10, 10, 6), [(3, 3, 6, 16)]),
    ],
)
def test_cnn_has_the_layers_of_the_papers(shape, kernels):
    model = cnn(shape, (512,), 5)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [tuple(layer.kernel.shape) for layer in convolutions] == kernels
    assert [layer.strides for layer in convolutions] == (
        [(4, 4), (2, 2), (1, 1)] if shape[0] != 10 else [(1, 1)]
    )
    assert model.output_shape == (None, 5)
    assert cnn(shape, (512,), None).output_shape == (None, 512)


@pytest.mark.parametrize("build", [cnn, orthogonal_network("cnn")])
def test_cnn_is_orthogonal(build):
    """Wᵀ W = gain² I, with the gain √2 in the hidden layers."""
    last = keras.layers.Rescaling(2.0)
    model = build((10, 10, 4), (32,), 3, output_gain=0.01, last_layers=[last])
    kernels, biases = model.get_weights()[::2], model.get_weights()[1::2]
    assert [kernel.shape for kernel in kernels] == [(3, 3, 4, 16), (1024, 32), (32, 3)]
    for kernel, gain in zip(kernels, (math.sqrt(2.0), math.sqrt(2.0), 0.01)):
        kernel = kernel.reshape(-1, kernel.shape[-1])
        identity = np.eye(kernel.shape[1])
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * identity, atol=1e-5 * gain**2)
    assert not any(bias.any() for bias in biases) and model.layers[-1] is last


def test_orthogonal_networks_have_their_first_layers():
    first = keras.layers.Rescaling(2.0)
    model = orthogonal_network("mlp", [first])((3,), (4,), 2)
    assert model.layers[0] is first and model.layers[1].activation.__name__ == "tanh"
    trunk = orthogonal_network("mlp", [first])((2, 3), (), None)
    np.testing.assert_array_equal(trunk(np.ones((1, 2, 3), np.float32)), np.full((1, 6), 2.0))


def test_a_chain_has_the_layers_of_both_networks():
    first, second = cnn((10, 10, 4), (8,), None), tanh_mlp((8,), (), 2)
    images = np.random.default_rng(0).integers(256, size=(3, 10, 10, 4)).astype(np.uint8)
    both = chain(first, second, name="both")
    np.testing.assert_allclose(both(images), second(first(images)), rtol=1e-5)
    first.layers[-1].bias.assign_add(np.ones(8, np.float32))
    np.testing.assert_allclose(both(images), second(first(images)), rtol=1e-5)
    assert both.name == "both" and both.input_shape == first.input_shape


def test_cnn_needs_three_pixels():
    with pytest.raises(UserError, match="3 × 3 pixels or more, and these have 2 × 5"):
        cnn((2, 5, 3), (8,), 3)


def test_cnn_stacks_frames_as_channels_and_scales_bytes():
    frames = np.random.default_rng(0).integers(256, size=(2, 4, 10, 10, 1)).astype(np.uint8)
    stacked, together = cnn((4, 10, 10, 1), (8,), 3), cnn((10, 10, 4), (8,), 3)
    together.set_weights(stacked.get_weights())
    np.testing.assert_allclose(stacked(frames), together(np.moveaxis(frames[..., 0], 1, -1)), atol=1e-6)
    kernel, bias = together.layers[1].weights
    pixel = frames[0, :, 0:3, 0:3, 0].transpose(1, 2, 0) / 255
    first = keras.Model(together.inputs[0], together.layers[1].output)(np.moveaxis(frames[..., 0], 1, -1))
    expected = np.maximum((pixel[..., None] * kernel.numpy()).sum(axis=(0, 1, 2)) + bias.numpy(), 0)
    np.testing.assert_allclose(first[0, 0, 0], expected, atol=1e-5)


def test_lstm_reads_the_frames_in_order():
    """Its equations (Hochreiter & Schmidhuber 1997, with a forget gate), one frame after another."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    model = lstm((5, 3), (8,), 2)
    inputs = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    kernel, recurrent, bias, out_kernel, out_bias = model.get_weights()
    hidden = cell = np.zeros((4, 8))
    for frame in range(5):
        into, forget, new, out = np.split(inputs[:, frame] @ kernel + hidden @ recurrent + bias, 4, axis=1)
        cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(cell)
    np.testing.assert_allclose(model(inputs), hidden @ out_kernel + out_bias, atol=1e-5)
    with pytest.raises(UserError, match="--hidden-sizes"):
        lstm((5, 3), (), 2)

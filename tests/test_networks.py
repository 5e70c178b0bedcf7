"""The network builders, and the NumPy copies that act."""

from common.errors import UserError
from common.networks import NETWORKS, CompiledNetwork, GaussianHead, NumpyNetwork, cnn, fast_copy, lstm, mlp
import gymnasium as gym
import keras
import numpy as np
import pytest


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("input_shape", "hidden_sizes"), [((4,), (120, 84)), ((3, 2), (32,)), ((5,), ())])
def test_numpy_copy_equals_the_keras_model(activation, input_shape, hidden_sizes):
    model = mlp(input_shape, hidden_sizes, 3, activation=activation)
    copy = NumpyNetwork(model)
    inputs = np.random.default_rng(0).normal(size=(8, *input_shape)).astype(np.float32)
    before = inputs.copy()
    np.testing.assert_allclose(copy(inputs), model(inputs), atol=1e-6)
    np.testing.assert_array_equal(inputs, before)  # it works in place, but not in the caller's array


def test_numpy_copy_changes_at_refresh_and_not_before():
    model = mlp((4,), (8,), 2)
    copy, inputs = NumpyNetwork(model), np.ones((1, 4), np.float32)
    first = copy(inputs)
    model.set_weights([weights + 1.0 for weights in model.get_weights()])
    np.testing.assert_array_equal(copy(inputs), first)
    copy.refresh()
    np.testing.assert_allclose(copy(inputs), model(inputs), rtol=1e-6)


def test_numpy_copy_scales_integer_observations_as_the_model_does():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(1 / 255), keras.layers.Dense(2)])
    inputs = np.array([[0, 10, 128, 255]], np.uint8)
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), atol=1e-6)


def test_numpy_copy_refuses_layers_it_does_not_know():
    with pytest.raises(TypeError, match="LayerNormalization"):
        NumpyNetwork(keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization()]))
    with pytest.raises(TypeError, match="NumpyNetwork cannot copy"):
        NumpyNetwork(mlp((4,), (8,), 2, activation="gelu"))


def test_layers_do_not_share_an_initializer():
    model = mlp((4,), (4, 4), 4)
    kernels = [layer.kernel.numpy() for layer in model.layers]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])


def test_output_scale_scales_the_first_outputs():
    keras.utils.set_random_seed(1)
    full = mlp((4,), (8,), 2)
    keras.utils.set_random_seed(1)
    small = mlp((4,), (8,), 2, output_scale=0.01)
    inputs = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(small(inputs), 0.01 * full(inputs), rtol=1e-5)


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


@pytest.mark.parametrize("network", NETWORKS)
def test_acting_equals_the_model_and_follows_it(network):
    shape = {"mlp": (4,), "cnn": (2, 10, 10, 3), "lstm": (6, 4)}[network]
    model = NETWORKS[network](shape, (16, 8), 3)
    fast = fast_copy(model)
    assert isinstance(fast, NumpyNetwork) == (network == "mlp")
    for batch in (1, 5):
        inputs = np.random.default_rng(batch).integers(256, size=(batch, *shape)).astype(np.uint8)
        np.testing.assert_allclose(fast(inputs), model(inputs.astype(np.float32)), rtol=1e-4, atol=1e-5)
    model.set_weights([weights + 0.1 for weights in model.get_weights()])
    fast.refresh()
    np.testing.assert_allclose(fast(inputs), model(inputs.astype(np.float32)), rtol=1e-4, atol=1e-5)


def test_compiled_acting_traces_once():
    fast = CompiledNetwork(lstm((6, 4), (8,), 3))
    for batch in (1, 16, 7, 1):
        fast(np.zeros((batch, 6, 4), np.float32))
    assert fast._call.experimental_get_tracing_count() == 1


def test_numpy_copy_of_a_chain_in_a_chain():
    inner = mlp((8,), (6,), 2)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), inner])
    inputs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), atol=1e-6)


def test_gaussian_head_is_in_units_of_the_bounds(tmp_path):
    low, high = [-1.0, 2.0, -np.inf, 3.0], [3.0, 10.0, np.inf, np.inf]
    model = mlp((4,), (8,), 4, output_scale=0.0, head=GaussianHead(low, high, initial_log_std=-1.0))
    inputs = np.ones((2, 4), np.float32)
    mean, log_std = np.split(model(inputs).numpy(), 2, axis=-1)
    np.testing.assert_allclose(mean, [[1.0, 6.0, 0.0, 3.0]] * 2)  # the middle, or the nearest to 0
    np.testing.assert_allclose(np.exp(log_std + 1.0), [[2.0, 4.0, 1.0, 1.0]] * 2, rtol=1e-6)
    for weights in model.trainable_variables:
        weights.assign(weights + np.linspace(0.1, 0.5, np.prod(weights.shape)).reshape(weights.shape))
    assert any("log_std" in weights.name for weights in model.trainable_variables)
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))


@pytest.mark.parametrize("name", ["dqn", "double_dqn", "dueling_dqn"])
@pytest.mark.parametrize(("network", "shape"), [("mlp", (4,)), ("cnn", (10, 10, 4)), ("lstm", (3, 4))])
def test_q_begins_at_the_initial_value(module, name, network, shape):
    """In a state of zeros, where the bias alone is left; the target network begins there too."""
    config = module(name).Config(network=network, hidden_sizes=(8, 8), initial_value=7.0)
    agent = module(name).Agent(gym.spaces.Box(0, 1, shape), gym.spaces.Discrete(3), config)
    for q_network in (agent.q_network, agent.target_network):
        np.testing.assert_allclose(q_network(np.zeros((2, *shape))), np.full((2, 3), 7.0), rtol=1e-6)

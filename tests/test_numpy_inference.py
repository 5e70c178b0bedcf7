"""Acting in NumPy or in a compiled call, against the Keras model."""

from unittest.mock import Mock

from common.networks import NETWORKS, lstm, mlp, tanh_mlp
from common.numpy_inference import CompiledNetwork, NumpyNetwork, as_array, fast_copy
import keras
import numpy as np
import pytest


@pytest.mark.parametrize("build", [mlp, tanh_mlp])
@pytest.mark.parametrize(("input_shape", "hidden_sizes"), [((4,), (120, 84)), ((3, 2), (32,)), ((5,), ())])
def test_numpy_copy_equals_the_keras_model(build, input_shape, hidden_sizes):
    model = build(input_shape, hidden_sizes, 3)
    copy = NumpyNetwork(model)
    inputs = np.random.default_rng(0).normal(size=(8, *input_shape)).astype(np.float32)
    before = inputs.copy()
    np.testing.assert_allclose(copy(inputs), model(inputs), atol=1e-6)
    np.testing.assert_array_equal(inputs, before)  # it works in place, but not in the caller's array


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Activation("tanh"),
        keras.layers.Activation("relu"),
        keras.layers.Rescaling([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]),
        keras.layers.Flatten(),
    ],
)
def test_numpy_copy_of_layers_without_weights(layer):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(2.0), layer])
    inputs = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    before = inputs.copy()
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), atol=1e-6)
    np.testing.assert_array_equal(inputs, before)


def test_numpy_copy_of_batch_normalization():
    layer = keras.layers.BatchNormalization(center=False, scale=False, epsilon=0.5, trainable=False)
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    layer.moving_variance.assign([4.0, 0.0, 1.0])
    inputs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), atol=1e-6)
    with pytest.raises(TypeError, match="BatchNormalization without center and scale"):
        NumpyNetwork(keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()]))


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


def test_numpy_copy_has_the_weights_of_its_first_call():
    """A resumed run restores the weights after the copy is made."""
    model = mlp((4,), (8,), 2)
    copy, inputs = NumpyNetwork(model), np.ones((1, 4), np.float32)
    model.set_weights([weights + 1.0 for weights in model.get_weights()])
    np.testing.assert_allclose(copy(inputs), model(inputs), rtol=1e-6)


def test_numpy_copy_is_not_the_weights_themselves():
    variable = keras.Variable(np.ones(3, np.float32))
    array = as_array(variable)
    variable.assign_add(np.ones(3, np.float32))
    np.testing.assert_array_equal(array, np.ones(3))
    np.testing.assert_array_equal(as_array(variable), variable.numpy())


def test_numpy_copy_refuses_layers_it_does_not_know():
    with pytest.raises(TypeError, match="LayerNormalization"):
        NumpyNetwork(keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization()]))
    with pytest.raises(TypeError, match="NumpyNetwork cannot copy"):
        NumpyNetwork(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "gelu")]))


def test_numpy_copy_refuses_a_model_that_is_no_chain():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2)(inputs) + 1.0
    with pytest.raises(TypeError, match="chains of layers only"):
        NumpyNetwork(keras.Model(inputs, outputs))


def test_numpy_copy_refuses_a_chain_that_uses_a_layer_twice():
    """The layers of a model are listed once, however often they are used."""
    inputs, tanh, dense = keras.Input((4,)), keras.layers.Activation("tanh"), keras.layers.Dense(4)
    twice = keras.Model(inputs, dense(tanh(keras.layers.Dense(4)(tanh(inputs)))))
    with pytest.raises(TypeError, match="not a chain"):
        NumpyNetwork(twice)
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(fast_copy(twice)(x), twice(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_acting_leaves_the_observations_as_they_are(activation):
    layers = [keras.Input((4,)), keras.layers.Activation(activation), keras.layers.Dense(2)]
    copy = fast_copy(keras.Sequential(layers))
    assert isinstance(copy, NumpyNetwork)
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    before = x.copy()
    copy(x)
    np.testing.assert_array_equal(x, before)


def test_a_dense_layer_without_bias_is_compiled():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(fast_copy(model)(x), model(x), rtol=1e-5)


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
    model = Mock(wraps=lstm((6, 4), (8,), 3), input_shape=(None, 6, 4))
    fast = CompiledNetwork(model)
    for batch in (1, 16, 7, 1):
        assert fast(np.zeros((batch, 6, 4), np.float32)).shape == (batch, 3)
    assert model.call_count == 1


def test_compiled_acting_takes_pixels_as_they_are():
    """One trace for uint8, one for float32."""
    network = NETWORKS["cnn"]((10, 10, 4), (8,), 3)
    model = Mock(wraps=network, input_shape=(None, 10, 10, 4))
    fast = CompiledNetwork(model)
    images = np.random.default_rng(0).integers(256, size=(5, 10, 10, 4)).astype(np.uint8)
    for inputs in (images, images[:2], images.astype(np.float32)):
        np.testing.assert_allclose(fast(inputs), network(inputs), rtol=1e-4, atol=1e-5)
    assert [call.args[0].dtype for call in model.call_args_list] == ["uint8", "float32"]


def test_numpy_copy_of_a_chain_in_a_chain():
    inner = mlp((8,), (6,), 2)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), inner])
    inputs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), atol=1e-6)

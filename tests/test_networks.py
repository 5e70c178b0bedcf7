"""The network builders, and the NumPy copies that act."""

from common.networks import GaussianHead, NumpyNetwork, mlp
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

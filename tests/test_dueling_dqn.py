"""The dueling network against its equation, and its advantage stream as the policy."""

from common.numpy_inference import NumpyNetwork
import gymnasium as gym
import keras
import numpy as np
import pytest

from dueling_dqn.dueling_dqn import Agent, Config, advantage_stream, dueling_network

NETWORKS = [("mlp", (5,)), ("cnn", (10, 10, 4)), ("lstm", (4, 5))]
INPUTS = np.random.default_rng(0)


def network_and_inputs(network, shape, **options):
    keras.utils.set_random_seed(0)
    config = Config(network=network, hidden_sizes=(16, 12), **options)
    return dueling_network(shape, 3, config), INPUTS.normal(size=(32, *shape)).astype(np.float32)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_q_is_value_plus_advantage_less_its_mean(network, shape):
    model, inputs = network_and_inputs(network, shape)
    value = keras.Model(model.inputs[0], model.get_layer("value").output)(inputs).numpy()
    advantage = advantage_stream(model)(inputs).numpy()
    q_values = model(inputs).numpy()
    np.testing.assert_allclose(q_values, value + advantage - advantage.mean(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(q_values.mean(axis=1), value[:, 0], atol=1e-5)  # the advantages' mean is zero
    assert np.abs(advantage.mean(axis=1)).max() > 1e-4  # which is not so without the subtraction


def test_a_constant_on_the_advantages_changes_nothing():
    """V and A are identifiable: a part that all advantages share is subtracted."""
    model, inputs = network_and_inputs("mlp", (5,))
    before = model(inputs).numpy()
    *_, bias = model.get_layer("advantage").weights
    bias.assign(bias + 7.0)
    np.testing.assert_allclose(model(inputs), before, atol=1e-4)


def test_acts_by_the_advantages_as_by_q():
    observation_space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
    agent = Agent(observation_space, gym.spaces.Discrete(3), Config(hidden_sizes=(16, 12)))
    assert isinstance(agent.acting_network, NumpyNetwork)
    rng = np.random.default_rng(1)
    observations = rng.normal(size=(500, 5)).astype(np.float32)
    for _ in range(2):
        agent.q_network.set_weights([rng.normal(size=w.shape) for w in agent.q_network.get_weights()])
        agent.acting_network.refresh()
        greedy = np.argmax(agent.q_network(observations), axis=-1)
        np.testing.assert_array_equal(agent.act(observations, epsilon=0.0), greedy)
        assert len(set(greedy)) > 1


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_streams_of_a_cnn_start_with_orthogonal_weights_as_its_convolutions(network, shape):
    """Wᵀ W = 2 I in the hidden layer, I in the output, if there are more inputs than units."""
    model, _ = network_and_inputs(network, shape)
    for stream in ("value", "advantage"):
        hidden, output = (layer.numpy() for layer in model.get_layer(stream).weights[::2])
        products = hidden.T @ hidden / 2.0, output.T @ output
        found = [np.allclose(product, np.eye(len(product)), atol=1e-5) for product in products]
        assert found == [network == "cnn"] * 2


def test_streams_share_the_layers_below_and_start_with_other_weights():
    model, _ = network_and_inputs("mlp", (5,))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_variables) == (
        (5 * 16 + 16) + 2 * (16 * 12 + 12) + (12 * 1 + 1) + (12 * 3 + 3)
    )
    value_hidden, advantage_hidden = (
        model.get_layer(name).layers[0].kernel for name in ("value", "advantage")
    )
    assert not np.allclose(value_hidden, advantage_hidden)


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_a_saved_model_keeps_its_streams(network, shape, tmp_path):
    model, inputs = network_and_inputs(network, shape)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)
    np.testing.assert_allclose(advantage_stream(loaded)(inputs), advantage_stream(model)(inputs), atol=1e-6)

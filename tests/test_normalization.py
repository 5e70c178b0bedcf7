"""Running statistics, against those of all that was seen."""

from common.networks import NumpyNetwork, mlp
from common.normalization import RewardScaling, RunningNormalization
import keras
import numpy as np
import pytest
import tensorflow as tf


def test_statistics_are_those_of_all_inputs():
    rng = np.random.default_rng(0)
    batches = [rng.normal(5.0, 3.0, size=(size, 3)).astype(np.float32) for size in (1, 10, 50)]
    layer = RunningNormalization()
    layer.build((None, 3))
    np.testing.assert_allclose(layer(batches[0]), np.clip(batches[0], -10, 10), rtol=1e-5)  # nothing seen yet
    for batch in batches:
        layer.update(batch)
    seen = np.concatenate(batches)
    np.testing.assert_allclose(layer.mean, seen.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layer.variance, seen.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(layer(seen), (seen - seen.mean(axis=0)) / seen.std(axis=0), atol=1e-4)
    np.testing.assert_array_equal(layer(np.full((1, 3), 1e6, np.float32)), np.full((1, 3), 10.0))


def test_normalisation_is_saved_copied_and_not_trained(tmp_path):
    model = mlp((3,), (4,), 2, normalizer=RunningNormalization(clip=2.0))
    inputs = np.random.default_rng(0).normal(5.0, 3.0, size=(20, 3)).astype(np.float32)
    model.layers[0].update(inputs)
    np.testing.assert_allclose(NumpyNetwork(model)(inputs), model(inputs), atol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))
    assert len(model.trainable_variables) == 4


def test_reward_scaling_is_the_running_deviation_of_the_return():
    gamma, rng = 0.9, np.random.default_rng(0)
    scaling = RewardScaling(2, gamma)
    current, seen = np.zeros(2), []
    for _ in range(3):  # returns go on from one rollout to the next
        rewards = rng.normal(-3.0, 5.0, size=(15, 2)).astype(np.float32)
        ends = rng.random((15, 2)) < 0.2
        scaled = scaling(tf.constant(rewards), tf.constant(ends))
        for reward, end in zip(rewards, ends):
            current = reward + gamma * current
            seen.append(current)
            current = np.where(end, 0.0, current)
        np.testing.assert_allclose(scaled, rewards / np.std(seen), rtol=1e-4)
    np.testing.assert_allclose(scaling.returns, current, rtol=1e-4)


def test_reward_scaling_is_checkpointed(tmp_path):
    scaling, copy = RewardScaling(2, 0.9), RewardScaling(2, 0.9)
    scaling(tf.random.stateless_normal((5, 2), (0, 0)), tf.zeros((5, 2), bool))
    tf.train.Checkpoint(scaling=scaling).write(str(tmp_path / "x"))
    tf.train.Checkpoint(scaling=copy).read(str(tmp_path / "x")).assert_consumed()
    np.testing.assert_array_equal(copy.returns, scaling.returns)
    assert float(copy.moments.variance) == float(scaling.moments.variance) != 1


def test_outliers_are_clipped():
    scaling = RewardScaling(1, 0.0, clip=2.0)
    rewards = np.zeros((100, 1), np.float32)
    rewards[50] = -1000.0
    assert float(scaling(tf.constant(rewards), tf.zeros((100, 1), bool))[50, 0]) == pytest.approx(-2.0)

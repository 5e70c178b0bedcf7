"""Running statistics, against those of everything that was seen."""

from common.networks import tanh_mlp
from common.normalization import ObservationNormalizer, RewardScaler, RunningMoments
from common.numpy_inference import NumpyNetwork
import keras
import numpy as np
import pytest
import tensorflow as tf


def test_moments_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    batches = [rng.normal(5.0, 3.0, size=(size, 3)).astype(np.float32) for size in (1, 10, 50)]
    moments = RunningMoments((3,))
    np.testing.assert_array_equal(moments.mean, np.zeros(3))
    np.testing.assert_array_equal(moments.variance, np.ones(3))
    for k, batch in enumerate(batches, 1):
        moments.update(tf.constant(batch))
        seen = np.concatenate(batches[:k])
        assert moments.count == len(seen)
        np.testing.assert_allclose(moments.mean, seen.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(moments.variance, seen.var(axis=0), rtol=1e-4, atol=1e-6)


def test_moments_count_beyond_the_integers_of_float32():
    """2²⁴ + 1 is not a float32; a counter of that type would not change from there on."""
    moments = RunningMoments()
    moments.count.assign(2**24)
    for k in range(1, 4):
        moments.update(tf.constant([1.0]))
        assert moments.count == 2**24 + k
    moments.update(tf.ones(2**24 + 3))
    assert moments.count == 2**25 + 6
    assert float(moments.mean) == pytest.approx(0.5, rel=1e-5)


def test_moments_of_integers():
    moments = RunningMoments((2,))
    moments.update(tf.constant([[0, 255], [2, 253]], tf.uint8))
    np.testing.assert_array_equal(moments.mean, [1, 254])
    np.testing.assert_array_equal(moments.variance, [1, 1])


def test_observation_normalizer():
    rng = np.random.default_rng(0)
    normalizer = ObservationNormalizer((3,))
    batches = [rng.normal(5.0, 3.0, size=(size, 3)).astype(np.float32) for size in (10, 50)]
    np.testing.assert_allclose(normalizer.layer(batches[0]), batches[0], rtol=1e-5)  # nothing seen yet
    for batch in batches:
        normalizer.update(tf.constant(batch))
    seen = np.concatenate(batches)
    expected = (seen - seen.mean(axis=0)) / seen.std(axis=0)
    np.testing.assert_allclose(normalizer.layer(seen), expected, atol=1e-4)


def test_only_update_changes_the_normalizer():
    normalizer = ObservationNormalizer((3,))
    model = tanh_mlp((3,), (4,), 2, first_layers=[normalizer.layer])
    model(10.0 + tf.random.stateless_normal((50, 3), (0, 0)), training=True)
    np.testing.assert_array_equal(normalizer.layer.moving_mean.numpy(), np.zeros(3))
    np.testing.assert_array_equal(normalizer.layer.moving_variance.numpy(), np.ones(3))
    assert len(model.trainable_variables) == 4


def test_normalization_is_saved_and_copied(tmp_path):
    normalizer = ObservationNormalizer((3,))
    model = tanh_mlp((3,), (4,), 2, first_layers=[normalizer.layer])
    inputs = np.random.default_rng(0).normal(5.0, 3.0, size=(20, 3)).astype(np.float32)
    copy = NumpyNetwork(model)
    before = copy(inputs)
    normalizer.update(tf.constant(inputs))
    np.testing.assert_array_equal(copy(inputs), before)
    copy.refresh()
    np.testing.assert_allclose(copy(inputs), model(inputs), atol=1e-5)
    assert np.abs(copy(inputs) - before).max() > 0.1
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))


def test_rewards_are_divided_by_the_running_deviation_of_the_return():
    gamma, rng = 0.9, np.random.default_rng(0)
    scaler = RewardScaler(2, gamma)
    current, seen = np.zeros(2), []
    for _ in range(3):  # returns continue from one rollout to the next
        rewards = rng.normal(-3.0, 5.0, size=(15, 2)).astype(np.float32)
        ends = rng.random((15, 2)) < 0.2
        scaled = scaler(tf.constant(rewards), tf.constant(ends))
        for reward, end in zip(rewards, ends):
            current = reward + gamma * current
            seen.append(current)
            current = np.where(end, 0.0, current)
        np.testing.assert_allclose(scaled, rewards / np.std(seen), rtol=1e-4)
    np.testing.assert_allclose(scaler.returns, current, rtol=1e-4)


def test_checkpoints_hold_the_statistics_but_not_the_running_returns(tmp_path):
    scaler, copy = RewardScaler(2, 0.9), RewardScaler(3, 0.9)
    scaler(tf.random.stateless_normal((5, 2), (0, 0)), tf.zeros((5, 2), bool))
    assert (scaler.returns.numpy() != 0).all()
    tf.train.Checkpoint(scaler=scaler).write(str(tmp_path / "x"))
    tf.train.Checkpoint(scaler=copy).read(str(tmp_path / "x")).assert_consumed()
    np.testing.assert_array_equal(copy.returns, np.zeros(3))
    for name in ("mean", "variance", "count"):
        saved, restored = getattr(scaler.moments, name).numpy(), getattr(copy.moments, name).numpy()
        assert restored == saved != getattr(RunningMoments(), name).numpy()


@pytest.mark.parametrize(("options", "largest"), [({"clip": 2.0}, 2.0), ({}, 10.0)])
def test_outliers_are_clipped(options, largest):
    scaler = RewardScaler(1, 0.0, **options)
    rewards = np.zeros((1000, 1), np.float32)
    rewards[50], rewards[60] = -1000.0, 1000.0
    scaled = scaler(tf.constant(rewards), tf.zeros((1000, 1), bool)).numpy()
    np.testing.assert_allclose(scaled[[50, 60], 0], [-largest, largest])

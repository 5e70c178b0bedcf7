"""Rollouts: rows in the order of their steps, shuffled minibatches, and the explained variance."""

from common.rollout import RolloutBuffer, explained_variance, flatten, shuffled_minibatches
import gymnasium as gym
import numpy as np
import pytest


def test_keeps_steps_in_order_and_starts_over():
    buffer = RolloutBuffer(
        3, 2, gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Box(-1, 1, (2,), np.float64)
    )
    for step in range(6):
        k = 2.0 * step + np.arange(2)
        rows = k[:, None]
        buffer.add(rows * np.ones(4), rows * np.ones(2), k, rows + np.ones(4), k % 3 == 0, k % 3 == 1)
    rollout = buffer.rollout
    expected = np.arange(6, 12).reshape(3, 2)
    np.testing.assert_array_equal(rollout.rewards, expected)
    np.testing.assert_array_equal(rollout.observations[..., 3], expected)
    np.testing.assert_array_equal(rollout.actions[..., 1], expected)
    np.testing.assert_array_equal(rollout.next_observations[..., 0], expected + 1)
    np.testing.assert_array_equal(rollout.terminated, expected % 3 == 0)
    np.testing.assert_array_equal(rollout.truncated, expected % 3 == 1)
    assert rollout.actions.dtype == rollout.observations.dtype == np.float32
    np.testing.assert_array_equal(flatten(rollout.rewards), np.arange(6, 12))


def test_a_rollout_is_a_copy():
    buffer = RolloutBuffer(1, 64, gym.spaces.Box(-1, 1, (64,), np.float32), gym.spaces.Discrete(2))
    ones, zeros = (np.full(64, k) for k in (1, 0))
    buffer.add(ones[:, None], ones, ones, ones[:, None], ones, ones)
    rollout = buffer.rollout
    buffer.add(zeros[:, None], zeros, zeros, zeros[:, None], zeros, zeros)
    assert all((field.numpy() == 1).all() for field in rollout)


def test_integer_observations_stay_integers():
    buffer = RolloutBuffer(3, 2, gym.spaces.Box(0, 255, (4,), np.uint8), gym.spaces.Discrete(2))
    assert buffer.rollout.observations.dtype == np.uint8 and buffer.rollout.actions.dtype == np.int64


def test_flatten_keeps_the_order_of_the_steps():
    field = np.arange(24).reshape(3, 2, 4)
    np.testing.assert_array_equal(flatten(field), field.reshape(6, 4))


@pytest.mark.parametrize(("num_rows", "num_minibatches", "size"), [(12, 3, 4), (14, 4, 3)])
def test_minibatches_are_shuffled_anew_for_each_epoch(num_rows, num_minibatches, size):
    """14 rows make 4 minibatches of 3: each epoch leaves out 2 rows, not always the same ones."""
    rng = np.random.default_rng(0)
    minibatches = shuffled_minibatches(rng, num_rows, 20, num_minibatches)
    assert minibatches.shape == (20 * num_minibatches, size)
    epochs = minibatches.reshape(20, -1)
    assert all(len(set(epoch)) == num_minibatches * size for epoch in epochs)
    assert set(epochs.ravel()) == set(range(num_rows))
    assert len({tuple(epoch) for epoch in epochs}) == 20
    if num_rows == num_minibatches * size:
        np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(num_rows), (20, 1)))
    else:
        assert len({tuple(np.sort(epoch)) for epoch in epochs}) > 10
    again = shuffled_minibatches(rng, num_rows, 20, num_minibatches)
    assert (again != minibatches).any()


def test_explained_variance():
    rng = np.random.default_rng(0)
    values, returns = rng.normal([[1.0], [2.0]], [[1.0], [3.0]], size=(2, 50)).astype(np.float32)
    assert float(explained_variance(returns, returns)) == 1
    assert float(explained_variance(np.ones_like(returns), returns)) == pytest.approx(0, abs=1e-6)
    expected = 1 - (returns - values).var() / returns.var()
    assert float(explained_variance(values, returns)) == pytest.approx(expected, rel=1e-4)

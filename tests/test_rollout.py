"""The rollout: rows in the order they were made, and what is computed from them alone."""

from common.rollout import RolloutBuffer, explained_variance, flatten
import gymnasium as gym
import numpy as np
import pytest


def test_keeps_steps_in_order_and_begins_again():
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


def test_integer_observations_stay_integers():
    buffer = RolloutBuffer(3, 2, gym.spaces.Box(0, 255, (4,), np.uint8), gym.spaces.Discrete(2))
    assert buffer.rollout.observations.dtype == np.uint8 and buffer.rollout.actions.dtype == np.int64


def test_explained_variance():
    rng = np.random.default_rng(0)
    values, returns = rng.normal(size=(2, 50)).astype(np.float32)
    weights = (rng.random(50) < 0.5).astype(np.float32)
    assert float(explained_variance(returns, returns)) == 1
    assert float(explained_variance(values, returns)) == pytest.approx(
        1 - (returns - values).var() / returns.var(), rel=1e-4
    )
    rows = weights == 1
    assert float(explained_variance(values, returns, weights)) == pytest.approx(
        1 - (returns - values)[rows].var() / returns[rows].var(), rel=1e-4
    )

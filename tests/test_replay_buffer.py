"""The replay buffer: what goes in comes out, in its dtype, at the promised price."""

from common.errors import UserError
from common.replay_buffer import ReplayBuffer
import gymnasium as gym
import numpy as np
import pytest

VECTOR = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (4, 4, 2), np.uint8)
DISCRETE = gym.spaces.Discrete(2)


def fill(buffer, steps, num_envs=1, shape=(3,)):
    """Add `steps` steps of `num_envs` environments; transition k is made of the number k alone."""
    for step in range(steps):
        k = step * num_envs + np.arange(num_envs)
        observations = np.ones((num_envs, *shape)) * k.reshape(-1, *[1] * len(shape))
        buffer.add(observations, k % 2, k.astype(float), observations + 1, k % 3 == 0)
    return buffer


def test_keeps_the_last_transitions_when_full():
    buffer = fill(ReplayBuffer(10, VECTOR, DISCRETE), steps=9, num_envs=3)
    assert len(buffer) == 10
    assert sorted(buffer.storage.rewards) == list(range(17, 27))


def test_rows_stay_together():
    batch = fill(ReplayBuffer(100, VECTOR, DISCRETE), steps=40, num_envs=4).sample(5, 64)
    assert batch.observations.shape == (5, 64, 3)
    assert batch.rewards.shape == batch.terminated.shape == batch.actions.shape == (5, 64)
    np.testing.assert_array_equal(batch.observations[..., 0], batch.rewards)
    np.testing.assert_array_equal(batch.next_observations, batch.observations + 1)
    np.testing.assert_array_equal(batch.actions, batch.rewards % 2)
    np.testing.assert_array_equal(batch.terminated, batch.rewards % 3 == 0)


def test_samples_every_row_and_no_empty_one():
    rewards = fill(ReplayBuffer(100, VECTOR, DISCRETE), steps=20).sample(10, 100).rewards
    assert set(rewards.ravel()) == set(range(20))


def test_keeps_the_dtypes_of_the_spaces_and_takes_no_more_memory():
    buffer = ReplayBuffer(1000, IMAGE, DISCRETE)
    batch = fill(buffer, steps=3, shape=IMAGE.shape).sample(1, 2)
    assert batch.observations.dtype == batch.next_observations.dtype == np.uint8
    assert (
        batch.actions.dtype == np.int64
        and batch.rewards.dtype == np.float32
        and batch.terminated.dtype == bool
    )
    payload = 1000 * (2 * 32 + 8 + 4 + 1)
    assert buffer.nbytes <= 1.05 * payload


def test_same_seed_same_samples():
    first, second = (fill(ReplayBuffer(50, VECTOR, DISCRETE, seed=3), 50).sample(2, 8) for _ in range(2))
    np.testing.assert_array_equal(first.rewards, second.rewards)
    other = fill(ReplayBuffer(50, VECTOR, DISCRETE, seed=4), 50).sample(2, 8)
    assert (first.rewards != other.rewards).any()


def test_save_and_load_continue_the_same_stream(tmp_path):
    buffer = fill(ReplayBuffer(20, VECTOR, DISCRETE, seed=1), steps=33)
    buffer.sample(1, 5)
    buffer.save_state(str(tmp_path / "buffer.npz"))
    copy = ReplayBuffer(20, VECTOR, DISCRETE, seed=9)
    copy.load_state(str(tmp_path / "buffer.npz"))
    for one in (buffer, copy):
        one.add(np.ones((1, 3)), [0], [99.0], np.ones((1, 3)), [False])
    assert sorted(buffer.storage.rewards) == sorted(copy.storage.rewards)
    np.testing.assert_array_equal(buffer.rng.integers(1000, size=5), copy.rng.integers(1000, size=5))


def test_a_full_ring_fits_a_larger_one(tmp_path):
    fill(ReplayBuffer(20, VECTOR, DISCRETE), steps=33).save_state(str(tmp_path / "buffer.npz"))
    larger = ReplayBuffer(40, VECTOR, DISCRETE)
    larger.load_state(str(tmp_path / "buffer.npz"))
    for k in range(5):
        larger.add(np.ones((1, 3)), [0], [100.0 + k], np.ones((1, 3)), [False])
    assert set(larger.sample(10, 100).rewards.ravel()) == {*range(13, 33), *range(100, 105)}


def test_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(UserError, match="flatten"):
        ReplayBuffer(10, gym.spaces.Dict(a=DISCRETE), DISCRETE)
    with pytest.raises(UserError, match=r"1,700,000,000,000,000 bytes"):
        ReplayBuffer(10**14, gym.spaces.Box(-1, 1, (0,), np.float32), gym.spaces.Box(-1, 1, (3,), np.float32))
    with pytest.raises(UserError, match="at least 1"):
        ReplayBuffer(0, VECTOR, DISCRETE)
    with pytest.raises(UserError, match="empty"):
        ReplayBuffer(10, VECTOR, DISCRETE).sample(1, 1)
    fill(ReplayBuffer(20, VECTOR, DISCRETE), steps=20).save_state(str(tmp_path / "buffer.npz"))
    with pytest.raises(UserError, match="do not fit"):
        ReplayBuffer(10, VECTOR, DISCRETE).load_state(str(tmp_path / "buffer.npz"))

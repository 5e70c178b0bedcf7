"""The replay buffer: transitions come out as they went in, in their dtype, and take the stated memory."""

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


def assert_same_rows(one, two):
    """Assert that two buffers hold the same transitions in the same order, and draw the same samples."""
    assert len(one) == len(two) and one.rng.bit_generator.state == two.rng.bit_generator.state
    ages = np.arange(len(one))[::-1]
    for buffer in (one, two):
        buffer.rows = buffer.position - 1 - ages
    for name, ring in one.storage._asdict().items():
        values, same = ring[one.rows], getattr(two.storage, name)[two.rows]
        if one.frames and "observations" in name:
            values, same = one.frames.take(values), two.frames.take(same)
        assert values.dtype == same.dtype
        np.testing.assert_array_equal(values, same, err_msg=name)


@pytest.mark.parametrize("steps", [0, 1, 13, 20, 33, 40, 55])
def test_load_restores_a_ring_exactly(steps, tmp_path):
    """Before and after it wraps, and into a buffer that has had other transitions."""
    buffer = fill(ReplayBuffer(20, VECTOR, DISCRETE, seed=1), steps)
    other = fill(ReplayBuffer(20, VECTOR, DISCRETE, seed=2), 27)
    buffer.save_state(str(tmp_path / "buffer.npz"))
    other.load_state(str(tmp_path / "buffer.npz"))
    assert_same_rows(buffer, other)
    for one in (buffer, other):
        fill(one, 7)
    assert_same_rows(buffer, other)


@pytest.mark.parametrize(("num_envs", "frame_stack"), [(1, 4), (3, 2), (2, 1)])
def test_load_restores_wrapped_frames_exactly(num_envs, frame_stack, tmp_path):
    shape = (frame_stack, 2, 2) if frame_stack > 1 else (2, 2)
    space = gym.spaces.Box(0, 10**6, shape, np.int32)
    buffer, other = (ReplayBuffer(40, space, DISCRETE, seed, frame_stack=frame_stack) for seed in (1, 2))
    episodes = Episodes(num_envs, frame_stack)
    for _ in range(150):
        buffer.add(*episodes.step())
    for _ in range(70):
        other.add(*Episodes(num_envs, frame_stack, seed=5).step())
    buffer.save_state(str(tmp_path / "buffer.npz"))
    other.load_state(str(tmp_path / "buffer.npz"))
    assert_same_rows(buffer, other)
    for _ in range(100):
        transitions = episodes.step()
        for one in (buffer, other):
            one.add(*transitions)
        rewards = [set(one.sample(2, 40).rewards.ravel()) for one in (buffer, other)]
        assert rewards[0] == rewards[1]


def test_the_file_is_one_that_numpy_reads(tmp_path):
    buffer = fill(ReplayBuffer(20, VECTOR, DISCRETE), steps=33)
    buffer.save_state(str(tmp_path / "buffer.npz"))
    with np.load(tmp_path / "buffer.npz") as file:
        assert set(file) == {*buffer.storage._fields, "rng"}
        np.testing.assert_array_equal(file["rewards"], np.arange(13, 33))
        np.testing.assert_array_equal(file["observations"][:, 0], np.arange(13, 33))


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
    path = str(tmp_path / "buffer.npz")
    with pytest.raises(UserError, match="has 20 transitions, and 10 fit"):
        ReplayBuffer(10, VECTOR, DISCRETE).load_state(path)
    with pytest.raises(UserError, match="does not fit: observations is float32"):
        ReplayBuffer(20, gym.spaces.Box(-1.0, 1.0, (4,), np.float32), DISCRETE).load_state(path)
    with pytest.raises(UserError, match="does not fit: observations is float32"):
        ReplayBuffer(20, gym.spaces.Box(-1.0, 1.0, (3,), np.float64), DISCRETE).load_state(path)


class Episodes:
    """Episodes of random length of which every frame is another number, as stacks of `frame_stack`."""

    def __init__(self, num_envs, frame_stack, shape=(2, 2), longest=9, seed=0):
        self.rng = np.random.default_rng(seed)
        self.frame_stack, self.shape, self.longest, self.frames = frame_stack, shape, longest, 0
        self.stacks = [self.first() for _ in range(num_envs)]

    def frame(self):
        self.frames += 1
        return np.full(self.shape, self.frames, np.int32)

    def first(self):
        return [self.frame()] * self.frame_stack

    def observation(self, stack):
        return np.stack(stack) if self.frame_stack > 1 else stack[0]

    def step(self):
        """One transition of each environment; the reward is the number of the newest next frame."""
        rows = []
        for env, stack in enumerate(self.stacks):
            next_stack = [*stack[1:], self.frame()]
            ends = self.rng.random() < 1 / self.longest
            rows.append((self.observation(stack), self.frames, self.observation(next_stack), ends))
            self.stacks[env] = self.first() if ends else next_stack
        observations, rewards, next_observations, ends = (np.array(each) for each in zip(*rows))
        terminated = ends & (self.rng.random(len(ends)) < 0.5)
        return observations, np.zeros(len(ends), int), rewards, next_observations, terminated


@pytest.mark.parametrize(("num_envs", "frame_stack"), [(1, 4), (3, 4), (2, 1), (5, 2)])
def test_stacks_come_out_as_they_went_in(num_envs, frame_stack):
    """Also when the frames of the oldest transitions have been written over, and they are gone."""
    shape = (frame_stack, 2, 2) if frame_stack > 1 else (2, 2)
    space = gym.spaces.Box(0, 10**6, shape, np.int32)
    buffer = ReplayBuffer(60, space, DISCRETE, frame_stack=frame_stack)
    episodes, added = Episodes(num_envs, frame_stack), {}
    for _ in range(200):
        transitions = episodes.step()
        buffer.add(*transitions)
        added |= {int(reward): row for reward, *row in zip(transitions[2], *transitions)}
        batch = buffer.sample(2, 20)
        for k in np.ndindex(2, 20):
            observation, _, _, next_observation, terminated = added[int(batch.rewards[k])]
            np.testing.assert_array_equal(batch.observations[k], observation)
            np.testing.assert_array_equal(batch.next_observations[k], next_observation)
            assert batch.terminated[k] == terminated
    assert len(buffer) >= 60 - 5 * num_envs  # all but a few: the ring of frames has 64 to spare
    newest = {int(reward) for reward in sorted(added)[-len(buffer) :]}
    assert {int(reward) for reward in np.unique(buffer.sample(50, 50).rewards)} <= newest


def test_short_episodes_cost_transitions_and_nothing_else():
    buffer = ReplayBuffer(1000, gym.spaces.Box(0, 10**6, (2, 2), np.int32), DISCRETE, frame_stack=1)
    episodes = Episodes(1, 1, longest=1)  # every transition has two frames of its own
    for _ in range(3000):
        buffer.add(*episodes.step())
    assert len(buffer) == (1000 + 31 + 64) // 2
    batch = buffer.sample(10, 100)
    np.testing.assert_array_equal(batch.next_observations[..., 0, 0], batch.rewards)
    np.testing.assert_array_equal(batch.observations[..., 0, 0], batch.rewards - 1)


def test_frames_of_a_full_ring_do_not_fit_into_another(tmp_path):
    """Their numbers tell their rows, and the rows of another ring are others."""
    space = gym.spaces.Box(0, 10**6, (2, 2), np.int32)
    buffer, path = ReplayBuffer(1000, space, DISCRETE), str(tmp_path / "buffer.npz")
    episodes = Episodes(1, 1, longest=1)
    for _ in range(3000):
        buffer.add(*episodes.step())
    buffer.save_state(path)
    assert len(buffer) < 900
    for capacity in (900, 1100):
        with pytest.raises(UserError, match="does not fit: frames has 1,095 rows"):
            ReplayBuffer(capacity, space, DISCRETE).load_state(path)


def test_bytes_of_stacked_frames_are_those_promised():
    space = gym.spaces.Box(0, 255, (4, 84, 84, 1), np.uint8)
    buffer = ReplayBuffer(10_000, space, DISCRETE, frame_stack=4)
    frame = 84 * 84
    assert buffer.nbytes == (10_000 + 312 + 64) * frame + 10_000 * (2 * 4 * 8 + 8 + 4 + 1)
    assert buffer.nbytes < 1.05 * 10_000 * (frame + 13)


def test_saves_and_loads_frames(tmp_path):
    space = gym.spaces.Box(0, 10**6, (3, 2, 2), np.int32)
    buffer, copy = (ReplayBuffer(30, space, DISCRETE, seed, frame_stack=3) for seed in (1, 2))
    episodes = Episodes(2, 3)
    for steps in (5, 100):
        for _ in range(steps):
            buffer.add(*episodes.step())
        buffer.save_state(str(tmp_path / "buffer.npz"))
        copy.load_state(str(tmp_path / "buffer.npz"))
        assert len(copy) == len(buffer)
        for field, same in zip(buffer.sample(3, 20), copy.sample(3, 20)):
            np.testing.assert_array_equal(field, same)
    transitions = episodes.step()
    for one in (buffer, copy):
        one.add(*transitions)
    np.testing.assert_array_equal(buffer.sample(1, 90).rewards, copy.sample(1, 90).rewards)

"""EnvPool gives the same transitions as Gymnasium: true final observations, ends, statistics, and seeds."""

import sys

from common.envpool import EnvPool
from common.envs import finished_episodes, make_env, make_envs, true_next_observations
from common.errors import UserError
from common.options import RunConfig
import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("envpool")


def pool(env_id, num_envs=3):
    """Environments of EnvPool, as a script makes them."""
    config = RunConfig(env_id=env_id, num_envs=num_envs, executor="envpool")
    return make_envs(config, gym.spaces.Discrete, gym.spaces.Box)


def play(env_id, steps, seeds=(1, 2, 3)):
    """Step with actions of a seeded generator; return the steps, each after its observations."""
    envs, rng, stream = pool(env_id, len(seeds)), np.random.default_rng(0), []
    observations, _ = envs.reset(seed=list(seeds))
    envs.single_action_space.seed(0)
    for _ in range(steps):
        actions = np.stack([rng.choice([envs.single_action_space.sample()]) for _ in seeds])
        step = envs.step(actions)
        stream.append((observations, actions, *step))
        observations = step[0]
    envs.close()
    return stream


def cartpole_after(observation, action):
    """The state that Gymnasium's CartPole reaches from `observation`, and whether the episode ends there."""
    env = gym.make("CartPole-v1").unwrapped
    env.reset()
    env.state, env.steps_beyond_terminated = observation.astype(np.float64), None
    state, _, terminated, *_ = env.step(int(action))
    return state, terminated


def test_every_step_is_a_transition_to_the_true_next_observation():
    """CartPole has dynamics that are known: no step leads into the first state of the next episode."""
    ends = 0
    for observations, actions, next_observations, rewards, terminated, truncated, infos in play(
        "CartPole-v1", 60
    ):
        true_next = true_next_observations(next_observations, infos)
        for k in range(3):
            state, ended = cartpole_after(observations[k], actions[k])
            np.testing.assert_allclose(true_next[k], state, atol=1e-5)
            assert terminated[k] == ended and not truncated[k] and rewards[k] == 1.0
            if ended:  # what is acted on next is the first observation of an episode
                assert np.abs(next_observations[k]).max() <= 0.05
                ends += 1
            else:
                np.testing.assert_array_equal(next_observations[k], true_next[k])
    assert ends > 3


@pytest.mark.parametrize(("env_id", "limit"), [("Pendulum-v1", 200), ("MountainCar-v0", 200)])
def test_a_time_limit_truncates(env_id, limit):
    stream = play(env_id, 2 * limit + 1, seeds=(1, 2))
    for step, (*_, terminated, truncated, infos) in enumerate(stream, 1):
        assert not terminated.any()
        assert truncated.all() == truncated.any() == (step % limit == 0)
        assert bool(finished_episodes(infos)) == (step % limit == 0)


def test_an_episode_that_terminates_at_its_last_step_is_both():
    """As in Gymnasium; EnvPool by itself calls it truncated only, and its value would not end."""

    def first_end(time_limit):
        envs = pool("CartPole-v1", 1)
        envs.env.time_limit = time_limit
        envs.reset(seed=[0])
        for step in range(1, 100):
            *_, terminated, truncated, _ = envs.step(np.zeros(1, int))
            if terminated.any() or truncated.any():
                return step, bool(terminated[0]), bool(truncated[0])

    length, *kinds = first_end(500)
    assert kinds == [True, False]
    assert first_end(length) == (length, True, True)
    assert first_end(length - 1) == (length - 1, False, True)


def test_returns_and_lengths_are_those_of_the_episodes():
    sums, lengths, checked = np.zeros(2), np.zeros(2, int), 0
    for *_, rewards, terminated, truncated, infos in play("Pendulum-v1", 401, seeds=(5, 6)):
        sums, lengths = sums + rewards, lengths + 1
        ended = terminated | truncated
        expected = [(sums[k], lengths[k]) for k in np.flatnonzero(ended)]
        assert len(finished_episodes(infos)) == len(expected)
        if expected:
            np.testing.assert_allclose(finished_episodes(infos), expected)
        checked += len(expected)
        sums, lengths = np.where(ended, 0.0, sums), np.where(ended, 0, lengths)
    assert checked == 4


def test_equal_seeds_give_equal_streams_and_other_seeds_others():
    first, again, other = (play("CartPole-v1", 30, seeds) for seeds in ((1, 2), (1, 2), (3, 2)))
    for one, two in zip(first, again, strict=True):
        for a, b in zip(one[:6], two[:6], strict=True):
            np.testing.assert_array_equal(a, b)
    assert (first[0][0][0] != other[0][0][0]).any()
    np.testing.assert_array_equal(first[0][0][1], other[0][0][1])  # each environment has its own seed


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "HalfCheetah-v5", "Ant-v5"])
def test_spaces_are_those_of_gymnasium(env_id):
    envs, env = pool(env_id), make_env(env_id)
    assert envs.single_observation_space == env.observation_space
    assert envs.single_action_space == env.action_space
    observations, _ = envs.reset(seed=[1, 2, 3])
    assert observations.dtype == np.float32 and observations.shape == (3, *env.observation_space.shape)
    assert envs.observation_space.shape == observations.shape
    envs.close()


def test_half_cheetah_moves_as_gymnasiums_does():
    """From each state, both simulators go to the same next one with the same reward."""
    envs, env = pool("HalfCheetah-v5", 1), gym.make("HalfCheetah-v5")
    observations, _ = envs.reset(seed=[7])
    env.reset(seed=7)
    rng = np.random.default_rng(0)
    for _ in range(200):
        state = observations[0].astype(np.float64)  # without the first coordinate, on which nothing depends
        env.unwrapped.set_state(np.array([0.0, *state[:8]]), state[8:])
        actions = rng.uniform(-1.0, 1.0, (1, 6)).astype(np.float32)
        observations, rewards, *_ = envs.step(actions)
        expected, reward, *_ = env.step(actions[0])
        np.testing.assert_allclose(observations[0], expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(rewards[0], reward, rtol=1e-3, atol=1e-3)


def test_what_envpool_cannot_do_is_an_error_of_one_line(monkeypatch):
    cases = [("tests.environments:Truncating-v0", "EnvPool does not have .*--executor sync")]
    cases += [("FrozenLake8x8-v1", "--executor sync")]
    for env_id, words in cases:
        with pytest.raises(UserError, match=words) as error:
            pool(env_id)
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-extras\.txt"):
        EnvPool(make_env("CartPole-v1"), 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [("q_learning", {}), ("dqn", {"env_id": "ALE/Pong-v5", "network": "cnn", "frame_stack": 4})],
)
def test_tables_and_images_are_refused(name, options, module, configured):
    with pytest.raises(UserError, match="--executor sync"):
        module(name).train(configured(name, executor="envpool", total_timesteps=20, **options))


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_equal_seeds_give_equal_runs(name, module, configured):
    options = {"num_envs": 2, "num_steps": 32, "num_minibatches": 2, "learning_starts": 50}
    results = [
        module(name).train(configured(name, executor="envpool", total_timesteps=256, seed=seed, **options))
        for seed in (1, 1, 2)
    ]
    weights = [np.concatenate([w.ravel() for w in result.model.get_weights()]) for result in results]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()
    assert len(results[0].episode_returns) > 1
    np.testing.assert_array_equal(results[0].episode_returns, results[1].episode_returns)

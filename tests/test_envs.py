"""Environments: true next observations, seeds, spaces, and clear words for what cannot be served."""

from common import envs as envs_module
from common.envs import episode_ends, make_env, make_envs, play, true_next_observations
from common.errors import UserError
from common.run import RunConfig
import gymnasium as gym
from gymnasium.vector import AutoresetMode
import numpy as np
import pytest

COUNTER = "tests.environments:Counter-v0"


def test_every_step_is_a_transition_with_its_true_next_observation():
    envs = make_envs(COUNTER, "dqn", num_envs=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, _ = envs.reset(seed=0)
    for step in range(1, 8):
        next_observations, rewards, terminated, truncated, infos = envs.step(np.zeros(2, int))
        true = true_next_observations(next_observations, infos)
        np.testing.assert_array_equal(true, observations + 1)  # also where the episode of 3 steps ends
        np.testing.assert_array_equal(rewards, true[:, 0])
        ended = step % 3 == 0
        np.testing.assert_array_equal(terminated, [ended] * 2)
        np.testing.assert_array_equal(next_observations, np.zeros((2, 1)) if ended else true)
        assert episode_ends(infos) == ([(6.0, 3)] * 2 if ended else [])
        assert not truncated.any()
        observations = next_observations


def test_true_next_observations_leaves_its_argument_alone():
    envs = make_envs(COUNTER, "dqn")
    envs.reset(seed=0)
    for _ in range(3):
        next_observations, *_, infos = envs.step(np.zeros(1, int))
    assert true_next_observations(next_observations, infos)[0, 0] == 3
    assert next_observations[0, 0] == 0


def test_observations_become_one_axis():
    envs = make_envs("tests.environments:DiscreteObservation-v0", "dqn")
    observations, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(observations, [[1, 0, 0, 0, 0]])
    assert observations.dtype == np.float32
    envs = make_envs("tests.environments:Image-v0", "dqn")
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (1, 12) and observations.dtype == np.uint8


def test_discrete_actions_start_at_zero():
    envs = make_envs("tests.environments:ActionsFrom5-v0", "dqn")
    envs.reset(seed=0)
    assert envs.single_action_space == gym.spaces.Discrete(3)
    for action in (0, 2):
        envs.step(np.array([action]))  # the environment asserts that it gets 5 to 7


def test_same_seed_same_stream():
    def stream(seed):
        envs = make_envs("CartPole-v1", "dqn", num_envs=2, seed=seed)
        observations = [envs.reset(seed=seed)[0]]
        actions = [envs.action_space.sample() for _ in range(20)]
        observations += [envs.step(action)[0] for action in actions]
        return np.array(observations), np.array(actions)

    for one, two in zip(stream(1), stream(1)):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(stream(1), stream(2)):
        assert (one != two).any()


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("NoSuchEnv-v0", "doesn't exist"),
        ("CartPole-v9", "v1"),
        ("Pendulum-v0", "v1"),
        ("no_such_module:Env-v0", "no_such_module"),
        ("Pendulum-v1", "dqn needs a Discrete action space"),
        ("tests.environments:DictObservation-v0", "wrap the environment"),
    ],
)
def test_a_wrong_environment_is_told_in_one_line(env_id, words):
    with pytest.raises(UserError, match=words) as error:
        make_envs(env_id, "dqn")
    assert "\n" not in str(error.value)


def test_the_action_space_error_names_scripts_that_serve_it(monkeypatch):
    monkeypatch.setitem(envs_module.SCRIPTS, "some_script", ("Box",))
    with pytest.raises(UserError, match="some_script"):
        make_env("Pendulum-v1", "dqn")


@pytest.mark.parametrize(
    ("name", "what"),
    [("NanReward", "reward"), ("InfObservation", "observation"), ("InfFinalObservation", "observation")],
)
def test_numbers_that_are_not_finite_stop_the_run(name, what):
    envs = make_envs(f"tests.environments:{name}-v0", "dqn")
    envs.reset(seed=0)
    envs.step(np.zeros(1, int))
    with pytest.raises(UserError, match=rf"{name}-v0 gave a {what} .* step 2 "):
        envs.step(np.zeros(1, int))


def test_play_counts_every_episode_once_from_seeds_of_its_own():
    config = RunConfig(env_id=COUNTER, eval_episodes=20)
    np.testing.assert_array_equal(play(lambda x: np.zeros(len(x), int), config, "dqn"), [6.0] * 20)
    config = RunConfig(eval_episodes=20)
    first, again = (play(lambda x: np.zeros(len(x), int), config, "dqn") for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first)) > 1


def test_processes_step_as_one_process_does():
    streams = []
    for async_envs in (False, True):
        envs = make_envs("CartPole-v1", "dqn", num_envs=2, async_envs=async_envs)
        envs.reset(seed=0)
        steps = [envs.step(np.zeros(2, int)) for _ in range(30)]
        streams.append([true_next_observations(step[0], step[4]) for step in steps])
        assert sum(len(episode_ends(step[4])) for step in steps) >= 4
        envs.close()
    np.testing.assert_array_equal(*streams)


def test_an_episode_that_never_ends_is_counted_as_it_stands():
    config = RunConfig(env_id="CliffWalking-v1", eval_episodes=1)
    assert play(lambda x: np.zeros(len(x), int), config, "dqn") == [-10_000]  # up, into the wall, for ever

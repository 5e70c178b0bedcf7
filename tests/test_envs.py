"""Environments: true next observations, seeds, spaces, and errors of one line."""

import multiprocessing
import signal

from common import create_env as create_env_module
from common.envs import (
    finished_episodes,
    has_time_limit,
    make_env,
    make_envs,
    true_next_observations,
    view_options,
)
from common.errors import UserError
import gymnasium as gym
from gymnasium.vector import AutoresetMode
import numpy as np
import pytest

from ddpg import ddpg
from dqn import dqn
from td3 import td3
from tests import environments

COUNTER = "tests.environments:Counter-v0"


def discrete_envs(env_id=COUNTER, **options):
    """Make the environments of DQN."""
    return make_envs(dqn.Config(**{"env_id": env_id, "num_envs": 1} | options), gym.spaces.Discrete)


def test_every_step_is_a_transition_with_its_true_next_observation():
    envs = discrete_envs(num_envs=2)
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
        assert finished_episodes(infos) == ([(6.0, 3)] * 2 if ended else [])
        assert not truncated.any()
        observations = next_observations


def test_true_next_observations_does_not_change_its_argument():
    envs = discrete_envs()
    envs.reset(seed=0)
    for _ in range(3):
        next_observations, *_, infos = envs.step(np.zeros(1, int))
    assert true_next_observations(next_observations, infos)[0, 0] == 3
    assert next_observations[0, 0] == 0


def test_observations_of_the_last_step_are_copies():
    """The vector environments reuse their array; what the caller holds must not change."""
    envs = discrete_envs()
    first, _ = envs.reset(seed=0)
    second, *_ = envs.step(np.zeros(1, int))
    envs.step(np.zeros(1, int))
    assert (first[0, 0], second[0, 0]) == (0, 1)


def test_an_environment_may_return_one_array_and_change_its_action():
    envs = make_envs(td3.Config(env_id="tests.environments:OneArray-v0"), gym.spaces.Box)
    envs.reset(seed=0)
    actions = np.full((1, 2), 0.25, np.float32)
    for step in range(1, 7):
        next_observations, *_, infos = envs.step(actions)
        assert true_next_observations(next_observations, infos)[0, 0] == (step - 1) % 3 + 1
        assert next_observations[0, 0] == step % 3
    np.testing.assert_array_equal(actions, np.full((1, 2), 0.25))  # as the replay buffer stores them
    env = make_env("tests.environments:OneArray-v0", frame_stack=3)
    env.reset(seed=0)
    frames = [env.step(actions[0].copy())[0][:, 0] for _ in range(2)]
    np.testing.assert_array_equal(frames, [[0, 0, 1], [0, 1, 2]])


def test_a_device_is_opened_once(monkeypatch):
    """The environment that is checked first is closed before those of the training are made."""
    opened = []

    class Device(environments.Counter):
        def __init__(self, **options):
            super().__init__(**options)
            assert not opened
            opened.append(self)

        def close(self):
            opened.remove(self)

    monkeypatch.setitem(gym.registry, "Device-v0", gym.envs.registration.EnvSpec("Device-v0", Device))
    discrete_envs("Device-v0").close()
    assert not opened


def test_observations_become_one_axis():
    envs = discrete_envs("tests.environments:DiscreteObservation-v0")
    observations, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(observations, [[1, 0, 0, 0, 0]])
    assert observations.dtype == np.float32
    envs = discrete_envs("tests.environments:Image-v0")
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (1, 12) and observations.dtype == np.uint8


def test_dict_observations_are_flattened_and_joined():
    env = make_env("tests.environments:DictObservation-v0")
    assert env.observation_space.shape == (5,) and env.observation_space.dtype == np.float32
    env.reset(seed=0)
    observation, *_ = env.step(0)
    np.testing.assert_array_equal(observation, [1, 1, 0, 1, 0])  # the Box, then the Discrete part one-hot


def test_discrete_actions_start_at_zero():
    envs = discrete_envs("tests.environments:ActionsFrom5-v0")
    envs.reset(seed=0)
    assert envs.single_action_space == gym.spaces.Discrete(3)
    for action in (0, 2):
        envs.step(np.array([action]))  # the environment asserts that it gets 5 to 7


@pytest.mark.parametrize("action", [-100.0, 100.0])
@pytest.mark.parametrize("env_id", ["tests.environments:BoxActions-v0", "tests.environments:Shapes-v0"])
def test_box_actions_have_one_axis_and_are_clipped_to_the_type_of_the_space(env_id, action):
    envs = make_envs(ddpg.Config(env_id=env_id), gym.spaces.Box, bounded=True)
    space = envs.single_action_space
    assert len(space.shape) == 1 and space.dtype == np.float32
    envs.reset(seed=0)
    actions = np.full((1, *space.shape), action, np.float32)
    envs.step(np.clip(actions, space.low, space.high))  # the environment asserts that they are of its space


def test_same_seed_same_stream():
    def stream(seed):
        envs = discrete_envs("CartPole-v1", num_envs=2, seed=seed)
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
        ("no_such_module:Env-v0", "no_such_module.*is the module in the current folder"),
        ("tests.environments:Broken-v0", r"need at least one array.*: \S+tests/environments\.py, line \d+$"),
        ("tests.environments:NeedsSize-v0", r"missing 1 required positional argument: 'size'[^:]*$"),
        ("tests.missing_package:Env-v0", r"No module named 'tests\.missing'.*missing_package\.py, line 3$"),
        ("Pendulum-v1", "dqn needs a Discrete action space.*choose another script"),
        ("tests.environments:TextObservation-v0", "observes Text.*wrap the environment"),
        ("tests.environments:TextInDict-v0", "observes Dict.*wrap the environment"),
    ],
)
def test_a_wrong_environment_is_an_error_of_one_line(env_id, words):
    with pytest.raises(UserError, match=words) as error:
        discrete_envs(env_id)
    assert "\n" not in str(error.value)


def test_a_script_for_box_actions_refuses_discrete_ones():
    with pytest.raises(UserError, match=r"ddpg needs a Box action space.*choose another script"):
        make_envs(ddpg.Config(env_id="CartPole-v1"), gym.spaces.Box, bounded=True)


@pytest.mark.parametrize("bounds", ["InfiniteActions", "HugeActions", "HugeActions64"])
def test_an_actor_that_scales_to_the_bounds_needs_bounds(bounds):
    """Huge ones stand for infinity: arithmetic with them overflows."""
    config = td3.Config(env_id=f"tests.environments:{bounds}-v0")
    with pytest.raises(UserError, match="TransformAction, or choose another script"):
        make_envs(config, gym.spaces.Box, bounded=True)
    space = make_envs(config, gym.spaces.Box).single_action_space
    assert np.isinf(space.low).all() and np.isinf(space.high).all()


def test_the_advice_for_actions_without_bounds_works():
    env = gym.make("tests.environments:InfiniteActions-v0", disable_env_checker=True)
    env = gym.wrappers.TransformAction(env, lambda action: action, gym.spaces.Box(-1.0, 1.0, (2,)))
    env.reset()
    env.step(env.action_space.sample())


def test_integer_actions_are_rounded():
    """Truncation would almost never give the highest one."""
    env = make_env("tests.environments:IntegerActions-v0")
    assert env.action_space == gym.spaces.Box(np.float32([-1.0, 0.0]), np.float32([1.0, 2.0]))
    env.reset()
    taken = []
    step = env.unwrapped.step
    env.unwrapped.step = lambda action: taken.append(action) or step(action)
    for action in ([-1.0, 0.0], [-0.6, 0.4], [-0.4, 0.6], [0.4, 1.4], [0.6, 1.6], [1.0, 2.0]):
        env.step(np.array(action, np.float32))
    np.testing.assert_array_equal(taken, [[-1, 0], [-1, 0], [0, 1], [0, 1], [1, 2], [1, 2]])


@pytest.mark.parametrize("error", [gym.error.DependencyNotInstalled("no box2d"), ImportError("no ale_py")])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(error, monkeypatch):
    def make(*args, **kwargs):
        raise error

    monkeypatch.setattr(create_env_module.gym, "make", make)
    with pytest.raises(UserError, match=r"pip install -r requirements-extras\.txt") as raised:
        make_env("LunarLander-v3")
    assert "\n" not in str(raised.value) and str(error) in str(raised.value)


def test_a_warning_of_gymnasium_about_an_id_is_one_line_shown_once(monkeypatch, capfd):
    monkeypatch.setattr(create_env_module, "_SHOWN", set())
    for _ in range(2):
        make_env("CartPole-v0")
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("warning: ") and "CartPole-v0" in line


def test_processes_step_as_one_process_does():
    streams = []
    for executor in ("sync", "async"):
        envs = discrete_envs("CartPole-v1", num_envs=2, executor=executor)
        envs.reset(seed=0)
        steps = [envs.step(np.zeros(2, int)) for _ in range(30)]
        streams.append([true_next_observations(step[0], step[4]) for step in steps])
        assert sum(len(finished_episodes(step[4])) for step in steps) >= 4
        envs.close()
    np.testing.assert_array_equal(*streams)


def test_frames_are_stacked_from_the_oldest_to_the_newest():
    envs = discrete_envs(network="lstm", frame_stack=3)
    observations, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(observations, np.zeros((1, 3, 1)))
    for expected in ([0, 0, 1], [0, 1, 2]):
        observations, *_ = envs.step(np.zeros(1, int))
        np.testing.assert_array_equal(observations[0, :, 0], expected)
    observations, *_, infos = envs.step(np.zeros(1, int))
    np.testing.assert_array_equal(true_next_observations(observations, infos)[0, :, 0], [1, 2, 3])
    np.testing.assert_array_equal(observations[0, :, 0], [0, 0, 0])


@pytest.mark.parametrize(
    ("env_id", "view", "words"),
    [
        ("CartPole-v1", {"network": "cnn"}, "--network cnn needs uint8 images"),
        ("CartPole-v1", {"network": "lstm"}, "give --frame-stack 2 or more"),
        ("NoSuch/Pong-v5", {"network": "cnn"}, "cannot create"),
        ("tests.environments:Picture-v0", {}, "--network cnn"),
    ],
)
def test_a_view_that_an_environment_cannot_give_is_an_error_of_one_line(env_id, view, words):
    with pytest.raises(UserError, match=words) as error:
        make_env(env_id, **view)
    assert "\n" not in str(error.value)


def test_minatar_planes_become_bytes():
    pytest.importorskip("minatar")
    envs = discrete_envs("MinAtar/Breakout-v1", network="cnn")
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (1, 10, 10, 4) and observations.dtype == np.uint8
    assert set(np.unique(observations)) == {0, 255}


def test_pong_is_preprocessed():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    envs = discrete_envs("ALE/Pong-v5", network="cnn", frame_stack=4, clip_rewards=True)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (1, 4, 84, 84, 1) and observations.dtype == np.uint8
    next_observations, *_ = envs.step(np.zeros(1, int))
    np.testing.assert_array_equal(next_observations[:, :-1], observations[:, 1:])


def test_names_of_a_game_other_than_its_own_are_understood_or_refused(monkeypatch):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    assert make_env("ale_py:ALE/Pong-v5", network="cnn").observation_space.shape == (84, 84, 1)
    monkeypatch.delitem(gym.registry, "FreewayNoFrameskip-v4")  # as before ale_py is imported
    for old in ("FreewayNoFrameskip-v4", "PongNoFrameskip-v4", "ale_py:Pong-v0", "ale_py:Nothing-v0"):
        with pytest.raises(UserError, match="use ALE/<game>-v5; --env-kwargs repeat_action") as error:
            make_env(old, network="cnn")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("chance", [None, 0.0, 0.1])
def test_sticky_actions_are_those_of_the_game_unless_chosen(chance):
    """In training, in evaluation and in EnvPool."""
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    kwargs = {} if chance is None else {"repeat_action_probability": chance}
    config = dqn.Config(env_id="ALE/Pong-v5", network="cnn", env_kwargs=kwargs)
    expected = pytest.approx(0.25 if chance is None else chance)
    training = make_envs(config, gym.spaces.Discrete).unwrapped.envs[0]
    for env in training, make_env(config.env_id, **view_options(config)):
        assert env.unwrapped.ale.getFloat("repeat_action_probability") == expected
    pytest.importorskip("envpool")
    config.executor, config.env_id = "envpool", "ale_py:ALE/Pong-v5"
    assert make_envs(config, gym.spaces.Discrete).unwrapped.options["repeat_action_probability"] == expected


def test_ctrl_c_is_for_the_process_that_trains(monkeypatch):
    """Also if it is the child of another one; the workers of its environments ignore it."""
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, it is ignored
    try:
        for executor, ignored in ("sync", False), ("async", True):
            envs = discrete_envs("tests.environments:Signals-v0", num_envs=2, executor=executor)
            observations, _ = envs.reset()
            envs.close()
            assert observations.tolist() == [[ignored]] * 2
            assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("executor", ["sync", "async"])
def test_options_of_an_environment_reach_every_copy(executor):
    kwargs = {"desc": ["SFG"], "is_slippery": False, "max_episode_steps": 5}
    envs = discrete_envs("FrozenLake-v1", num_envs=2, executor=executor, env_kwargs=kwargs)
    assert envs.single_observation_space.shape == (3,)  # one-hot
    envs.reset(seed=0)
    for expected in (0.0, 1.0, 0.0, 1.0):  # two steps to the right, always
        np.testing.assert_array_equal(envs.step(np.full(2, 2))[1], expected)
    steps = [envs.step(np.zeros(2, int)) for _ in range(5)]  # against the wall
    assert [bool(truncated.all()) for *_, truncated, _ in steps] == [False] * 4 + [True]
    envs.close()


def test_time_limits_are_known():
    assert has_time_limit(make_env("CartPole-v1"))
    assert has_time_limit(make_env("CliffWalking-v1", env_kwargs={"max_episode_steps": 9}))
    assert not has_time_limit(make_env("CliffWalking-v1"))
    assert not has_time_limit(environments.Counter())

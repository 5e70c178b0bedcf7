"""Environments: true next observations, seeds, spaces, and clear words for what cannot be served."""

from common import envs as envs_module
from common.envs import Bins, episode_ends, make_env, make_envs, play, true_next_observations
from common.errors import UserError
from common.options import RunConfig
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


@pytest.mark.parametrize("env_id", ["tests.environments:BoxActions-v0", "tests.environments:Shapes-v0"])
def test_box_actions_have_one_axis_and_stay_in_their_bounds(env_id):
    config = RunConfig(env_id=env_id, eval_episodes=2)
    size = make_env(env_id, "ddpg").action_space.shape[0]
    for action in (-100.0, 100.0):  # the environment asserts that they are of its space
        play(lambda x, action=action: np.full((len(x), size), action, np.float32), config, "ddpg")


def test_an_actor_that_scales_to_the_bounds_needs_bounds():
    with pytest.raises(UserError, match="try reinforce, a2c, trpo, ppo"):
        make_env("tests.environments:InfiniteActions-v0", "td3")
    make_env("tests.environments:InfiniteActions-v0", "ppo")


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


def test_bins_have_one_index_a_cell():
    """3 × 4 bins over [0, 3) × [0, 4): the cell of a point is its whole numbers."""
    box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    env = gym.make("tests.environments:Counter-v0", observation_space=box, disable_env_checker=True)
    bins = Bins(env, (3, 4), (0.0, 0.0), (3.0, 4.0))
    assert bins.observation_space == gym.spaces.Discrete(12)
    seen = {
        (x, y): bins.observation(np.array([x + 0.5, y + 0.5], np.float32)) for x in range(3) for y in range(4)
    }
    assert sorted(seen.values()) == list(range(12))
    assert bins.observation(np.array([-7.0, 99.0])) == seen[0, 3]
    assert bins.observation(np.array([np.inf, -np.inf])) == seen[2, 0]
    assert bins.observation(np.array([3.0, 4.0])) == seen[2, 3]
    assert bins.observation(np.array([1.0, 2.0])) == seen[1, 2]
    with pytest.raises(UserError, match="not a number"):
        bins.observation(np.array([np.nan, 0.0]))


def test_cartpole_in_bins_has_known_bounds_and_a_space_its_own():
    env = make_env("CartPole-v1", "q_learning", bins=(1, 1, 6, 12))
    assert env.observation_space == gym.spaces.Discrete(72)
    env = make_env("MountainCar-v0", "q_learning", bins=(5,))
    assert env.observation_space == gym.spaces.Discrete(25)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    with pytest.raises(UserError, match="less than"):
        make_env("MountainCar-v0", "q_learning", bins=(5,), low=(1.0, 0.0), high=(0.0, 1.0))


def test_discrete_observations_stay_an_index_for_a_table():
    envs = make_envs("tests.environments:DiscreteObservation-v0", "q_learning", bins=(9,))
    observations, _ = envs.reset(seed=0)
    assert observations.tolist() == [0] and envs.single_observation_space == gym.spaces.Discrete(5)


def test_frames_are_stacked_from_the_oldest_to_the_newest():
    envs = make_envs(COUNTER, "dqn", network="lstm", frame_stack=3)
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
        ("CartPole-v1", {"network": "cnn"}, "--network cnn needs images"),
        ("CartPole-v1", {"network": "lstm"}, "give --frame-stack 2 or more"),
        ("NoSuch/Pong-v5", {"network": "cnn"}, "cannot make the environment"),
    ],
)
def test_a_wrong_view_is_told_in_one_line(env_id, view, words):
    with pytest.raises(UserError, match=words) as error:
        make_env(env_id, "dqn", **view)
    assert "\n" not in str(error.value)


def test_velocities_are_hidden():
    shown, hidden = make_env("CartPole-v1", "dqn"), make_env("HiddenVelocityCartPole-v1", "dqn")
    observation, part = shown.reset(seed=3)[0], hidden.reset(seed=3)[0]
    for _ in range(4):
        np.testing.assert_array_equal(part, observation[[0, 2]])
        assert hidden.observation_space.contains(part)
        observation, part = shown.step(1)[0], hidden.step(1)[0]
    assert hidden.spec.max_episode_steps == 500


def test_minatar_planes_become_bytes():
    pytest.importorskip("minatar")
    envs = make_envs("MinAtar/Breakout-v1", "dqn", network="cnn")
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (1, 10, 10, 4) and observations.dtype == np.uint8
    assert set(np.unique(observations)) == {0, 255}
    assert make_env("MinAtar/Breakout-v1", "dqn").observation_space.shape == (400,)


class Lives(gym.Env):
    """A game of three lives, each of two steps; every step gives 5; `ale.lives()` as an ALE game has it."""

    observation_space = gym.spaces.Box(0.0, 100.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.ale, self.resets = self, 0

    def lives(self):
        return 3 - self.steps // 2

    def reset(self, *, seed=None, options=None):
        self.steps, self.resets = 0, self.resets + 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), 5.0, self.steps >= 6, False, {}


def test_a_lost_life_terminates_and_the_game_goes_on():
    gym.register("Lives-v0", Lives)
    envs = make_envs("Lives-v0", "dqn", clip_rewards=True, terminal_on_life_loss=True)
    observations, _ = envs.reset(seed=0)
    ends, returns = [], []
    for _ in range(10):
        next_observations, rewards, terminated, truncated, infos = envs.step(np.zeros(1, int))
        ends.append((int(true_next_observations(next_observations, infos)[0, 0]), bool(terminated[0])))
        returns += episode_ends(infos)
        assert rewards[0] == 1.0
    # a life is two steps; the step that goes on after a loss is not the learner's
    assert ends == [
        (1, False),
        (2, True),
        (4, True),
        (6, True),
        (1, False),
        (2, True),
        (4, True),
        (6, True),
        (1, False),
        (2, True),
    ]
    assert returns == [(30.0, 6), (30.0, 6)]
    with pytest.raises(UserError, match="needs an ALE game"):
        make_envs("CartPole-v1", "dqn", terminal_on_life_loss=True)


def test_pong_is_preprocessed(tmp_path):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    envs = make_envs("ALE/Pong-v5", "dqn", network="cnn", frame_stack=4, clip_rewards=True)
    observations, _ = envs.reset(seed=0)
    assert observations.shape == (1, 4, 84, 84, 1) and observations.dtype == np.uint8
    next_observations, *_ = envs.step(np.zeros(1, int))
    np.testing.assert_array_equal(next_observations[:, :-1], observations[:, 1:])

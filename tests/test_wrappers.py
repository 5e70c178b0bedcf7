"""Wrappers: finite values, lives, bins, images, and hidden numbers."""

from common.bins import Bins, discretize, random_range
from common.envs import finished_episodes, make_env, make_envs, true_next_observations
from common.errors import UserError
from common.wrappers import KeepEpisodeInfo, as_image
import gymnasium as gym
import numpy as np
import pytest

from dqn import dqn
from q_learning import q_learning
from td3 import td3
from tests.environments import Counter


def discrete_envs(env_id, **options):
    """Make the environments of DQN."""
    return make_envs(dqn.Config(env_id=env_id, num_envs=1, **options), gym.spaces.Discrete)


# Finite values


@pytest.mark.parametrize(
    ("name", "what"),
    [("NanReward", "reward"), ("InfObservation", "observation"), ("InfFinalObservation", "observation")],
)
def test_numbers_that_are_not_finite_stop_the_run(name, what):
    envs = discrete_envs(f"tests.environments:{name}-v0")
    envs.reset(seed=0)
    envs.step(np.zeros(1, int))
    with pytest.raises(UserError, match=rf"{name}-v0 returned an? {what} .* step 2 .*fix the environment"):
        envs.step(np.zeros(1, int))


def test_a_first_observation_that_is_not_finite_stops_the_run():
    envs = make_envs(td3.Config(env_id="tests.environments:NanStart-v0"), gym.spaces.Box)
    with pytest.raises(UserError, match=r"returned an observation .* step 0 .*fix the environment"):
        envs.reset(seed=0)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "tests.environments:BoxActions-v0"])
def test_actions_that_are_not_finite_are_not_the_fault_of_the_environment(env_id):
    """Pendulum returns NaN for them, the other one raises an error."""
    envs = make_envs(td3.Config(env_id=env_id), gym.spaces.Box)
    envs.reset(seed=0)
    with pytest.raises(UserError, match="outputs are not finite: its training has diverged"):
        envs.step(np.full((1, *envs.single_action_space.shape), np.nan, np.float32))


def test_an_error_of_the_environment_passes_if_the_actions_are_finite():
    envs = make_envs(td3.Config(env_id="tests.environments:BoxActions-v0"), gym.spaces.Box)
    envs.reset(seed=0)
    with pytest.raises(AssertionError):
        envs.step(np.full((1, 2), 99.0, np.float32))


def test_large_finite_observations_pass():
    """Two numbers of 2e38 are finite float32 values, and their float32 sum is not."""
    envs = discrete_envs("tests.environments:Large-v0")
    envs.reset(seed=0)
    for _ in range(4):  # over the end of an episode as well
        observations, *_ = envs.step(np.zeros(1, int))
        np.testing.assert_array_equal(observations, np.full((1, 2), 2e38, np.float32))


def test_info_is_the_episode_alone():
    env = KeepEpisodeInfo(gym.wrappers.RecordEpisodeStatistics(Counter(info={"entry": 1})))
    env.reset(seed=0)
    infos = [env.step(0)[4] for _ in range(3)]
    assert infos[:2] == [{}, {}] and set(infos[2]) == {"episode"}


# Lives


class Lives(gym.Env):
    """A game of three lives, each of two steps; every step gives 5; `ale.lives()` as in an ALE game.

    With `frail`, the step after the first lost life ends the game.
    """

    observation_space = gym.spaces.Box(0.0, 100.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, frail=False):
        self.ale, self.frail = self, frail

    def lives(self):
        return 3 - self.steps // 2

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), 5.0, self.steps >= (3 if self.frail else 6), False, {}


gym.register("Lives-v0", Lives)
gym.register("FrailLives-v0", Lives, kwargs={"frail": True})


def test_a_lost_life_terminates_and_the_game_continues():
    envs = discrete_envs("Lives-v0", clip_rewards=True, terminal_on_life_loss=True)
    envs.reset(seed=0)
    ends, episodes = [], []
    for _ in range(10):
        next_observations, rewards, terminated, truncated, infos = envs.step(np.zeros(1, int))
        ends.append((int(true_next_observations(next_observations, infos)[0, 0]), bool(terminated[0])))
        episodes += finished_episodes(infos)
        assert rewards[0] == 1.0
    # a life is two steps; the no-op that continues the game after a loss is not the learner's
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
    assert episodes == [(30.0, 6), (30.0, 6)]


def test_a_game_that_ends_in_the_no_op_after_a_lost_life_is_recorded():
    envs = discrete_envs("FrailLives-v0", terminal_on_life_loss=True)
    observations, _ = envs.reset(seed=0)
    episodes, seen = [], []
    for _ in range(6):
        observations, _, terminated, _, infos = envs.step(np.zeros(1, int))
        episodes += finished_episodes(infos)
        seen.append((float(observations[0, 0]), bool(terminated[0])))
    assert seen == [(1, False), (0, True)] * 3  # step 2 loses a life, the no-op ends the game: a new one
    assert episodes == [(15.0, 3)] * 3


def test_an_environment_without_lives_is_refused():
    with pytest.raises(UserError, match="needs an ALE game") as error:
        discrete_envs("CartPole-v1", terminal_on_life_loss=True)
    assert "\n" not in str(error.value)


# Bins


def test_bins_have_one_index_per_cell():
    """3 × 4 bins over [0, 3) × [0, 4): the cell of a point is given by its whole numbers."""
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
    with pytest.raises(UserError, match="NaN"):
        bins.observation(np.array([np.nan, 0.0]))


def test_the_edges_are_the_bounds_of_the_space():
    env = make_env("MountainCar-v0", bins=(5,))
    assert env.observation_space == gym.spaces.Discrete(25)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    space = env.unwrapped.observation_space
    assert env.observation(space.low) == 0 and env.observation(space.high) == 24
    inside = space.low + (space.high - space.low) * [0.39, 0.61]  # second bin of five, and fourth
    assert env.observation(inside) == 1 * 5 + 3


def test_one_count_per_number():
    env = make_env("CartPole-v1", bins=(1, 1, 6, 12))
    assert env.observation_space == gym.spaces.Discrete(72)
    with pytest.raises(UserError, match="4 numbers: give --bins one count or 4"):
        make_env("CartPole-v1", bins=(3, 3, 3))


def test_numbers_without_bounds_get_the_range_that_random_actions_reach():
    """The counter shows 0 to 2, and 3 where its episode ends, whatever its actions are."""
    assert random_range("tests.environments:Unbounded-v0") == ((0.0, 0.0), (2.0, 2.0))
    env = make_env("tests.environments:Unbounded-v0", bins=(4,))
    cells = [env.observation(np.full(2, number)) for number in (0.2, 0.7, 1.2, 1.7)]
    assert cells == [k * 4 + k for k in range(4)]
    assert env.observation(np.array([-1e9, 1e9])) == 3


@pytest.mark.parametrize("huge", [3.4e38, np.inf])
def test_huge_bounds_and_half_bounds_count_as_none(huge):
    space = gym.spaces.Box(np.array([-huge, 0.0]), np.array([3.5, huge]), dtype=np.float64)
    gym.register("Huge-v0", Counter, kwargs={"observation_space": space})
    try:
        env = discretize(gym.make("Huge-v0", disable_env_checker=True), (4,))
    finally:
        del gym.registry["Huge-v0"]
        random_range.cache_clear()
    cells = [env.observation(np.full(2, number)) for number in (0.2, 0.7, 1.2, 1.7)]
    assert cells == [k * 4 + k for k in range(4)]


def test_bounded_numbers_keep_their_bounds_beside_unbounded_ones():
    env = make_env("CartPole-v1", bins=(10,))
    space, (lowest, highest) = env.unwrapped.observation_space, random_range("CartPole-v1")
    assert np.isinf(space.high[[1, 3]]).all()
    middle = [0.01, (lowest[1] + highest[1]) / 2 + 0.01, 0.01, (lowest[3] + highest[3]) / 2 + 0.01]
    assert env.observation(np.array(middle)) == 5555
    for k in range(4):  # one tenth of the range away, one bin up
        width = (space.high[k] - space.low[k]) / 10 if k % 2 == 0 else (highest[k] - lowest[k]) / 10
        moved = np.array(middle)
        moved[k] += width
        assert env.observation(moved) == 5555 + 10 ** (3 - k), k


def test_discrete_observations_stay_an_index():
    config = q_learning.Config(env_id="tests.environments:DiscreteObservation-v0", num_envs=1, bins=(9,))
    envs = make_envs(config, gym.spaces.Discrete)
    observations, _ = envs.reset(seed=0)
    assert observations.tolist() == [0] and envs.single_observation_space == gym.spaces.Discrete(5)


def test_dict_observations_are_flattened_and_put_into_bins():
    env = make_env("tests.environments:DictObservation-v0", bins=(3, 3, 2, 2, 2))
    assert env.observation_space == gym.spaces.Discrete(72)
    env.reset(seed=0)
    observation, *_ = env.step(0)  # the numbers are 1, 1 of 0 to 9, the choice is 1 of 3
    assert observation == 0b010


@pytest.mark.parametrize("env_id", ["Blackjack-v1", "MinAtar/Breakout-v1"])
def test_too_many_cells_are_an_error_of_one_line(env_id):
    if env_id.startswith("MinAtar"):
        pytest.importorskip("minatar")
    with pytest.raises(UserError, match=r"--bins makes more than 100,000,000 cells.*lower it") as error:
        make_env(env_id, bins=(8,))
    assert "\n" not in str(error.value)


def test_the_measured_range_is_the_same_in_every_process():
    """Also of an environment that draws from the global generators, which stay as they are."""
    env_id = "tests.environments:GlobalScale-v0"
    np.random.seed(1)
    expected = np.random.get_state()[1].copy(), random_range(env_id)
    random_range.cache_clear()
    assert (np.random.get_state()[1] == expected[0]).all()
    np.random.seed(2)
    assert random_range(env_id) == expected[1]


# Images


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_images_get_a_channel_axis_and_pixels_up_to_255(dtype):
    space = gym.spaces.Box(0, 255 if dtype == np.uint8 else 1, (4, 3), dtype)
    env = as_image(Counter(observation_space=space))
    assert env.observation_space == gym.spaces.Box(0, 255, (4, 3, 1), np.uint8)
    env.reset(seed=0)
    observation, *_ = env.step(0)
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation, np.full((4, 3, 1), 1 if dtype == np.uint8 else 255))


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 64, 48)])
def test_images_with_their_channels_first_are_an_error_of_one_line(shape):
    env = Counter(observation_space=gym.spaces.Box(0, 255, shape, np.uint8))
    env.spec = gym.spec("CartPole-v1")
    with pytest.raises(UserError, match=r"look like \(channels, height, width\).*--frame-stack"):
        as_image(env)
    for right in (shape[::-1], (4, 10, 12), (8, 84, 84)):  # feature planes of a grid, a stack of eight
        env.observation_space = gym.spaces.Box(0, 255, right, np.uint8)
        assert as_image(env) is env


def test_velocities_are_hidden():
    shown, hidden = make_env("CartPole-v1"), make_env("HiddenVelocityCartPole-v1")
    observation, part = shown.reset(seed=3)[0], hidden.reset(seed=3)[0]
    for _ in range(4):
        np.testing.assert_array_equal(part, observation[[0, 2]])
        assert hidden.observation_space.contains(part)
        observation, part = shown.step(1)[0], hidden.step(1)[0]
    assert hidden.spec.max_episode_steps == 500

"""EnvPool against Gymnasium: transitions, ends of episodes, and seeds; what it cannot do is refused."""

import sys

from common.envpool import EnvPool
from common.envs import finished_episodes, make_env, make_envs, true_next_observations
from common.episode_buffer import EpisodeBuffer
from common.errors import UserError
from common.replay_buffer import ReplayBuffer
from common.rollout import RolloutBuffer
from common.wrappers import KeepEpisodeInfo, LifeLoss
import gymnasium as gym
from gymnasium.vector import AutoresetMode
import numpy as np
import pytest

from dqn import dqn
from ppo import ppo
from q_learning import q_learning
from tests.conftest import BOX_ACTIONS, SCRIPTS, SMALL_UPDATES

pytest.importorskip("envpool")


def made(env_id, num_envs=3, **options):
    """Make the environments of PPO."""
    config = ppo.Config(env_id=env_id, num_envs=num_envs, executor="envpool", **options)
    return make_envs(config, gym.spaces.Discrete, gym.spaces.Box)


def walk(envs, num_steps, seed=0):
    """Yield (observations, actions, true next observations, rewards, terminated, truncated, infos)."""
    observations, _ = envs.reset(seed=seed)
    envs.action_space.seed(seed)
    for _ in range(num_steps):
        actions = envs.action_space.sample()
        next_observations, rewards, terminated, truncated, infos = envs.step(actions)
        true = true_next_observations(next_observations, infos)
        yield observations, actions, true, rewards, terminated, truncated, infos
        observations = next_observations


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("env_id", ["CartPole-v1", "HalfCheetah-v5"])
def test_environments_are_made_and_stepped_without_a_warning(env_id):
    envs = made(env_id)
    assert len(list(walk(envs, 60))) == 60
    envs.close()


def acrobot(o):
    """Return the two angles and their speeds."""
    return np.array([np.arctan2(o[1], o[0]), np.arctan2(o[3], o[2]), o[4], o[5]])


@pytest.mark.parametrize(
    "env_id, state, num_steps, ends",
    [
        ("CartPole-v1", np.array, 150, "terminated"),
        ("MountainCar-v0", np.array, 410, "truncated"),
        ("MountainCarContinuous-v0", np.array, 1010, "truncated"),
        ("Acrobot-v1", acrobot, 510, "truncated"),
    ],
)
def test_every_transition_is_one_of_gymnasium(env_id, state, num_steps, ends):
    """From each observation that the policy acts on, also an episode's first, Gymnasium goes the same way.

    A transition that leads into the next episode, or a step that only resets, would not satisfy the dynamics.
    """
    envs, env = made(env_id), make_env(env_id)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    counted_ends = {"terminated": 0, "truncated": 0}
    lengths = np.zeros(3, int)
    for observations, actions, true, rewards, terminated, truncated, _ in walk(envs, num_steps):
        lengths += 1
        assert observations.dtype == true.dtype == np.float32
        for i in range(3):
            env.reset()
            env.unwrapped.state = state(observations[i].astype(float))
            observation, reward, end, *_ = env.step(actions[i])
            np.testing.assert_allclose(true[i], observation, atol=2e-6)
            np.testing.assert_allclose(rewards[i], reward, atol=1e-6)
            assert terminated[i] == end
        np.testing.assert_array_equal(truncated, lengths == env.spec.max_episode_steps)
        lengths[terminated | truncated] = 0
        counted_ends["terminated"] += terminated.sum()
        counted_ends["truncated"] += truncated.sum()
    assert counted_ends[ends] >= 3


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1"])
def test_tables_have_the_transitions_of_gymnasium(env_id):
    config = q_learning.Config(env_id=env_id, num_envs=3, executor="envpool")
    transitions = make_env(env_id, bins=()).unwrapped.P
    for states, actions, next_states, rewards, terminated, *_ in walk(
        make_envs(config, gym.spaces.Discrete), 300
    ):
        for s, a, *transition in zip(states, actions, next_states, rewards, terminated, strict=True):
            assert tuple(transition) in {(n, r, end) for p, n, r, end in transitions[s][a] if p > 0}


@pytest.mark.parametrize(
    "env_id, hidden, moves",
    [
        ("HalfCheetah-v5", 1, 1.0),
        ("HalfCheetah-v4", 1, 1.0),
        ("Hopper-v5", 1, 1.0),
        ("Walker2d-v5", 1, 1.0),
        ("Swimmer-v5", 2, 1.0),
        ("InvertedPendulum-v5", 0, 0.1),
    ],
)
def test_mujoco_agrees_with_gymnasium(env_id, hidden, moves):
    """From the same state, the same actions lead to the same state but for rounding: 2e-5, rewards 2e-7.

    The first `hidden` coordinates are not observed, and nothing depends on them.
    """
    envs, env = made(env_id, num_envs=2), make_env(env_id)
    mujoco, largest = env.unwrapped, 0.0
    for observations, actions, true, rewards, terminated, *_ in walk(envs, 120):
        for i in range(2):
            split = mujoco.model.nq - hidden
            if np.abs(observations[i, split:]).max() >= 10.0:
                continue  # the observations of Hopper and Walker2d are clipped
            env.reset(seed=0)
            mujoco.set_state(np.append(np.zeros(hidden), observations[i, :split]), observations[i, split:])
            observation, reward, end, *_ = env.step(actions[i])
            np.testing.assert_allclose(true[i], observation, atol=5e-5)
            np.testing.assert_allclose(rewards[i], reward, atol=1e-6)
            assert terminated[i] == end
            largest = max(largest, np.abs(true[i] - observations[i]).max())
    assert largest > moves


@pytest.mark.parametrize(
    "env_id, tolerance",
    [("Ant-v5", 0.01), ("Ant-v4", 0.01), ("Humanoid-v5", 2e-4), ("HumanoidStandup-v5", 0.1)],
)
def test_the_first_steps_of_tasks_with_many_contacts_agree(env_id, tolerance):
    """In five steps, contacts let a difference in rounding grow: Ant 3e-3, Humanoid 5e-5, Standup 3e-2.

    MuJoCo's solver begins at the forces of the step before, so only an episode's start can be copied. Nothing
    depends on the first two coordinates, which are not observed.
    """
    twins, largest = [make_env(env_id), make_env(env_id)], 0.0
    for seed in range(6):
        playing = {0, 1}
        envs = made(env_id, num_envs=2)
        for step, (observations, actions, true, rewards, terminated, *_) in enumerate(walk(envs, 5, seed)):
            for i in sorted(playing):
                mujoco = twins[i].unwrapped
                if step == 0:
                    twins[i].reset(seed=0)
                    position, velocity, _ = np.split(
                        observations[i], np.cumsum([mujoco.model.nq - 2, mujoco.model.nv])
                    )
                    mujoco.set_state(np.append([0.0, 0.0], position), velocity)
                observation, reward, end, *_ = twins[i].step(actions[i])
                np.testing.assert_allclose(true[i], observation, rtol=tolerance, atol=tolerance)
                np.testing.assert_allclose(rewards[i], reward, atol=tolerance)
                assert terminated[i] == end
                playing -= {i} if end else set()
                largest = max(largest, np.abs(true[i] - observations[i]).max())
        envs.close()
    assert largest > 1.0


def test_an_episode_of_half_cheetah_is_truncated_after_1000_steps():
    envs = made("HalfCheetah-v5", num_envs=2)
    returns = np.zeros(2)
    for step, (*_, rewards, terminated, truncated, infos) in enumerate(walk(envs, 1001), start=1):
        returns += rewards
        assert not terminated.any()
        np.testing.assert_array_equal(truncated, [step == 1000] * 2)
        if step == 1000:
            np.testing.assert_allclose(finished_episodes(infos), [(r, 1000) for r in returns], rtol=1e-6)


def test_the_last_step_may_terminate_and_truncate():
    """CartPole falls after 8 to 10 steps; EnvPool itself calls the ends at its limit truncations only."""
    gym.register("ShortCartPole-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
    envs, lengths, both = EnvPool("CartPole-v1", make_env("ShortCartPole-v0"), 8), np.zeros(8, int), 0
    observations, _ = envs.reset(seed=0)
    for _ in range(100):
        observations, _, terminated, truncated, infos = envs.step(np.ones(8, int))
        lengths += 1
        position, _, angle, _ = true_next_observations(observations, infos).T
        np.testing.assert_array_equal(terminated, (abs(position) > 2.4) | (abs(angle) > 24 * np.pi / 360))
        np.testing.assert_array_equal(truncated, lengths == 9)
        both += (terminated & truncated).sum()
        lengths[terminated | truncated] = 0
    assert both > 0


def test_episodes_are_those_counted_by_hand():
    returns, lengths, expected, recorded = np.zeros(3), np.zeros(3, int), [], []
    for *_, rewards, terminated, truncated, infos in walk(made("CartPole-v1"), 200):
        returns += rewards
        lengths += 1
        ended = terminated | truncated
        expected += zip(returns[ended].tolist(), lengths[ended].tolist(), strict=True)
        recorded += finished_episodes(infos)
        returns[ended], lengths[ended] = 0.0, 0
        assert ("final_obs" in infos) == ended.any()
    assert recorded == expected and len(recorded) > 10


def test_arrays_of_a_step_do_not_change_later():
    kept = [(step, [x.copy() for x in step[:6]]) for step in walk(made("CartPole-v1"), 60)]
    for step, copies in kept:
        for array, copy in zip(step, copies):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "HalfCheetah-v5"])
def test_equal_seeds_give_equal_streams(env_id):
    streams = [[step[2] for step in walk(made(env_id), 60, seed)] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(streams[0], streams[1])
    assert (np.array(streams[0])[0] != np.array(streams[2])[0]).any()
    first, second, third = streams[0][0]
    assert (first != second).any() and (second != third).any()  # one seed per environment


def test_each_environment_has_the_seed_given_to_it():
    envs = made("CartPole-v1")
    (first, second, third), _ = envs.reset(seed=[11, 12, 13])
    swapped, _ = envs.reset(seed=[13, 11, 12])
    np.testing.assert_array_equal(swapped, [third, first, second])
    again, _ = envs.reset()  # without a seed the generators go on
    assert (again != swapped).any(axis=1).all()


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_equal_seeds_give_equal_runs_that_can_be_resumed(algorithm, module, configured, monkeypatch):
    options = SMALL_UPDATES | {"num_steps": 16, "train_frequency": 32, "executor": "envpool"}
    firsts, reset = [], EnvPool.reset

    def recorded(self, **arguments):
        observations, infos = reset(self, **arguments)
        firsts.append(observations.copy())
        return observations, infos

    def run(seed, total_timesteps=160, **more):
        more |= {"seed": seed, "total_timesteps": total_timesteps}
        result = module(algorithm).train(configured(algorithm, env_id="CartPole-v1", **options | more))
        weights = [w.ravel() for network in result.networks.values() for w in network.get_weights()]
        return result, np.concatenate(weights)

    monkeypatch.setattr(EnvPool, "reset", recorded)
    (result, one), (_, same), (_, other) = run(1), run(1), run(2)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    _, longer = run(1, 320, resume=str(result.folder))
    assert (one != longer).any()
    first, again, different, resumed = firsts
    np.testing.assert_array_equal(first, again)
    assert (first != different).any() and (first != resumed).any()  # a resumed run has new episodes


@pytest.mark.parametrize("algorithm", sorted({*SCRIPTS} - {"q_learning"}))
def test_only_transitions_of_the_environment_reach_a_buffer(algorithm, module, configured, monkeypatch):
    """Gymnasium goes the same way from each stored observation, and there is one for each step."""
    added = []
    for buffer in (ReplayBuffer, RolloutBuffer, EpisodeBuffer):
        monkeypatch.setattr(buffer, "add", recording(buffer.add, added))
    env_id = "MountainCarContinuous-v0" if algorithm in BOX_ACTIONS else "CartPole-v1"
    kwargs = {"max_episode_steps": 15}  # a pole falls before or after it
    options = SMALL_UPDATES | {"normalize_observations": False, "normalize_rewards": False}
    options |= {"env_id": env_id, "env_kwargs": kwargs, "executor": "envpool", "total_timesteps": 200}
    module(algorithm).train(configured(algorithm, **options))
    assert len(added) == 100  # of 2 environments
    env, ends = make_env(env_id), np.zeros(2, int)
    for step, (observations, actions, rewards, *rest) in enumerate(added):
        following = added[step + 1][0] if step + 1 < len(added) else observations
        true, terminated = rest[:2] if len(rest) > 1 else (following, rest[0])
        for i in range(2):
            env.reset()
            env.unwrapped.state = observations[i].astype(float)
            observation, reward, end, *_ = env.step(actions[i])
            np.testing.assert_allclose(rewards[i], reward, atol=1e-6)
            assert terminated[i] >= end  # REINFORCE stores one flag for both kinds of end
            if len(rest) > 1:
                np.testing.assert_allclose(true[i], observation, atol=2e-6)
                assert terminated[i] == end
            if np.abs(following[i] - observation).max() > 1e-5:
                ends[i] += 1
    assert (ends >= 6).all()


def recording(add, added):
    """Return `add` of a buffer, which also keeps copies of what it is given."""

    def both(self, *arrays):
        added.append([np.array(array) for array in arrays])
        add(self, *arrays)

    return both


# ALE games


def test_a_game_is_that_of_gymnasium():
    """Frames, rewards, lost lives, and episodes agree exactly, with one no-op and without sticky actions."""
    pytest.importorskip("cv2")
    gym.register_envs(pytest.importorskip("ale_py"))

    def create():
        env = gym.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0)
        env = gym.wrappers.AtariPreprocessing(env, noop_max=1, grayscale_newaxis=True)
        env = gym.wrappers.FrameStackObservation(env, 4)
        return LifeLoss(KeepEpisodeInfo(gym.wrappers.RecordEpisodeStatistics(env)))

    games = gym.vector.SyncVectorEnv([create] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    pool = EnvPool("ALE/Breakout-v5", create(), 2, terminal_on_life_loss=True)
    assert pool.options["noop_max"] == 30
    pool.options["noop_max"] = 1
    frames, _ = games.reset(seed=0)
    np.testing.assert_array_equal(pool.reset(seed=0)[0], frames)
    generator, lives_lost, episodes = np.random.default_rng(0), 0, []
    for _ in range(600):
        actions = generator.integers(4, size=2)
        theirs, ours = games.step(actions), pool.step(actions)
        for one, other in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(one, other)
        assert finished_episodes(ours[4]) == finished_episodes(theirs[4])
        if not finished_episodes(ours[4]):  # the frame of a lost game differs, which no target depends on
            true = [true_next_observations(step[0], step[4]) for step in (ours, theirs)]
            np.testing.assert_array_equal(*true)
        lives_lost += ours[2].sum()
        episodes += finished_episodes(ours[4])
    assert lives_lost >= 10 and len(episodes) >= 2


# Refusals


@pytest.mark.parametrize(
    "config, message",
    [
        (
            dqn.Config(env_id="tests.environments:Counter-v0"),
            "does not have Gymnasium's tests.environments:C",
        ),
        (ppo.Config(env_id="tests.environments:CartPole-v1"), "does not have Gymnasium's tests.environments"),
        (ppo.Config(env_id="Pendulum-v1"), "does not have Gymnasium's Pendulum-v1"),
        (dqn.Config(env_id="CartPole-v1", frame_stack=2), "cannot give the observations of CartPole-v1"),
        (q_learning.Config(env_id="CartPole-v1"), "cannot give the observations of CartPole-v1"),
        (dqn.Config(env_id="FrozenLake-v1"), "cannot give the observations of FrozenLake-v1"),
        (dqn.Config(env_id="CartPole-v1", terminal_on_life_loss=True), "needs an ALE game"),
        (
            ppo.Config(env_id="CartPole-v1", env_kwargs={"sutton_barto_reward": True}),
            "option sutton_barto.* only max_ep",
        ),
        (
            dqn.Config(env_id="ALE/Pong-v5", network="cnn", env_kwargs={"mode": 1}),
            "cannot set the option mode",
        ),
    ],
)
def test_what_envpool_cannot_do_is_refused_in_one_line(config, message):
    config.executor = "envpool"
    with pytest.raises(UserError, match=message) as error:
        make_envs(config, gym.spaces.Discrete, gym.spaces.Box)
    assert "\n" not in str(error.value)


def test_a_game_may_have_fewer_frames():
    pytest.importorskip("ale_py")
    kwargs = {"max_num_frames_per_episode": 400}
    envs = made("ALE/Pong-v5", num_envs=1, network="cnn", env_kwargs=kwargs)
    assert [bool(truncated) for *_, truncated, _ in walk(envs, 200)] == ([False] * 99 + [True]) * 2


def test_a_time_limit_of_ones_own_is_counted():
    envs = made("CartPole-v1", env_kwargs={"max_episode_steps": 3})
    assert [bool(truncated.all()) for *_, truncated, _ in walk(envs, 6)] == [False, False, True] * 2


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=r"requirements-extras\.txt, with Python 3\.11") as error:
        made("CartPole-v1")
    assert "\n" not in str(error.value)

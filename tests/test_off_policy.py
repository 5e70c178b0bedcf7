"""DDPG, TD3 and SAC: the best action, values at time limits, any space of actions, and the newest weights."""

import importlib

from common.errors import UserError
import numpy as np
import pytest

from tests.test_ddpg import ACTIONS, OBSERVATIONS, random_batches


@pytest.fixture(params=["ddpg", "td3", "sac"])
def off_policy(request):
    """The module of each script in turn."""
    return importlib.import_module(f"{request.param}.{request.param}")


@pytest.fixture(params=["ddpg", "td3"])
def deterministic(request):
    """The module of each script whose policy is an action with noise."""
    return importlib.import_module(f"{request.param}.{request.param}")


def quick(script, env_id, tmp_path, **options):
    """The options of a short training run."""
    return script.Config(
        env_id=f"tests.environments:{env_id}-v0",
        gamma=0.9,
        tau=0.05,
        learning_starts=500,
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        batch_size=64,
        hidden_sizes=(32,),
        eval_episodes=2,
        runs_dir=str(tmp_path),
        **options,
    )


def test_the_greedy_action_converges_to_the_best(off_policy, tmp_path):
    """Bounds [−1, 3] and [2, 10], reward −|a − (2.5, 3)|²."""
    config = quick(off_policy, "Quadratic", tmp_path, total_timesteps=12_000)
    config.actor_learning_rate = 1e-4  # a fast actor saturates at a bound
    config.hidden_sizes, config.exploration_noise = (64, 64), 0.3
    result = off_policy.train(config)
    np.testing.assert_allclose(result.model(np.ones((1, 1), np.float32))[0], [2.5, 3.0], atol=0.15)
    assert result.evaluation_returns.mean() > -0.05


def test_action_spaces_it_does_not_serve_are_an_error_of_one_line(off_policy, tmp_path):
    for env_id, words in (
        ("CartPole-v1", "needs a Box action space.*choose another script"),
        ("tests.environments:InfiniteActions-v0", "TransformAction, or choose another script"),
    ):
        with pytest.raises(UserError, match=words) as error:
            off_policy.train(off_policy.Config(env_id=env_id, runs_dir=str(tmp_path)))
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_observations_and_actions_of_any_shape_and_type(off_policy, tmp_path):
    config = off_policy.Config(
        env_id="tests.environments:Shapes-v0", total_timesteps=40, learning_starts=20, train_frequency=10
    )
    config.runs_dir, config.eval_episodes = str(tmp_path), 2
    assert len(off_policy.train(config).evaluation_returns) == 2


def test_updates_wait_until_learning_starts(off_policy, tmp_path, monkeypatch):
    steps, updates = [], []
    act = off_policy.Agent.act
    monkeypatch.setattr(off_policy.Agent, "act", lambda *a, **k: steps.append(1) or act(*a, **k))
    monkeypatch.setattr(off_policy.Agent, "update", lambda self, batches: updates.append(len(steps)) or {})
    config = off_policy.Config(env_id="tests.environments:Quadratic-v0", runs_dir=str(tmp_path))
    config.total_timesteps, config.learning_starts, config.train_frequency = 60, 25, 10
    config.eval_episodes = 0
    off_policy.train(config)
    assert updates == [30, 40, 50, 60]


def test_training_acts_with_the_newest_weights(deterministic, tmp_path, monkeypatch):
    """Before every step the acting network gives the actions of the actor."""
    act, seen = deterministic.Agent.act, []

    def checked(self, observations, *, random):
        actions = self.actor(observations).numpy()
        np.testing.assert_allclose(self.acting_network(observations), actions, rtol=1e-4, atol=1e-5)
        seen.append(float(self.actor(np.zeros((1, 1), np.float32))[0, 0]))
        return act(self, observations, random=random)

    monkeypatch.setattr(deterministic.Agent, "act", checked)
    config = deterministic.Config(
        env_id="tests.environments:Quadratic-v0", num_envs=2, actor_learning_rate=0.01
    )
    config.total_timesteps, config.learning_starts, config.train_frequency = 100, 20, 10
    config.runs_dir, config.eval_episodes, config.gradient_steps = str(tmp_path), 0, 4
    deterministic.train(config)
    assert len(set(seen)) > 5


def test_the_acting_network_changes_at_refresh(deterministic):
    agent = deterministic.Agent(OBSERVATIONS, ACTIONS, deterministic.Config(hidden_sizes=(16,)))
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    first = agent.acting_network(observations)
    agent.update(random_batches(4, 32))
    np.testing.assert_array_equal(agent.acting_network(observations), first)
    agent.acting_network.refresh()
    assert (agent.acting_network(observations) != first).any()
    expected = agent.actor(observations)
    np.testing.assert_allclose(agent.acting_network(observations), expected, rtol=1e-5, atol=1e-6)


def test_random_actions_are_uniform_between_the_bounds(off_policy):
    agent = off_policy.Agent(OBSERVATIONS, ACTIONS, off_policy.Config(num_envs=5000))
    actions = agent.act(np.zeros((5000, 3), np.float32), random=True)
    shares = (actions - ACTIONS.low) / (ACTIONS.high - ACTIONS.low)
    assert actions.dtype == np.float32 and shares.min() >= 0 and shares.max() <= 1
    for quantile in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(shares, quantile, axis=0), quantile, atol=0.03)
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.05  # a draw for each dimension


def test_noise_is_scaled_to_the_bounds_and_actions_stay_in_them(deterministic):
    agent = deterministic.Agent(
        OBSERVATIONS, ACTIONS, deterministic.Config(num_envs=5000, exploration_noise=0.05)
    )
    observations = np.zeros((5000, 3), np.float32)
    greedy = agent.actor(observations).numpy()
    noise = agent.act(observations, random=False) - greedy
    np.testing.assert_allclose(noise.std(axis=0), 0.05 * (ACTIONS.high - ACTIONS.low) / 2, rtol=0.05)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05
    agent.config.exploration_noise = 10.0
    actions = agent.act(observations, random=False)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal([actions.min(axis=0), actions.max(axis=0)], [ACTIONS.low, ACTIONS.high])


@pytest.mark.parametrize(("noise_reversion", "correlation"), [(1.0, 0.0), (0.15, 0.85)])
def test_noise_is_gaussian_or_ornstein_uhlenbeck(deterministic, noise_reversion, correlation):
    config = deterministic.Config(num_envs=2000, noise_reversion=noise_reversion)
    agent = deterministic.Agent(OBSERVATIONS, ACTIONS, config)
    noises = []
    for _ in range(60):
        agent.act(np.zeros((2000, 3), np.float32), random=False)
        noises.append(agent.noise)
    now, then = noises[-1][:, 0], noises[-2][:, 0]
    np.testing.assert_allclose(np.corrcoef(now, then)[0, 1], correlation, atol=0.05)
    scale = 0.1 * (ACTIONS.high - ACTIONS.low) / 2 / np.sqrt(1 - correlation**2)
    np.testing.assert_allclose(noises[-1].std(axis=0), scale, rtol=0.1)


@pytest.mark.parametrize(("name", "length"), [("BoxActions", 3), ("TruncatingBox", 5)])
def test_each_episode_begins_without_noise(deterministic, name, length, tmp_path, monkeypatch):
    seen = []
    act = deterministic.Agent.act
    monkeypatch.setattr(
        deterministic.Agent, "act", lambda self, *a, **k: seen.append(self.noise.copy()) or act(self, *a, **k)
    )
    config = deterministic.Config(
        env_id=f"tests.environments:{name}-v0", total_timesteps=12, learning_starts=0
    )
    config.runs_dir, config.eval_episodes, config.noise_reversion = str(tmp_path), 0, 0.1
    deterministic.train(config)
    assert [bool(noise.any()) for noise in seen] == [step % length > 0 for step in range(12)]

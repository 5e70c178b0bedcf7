"""What REINFORCE, A2C, PPO and TRPO share: policies, advantages, normalisation, annealing, one trace."""

import importlib

from common.networks import NumpyPolicy
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.rollouts import (
    SCRIPTS,
    dense,
    log_probabilities,
    make_agent,
    random_rollout,
    train_briefly,
    update,
)

CRITICS = ("a2c", "ppo", "trpo")


def small(module, **options):
    """Options of a run of four rollouts, uncompiled: compiling would take longer."""
    few = {"num_epochs": 1, "num_minibatches": 2} if hasattr(module.Config, "num_epochs") else {}
    run = {"num_envs": 2, "num_steps": 8, "total_timesteps": 64, "log_frequency": 1, "eager": True}
    return few | run | options


@pytest.fixture
def eagerly():
    """Run the compiled functions uncompiled, for tests that need one call of them."""
    tf.config.run_functions_eagerly(True)


@pytest.fixture(params=SCRIPTS)
def on_policy(request):
    return importlib.import_module(f"{request.param}.{request.param}")


@pytest.fixture(params=CRITICS)
def with_critic(request):
    return importlib.import_module(f"{request.param}.{request.param}")


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_log_probabilities_and_entropy(on_policy, actions):
    agent, rollout = make_agent(on_policy, actions), random_rollout(actions=actions)
    observations, taken = rollout.observations[:, 0], rollout.actions[:, 0]
    outputs = agent.actor(observations)
    weights = [w.numpy().astype(np.float64) for w in agent.actor.trainable_variables]
    log_probs, entropy = log_probabilities(agent.actor, weights, observations, taken)
    np.testing.assert_allclose(on_policy.log_prob(outputs, tf.constant(taken)), log_probs, rtol=1e-4)
    np.testing.assert_allclose(on_policy.entropies(outputs, tf.constant(taken)), entropy, rtol=1e-4)


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_actions_are_drawn_from_the_policy(on_policy, actions):
    agent = make_agent(on_policy, actions)
    observations = np.repeat(random_rollout().observations[:1, 0], 20_000, axis=0)
    drawn = agent.act(observations, agent.numpy_policy.noise(agent.rng, len(observations)))
    outputs = agent.actor(observations[:1]).numpy()[0]
    best = agent.numpy_policy.best(observations[:1])[0]
    if actions == "discrete":
        frequencies = np.bincount(drawn, minlength=3) / len(drawn)
        np.testing.assert_allclose(frequencies, np.exp(outputs) / np.exp(outputs).sum(), atol=0.015)
        assert best == outputs.argmax()
    else:
        std = np.exp(outputs[2:])
        np.testing.assert_allclose(drawn.mean(axis=0), outputs[:2], atol=0.04 * std.max())
        np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.03)
        assert (drawn < agent.numpy_policy.low).any()  # what is learned from is not clipped
        clipped = agent.numpy_policy.clip(drawn)
        np.testing.assert_array_equal(
            clipped, np.clip(drawn, agent.numpy_policy.low, agent.numpy_policy.high)
        )
        np.testing.assert_allclose(
            best, np.clip(outputs[:2], agent.numpy_policy.low, agent.numpy_policy.high), rtol=1e-5
        )


def test_advantages_are_the_double_sum(with_critic):
    gamma, lam = 0.9, 0.7
    agent, rollout = make_agent(with_critic, gamma=gamma, gae_lambda=lam), random_rollout()
    assert (rollout.terminated & rollout.truncated).any() and (rollout.truncated & ~rollout.terminated).any()
    batch = agent.make_batch(rollout)
    values = dense(agent.critic, rollout.observations)[..., 0]
    next_values = dense(agent.critic, rollout.next_observations)[..., 0]
    advantages = np.zeros_like(values)
    for env in range(values.shape[1]):
        for t in range(len(values)):
            for later in range(t, len(values)):
                future = 0.0 if rollout.terminated[later, env] else gamma * next_values[later, env]
                delta = rollout.rewards[later, env] + future - values[later, env]
                advantages[t, env] += (gamma * lam) ** (later - t) * delta
                if rollout.terminated[later, env] or rollout.truncated[later, env]:
                    break
    np.testing.assert_allclose(batch.advantages, advantages.ravel(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(batch.returns, (advantages + values).ravel(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(batch.observations, rollout.observations.reshape(-1, 3))
    np.testing.assert_array_equal(batch.actions, rollout.actions.ravel())


def test_the_value_of_an_endless_stream_of_ones(with_critic, tmp_path):
    """Episodes are cut after 5 steps, but not by the environment's own end: V = 1 / (1 − γ) = 5."""
    result = train_briefly(
        with_critic,
        tmp_path,
        env_id="tests.environments:Truncating-v0",
        gamma=0.8,
        num_envs=4,
        num_steps=16,
        total_timesteps=40_000 if with_critic.__name__ == "a2c.a2c" else 12_000,
        learning_rate=0.01,
    )
    value = result.networks["critic"](np.ones((1, 1), np.float32)).numpy()[0, 0]
    assert value == pytest.approx(5.0, abs=0.1)


def test_the_deviation_is_learned_saved_and_read_back(on_policy, tmp_path):
    options = small(on_policy, env_id="tests.environments:BoxActions-v0")
    result = train_briefly(on_policy, tmp_path, **options)
    log_std = result.model.layers[-1].log_std.numpy()
    assert (log_std != 0).all()
    saved = keras.models.load_model(result.folder / "model.keras")
    np.testing.assert_array_equal(saved.layers[-1].log_std, log_std)
    observations = np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(saved(observations), result.model(observations))
    resumed = train_briefly(on_policy, tmp_path, **options, resume=str(result.folder))
    np.testing.assert_array_equal(resumed.model.layers[-1].log_std, log_std)


def test_one_trace(on_policy, tmp_path, monkeypatch):
    agents = []
    make = on_policy.Agent
    monkeypatch.setattr(on_policy, "Agent", lambda *args: agents.append(make(*args)) or agents[-1])
    train_briefly(on_policy, tmp_path, **small(on_policy, eager=False))
    assert agents[0].update.experimental_get_tracing_count() == 1
    assert agents[0].optimizer.iterations > 1


@pytest.mark.parametrize("bounds", ["InfiniteActions", "HalfInfiniteActions", "BoxActions"])
def test_any_bounds_of_actions(on_policy, bounds, tmp_path):
    """The environments assert that what they get lies in their space."""
    options = small(on_policy, env_id=f"tests.environments:{bounds}-v0", normalize_observations=True)
    result = train_briefly(on_policy, tmp_path, **options)
    assert np.isfinite(result.model(np.ones((1, 1), np.float32))).all()
    assert len(result.evaluation_returns) == 2


def test_normalisation_travels_with_the_model(on_policy, tmp_path):
    options = small(on_policy, normalize_observations=True, normalize_rewards=True)
    result = train_briefly(on_policy, tmp_path, **options)
    normalizer = result.model.layers[0]
    assert normalizer is result.networks["critic"].layers[0]
    assert normalizer.count == 64 and (normalizer.variance.numpy() != 1).all()
    saved = keras.models.load_model(result.folder / "model.keras")
    observations = 3 * np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(saved(observations), result.model(observations))
    np.testing.assert_allclose(NumpyPolicy(saved).actor(observations), saved(observations), atol=1e-5)


def test_a_resumed_run_begins_new_returns_and_may_have_other_environments(on_policy, tmp_path, monkeypatch):
    """The episodes that the running returns belonged to are over; the deviation goes on."""
    options = small(on_policy, normalize_rewards=True)
    first = train_briefly(on_policy, tmp_path, **options)
    seen = []

    class Watched(on_policy.Agent):
        def act(self, *args):
            seen.append((self.reward_scaling.returns.numpy(), float(self.reward_scaling.moments.count)))
            return super().act(*args)

    monkeypatch.setattr(on_policy, "Agent", Watched)
    options |= {"num_envs": 3, "total_timesteps": 100, "resume": str(first.folder)}
    train_briefly(on_policy, tmp_path, **options)
    returns, count = seen[0]
    np.testing.assert_array_equal(returns, np.zeros(3))
    assert count == 64


def test_statistics_change_after_the_update(on_policy, eagerly):
    """The old log-probabilities have to be those of the policy that acted."""
    agent = make_agent(on_policy, normalize_observations=True)
    learn, means = agent.learn, []
    agent.learn = lambda batch: means.append(agent.normalizer.mean.numpy()) or learn(batch)
    rollout = random_rollout()
    update(agent, rollout)
    np.testing.assert_array_equal(means, np.zeros((len(means), 3)))
    mean = rollout.observations.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(agent.normalizer.mean, mean, rtol=1e-4, atol=1e-6)


def test_the_step_size_falls_in_a_line(on_policy, eagerly):
    for share, expected in ((0.0, 0.02), (1.0, 0.015), (0.5, 0.0175)):
        agent = make_agent(on_policy, learning_rate=0.02, anneal_learning_rate=share)
        if hasattr(agent.config, "num_epochs"):
            agent.config.num_epochs = 1
        metrics = update(agent, random_rollout(), progress=0.25)
        assert float(metrics["learning_rate"]) == pytest.approx(expected)
        assert float(agent.optimizer.learning_rate) == pytest.approx(expected)


def test_integer_observations_are_learned_from(on_policy, tmp_path):
    train_briefly(on_policy, tmp_path, **small(on_policy, env_id="tests.environments:Image-v0"))

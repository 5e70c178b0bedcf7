"""REINFORCE: returns, whole episodes, and the gradient against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from reinforce import reinforce
from tests.rollouts import (
    ScriptedEnvs,
    assert_gradient,
    dense,
    log_probs_and_entropy,
    make_agent,
    normalized,
    parameters_of,
    random_rollout,
    record_gradients,
    train_briefly,
    train_on,
    update,
    values_of,
)


def double_sum(rewards, gamma):
    """Return Σ_k γ^k r_{t+k} for each step t."""
    steps = range(len(rewards))
    return [sum(gamma ** (later - t) * rewards[later] for later in steps[t:]) for t in steps]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_returns_to_go(gamma):
    rewards = np.random.default_rng(0).normal(size=20).astype(np.float32)
    returns = reinforce.returns_to_go(rewards, gamma)
    assert returns.dtype == np.float32
    np.testing.assert_allclose(returns, double_sum(rewards, gamma), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_batches_are_whole_episodes_each_used_once(actions, tmp_path, monkeypatch):
    """With the unclipped actions; unfinished episodes wait, those at the end of the training are unused."""
    envs = ScriptedEnvs(60, 3, actions)
    options = {"batch_size": 20, "gamma": 0.9, "hidden_sizes": (8,), "initial_log_std": 1.0}
    sampled, updates = train_on(envs, reinforce, monkeypatch, tmp_path, **options)

    batches, waiting, first_steps = [], [], [0, 0, 0]
    for t in range(60):
        for k in np.flatnonzero(envs.ended[t]):
            steps = slice(first_steps[k], t + 1)
            returns = double_sum(envs.rewards[steps, k], 0.9)
            waiting += list(zip(envs.observations[steps, k], sampled[steps, k], returns))
            first_steps[k] = t + 1
        if len(waiting) >= 20:
            batches.append(waiting)
            waiting = []
    assert len(batches) > 3 and max(map(len, batches)) > 20
    assert len(updates) == len(batches)
    for (batch, _), expected in zip(updates, batches):
        observations, taken, returns = map(np.array, zip(*expected))
        np.testing.assert_array_equal(batch.observations, observations)
        np.testing.assert_array_equal(batch.actions, taken)
        np.testing.assert_allclose(batch.returns, returns, rtol=1e-5, atol=1e-6)
    if actions == "box":
        clipped = np.clip(sampled, envs.single_action_space.low, envs.single_action_space.high)
        assert (sampled != clipped).any()
        np.testing.assert_array_equal(envs.actions, clipped)


def test_no_update_without_a_finished_episode(tmp_path, monkeypatch):
    _, updates = train_on(ScriptedEnvs(60, 3, ends=0.0), reinforce, monkeypatch, tmp_path, batch_size=1)
    assert not updates


@pytest.mark.parametrize("actions", ["discrete", "box"])
@pytest.mark.parametrize(("normalize", "baseline"), [(False, True), (True, True), (False, False)])
def test_gradient_against_finite_differences(actions, normalize, baseline, monkeypatch):
    """The whole loss, of policy, baseline, and entropy, and the metrics."""
    tf.config.run_functions_eagerly(True)
    options = {"entropy_coefficient": 0.2, "value_coefficient": 0.7, "baseline": baseline}
    agent = make_agent(reinforce, actions, normalize_advantages=normalize, **options)
    rollout = random_rollout(actions=actions)
    observations, returns = rollout.observations.reshape(-1, 3), rollout.rewards.ravel()
    taken = rollout.actions.reshape(-1, *rollout.actions.shape[2:])
    returns = returns / returns.std()
    advantages = returns - values_of(agent, observations) if baseline else returns
    advantages = normalized(advantages) if normalize else advantages
    policy, critic = parameters_of(agent)

    def losses():
        log_probs, entropy = log_probs_and_entropy(policy, observations, taken)
        value_loss = 0.5 * ((returns - dense(critic, observations)[:, 0]) ** 2).mean()
        return -(log_probs * advantages).mean(), value_loss, entropy.mean()

    def loss():
        policy_loss, value_loss, entropy = losses()
        return policy_loss + 0.7 * value_loss - 0.2 * entropy

    gradients = record_gradients(agent, monkeypatch, step=False)
    metrics = update(agent, rollout)
    assert_gradient(loss, [*policy, *critic], *gradients)
    for name, value in zip(("policy_loss", "value_loss", "entropy"), losses()):
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_returns_are_in_units_of_their_running_deviation():
    tf.config.run_functions_eagerly(True)
    agent, returns = make_agent(reinforce), []
    for k in range(3):
        rollout = random_rollout(seed=k)._replace(rewards=random_rollout(seed=k).rewards * 10**k)
        returns.append(rollout.rewards.ravel())
        values = values_of(agent, rollout.observations.reshape(-1, 3))
        errors = returns[-1] / np.concatenate(returns).std() - values
        metrics = update(agent, rollout, 0.1)
        assert float(metrics["value_loss"]) == pytest.approx(0.5 * (errors**2).mean(), rel=1e-4)


def test_plain_reinforce_learns_to_choose_the_better_arm(tmp_path):
    """Without a baseline, on an environment where one action is worth 1 and the other 0."""
    options = {"env_id": "tests.environments:Bandit-v0", "baseline": False, "total_timesteps": 4000}
    result = train_briefly(reinforce, tmp_path, batch_size=80, eval_episodes=5, **options)
    np.testing.assert_array_equal(result.evaluation_returns, np.ones(5))

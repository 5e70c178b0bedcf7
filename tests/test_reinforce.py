"""REINFORCE: returns to go, episodes in flight, and the gradient against finite differences."""

import numpy as np
import pytest

from reinforce import reinforce
from tests.rollouts import (
    assert_slope,
    dense,
    gradients_of,
    log_probabilities,
    make_agent,
    random_rollout,
    update,
)


def returns_to_go(rollout, gamma):
    """Return of every step to the end of its episode, and whether that end is in the rollout."""
    ends = rollout.terminated | rollout.truncated
    returns, finished = np.zeros(ends.shape), np.zeros(ends.shape, bool)
    for env in range(ends.shape[1]):
        for t in range(len(ends)):
            for later in range(t, len(ends)):
                returns[t, env] += gamma ** (later - t) * rollout.rewards[later, env]
                if ends[later, env]:
                    finished[t, env] = True
                    break
    return returns.ravel(), finished.ravel()


@pytest.mark.parametrize("baseline", [True, False])
def test_returns_to_go_stay_in_their_episode(baseline):
    agent, rollout = make_agent(reinforce, gamma=0.9, baseline=baseline), random_rollout()
    returns, finished = returns_to_go(rollout, 0.9)
    assert finished.any() and not finished.all()
    batch = agent.make_batch(rollout)
    np.testing.assert_allclose(batch.finished, finished)
    np.testing.assert_allclose(batch.returns.numpy()[finished], returns[finished], rtol=1e-4, atol=1e-5)
    values = dense(agent.critic, rollout.observations).ravel() if baseline else 0.0
    np.testing.assert_allclose(
        batch.advantages.numpy()[finished], (returns - values)[finished], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("actions", ["discrete", "box"])
@pytest.mark.parametrize("normalize", [True, False])
def test_gradient_against_finite_differences(actions, normalize, monkeypatch):
    options = {"gamma": 0.9, "entropy_coefficient": 0.2, "max_grad_norm": float("inf")}
    agent = make_agent(reinforce, actions, normalize_advantages=normalize, **options)
    rollout = random_rollout(actions=actions)
    returns, finished = returns_to_go(rollout, 0.9)
    observations = rollout.observations.reshape(-1, 3)[finished]
    taken = rollout.actions.reshape(-1, *rollout.actions.shape[2:])[finished]
    values = dense(agent.critic, observations)[:, 0]
    advantages = returns[finished] - values
    if normalize:
        advantages = (advantages - advantages.mean()) / advantages.std()

    def loss(weights):
        log_probs, entropy = log_probabilities(agent.actor, weights, observations, taken)
        return -(log_probs * advantages).mean() - 0.2 * entropy.mean()

    batch = agent.make_batch(rollout)
    gradients = gradients_of(agent, monkeypatch, lambda: agent.learn(batch))
    weights = [w.numpy().astype(np.float64) for w in agent.actor.trainable_variables]
    assert_slope(loss, weights, gradients)
    error = (values - returns[finished]).mean()
    assert gradients[-1][0] == pytest.approx(0.5 * error, rel=1e-3)  # of the baseline's last bias


def test_steps_of_unfinished_episodes_teach_nothing(monkeypatch):
    agent, rollout = make_agent(reinforce), random_rollout()
    _, finished = returns_to_go(rollout, 1.0)
    unfinished = ~finished.reshape(rollout.rewards.shape)
    other = random_rollout(seed=1)
    observations, rewards, actions = (
        x.copy() for x in (rollout.observations, rollout.rewards, rollout.actions)
    )
    observations[unfinished] = other.observations[unfinished]
    rewards[unfinished] += 100.0
    actions[unfinished] = other.actions[unfinished]
    changed = rollout._replace(observations=observations, rewards=rewards, actions=actions)
    gradients = [
        gradients_of(agent, monkeypatch, lambda data=data: agent.learn(agent.make_batch(data)))
        for data in (rollout, changed)
    ]
    for one, two in zip(*gradients):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_rollout_without_an_end_changes_nothing():
    agent, rollout = make_agent(reinforce, normalize_advantages=True), random_rollout()
    never = np.zeros_like(rollout.terminated)
    before = [w.numpy() for w in agent.variables]
    metrics = update(agent, rollout._replace(terminated=never, truncated=never))
    assert float(metrics["finished_fraction"]) == 0
    assert all(np.isfinite(float(value)) for value in metrics.values())
    for weights, was in zip(agent.variables, before):
        np.testing.assert_array_equal(weights, was)


def test_plain_reinforce_learns_to_choose_the_better_arm(tmp_path):
    """Without a baseline, on the environment where one action pays 1 and the other 0."""
    options = {"env_id": "tests.environments:Bandit-v0", "baseline": False, "total_timesteps": 4000}
    config = reinforce.Config(runs_dir=str(tmp_path), num_steps=20, eval_episodes=5, **options)
    np.testing.assert_array_equal(reinforce.train(config).evaluation_returns, np.ones(5))

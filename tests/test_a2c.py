"""A2C: its gradient, and the step of RMSProp."""

import numpy as np
import pytest

from a2c import a2c
from tests.rollouts import assert_slope, dense, gradients_of, log_probabilities, make_agent, random_rollout


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_gradient_against_finite_differences(actions, monkeypatch):
    options = {"entropy_coefficient": 0.3, "value_coefficient": 0.7, "max_grad_norm": float("inf")}
    agent = make_agent(a2c, actions, **options)
    batch = agent.make_batch(random_rollout(actions=actions))
    observations, taken, advantages = (
        x.numpy() for x in (batch.observations, batch.actions, batch.advantages)
    )

    def loss(weights):
        log_probs, entropy = log_probabilities(agent.actor, weights, observations, taken)
        return -(log_probs * advantages).mean() - 0.3 * entropy.mean()

    gradients = gradients_of(agent, monkeypatch, lambda: agent.learn(batch))
    weights = [w.numpy().astype(np.float64) for w in agent.actor.trainable_variables]
    assert_slope(loss, weights, gradients)
    error = dense(agent.critic, observations)[:, 0] - batch.returns.numpy()
    assert gradients[-1][0] == pytest.approx(0.7 * error.mean(), rel=1e-3)  # of the critic's last bias


def test_a_first_step_of_rmsprop():
    """Mnih et al. 2016, section 4: g ← 0.99 g + 0.01 Δ², θ ← θ − η Δ / √(g + ε)."""
    agent = make_agent(a2c, learning_rate=0.01, epsilon=0.1, max_grad_norm=float("inf"))
    batch = agent.make_batch(random_rollout())
    bias = agent.critic.trainable_variables[-1]
    before = bias.numpy()[0]
    slope = 0.5 * (dense(agent.critic, batch.observations.numpy())[:, 0] - batch.returns.numpy()).mean()
    agent.learn(batch)
    step = 0.01 * slope / np.sqrt(0.01 * slope**2 + 0.1)
    assert bias.numpy()[0] == pytest.approx(before - step, abs=1e-6)

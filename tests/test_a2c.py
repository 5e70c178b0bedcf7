"""A2C: its gradient, and the step of RMSProp."""

import numpy as np
import pytest

from a2c import a2c
from tests.rollouts import (
    assert_gradient,
    dense,
    log_probs_and_entropy,
    make_agent,
    normalized,
    parameters_of,
    random_rollout,
    record_gradients,
    values_of,
)


@pytest.mark.parametrize("actions", ["discrete", "box"])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradient_against_finite_differences(actions, normalize, monkeypatch):
    """The whole loss, of policy, critic, and entropy, and the metrics."""
    options = {"entropy_coefficient": 0.3, "value_coefficient": 0.7, "normalize_advantages": normalize}
    agent = make_agent(a2c, actions, **options)
    batch = agent.make_batch(random_rollout(actions=actions))
    observations, taken, advantages, returns = (field.numpy() for field in batch)
    advantages = normalized(advantages) if normalize else advantages
    policy, critic = parameters_of(agent)

    def losses():
        log_probs, entropy = log_probs_and_entropy(policy, observations, taken)
        value_loss = 0.5 * ((returns - dense(critic, observations)[:, 0]) ** 2).mean()
        return -(log_probs * advantages).mean(), value_loss, entropy.mean()

    def loss():
        policy_loss, value_loss, entropy = losses()
        return policy_loss + 0.7 * value_loss - 0.3 * entropy

    gradients = record_gradients(agent, monkeypatch, step=False)
    metrics = agent.learn(batch)
    assert_gradient(loss, [*policy, *critic], *gradients)
    for name, value in zip(("policy_loss", "value_loss", "entropy"), losses()):
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_first_step_of_rmsprop():
    """Mnih et al. 2016, section 4: g ← 0.99 g + 0.01 Δ², θ ← θ − η Δ / √(g + ε)."""
    agent = make_agent(a2c, rmsprop_epsilon=0.1, max_grad_norm=None)
    agent.optimizer.learning_rate.assign(0.01)
    batch = agent.make_batch(random_rollout())
    bias = agent.critic.trainable_variables[-1]
    before = bias.numpy()[0]
    gradient = 0.5 * (values_of(agent, batch.observations) - batch.returns.numpy()).mean()
    agent.learn(batch)
    step = 0.01 * gradient / np.sqrt(0.01 * gradient**2 + 0.1)
    assert bias.numpy()[0] == pytest.approx(before - step, abs=1e-6)

"""PPO: clipping, value clipping, epochs and early stopping, against NumPy."""

from common.errors import UserError
import numpy as np
import pytest
import tensorflow as tf

from ppo import ppo
from tests.rollouts import (
    dense,
    gradients_of,
    log_probabilities,
    make_agent,
    random_rollout,
    train_briefly,
    update,
)
from trpo import trpo

RATIOS = np.array([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0] * 2, np.float32)
ADVANTAGES = np.array([1.5] * 7 + [-0.5] * 7, np.float32)


def batch_with_ratios(agent, actions="discrete"):
    """A minibatch on which the probability ratios are RATIOS, below, in and above the clip range."""
    rollout = random_rollout(num_steps=14, num_envs=1, actions=actions)
    batch = agent.make_batch(rollout)
    return batch._replace(
        advantages=tf.constant(ADVANTAGES),
        log_probs=batch.log_probs - tf.math.log(tf.constant(RATIOS)),
        values=batch.values + tf.linspace(-1.0, 1.0, 14),
    )


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_loss_and_clip_fraction(actions):
    agent = make_agent(ppo, actions, num_envs=1, clip_coefficient=0.2, value_clip=0.3)
    batch = batch_with_ratios(agent, actions)
    values = dense(agent.critic, batch.observations.numpy())[:, 0]
    metrics = {name: float(value) for name, value in agent.learn(batch).items()}
    gain = np.minimum(RATIOS * ADVANTAGES, np.clip(RATIOS, 0.8, 1.2) * ADVANTAGES)
    assert metrics["policy_loss"] == pytest.approx(-gain.mean(), rel=1e-4)
    assert metrics["clip_fraction"] == pytest.approx(8 / 14)
    assert metrics["approx_kl"] == pytest.approx((RATIOS - 1 - np.log(RATIOS)).mean(), rel=1e-4)
    old, returns = batch.values.numpy(), batch.returns.numpy()
    clipped = old + np.clip(values - old, -0.3, 0.3)
    errors = np.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    assert metrics["value_loss"] == pytest.approx(0.5 * errors.mean(), rel=1e-4)


def test_no_limit_leaves_the_value_free():
    agent = make_agent(ppo, num_envs=1, value_clip=float("inf"))
    batch = batch_with_ratios(agent)
    values = dense(agent.critic, batch.observations.numpy())[:, 0]
    loss = 0.5 * ((values - batch.returns.numpy()) ** 2).mean()
    assert float(agent.learn(batch)["value_loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_gradient_against_finite_differences(actions, monkeypatch):
    """The whole loss, clipped objective and entropy, differentiated by hand; the norm of all, limited."""
    options = {"entropy_coefficient": 0.3, "value_coefficient": 0.0, "max_grad_norm": 0.05}
    agent = make_agent(ppo, actions, num_envs=1, **options)
    batch = batch_with_ratios(agent, actions)
    observations, taken = batch.observations.numpy(), batch.actions.numpy()

    def loss(weights):
        log_probs, entropy = log_probabilities(agent.actor, weights, observations, taken)
        ratio = np.exp(log_probs - batch.log_probs.numpy())
        gain = np.minimum(ratio * ADVANTAGES, np.clip(ratio, 0.8, 1.2) * ADVANTAGES)
        return -gain.mean() - 0.3 * entropy.mean()

    weights = [w.numpy().astype(np.float64) for w in agent.actor.trainable_variables]
    slopes = []
    for w in weights:
        slope = np.zeros_like(w)
        for index in np.ndindex(w.shape):
            before = w[index]
            w[index] = before + 1e-5
            up = loss(weights)
            w[index] = before - 1e-5
            slope[index] = (up - loss(weights)) / 2e-5
            w[index] = before
        slopes.append(slope)
    norm = np.sqrt(sum((slope**2).sum() for slope in slopes))
    assert norm > 0.05
    gradients = gradients_of(agent, monkeypatch, lambda: agent.learn(batch))
    for gradient, slope in zip(gradients, slopes):
        np.testing.assert_allclose(gradient, slope * 0.05 / norm, atol=2e-5)


def test_advantages_of_a_minibatch_are_normalised():
    agent = make_agent(ppo, num_envs=1, normalize_advantages=True)
    batch = batch_with_ratios(agent)
    advantages = (ADVANTAGES - ADVANTAGES.mean()) / ADVANTAGES.std()
    gain = np.minimum(RATIOS * advantages, np.clip(RATIOS, 0.8, 1.2) * advantages)
    assert float(agent.learn(batch)["policy_loss"]) == pytest.approx(-gain.mean(), rel=1e-4)


def test_every_row_is_learned_from_once_an_epoch(monkeypatch):
    agent = make_agent(ppo, num_epochs=3, num_minibatches=4)
    rollout, seen = random_rollout(), []
    monkeypatch.setattr(agent, "METRICS", ("approx_kl",))
    monkeypatch.setattr(
        agent, "learn", lambda batch: seen.append(batch.returns.numpy()) or {"approx_kl": 0.0}
    )
    returns = agent.make_batch(rollout).returns.numpy()
    tf.config.run_functions_eagerly(True)
    update(agent, rollout)
    assert [len(minibatch) for minibatch in seen] == [15] * 12
    epochs = [np.concatenate(seen[k : k + 4]) for k in (0, 4, 8)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.sort(returns))
    assert (epochs[0] != epochs[1]).any() and (epochs[0] != returns).any()


@pytest.mark.parametrize("script", [ppo, trpo])
def test_every_epoch_of_every_rollout_has_its_own_order(script, tmp_path, monkeypatch):
    orders = []
    monkeypatch.setattr(
        script.Agent, "update", lambda agent, rollout, order, progress: orders.append(order) or {}
    )
    options = {"num_envs": 2, "num_steps": 8, "num_epochs": 3, "num_minibatches": 4, "total_timesteps": 32}
    train_briefly(script, tmp_path, **options)
    assert [order.shape for order in orders] == [(3, 16)] * 2
    rows = np.concatenate(orders)
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(16), (6, 1)))
    assert len({tuple(row) for row in rows}) == 6


@pytest.mark.parametrize("script", [ppo, trpo])
def test_minibatches_of_less_than_two_steps_are_told_in_one_line(script, tmp_path):
    with pytest.raises(UserError, match="--num-minibatches leaves fewer than 2 steps"):
        train_briefly(script, tmp_path, num_envs=1, num_steps=8, num_minibatches=5)
    assert not list(tmp_path.iterdir())


def test_target_kl_ends_the_epochs():
    for target_kl, updates in ((float("inf"), 40), (1e-5, 2)):
        agent = make_agent(ppo, num_epochs=10, num_minibatches=4, target_kl=target_kl, learning_rate=0.01)
        update(agent, random_rollout())
        assert agent.optimizer.iterations == updates  # the first has nothing to diverge from

"""PPO: the clipped objective, minibatches, and early stopping, against NumPy."""

from common.errors import UserError
import numpy as np
import pytest
import tensorflow as tf

from ppo import ppo
from tests.rollouts import (
    ADVANTAGES,
    RATIOS,
    ScriptedEnvs,
    assert_gradient,
    batch_with_ratios,
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
)
from trpo import trpo


@pytest.mark.parametrize("actions", ["discrete", "box"])
@pytest.mark.parametrize(("normalize", "clip_range"), [(False, 0.2), (True, 0.2), (False, 0.3)])
def test_gradient_against_finite_differences(actions, normalize, clip_range, monkeypatch):
    """The whole loss, of policy, critic, and entropy, and the metrics."""
    options = {"entropy_coefficient": 0.3, "value_coefficient": 0.7, "normalize_advantages": normalize}
    agent = make_agent(ppo, actions, num_envs=1, clip_range=clip_range, **options)
    batch = batch_with_ratios(agent, actions)
    observations, taken, _, returns, old_log_probs = (field.numpy() for field in batch)
    advantages = normalized(ADVANTAGES) if normalize else ADVANTAGES
    policy, critic = parameters_of(agent)

    def losses():
        log_probs, entropy = log_probs_and_entropy(policy, observations, taken)
        ratio = np.exp(log_probs - old_log_probs)
        clipped_ratio = np.clip(ratio, 1 - clip_range, 1 + clip_range)
        objective = np.minimum(ratio * advantages, clipped_ratio * advantages).mean()
        value_loss = 0.5 * ((returns - dense(critic, observations)[:, 0]) ** 2).mean()
        return -objective, value_loss, entropy.mean()

    def loss():
        policy_loss, value_loss, entropy = losses()
        return policy_loss + 0.7 * value_loss - 0.3 * entropy

    gradients = record_gradients(agent, monkeypatch, step=False)
    metrics = agent.learn(batch)
    assert_gradient(loss, [*policy, *critic], *gradients)
    for name, value in zip(("policy_loss", "value_loss", "entropy"), losses()):
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4, abs=1e-6)
    outside = np.abs(RATIOS - 1) > clip_range
    assert outside.sum() == (8 if clip_range == 0.2 else 4)
    assert float(metrics["clip_fraction"]) == pytest.approx(outside.mean())
    assert float(metrics["approx_kl"]) == pytest.approx((RATIOS - 1 - np.log(RATIOS)).mean(), rel=1e-4)


def test_every_step_is_in_one_minibatch_of_each_epoch(monkeypatch):
    """The metrics are those of the last minibatch."""
    tf.config.run_functions_eagerly(True)
    agent = make_agent(ppo, num_epochs=3, num_minibatches=4)
    rollout, seen, metrics, learn = random_rollout(), [], [], agent.learn

    def record(batch):
        seen.append(batch)
        metrics.append(learn(batch))
        return metrics[-1]

    monkeypatch.setattr(agent, "learn", record)
    whole = agent.make_batch(rollout)
    returned = update(agent, rollout, learning_rate=0.1)
    assert [len(batch.returns) for batch in seen] == [15] * 12
    for epoch in (seen[:4], seen[4:8], seen[8:]):
        fields = [np.concatenate(field) for field in zip(*epoch)]
        rows = [np.flatnonzero(whole.returns.numpy() == value)[0] for value in fields[3]]
        np.testing.assert_array_equal(np.sort(rows), np.arange(60))
        for field, expected in zip(fields, whole):
            np.testing.assert_array_equal(field, expected.numpy()[rows])
    assert set(ppo.METRICS) == set(metrics[-1])
    for name, value in metrics[-1].items():
        assert float(returned[name]) == float(value) != float(metrics[-2][name]), name


@pytest.mark.parametrize("script", [ppo, trpo])
def test_each_epoch_of_each_rollout_is_shuffled_anew(script, tmp_path, monkeypatch):
    options = {"num_steps": 8, "num_epochs": 3, "num_minibatches": 4, "hidden_sizes": (8,)}
    _, updates = train_on(ScriptedEnvs(16, 2), script, monkeypatch, tmp_path, **options)
    minibatches = [rows for _, rows, _ in updates]
    assert [rows.shape for rows in minibatches] == [(12, 4)] * 2
    epochs = np.reshape(minibatches, (6, 16))
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(16), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(16))}) == 7


@pytest.mark.parametrize("script", [ppo, trpo])
def test_minibatches_of_less_than_two_steps_are_a_user_error(script, tmp_path):
    with pytest.raises(UserError, match="--num-minibatches leaves fewer than 2 steps"):
        train_briefly(script, tmp_path, num_envs=1, num_steps=8, num_minibatches=5)
    assert not list(tmp_path.iterdir())


def test_target_kl_stops_the_epochs():
    for target_kl, steps in ((None, 40), (1e-5, 2)):
        agent = make_agent(ppo, num_epochs=10, num_minibatches=4, target_kl=target_kl)
        metrics = update(agent, random_rollout(), learning_rate=0.01)
        assert agent.optimizer.iterations == steps  # the KL of the first minibatch is 0
        assert float(metrics["approx_kl"]) > 1e-5

"""TRPO: the Fisher matrix, conjugate gradients, the trust region, and what a failed line search leaves."""

import numpy as np
import pytest
import tensorflow as tf

from tests.rollouts import log_probabilities, make_agent, random_rollout, update
from trpo import trpo


def dense_fisher(agent, batch):
    """E[Jᵀ M J]: J the slope of the actor's outputs, M the Fisher matrix of the distribution itself."""
    with tf.GradientTape() as tape:
        outputs = agent.actor(batch.observations)
    jacobians = tape.jacobian(outputs, agent.actor.trainable_variables)
    size, width = outputs.shape
    slopes = np.concatenate([j.numpy().reshape(size, width, -1) for j in jacobians], axis=-1)
    total = np.zeros((slopes.shape[-1],) * 2)
    for output, slope in zip(outputs.numpy().astype(np.float64), slopes.astype(np.float64)):
        if batch.actions.dtype.is_integer:
            p = np.exp(output) / np.exp(output).sum()
            inner = np.diag(p) - np.outer(p, p)
        else:  # of means and log deviations: 1 / σ² and 2
            inner = np.diag(np.concatenate([np.exp(-2 * output[width // 2 :]), np.full(width // 2, 2.0)]))
        total += slope.T @ inner @ slope
    return total / size


@pytest.fixture(params=["discrete", "box"])
def agent_and_batch(request):
    agent = make_agent(trpo, request.param, cg_damping=0.1)
    return agent, agent.make_batch(random_rollout(actions=request.param))


def test_fisher_vector_product_is_that_of_the_dense_matrix(agent_and_batch):
    agent, batch = agent_and_batch
    fisher = dense_fisher(agent, batch)
    rng = np.random.default_rng(0)
    for _ in range(3):
        vector = rng.normal(size=len(fisher)).astype(np.float32)
        product = agent.fisher_vector_product(batch, tf.constant(vector))
        np.testing.assert_allclose(product, fisher @ vector + 0.1 * vector, rtol=1e-3, atol=1e-3)


def test_conjugate_gradients_solve(agent_and_batch):
    agent, batch = agent_and_batch
    agent.config.cg_iterations = 40
    fisher = dense_fisher(agent, batch) + 0.1 * np.eye(len(trpo.to_vector(agent.actor.trainable_variables)))
    b = np.random.default_rng(0).normal(size=len(fisher)).astype(np.float32)
    x, residual = agent.conjugate_gradients(batch, tf.constant(b))
    np.testing.assert_allclose(x, np.linalg.solve(fisher, b), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(residual, b - fisher @ x.numpy(), atol=2e-3)


def test_conjugate_gradients_of_nothing():
    agent = make_agent(trpo)
    batch = agent.make_batch(random_rollout())
    zeros = tf.zeros_like(trpo.to_vector(agent.actor.trainable_variables))
    x, residual = agent.conjugate_gradients(batch, zeros)
    np.testing.assert_array_equal(x, zeros)
    np.testing.assert_array_equal(residual, zeros)


@pytest.mark.parametrize("target_kl", [1e-4, 0.01, 0.3])
def test_the_step_improves_within_the_region(agent_and_batch, target_kl):
    agent, batch = agent_and_batch
    agent.config.target_kl = target_kl
    actions = batch.actions.numpy()
    old = [w.numpy().astype(np.float64) for w in agent.actor.trainable_variables]
    old_outputs = agent.actor(batch.observations).numpy()
    metrics = {name: float(value) for name, value in agent.improve_policy(batch).items()}
    new = [w.numpy().astype(np.float64) for w in agent.actor.trainable_variables]
    assert any((one != two).any() for one, two in zip(old, new))
    observations = batch.observations.numpy()
    ratio = np.exp(
        log_probabilities(agent.actor, new, observations, actions)[0]
        - log_probabilities(agent.actor, old, observations, actions)[0]
    )
    improvement = ((ratio - 1.0) * batch.advantages.numpy()).mean()
    assert improvement > 0
    assert metrics["improvement"] == pytest.approx(improvement, rel=0.02)
    kl = numpy_kl(old_outputs, agent.actor(batch.observations).numpy(), actions)
    assert metrics["kl"] == pytest.approx(kl, rel=0.02)
    assert 0.05 * target_kl < kl <= 1.001 * target_kl
    assert metrics["step_fraction"] in 0.5 ** np.arange(10)


def numpy_kl(old, new, actions):
    if actions.dtype.kind == "i":
        old_log_p = old - np.log(np.exp(old).sum(axis=-1, keepdims=True))
        new_log_p = new - np.log(np.exp(new).sum(axis=-1, keepdims=True))
        return (np.exp(old_log_p) * (old_log_p - new_log_p)).sum(axis=-1).mean()
    (mean0, log0), (mean1, log1) = np.split(old, 2, axis=-1), np.split(new, 2, axis=-1)
    var0, var1 = np.exp(2 * log0), np.exp(2 * log1)
    return (log1 - log0 + (var0 + (mean0 - mean1) ** 2) / (2 * var1) - 0.5).sum(axis=-1).mean()


def parameters(agent):
    return [w.numpy() for w in agent.actor.trainable_variables]


@pytest.mark.parametrize("failure", ["nothing to gain", "not a number", "worse everywhere", "too far"])
def test_a_failed_line_search_leaves_the_policy_untouched(agent_and_batch, failure, monkeypatch):
    agent, batch = agent_and_batch
    before, calls = parameters(agent), []
    real_surrogate, real_divergence = agent.surrogate, trpo.divergence
    if failure == "nothing to gain":
        batch = batch._replace(advantages=0.0 * batch.advantages)
    elif failure == "not a number":
        batch = batch._replace(advantages=np.nan * batch.advantages)
    elif failure == "worse everywhere":  # the first call is the old policy's, those after it the search's
        worse = lambda batch: real_surrogate(batch) - (1e6 if calls else 0.0)  # noqa: E731
        monkeypatch.setattr(agent, "surrogate", lambda batch: (worse(batch), calls.append(1))[0])
    else:  # a constant does not change the Fisher matrix
        monkeypatch.setattr(trpo, "divergence", lambda *args: real_divergence(*args) + 1.0)
    metrics = agent.improve_policy(batch)
    assert float(metrics["step_fraction"]) == float(metrics["kl"]) == float(metrics["improvement"]) == 0.0
    for now, was in zip(parameters(agent), before):
        np.testing.assert_array_equal(now, was)


def test_the_compiled_update_keeps_the_policy_too():
    agent, rollout = make_agent(trpo), random_rollout()
    before = parameters(agent)
    update(agent, rollout._replace(rewards=np.nan * rollout.rewards))
    for now, was in zip(parameters(agent), before):
        np.testing.assert_array_equal(now, was)


def test_the_critic_learns_in_minibatches():
    agent = make_agent(trpo, num_epochs=3, num_minibatches=4)
    update(agent, random_rollout())
    assert agent.optimizer.iterations == 12

"""TRPO: the Fisher matrix, conjugate gradients, the trust region, the line search, and the critic."""

import numpy as np
import pytest
import tensorflow as tf

from tests.rollouts import (
    ADVANTAGES,
    RATIOS,
    assert_gradient,
    batch_with_ratios,
    dense,
    log_probs_and_entropy,
    make_agent,
    normalized,
    parameters_of,
    random_rollout,
    record_gradients,
    update,
)
from trpo import trpo


def dense_fisher(agent, batch):
    """Return E[Jᵀ M J]: J is the Jacobian of a distribution's parameters, M its own Fisher matrix."""
    network = agent.policy.network
    with tf.GradientTape() as tape:
        outputs = network(batch.observations)
    size, width = outputs.shape
    jacobians = tape.jacobian(outputs, network.trainable_variables)
    jacobians = np.concatenate([j.numpy().reshape(size, width, -1) for j in jacobians], axis=-1)
    fisher = np.zeros((jacobians.shape[-1],) * 2)
    for output, jacobian in zip(outputs.numpy().astype(np.float64), jacobians.astype(np.float64)):
        if batch.actions.dtype.is_integer:
            p = np.exp(output) / np.exp(output).sum()
            inner = np.diag(p) - np.outer(p, p)
        else:  # of the means: 1 / σ²
            inner = np.diag(np.exp(-2.0 * agent.policy.log_std.numpy()))
        fisher += jacobian.T @ inner @ jacobian / size
    if batch.actions.dtype.is_integer:
        return fisher
    whole = np.diag([*np.zeros(len(fisher)), *np.full(width, 2.0)])  # of log σ: 2
    whole[: len(fisher), : len(fisher)] = fisher
    return whole


@pytest.fixture(params=["discrete", "box"])
def agent_and_batch(request):
    agent = make_agent(trpo, request.param, cg_damping=0.1, initial_log_std=1.0)
    return agent, agent.make_batch(random_rollout(actions=request.param))


def policy_of(agent):
    """Return the policy's parameters as one vector, in float64."""
    return np.concatenate([parameter.ravel() for parameter in parameters_of(agent)[0]])


def split(agent, vector):
    """Return the parts of a vector in the shapes of the policy's parameters."""
    shapes = [parameter.shape for parameter in agent.policy.parameters]
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends), shapes)]


def test_fisher_vector_product_equals_that_of_the_dense_matrix(agent_and_batch):
    agent, batch = agent_and_batch
    fisher = dense_fisher(agent, batch)
    rng = np.random.default_rng(0)
    for _ in range(3):
        vector = rng.normal(size=len(fisher)).astype(np.float32)
        product = agent.fisher_vector_product(batch, tf.constant(vector))
        np.testing.assert_allclose(product, fisher @ vector + 0.1 * vector, rtol=1e-3, atol=1e-3)


def test_conjugate_gradient_solves_the_system(agent_and_batch):
    agent, batch = agent_and_batch
    agent.config.cg_iterations = 40
    fisher = dense_fisher(agent, batch) + 0.1 * np.eye(len(policy_of(agent)))
    b = np.random.default_rng(0).normal(size=len(fisher)).astype(np.float32)
    x, residual = agent.conjugate_gradient(batch, tf.constant(b))
    np.testing.assert_allclose(x, np.linalg.solve(fisher, b), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(residual, b - fisher @ x.numpy(), atol=2e-3)


def test_each_iteration_of_conjugate_gradient_is_the_best_in_its_krylov_space(agent_and_batch):
    """x minimizes xᵀ F x / 2 − bᵀ x over b, F b, F² b, F³ b, which steepest descent does not reach."""
    agent, batch = agent_and_batch
    agent.config.cg_iterations = 4
    fisher = dense_fisher(agent, batch) + 0.1 * np.eye(len(policy_of(agent)))
    b = np.random.default_rng(0).normal(size=len(fisher)).astype(np.float32)
    krylov = np.stack([np.linalg.matrix_power(fisher, k) @ b for k in range(4)], axis=1)
    basis, _ = np.linalg.qr(krylov)
    best = basis @ np.linalg.solve(basis.T @ fisher @ basis, basis.T @ b)
    x, _ = agent.conjugate_gradient(batch, tf.constant(b))
    np.testing.assert_allclose(x, best, rtol=1e-3, atol=1e-3 * np.abs(best).max())


def test_conjugate_gradient_of_zeros():
    agent = make_agent(trpo)
    batch = agent.make_batch(random_rollout())
    zeros = tf.zeros_like(trpo.to_vector(agent.policy.parameters))
    x, residual = agent.conjugate_gradient(batch, zeros)
    np.testing.assert_array_equal(x, zeros)
    np.testing.assert_array_equal(residual, zeros)


@pytest.mark.parametrize("actions", ["discrete", "box"])
@pytest.mark.parametrize("normalize", [False, True])
def test_objective_and_its_gradient(actions, normalize):
    agent = make_agent(trpo, actions, num_envs=1, normalize_advantages=normalize)
    batch = batch_with_ratios(agent, actions)
    observations, taken, _, _, old_log_probs = (field.numpy() for field in batch)
    advantages = normalized(ADVANTAGES) if normalize else ADVANTAGES
    policy, _ = parameters_of(agent)

    def objective():
        log_probs, _ = log_probs_and_entropy(policy, observations, taken)
        return (np.exp(log_probs - old_log_probs) * advantages).mean()

    with tf.GradientTape() as tape:
        value = agent.objective(batch, agent.policy(batch.observations).log_prob(batch.actions))
    assert float(value) == pytest.approx((RATIOS * advantages).mean(), rel=1e-4)
    gradients = tape.gradient(value, agent.policy.parameters)
    assert_gradient(objective, policy, [gradient.numpy() for gradient in gradients])


def numpy_kl(actions, old, new, observations):
    """Return E[KL(π_old ‖ π_new)] for the parameters of two policies."""
    old_outputs, new_outputs = dense(old[:4], observations), dense(new[:4], observations)
    if actions.dtype.kind == "i":
        old_log_p, new_log_p = (
            outputs - np.log(np.exp(outputs).sum(axis=-1, keepdims=True))
            for outputs in (old_outputs, new_outputs)
        )
        return (np.exp(old_log_p) * (old_log_p - new_log_p)).sum(axis=-1).mean()
    distances = np.array([2.0, 4.0]) * (old_outputs - new_outputs)  # half ranges of the action
    old_variance, new_variance = np.exp(2 * old[4]), np.exp(2 * new[4])
    terms = new[4] - old[4] + (old_variance + distances**2) / (2 * new_variance) - 0.5
    return terms.sum(axis=-1).mean()


@pytest.mark.parametrize("target_kl", [1e-4, 0.01, 0.3, 1.0])
def test_step_is_the_largest_that_improves_within_the_trust_region(agent_and_batch, target_kl):
    agent, batch = agent_and_batch
    agent.config.target_kl, agent.config.cg_iterations = target_kl, 40
    if target_kl == 1.0:  # prefer likely actions: where σ shrinks, the KL grows faster than its square
        batch = batch._replace(advantages=batch.log_probs - tf.reduce_mean(batch.log_probs))
    observations, actions, advantages = (field.numpy() for field in batch[:3])
    old, old_vector = parameters_of(agent)[0], policy_of(agent)
    with tf.GradientTape() as tape:
        objective = agent.objective(batch, agent.policy(batch.observations).log_prob(batch.actions))
    gradient = trpo.to_vector(tape.gradient(objective, agent.policy.parameters)).numpy().astype(np.float64)
    fisher = dense_fisher(agent, batch) + 0.1 * np.eye(len(gradient))
    old_entropy = log_probs_and_entropy(old, observations, actions)[1].mean()

    metrics = {name: float(value) for name, value in agent.improve_policy(batch).items()}
    step = policy_of(agent) - old_vector
    direction = np.linalg.solve(fisher, gradient)
    full_step = np.sqrt(2 * target_kl / (direction @ fisher @ direction)) * direction
    fraction = metrics["step_fraction"]
    assert fraction in 0.5 ** np.arange(10)
    np.testing.assert_allclose(step, fraction * full_step, rtol=0.001, atol=0.001 * np.abs(step).max())

    def improvement_and_kl(new):
        log_ratios = (
            log_probs_and_entropy(new, observations, actions)[0]
            - log_probs_and_entropy(old, observations, actions)[0]
        )
        improvement = ((np.exp(log_ratios) - 1.0) * advantages).mean()
        return improvement, numpy_kl(actions, old, new, observations)

    new = parameters_of(agent)[0]
    improvement, kl = improvement_and_kl(new)
    assert improvement > 0 and 0.05 * target_kl < kl <= 1.001 * target_kl
    assert metrics["improvement"] == pytest.approx(improvement, rel=0.001)
    assert metrics["kl"] == pytest.approx(kl, rel=0.001)
    assert metrics["entropy"] == pytest.approx(old_entropy, rel=1e-4)
    if target_kl >= 0.3:  # so that the order of the arguments shows
        assert abs(numpy_kl(actions, new, old, observations) / kl - 1.0) > 0.01
    if target_kl == 1.0 and actions.dtype.kind == "f":
        assert fraction < 1.0
        improvement, kl = improvement_and_kl(split(agent, old_vector + 2.0 * step))
        assert improvement <= 0 or kl > target_kl


@pytest.mark.parametrize("failure", ["no advantage", "not a number", "worse everywhere", "too far"])
def test_failed_line_search_leaves_the_policy_as_it_was(agent_and_batch, failure, monkeypatch):
    agent, batch = agent_and_batch
    before, calls = policy_of(agent), []
    objective, distribution = agent.objective, type(agent.policy(batch.observations))
    kl = distribution.kl
    if failure == "no advantage":
        batch = batch._replace(advantages=0.0 * batch.advantages)
    elif failure == "not a number":
        batch = batch._replace(advantages=np.nan * batch.advantages)
    elif failure == "worse everywhere":  # the first call is that of the old policy

        def worse(batch, log_probs):
            calls.append(1)
            return objective(batch, log_probs) - (1e6 if len(calls) > 1 else 0.0)

        monkeypatch.setattr(agent, "objective", worse)
    else:  # a constant does not change the Fisher matrix
        monkeypatch.setattr(distribution, "kl", lambda pi, other: kl(pi, other) + 1.0)
    metrics = agent.improve_policy(batch)
    assert float(metrics["step_fraction"]) == float(metrics["kl"]) == float(metrics["improvement"]) == 0.0
    np.testing.assert_array_equal(policy_of(agent), before)


def test_compiled_update_leaves_the_policy_too():
    agent, rollout = make_agent(trpo, num_epochs=2, num_minibatches=2), random_rollout()
    before = policy_of(agent)
    update(agent, rollout._replace(rewards=np.nan * rollout.rewards))
    np.testing.assert_array_equal(policy_of(agent), before)


def test_gradient_of_the_critic_against_finite_differences(monkeypatch):
    agent = make_agent(trpo)
    batch = agent.make_batch(random_rollout())
    observations, returns = batch.observations.numpy(), batch.returns.numpy()
    _, critic = parameters_of(agent)

    def loss():
        return 0.5 * ((returns - dense(critic, observations)[:, 0]) ** 2).mean()

    gradients = record_gradients(agent, monkeypatch, step=False)
    metrics = agent.learn(batch)
    assert float(metrics["value_loss"]) == pytest.approx(loss(), rel=1e-4)
    assert_gradient(loss, critic, *gradients)


def test_critic_learns_from_every_minibatch(monkeypatch):
    """The metrics are those of the last one."""
    tf.config.run_functions_eagerly(True)
    agent = make_agent(trpo, num_epochs=3, num_minibatches=4)
    rollout, returns, metrics, learn = random_rollout(), [], [], agent.learn

    def record(batch):
        returns.append(batch.returns.numpy())
        metrics.append(learn(batch))
        return metrics[-1]

    monkeypatch.setattr(agent, "learn", record)
    expected = np.sort(agent.make_batch(rollout).returns)
    returned = update(agent, rollout)
    assert agent.optimizer.iterations == 12
    for k in (0, 4, 8):
        np.testing.assert_array_equal(np.sort(np.concatenate(returns[k : k + 4])), expected)
    assert set(trpo.METRICS) == set(metrics[-1])
    for name, value in metrics[-1].items():
        assert float(returned[name]) == float(value) != float(metrics[-2][name]), name

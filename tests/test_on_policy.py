"""What REINFORCE, A2C, PPO, and TRPO share: acting, advantages, normalization, annealing, and resuming."""

import copy
import importlib

from common.numpy_inference import NumpyNetwork
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.rollouts import (
    SCRIPTS,
    ScriptedEnvs,
    dense,
    log_probs_and_entropy,
    make_agent,
    parameters_of,
    random_rollout,
    record_gradients,
    train_briefly,
    train_on,
    update,
    values_of,
)

BOOTSTRAPPING = ("a2c", "ppo", "trpo")
COUNTER, BOX = "tests.environments:Counter-v0", "tests.environments:BoxActions-v0"


def one_minibatch(module):
    """Return options for one minibatch of all steps."""
    return {"num_epochs": 1, "num_minibatches": 1} if hasattr(module.Config, "num_epochs") else {}


def small(module, **options):
    """Return options of a run of several short updates, not compiled, because that would take longer."""
    script = module.__name__.partition(".")[0]
    if script == "reinforce":
        length = {"batch_size": 6}
    else:
        length = {"num_steps": 8} | ({"num_epochs": 1, "num_minibatches": 2} if script != "a2c" else {})
    run = {"num_envs": 2, "total_timesteps": 48, "log_frequency": 1, "eager": True, "hidden_sizes": (8,)}
    return length | run | options


def with_scaled_rewards(module):
    """Return the option that scales rewards; REINFORCE has none, because it always scales returns."""
    return {"normalize_rewards": True} if hasattr(module.Config, "normalize_rewards") else {}


@pytest.fixture
def eagerly():
    """Run compiled functions uncompiled, for tests that call them a few times."""
    tf.config.run_functions_eagerly(True)


@pytest.fixture(params=SCRIPTS)
def on_policy(request):
    return importlib.import_module(f"{request.param}.{request.param}")


@pytest.fixture(params=BOOTSTRAPPING)
def bootstrapping(request):
    return importlib.import_module(f"{request.param}.{request.param}")


@pytest.fixture
def agents(on_policy, monkeypatch):
    """The agents that `train` makes."""
    made, make = [], on_policy.Agent
    monkeypatch.setattr(on_policy, "Agent", lambda *args: made.append(make(*args)) or made[-1])
    return made


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_log_probabilities_and_entropy(on_policy, actions):
    agent, rollout = make_agent(on_policy, actions), random_rollout(actions=actions)
    observations, taken = rollout.observations[:, 0], rollout.actions[:, 0]
    log_probs, entropy = log_probs_and_entropy(parameters_of(agent)[0], observations, taken)
    pi = agent.policy(observations)
    np.testing.assert_allclose(pi.log_prob(tf.constant(taken)), log_probs, rtol=1e-4)
    np.testing.assert_allclose(pi.entropy(), entropy, rtol=1e-4)


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_actions_are_sampled_from_the_policy(on_policy, actions):
    agent = make_agent(on_policy, actions)
    observations = np.repeat(random_rollout().observations[:1, 0], 20_000, axis=0)
    sampled = agent.act(observations)
    outputs = agent.policy.network(observations[:1]).numpy()[0]
    if actions == "discrete":
        frequencies = np.bincount(sampled, minlength=3) / len(sampled)
        np.testing.assert_allclose(frequencies, np.exp(outputs) / np.exp(outputs).sum(), atol=0.015)
        np.testing.assert_array_equal(agent.policy.clip(sampled), sampled)
    else:
        std = np.exp(agent.policy.log_std.numpy())
        np.testing.assert_allclose(sampled.mean(axis=0), outputs, atol=0.04 * std.max())
        np.testing.assert_allclose(sampled.std(axis=0), std, rtol=0.03)
        low, high = agent.policy.low, agent.policy.high
        assert (sampled < low).any() and (sampled > high).any()  # `act` does not clip
        np.testing.assert_array_equal(agent.policy.clip(sampled), np.clip(sampled, low, high))


@pytest.mark.parametrize("normalize_rewards", [False, True])
def test_advantages_are_the_double_sum(bootstrapping, normalize_rewards):
    """A_t = Σ_k (γ λ)^k δ_{t+k}, up to the end of the episode."""
    gamma, lam = 0.9, 0.7
    options = {"gamma": gamma, "gae_lambda": lam, "normalize_rewards": normalize_rewards}
    agent, rollout = make_agent(bootstrapping, **options), random_rollout()
    assert (rollout.terminated & rollout.truncated).any() and (rollout.truncated & ~rollout.terminated).any()
    batch = agent.make_batch(rollout)
    values, next_values = (values_of(agent, x) for x in (rollout.observations, rollout.next_observations))
    ended, rewards = rollout.terminated | rollout.truncated, rollout.rewards
    if normalize_rewards:
        returns = np.zeros_like(rewards)
        for t, reward in enumerate(rewards):
            returns[t] = reward + (gamma * np.where(ended[t - 1], 0.0, returns[t - 1]) if t else 0.0)
        rewards = rewards / returns.std()
    advantages = np.zeros_like(values)
    for env in range(values.shape[1]):
        for t in range(len(values)):
            for later in range(t, len(values)):
                future = 0.0 if rollout.terminated[later, env] else gamma * next_values[later, env]
                delta = rewards[later, env] + future - values[later, env]
                advantages[t, env] += (gamma * lam) ** (later - t) * delta
                if ended[later, env]:
                    break
    np.testing.assert_allclose(batch.advantages, advantages.ravel(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(batch.returns, (advantages + values).ravel(), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(batch.observations, rollout.observations.reshape(-1, 3))
    np.testing.assert_array_equal(batch.actions, rollout.actions.ravel())


def test_value_of_an_endless_stream_of_ones(bootstrapping, tmp_path):
    """Episodes are truncated after 5 steps and never terminate: V = 1 / (1 − γ) = 5."""
    result = train_briefly(
        bootstrapping,
        tmp_path,
        env_id="tests.environments:Truncating-v0",
        gamma=0.8,
        num_envs=4,
        num_steps=16,
        total_timesteps=40_000 if bootstrapping.__name__ == "a2c.a2c" else 12_000,
        learning_rate=0.01,
    )
    value = result.networks["critic"](np.ones((1, 1), np.float32)).numpy()[0, 0]
    assert value == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_rollouts_hold_what_happened(bootstrapping, actions, tmp_path, monkeypatch):
    """The unclipped actions, the true next observations, and the two kinds of ends apart."""
    envs = ScriptedEnvs(24, 3, actions)
    options = small(bootstrapping, initial_log_std=1.0) if actions == "box" else small(bootstrapping)
    sampled, updates = train_on(envs, bootstrapping, monkeypatch, tmp_path, **options)
    assert len(updates) == 3
    rollout = [np.concatenate(field) for field in zip(*(args[0] for args in updates))]
    observations, stored_actions, rewards, next_observations, terminated, truncated = rollout
    np.testing.assert_array_equal(observations, envs.observations)
    np.testing.assert_array_equal(stored_actions, sampled)
    np.testing.assert_allclose(rewards, envs.rewards, rtol=1e-6)
    np.testing.assert_array_equal(next_observations, envs.true_next)
    np.testing.assert_array_equal(terminated, envs.terminated)
    np.testing.assert_array_equal(truncated, envs.truncated)
    if actions == "box":
        clipped = np.clip(sampled, envs.single_action_space.low, envs.single_action_space.high)
        assert (sampled != clipped).any()
        np.testing.assert_array_equal(envs.actions, clipped)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_learning_rate_is_annealed_linearly(on_policy, fraction, tmp_path, monkeypatch):
    envs = ScriptedEnvs(32, 2)
    options = small(on_policy, anneal_learning_rate=fraction, learning_rate=0.02, log_frequency=1)
    if on_policy.__name__ != "reinforce.reinforce":
        before = [0, 16, 32, 48]  # environment steps before the rollout that is learned from
    else:  # before the step that completes the batch
        before, waiting, started = [], 0, [0, 0]
        for t, ended in enumerate(envs.ended):
            for k in np.flatnonzero(ended):
                waiting, started[k] = waiting + t + 1 - started[k], t + 1
            if waiting >= 6:
                before, waiting = [*before, 2 * t], 0
    _, updates = train_on(envs, on_policy, monkeypatch, tmp_path, **options)
    learning_rates = [float(args[-1]) for args in updates]
    assert len(learning_rates) > 2
    np.testing.assert_allclose(learning_rates, 0.02 * (1 - fraction * np.array(before) / 64), rtol=1e-5)


def numpy_steps(module, parameters, gradients, learning_rates, max_norm):
    """Return the parameters after one step for each list of gradients, as the papers or authors have it.

    RMSProp with ρ = 0.99 and ε = 1e-5 under the root for A2C; Adam with ε = 1e-5 for PPO and TRPO, with
    Keras' 1e-7 for REINFORCE.
    """
    parameters = list(parameters)
    first, second = ([np.zeros(p.shape) for p in parameters] for _ in range(2))
    for t, (gradient, learning_rate) in enumerate(zip(gradients, learning_rates), 1):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient))
        factor = min(1.0, max_norm / norm) if max_norm else 1.0
        for k, g in enumerate(gradient):
            g = factor * g.astype(np.float64)
            if module.__name__ == "a2c.a2c":
                second[k] = 0.99 * second[k] + 0.01 * g**2
                step = g / np.sqrt(second[k] + 1e-5)
            else:
                first[k] = 0.9 * first[k] + 0.1 * g
                second[k] = 0.999 * second[k] + 0.001 * g**2
                epsilon = 1e-7 if module.__name__ == "reinforce.reinforce" else 1e-5
                correction = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
                step = correction * first[k] / (np.sqrt(second[k]) + epsilon)
            parameters[k] = parameters[k] - learning_rate * step
    return parameters


def with_clipping(module, max_norm):
    """Return the option for the maximum norm of the gradient; REINFORCE has none."""
    return {"max_grad_norm": max_norm} if hasattr(module.Config, "max_grad_norm") else {}


@pytest.mark.parametrize("max_norm", [0.05, None])
def test_steps_of_the_optimizer(on_policy, max_norm):
    """From gradients as small as ε, where ε counts, to some that are clipped."""
    options = with_clipping(on_policy, max_norm)
    agent, rng = make_agent(on_policy, "box", **options), np.random.default_rng(0)
    trained = agent.optimizer._trainable_variables
    parameters, gradients = [p.numpy().astype(np.float64) for p in trained], []
    agent.optimizer.learning_rate.assign(0.1)
    for scale in (1e-7, 1e-5, 1e-3, 1.0):
        gradients.append([np.float32(scale * rng.normal(size=p.shape)) for p in trained])
        agent.optimizer.apply([tf.constant(g) for g in gradients[-1]])
        norm = options.get("max_grad_norm")
        expected = numpy_steps(on_policy, parameters, gradients, [0.1] * len(gradients), norm)
        for parameter, value in zip(trained, expected):
            np.testing.assert_allclose(parameter.numpy(), value, rtol=0, atol=2e-6)


@pytest.mark.parametrize("max_norm", [0.05, None])
def test_update_steps_along_its_gradients(on_policy, max_norm, eagerly, monkeypatch):
    """Three updates with learning rates of their own; `grad_norm` is the norm before clipping."""
    options = with_clipping(on_policy, max_norm)
    agent = make_agent(on_policy, **options, **one_minibatch(on_policy))
    trained = agent.optimizer._trainable_variables
    parameters = [p.numpy().astype(np.float64) for p in trained]
    gradients, learning_rates = record_gradients(agent, monkeypatch), [0.01, 0.1, 0.02]
    for k, learning_rate in enumerate(learning_rates):
        metrics = update(agent, random_rollout(seed=k), learning_rate)
        norm = np.sqrt(sum((g**2).sum() for g in gradients[-1]))
        assert norm > 0.05
        assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    assert len(gradients) == 3
    norm = options.get("max_grad_norm")
    expected = numpy_steps(on_policy, parameters, gradients, learning_rates, norm)
    for parameter, value in zip(trained, expected):
        np.testing.assert_allclose(parameter.numpy(), value, rtol=0, atol=1e-5)
    of_policy = [] if on_policy.__name__ == "trpo.trpo" else agent.policy.parameters
    everything = [*of_policy, *agent.critic.trainable_variables]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in everything}


def test_value_loss_and_explained_variance_are_those_before_the_step(on_policy, eagerly):
    agent = make_agent(on_policy, **one_minibatch(on_policy))
    rollout = random_rollout()
    values = values_of(agent, rollout.observations).ravel()
    if on_policy.__name__ == "reinforce.reinforce":
        returns = rollout.rewards.ravel() / rollout.rewards.std()
    else:
        returns = agent.make_batch(rollout).returns.numpy()
    metrics = update(agent, rollout, 0.1)
    assert float(metrics["value_loss"]) == pytest.approx(0.5 * ((returns - values) ** 2).mean(), rel=1e-4)
    explained = 1 - (returns - values).var() / returns.var()
    assert float(metrics["explained_variance"]) == pytest.approx(explained, rel=1e-4)


def test_log_std_is_learned_and_restored(on_policy, tmp_path, agents):
    options = small(on_policy, env_id=BOX)
    first = train_briefly(on_policy, tmp_path, **options)
    log_std = agents[0].policy.log_std.numpy()
    assert (log_std != np.log([2.0, 4.0])).all()
    saved = keras.models.load_model(first.folder / "model.keras")
    observations = np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(saved(observations), first.model(observations))
    train_briefly(on_policy, tmp_path, **options, resume=str(first.folder))
    np.testing.assert_array_equal(agents[1].policy.log_std.numpy(), log_std)


def test_traces(on_policy, tmp_path, agents):
    """One trace; REINFORCE, whose batches differ in size, may have a second one for any size."""
    reinforce = on_policy.__name__ == "reinforce.reinforce"
    options = small(on_policy, eager=False, total_timesteps=400 if reinforce else 48)
    train_briefly(on_policy, tmp_path, **options)
    allowed = 2 if reinforce else 1
    assert agents[0].update.experimental_get_tracing_count() <= allowed < agents[0].optimizer.iterations


@pytest.mark.parametrize("bounds", ["InfiniteActions", "HalfInfiniteActions", "HugeActions", "BoxActions"])
def test_any_bounds_of_actions(on_policy, bounds, tmp_path):
    """The environments assert that the actions are in their space."""
    options = small(on_policy, env_id=f"tests.environments:{bounds}-v0", normalize_observations=True)
    result = train_briefly(on_policy, tmp_path, **options)
    assert np.isfinite(result.model(np.ones((1, 1), np.float32))).all()
    assert len(result.evaluation_returns) == 2


def test_statistics_are_saved_with_the_model(on_policy, tmp_path, agents):
    options = small(on_policy, env_id=COUNTER, normalize_observations=True, **with_scaled_rewards(on_policy))
    result = train_briefly(on_policy, tmp_path, **options)
    layer, moments = result.model.layers[0], agents[0].normalizer.moments
    assert layer is result.networks["critic"].layers[0]
    assert moments.count == 48  # of the episodes of 3 steps, all were finished
    np.testing.assert_allclose(moments.mean, [1.0], rtol=1e-5)  # of 0, 1, 2
    np.testing.assert_allclose(moments.variance, [2 / 3], rtol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), moments.mean)
    np.testing.assert_array_equal(layer.moving_variance.numpy(), moments.variance)
    saved = keras.models.load_model(result.folder / "model.keras")
    observations = 3 * np.random.default_rng(0).normal(size=(5, 1)).astype(np.float32)
    np.testing.assert_array_equal(saved(observations), result.model(observations))
    np.testing.assert_allclose(NumpyNetwork(saved)(observations), saved(observations), atol=1e-5)


def test_statistics_change_after_the_update(on_policy, eagerly):
    """The update has to see the normalized observations that the policy acted on."""
    agent = make_agent(on_policy, normalize_observations=True, **one_minibatch(on_policy))
    seen = []
    for k in range(2):
        rollout = random_rollout(seed=k)
        observations = rollout.observations.reshape(-1, 3)
        before = np.concatenate(seen) if k else None
        inputs = (observations - before.mean(axis=0)) / before.std(axis=0) if k else observations
        values, entropy = values_of(agent, inputs), policy_entropy(agent, inputs)
        if on_policy.__name__ == "reinforce.reinforce":
            every = np.concatenate([random_rollout(seed=j).rewards.ravel() for j in range(k + 1)])
            returns = rollout.rewards.ravel() / every.std()
        else:
            returns = agent.make_batch(rollout).returns.numpy()
        metrics = update(agent, rollout)
        value_loss = 0.5 * ((values - returns) ** 2).mean()
        assert float(metrics["value_loss"]) == pytest.approx(value_loss, rel=1e-3)
        assert float(metrics["entropy"]) == pytest.approx(entropy, rel=1e-4)
        seen.append(observations)
        mean, variance = np.concatenate(seen).mean(axis=0), np.concatenate(seen).var(axis=0)
        for moments in (agent.normalizer.moments.mean, agent.normalizer.layer.moving_mean):
            np.testing.assert_allclose(moments.numpy(), mean, rtol=1e-4, atol=1e-5)
        for moments in (agent.normalizer.moments.variance, agent.normalizer.layer.moving_variance):
            np.testing.assert_allclose(moments.numpy(), variance, rtol=1e-4)
    assert agent.normalizer.moments.count == 120


def policy_entropy(agent, inputs):
    """Return the mean entropy of a categorical policy for inputs of its first Dense layer."""
    logits = dense(parameters_of(agent)[0], inputs)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return -(p * np.log(p)).sum(axis=-1).mean()


def state_of(agent):
    """Return copies of everything that a resumed run needs."""
    scaler = getattr(agent, "reward_scaler", None)
    parts = {
        "policy": agent.policy.parameters,
        "log_std": [agent.policy.log_std],
        "critic": agent.critic.trainable_variables,
        "optimizer": agent.optimizer.variables,
        "layer": agent.normalizer.layer.variables,
    }
    reward_moments = scaler.moments if scaler else agent.return_moments
    for name, moments in (("observation", agent.normalizer.moments), ("reward", reward_moments)):
        parts[f"{name} moments"] = [moments.mean, moments.variance, moments.count]
    state = {f"{name} {k}": v.numpy() for name, variables in parts.items() for k, v in enumerate(variables)}
    return state | {"rng": copy.deepcopy(agent.rng.bit_generator.state)}


def checkpointed(path):
    """Return the values of a TensorFlow checkpoint by name."""
    reader = tf.train.load_checkpoint(path)
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if name != "_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_a_resumed_run_continues_with_the_whole_agent(on_policy, tmp_path, monkeypatch):
    """Every action, before and after resuming, is the one that follows from model, log σ, and generator."""
    agents, initial_states, first_acts = [], [], {}

    class Watched(on_policy.Agent):
        def __init__(self, *args):
            super().__init__(*args)
            agents.append(self)
            initial_states.append(state_of(self))

        def act(self, observations):
            if len(agents) not in first_acts:
                written = tf.train.Checkpoint(agent=self).write(str(tmp_path / f"agent_{len(agents)}"))
                first_acts[len(agents)] = state_of(self), checkpointed(written)
            rng, means = copy.deepcopy(self.rng), self.policy.network(observations).numpy()
            noise = rng.standard_normal(means.shape, np.float32)
            actions = super().act(observations)
            expected = means + np.exp(self.policy.log_std.numpy()) * noise
            np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
            return actions

    monkeypatch.setattr(on_policy, "Agent", Watched)
    options = small(on_policy, env_id=BOX, normalize_observations=True, **with_scaled_rewards(on_policy))
    options |= {"learning_rate": 0.01}
    first = train_briefly(on_policy, tmp_path, **options)
    last_state = state_of(agents[0])
    (checkpoint,) = (first.folder / "checkpoints").glob("[0-9]*")
    saved = checkpointed(str(checkpoint / "variables"))
    train_briefly(on_policy, tmp_path, **options | {"total_timesteps": 64, "resume": str(first.folder)})

    restored_state, restored = first_acts[2]
    for name, value in restored_state.items():
        if name == "optimizer 1":  # the learning rate, which every update sets
            np.testing.assert_equal(value, initial_states[1][name])
            continue
        np.testing.assert_equal(value, last_state[name], err_msg=name)
        assert np.any(value != initial_states[1][name]), f"{name} did not change in training"
    assert set(restored) == set(saved)
    for name in restored.keys() - {"agent/optimizer/_learning_rate/.ATTRIBUTES/VARIABLE_VALUE"}:
        np.testing.assert_array_equal(restored[name], saved[name], err_msg=name)
    steps_before = 58 if on_policy.__name__ == "reinforce.reinforce" else 48  # the last update
    assert float(agents[1].optimizer.learning_rate) == pytest.approx(0.01 * (1 - steps_before / 64))


def test_a_resumed_run_may_have_another_number_of_environments(bootstrapping, tmp_path, monkeypatch):
    """The running returns belonged to episodes that are over; the statistics continue."""
    options = small(bootstrapping, env_id=COUNTER, normalize_rewards=True)
    first = train_briefly(bootstrapping, tmp_path, **options)
    seen = []

    class Watched(bootstrapping.Agent):
        def act(self, *args):
            seen.append((self.reward_scaler.returns.numpy(), int(self.reward_scaler.moments.count)))
            return super().act(*args)

    monkeypatch.setattr(bootstrapping, "Agent", Watched)
    options |= {"num_envs": 3, "total_timesteps": 60, "resume": str(first.folder)}
    train_briefly(bootstrapping, tmp_path, **options)
    returns, count = seen[0]
    np.testing.assert_array_equal(returns, np.zeros(3))
    assert count == 48


def test_integer_observations_are_learned_from(on_policy, tmp_path, agents):
    train_briefly(on_policy, tmp_path, **small(on_policy, env_id="tests.environments:Image-v0"))
    assert agents[0].optimizer.iterations > 0

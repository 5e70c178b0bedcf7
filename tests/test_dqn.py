"""DQN against the same computation in NumPy, and in environments whose values are known."""

import dataclasses

from common.numpy_inference import NumpyNetwork
from common.replay_buffer import Transitions
import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from dqn.dqn import Agent, Config, evaluate, train
from tests.conftest import DQN_FAMILY

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = gym.spaces.Discrete(2)
RATE = tf.constant(0.01)


def random_batches(num_batches, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_batches, batch_size)
    return Transitions(
        observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        actions=rng.integers(2, size=shape),
        rewards=(3 * rng.normal(size=shape)).astype(np.float32),
        next_observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        terminated=rng.random(shape) < 0.3,
    )


class NumpyDQN:
    """One hidden layer of ReLUs, its gradient by hand, and Adam (Kingma & Ba 2015, section 2), in float64."""

    def __init__(self, weights, config):
        self.online = [w.astype(np.float64) for w in weights]
        self.target = [w.copy() for w in self.online]
        self.first, self.second = ([np.zeros_like(w) for w in self.online] for _ in range(2))
        self.config, self.updates = config, 0

    @staticmethod
    def forward(weights, x):
        kernel, bias, out_kernel, out_bias = weights
        hidden = np.maximum(x @ kernel + bias, 0.0)
        return hidden, hidden @ out_kernel + out_bias

    def update(self, batch):
        config, size = self.config, len(batch.rewards)
        next_q = self.forward(self.target, batch.next_observations)[1].max(axis=1)
        target = batch.rewards + config.gamma * np.where(batch.terminated, 0.0, next_q)
        hidden, all_q = self.forward(self.online, batch.observations)
        q_values = all_q[np.arange(size), batch.actions]
        error = target - q_values
        if config.loss == "huber":
            loss = np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5).mean()
            slope = np.clip(error, -1.0, 1.0)
        else:
            loss, slope = (0.5 * error**2).mean(), error
        output_gradient = np.zeros_like(all_q)
        output_gradient[np.arange(size), batch.actions] = -slope / size
        hidden_gradient = output_gradient @ self.online[2].T * (hidden > 0)
        gradients = [
            batch.observations.T @ hidden_gradient,
            hidden_gradient.sum(axis=0),
            hidden.T @ output_gradient,
            output_gradient.sum(axis=0),
        ]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        if config.max_grad_norm is not None:
            gradients = [gradient * min(1.0, config.max_grad_norm / norm) for gradient in gradients]
        self.updates += 1
        for k, gradient in enumerate(gradients):
            self.first[k] = 0.9 * self.first[k] + 0.1 * gradient
            self.second[k] = 0.999 * self.second[k] + 0.001 * gradient**2
            step_size = config.learning_rate * np.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
            root = np.sqrt(self.second[k]) + config.adam_epsilon
            self.online[k] = self.online[k] - step_size * self.first[k] / root
        if self.updates % config.target_network_frequency == 0:
            self.target = [config.tau * w + (1 - config.tau) * t for w, t in zip(self.online, self.target)]
        return loss, q_values.mean(), norm


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "huber", "tau": 1.0, "target_network_frequency": 3, "max_grad_norm": 0.1},
        {"loss": "squared", "tau": 0.1, "target_network_frequency": 1, "max_grad_norm": None},
    ],
)
def test_updates_equal_numpy(options):
    config = Config(hidden_sizes=(16,), gamma=0.9, learning_rate=0.01, **options)
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    expected = NumpyDQN(agent.q_network.get_weights(), config)
    batches = random_batches(num_batches=7, batch_size=32)
    metrics = agent.update(batches, tf.constant(config.learning_rate))
    for k in range(7):
        loss, q_values, norm = expected.update(Transitions(*(field[k] for field in batches)))
    assert set(metrics) == {"td_loss", "q_values", "grad_norm"}  # those of the last minibatch
    np.testing.assert_allclose(metrics["td_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_values"], q_values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)  # before clipping
    for weights, same in zip(agent.q_network.get_weights(), expected.online):
        np.testing.assert_allclose(weights, same, atol=1e-5)
    for weights, same in zip(agent.target_network.get_weights(), expected.target):
        np.testing.assert_allclose(weights, same, atol=1e-5)


def test_target_network_starts_as_a_copy_and_does_not_move_between_target_updates():
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,), target_network_frequency=100))
    before = agent.q_network.get_weights()
    agent.update(random_batches(5, 32), RATE)
    for target, then, now in zip(agent.target_network.get_weights(), before, agent.q_network.get_weights()):
        np.testing.assert_array_equal(target, then)
        assert (now != then).any()


def test_update_traces_once():
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,)))
    for seed in range(3):
        agent.update(random_batches(4, 8, seed), tf.constant(0.001 * (seed + 1)))
    assert agent.update.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_the_learning_rate_of_a_call_is_that_of_its_steps(script, module):
    """While a gradient keeps its sign, Adam moves a weight by the learning rate with every step."""
    agent = module(script).Agent(OBSERVATIONS, ACTIONS, module(script).Config(hidden_sizes=(16, 16)))
    batches = random_batches(1, 32)._replace(rewards=np.full((1, 32), 1000.0, np.float32))
    for rate in (0.01, 0.0, 0.002):
        before = agent.q_network.get_weights()
        agent.update(batches, tf.constant(rate))
        moved = max(np.abs(w - b).max() for w, b in zip(agent.q_network.get_weights(), before))
        np.testing.assert_allclose(moved, rate, rtol=0.1)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_the_first_step_of_adam_is_that_of_a_clipped_gradient(script, module):
    """It moves a weight by α g / (|g| + ε'), so each g is known from its move, and so is their norm.

    Keras adds ε to the square root before the correction of the bias: ε' = ε / √(1 − β₂).
    """
    epsilon, rate, norm = 1e-3, 0.1, 0.01
    options = {"adam_epsilon": epsilon * np.sqrt(0.001), "max_grad_norm": norm, "hidden_sizes": (16, 16)}
    agent = module(script).Agent(OBSERVATIONS, ACTIONS, module(script).Config(**options))
    before = agent.q_network.get_weights()
    assert agent.update(random_batches(1, 32), tf.constant(rate))["grad_norm"] > 10 * norm
    moves = [np.abs(now - then) for now, then in zip(agent.q_network.get_weights(), before)]
    gradients = [epsilon * move / (rate - move) for move in moves]
    np.testing.assert_allclose(np.sqrt(sum((g**2).sum() for g in gradients)), norm, rtol=0.01)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_the_loss_is_half_the_squared_error(script, module):
    agent = module(script).Agent(OBSERVATIONS, ACTIONS, module(script).Config(hidden_sizes=(16, 16)))
    batches = random_batches(1, 64)._replace(terminated=np.ones((1, 64), bool))
    q_values = agent.q_network(batches.observations[0]).numpy()[np.arange(64), batches.actions[0]]
    expected = 0.5 * np.mean((batches.rewards[0] - q_values) ** 2)
    np.testing.assert_allclose(agent.update(batches, RATE)["td_loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_soft_updates_move_the_target_network_by_tau(script, module):
    agent = module(script).Agent(OBSERVATIONS, ACTIONS, module(script).Config(hidden_sizes=(16, 16), tau=0.1))
    online = [weights + 1.0 for weights in agent.q_network.get_weights()]
    target = agent.target_network.get_weights()
    agent.q_network.set_weights(online)
    agent.soft_update(agent.target_network, agent.q_network)
    for now, new, old in zip(agent.target_network.get_weights(), online, target):
        np.testing.assert_allclose(now, 0.1 * new + 0.9 * old, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_the_seed_state_of_an_lstm_does_not_take_part_in_target_updates(script, module):
    """An LSTM layer has an integer variable, the state of its random seed."""
    space = gym.spaces.Box(-1.0, 1.0, (4, 3), np.float32)
    soft = {"tau": 0.5, "target_network_frequency": 1}
    config = module(script).Config(network="lstm", hidden_sizes=(8, 8), frame_stack=4, **soft)
    agent = module(script).Agent(space, ACTIONS, config)
    before = [w.numpy() for w in agent.target_network.non_trainable_variables]
    assert before and all(np.issubdtype(w.dtype, np.integer) for w in before)
    targets, shape = agent.target_network.trainable_variables, (2, 16, 4, 3)
    first = [w.numpy() for w in targets]
    observations = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    batches = random_batches(2, 16)._replace(observations=observations[0], next_observations=observations[1])
    agent.update(batches, RATE)
    for then, now in zip(before, agent.target_network.non_trainable_variables):
        np.testing.assert_array_equal(then, now.numpy())
    assert all((then != now.numpy()).any() for then, now in zip(first, targets))


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_the_acting_network_changes_at_refresh(script, module):
    agent = module(script).Agent(OBSERVATIONS, ACTIONS, module(script).Config(hidden_sizes=(16, 16)))
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    first = agent.acting_network(observations)
    agent.update(random_batches(20, 32), tf.constant(0.01))
    np.testing.assert_array_equal(agent.acting_network(observations), first)
    agent.acting_network.refresh()
    q_values = agent.q_network(observations).numpy()
    np.testing.assert_array_equal(agent.acting_network(observations).argmax(axis=1), q_values.argmax(axis=1))
    assert (agent.acting_network(observations) != first).all()


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_training_acts_with_the_newest_weights(script, module, configured, monkeypatch):
    """Before every step the acting network and the online network agree on what is best."""
    agent_class, seen = module(script).Agent, []

    def act(self, observations, epsilon):
        values = self.q_network(observations).numpy()
        seen.append(values)
        np.testing.assert_array_equal(self.acting_network(observations).argmax(-1), values.argmax(-1))
        return self.rng.integers(self.num_actions, size=len(observations))

    monkeypatch.setattr(agent_class, "act", act)
    updates = {"learning_starts": 20, "train_frequency": 10, "gradient_steps": 8, "batch_size": 16}
    options = {"total_timesteps": 100, "num_envs": 2, "learning_rate": 0.05, "hidden_sizes": (16, 16)}
    module(script).train(configured(script, **updates, **options))
    assert len({float(values[0, 0]) for values in seen}) > 10 and len(set(np.argmax(seen, -1).ravel())) == 2


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_acts_greedily_but_for_epsilon(script, module):
    """Each environment draws its own random number."""
    agent = module(script).Agent(OBSERVATIONS, gym.spaces.Discrete(4), module(script).Config())
    observations = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32)
    greedy = np.argmax(agent.q_network(observations), axis=-1)
    np.testing.assert_array_equal(agent.act(observations, epsilon=0.0), greedy)
    counts = np.bincount(agent.act(observations, epsilon=1.0), minlength=4)
    np.testing.assert_allclose(counts / 4000, 0.25, atol=0.03)
    agreement = (agent.act(observations, epsilon=0.4) == greedy).mean()
    np.testing.assert_allclose(agreement, 0.6 + 0.4 / 4, atol=0.03)


@pytest.mark.parametrize(
    ("name", "values"),
    [("Truncating", {1: 10.0}), ("Terminating", {1: 1.0}), ("StartThenStay", {0: 9.0, 1: 10.0})],
)
def test_q_in_environments_whose_values_are_known(name, values, tmp_path):
    """A time limit does not end the value of a state: 1 / (1 − 0.9) = 10; a terminal step does: 1."""
    config = Config(
        env_id=f"tests.environments:{name}-v0",
        total_timesteps=6_000,
        num_envs=1,
        gamma=0.9,
        learning_starts=100,
        learning_rate=3e-3,
        hidden_sizes=(16,),
        tau=1.0,
        target_network_frequency=10,
        train_frequency=50,
        gradient_steps=50,
        eval_episodes=2,
        runs_dir=str(tmp_path),
    )
    result = train(config)
    for observation, value in values.items():
        q_values = result.networks["q_network"](np.full((1, 1), observation, np.float32)).numpy()
        np.testing.assert_allclose(q_values, value, rtol=0.02)


def test_schedules_and_updates(tmp_path, monkeypatch):
    """ε of the first step is start_epsilon; learning rates are those of the steps before the update."""
    epsilons, updates = [], []

    def act(self, observations, epsilon):
        epsilons.append(epsilon)
        return np.zeros(len(observations), int)

    def update(self, batches, learning_rate):
        assert tf.is_tensor(learning_rate)  # a Python number would be compiled anew for each value
        updates.append((len(epsilons), batches.rewards.shape, float(learning_rate)))
        return {}

    monkeypatch.setattr(Agent, "act", act)
    monkeypatch.setattr(Agent, "update", update)
    monkeypatch.setattr(tf, "function", lambda function, **options: function)
    options = {"exploration_fraction": 0.5, "learning_starts": 40, "train_frequency": 20, "num_envs": 1}
    config = Config(total_timesteps=100, **options)
    config.gradient_steps, config.batch_size, config.eval_episodes = 3, 8, 0
    config.anneal_learning_rate, config.learning_rate, config.end_epsilon = 0.5, 1.0, 0.2
    train(dataclasses.replace(config, runs_dir=str(tmp_path)))
    assert epsilons[0] == 1.0
    np.testing.assert_allclose(epsilons, np.interp(np.arange(100), [0, 50], [1.0, 0.2]))
    assert [(step, shape) for step, shape, _ in updates] == [(60, (3, 8)), (80, (3, 8)), (100, (3, 8))]
    np.testing.assert_allclose([rate for *_, rate in updates], [0.705, 0.605, 0.505], rtol=1e-6)


def test_several_environments_at_once(tmp_path):
    config = Config(num_envs=3, total_timesteps=601, learning_starts=0, train_frequency=60, gradient_steps=2)
    config.runs_dir, config.eval_episodes = str(tmp_path), 3
    result = train(config)
    assert result.evaluation_returns.shape == (3,)
    np.testing.assert_array_equal(evaluate(result.model, config), result.evaluation_returns)
    inputs = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(NumpyNetwork(result.model)(inputs), result.model(inputs), rtol=1e-5)

"""DDPG against the same computation in NumPy: targets, both gradients, noise, and bounds."""

from common.numpy_inference import NumpyNetwork
from common.replay_buffer import Transitions
import gymnasium as gym
import keras
import numpy as np

from ddpg.ddpg import Agent, Config, evaluate, train

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
LOW, HIGH = np.array([-1.0, 2.0], np.float32), np.array([3.0, 10.0], np.float32)
ACTIONS = gym.spaces.Box(LOW, HIGH)


def random_batches(num_batches, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_batches, batch_size)
    return Transitions(
        observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        actions=rng.uniform(LOW, HIGH, size=(*shape, 2)).astype(np.float32),
        rewards=(3 * rng.normal(size=shape)).astype(np.float32),
        next_observations=rng.normal(size=(*shape, 3)).astype(np.float32),
        terminated=rng.random(shape) < 0.3,
    )


class NumpyNet:
    """One hidden layer of ReLUs, its gradients by hand, and Adam (Kingma & Ba 2015), in float64."""

    def __init__(self, weights, learning_rate=0.0):
        self.weights = [w.astype(np.float64) for w in weights]
        self.first, self.second = ([np.zeros_like(w) for w in self.weights] for _ in range(2))
        self.learning_rate, self.updates = learning_rate, 0

    def forward(self, x):
        kernel, bias, out_kernel, out_bias = self.weights
        self.x, self.hidden = x, np.maximum(x @ kernel + bias, 0.0)
        return self.hidden @ out_kernel + out_bias

    def backward(self, slope):
        """Return the gradients of the weights and of the input, for the slope of the last output."""
        hidden_slope = slope @ self.weights[2].T * (self.hidden > 0)
        gradients = [self.x.T @ hidden_slope, hidden_slope.sum(0), self.hidden.T @ slope, slope.sum(0)]
        return gradients, hidden_slope @ self.weights[0].T

    def adam(self, gradients):
        self.updates += 1
        scale = np.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
        for k, gradient in enumerate(gradients):
            self.first[k] = 0.9 * self.first[k] + 0.1 * gradient
            self.second[k] = 0.999 * self.second[k] + 0.001 * gradient**2
            step = self.learning_rate * scale * self.first[k] / (np.sqrt(self.second[k]) + 1e-7)
            self.weights[k] = self.weights[k] - step

    def follow(self, online, tau):
        self.weights = [tau * w + (1 - tau) * t for w, t in zip(online.weights, self.weights)]


class NumpyActor(NumpyNet):
    """The same, with its output scaled to the bounds."""

    def forward(self, x):
        self.squashed = np.tanh(super().forward(x))
        return LOW + (self.squashed + 1) * (HIGH - LOW) / 2.0

    def backward(self, slope):
        return super().backward(slope * (HIGH - LOW) / 2.0 * (1 - self.squashed**2))


class NumpyDDPG:
    def __init__(self, agent, config):
        actor, critic = agent.actor.get_weights(), agent.critic.get_weights()
        self.actor = NumpyActor(actor, config.actor_learning_rate)
        self.critic = NumpyNet(critic, config.critic_learning_rate)
        self.target_actor, self.target_critic = NumpyActor(actor), NumpyNet(critic)
        self.config = config

    def update(self, batch):
        config, size = self.config, len(batch.rewards)
        next_actions = self.target_actor.forward(batch.next_observations)
        next_q = self.target_critic.forward(np.hstack([batch.next_observations, next_actions]))[:, 0]
        target = batch.rewards + config.gamma * np.where(batch.terminated, 0.0, next_q)
        q = self.critic.forward(np.hstack([batch.observations, batch.actions]))[:, 0]
        self.critic.adam(self.critic.backward(2 * (q - target)[:, None] / size)[0])
        self.learn_actor(batch)
        return ((q - target) ** 2).mean(), q.mean()

    def learn_actor(self, batch):
        size, tau = len(batch.rewards), self.config.tau
        self.critic.forward(np.hstack([batch.observations, self.actor.forward(batch.observations)]))
        slope = self.critic.backward(np.full((size, 1), -1 / size))[1][:, 3:]  # of −J by the action
        self.actor.adam(self.actor.backward(slope)[0])
        self.target_actor.follow(self.actor, tau)
        self.target_critic.follow(self.critic, tau)


def assert_same_weights(agent, expected, names):
    for name in names:
        for weights, same in zip(getattr(agent, name).get_weights(), getattr(expected, name).weights):
            np.testing.assert_allclose(weights, same, atol=1e-5, err_msg=name)


def test_updates_equal_numpy():
    config = Config(
        hidden_sizes=(16,), gamma=0.9, tau=0.1, actor_learning_rate=0.003, critic_learning_rate=0.01
    )
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    expected = NumpyDDPG(agent, config)
    batches = random_batches(num_batches=7, batch_size=32)
    metrics = agent.update(batches)
    for k in range(7):
        loss, q_values = expected.update(Transitions(*(field[k] for field in batches)))
    assert set(metrics) == {"td_loss", "q_values"}  # those of the last minibatch
    np.testing.assert_allclose(metrics["td_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_values"], q_values, rtol=1e-4, atol=1e-5)
    assert_same_weights(agent, expected, ("actor", "critic", "target_actor", "target_critic"))


def test_update_traces_once():
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,)))
    for seed in range(3):
        agent.update(random_batches(4, 8, seed))
    assert agent.update.experimental_get_tracing_count() == 1


def test_targets_start_as_copies():
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,)))
    for target, online in ((agent.target_actor, agent.actor), (agent.target_critic, agent.critic)):
        for one, two in zip(target.get_weights(), online.get_weights()):
            np.testing.assert_array_equal(one, two)


def test_the_bounds_are_in_the_model(tmp_path):
    agent = Agent(OBSERVATIONS, ACTIONS, Config())
    observations = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    actions = agent.actor(observations).numpy()
    np.testing.assert_allclose(agent.acting_network(observations), actions, rtol=1e-5, atol=1e-6)
    agent.actor.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(observations), actions)
    output = [layer for layer in loaded.layers if isinstance(layer, keras.layers.Dense)][-1]
    for far, bound in ((-1e6, LOW), (1e6, HIGH)):  # where tanh is −1 or 1
        output.bias.assign(np.full(2, far, np.float32))
        np.testing.assert_allclose(loaded(observations), np.tile(bound, (100, 1)))


def test_several_environments_at_once(tmp_path):
    config = Config(num_envs=3, total_timesteps=601, learning_starts=60, gradient_steps=2)
    config.runs_dir, config.eval_episodes = str(tmp_path), 3
    result = train(config)
    np.testing.assert_array_equal(evaluate(result.model, config), result.evaluation_returns)
    inputs = np.ones((1, 3), np.float32)
    np.testing.assert_allclose(NumpyNetwork(result.model)(inputs), result.model(inputs), rtol=1e-5)

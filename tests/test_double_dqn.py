"""Double DQN's target: the online network selects the action, the target network evaluates it."""

from common.replay_buffer import Transitions
import gymnasium as gym
import numpy as np
import tensorflow as tf

from double_dqn.double_dqn import Agent, Config
from tests.test_dqn import random_batches

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
TINY = tf.constant(1e-9)  # a learning rate that changes nothing


def test_the_online_network_selects_and_the_target_network_evaluates():
    """Linear networks with set weights: their values, and so the loss, are known.

    For every observation the online network has Q = (1, 2), the target network Q = (30, 5). Selected by the
    online and evaluated by the target network, the next value is 5; it is 30 for DQN's maximum, and 1 with
    the two networks exchanged.
    """
    config = Config(hidden_sizes=(), gamma=0.5, loss="squared", target_network_frequency=100)
    agent = Agent(OBSERVATIONS, gym.spaces.Discrete(2), config)
    agent.q_network.set_weights([np.zeros((3, 2)), np.array([1.0, 2.0])])
    agent.target_network.set_weights([np.zeros((3, 2)), np.array([30.0, 5.0])])
    batches = random_batches(num_batches=3, batch_size=64)
    last = Transitions(*(field[-1] for field in batches))
    target = last.rewards + 0.5 * np.where(last.terminated, 0.0, 5.0)
    expected = np.mean(0.5 * (target - np.where(last.actions == 0, 1.0, 2.0)) ** 2)
    np.testing.assert_allclose(agent.update(batches, TINY)["td_loss"], expected, rtol=1e-5)


def test_the_action_is_selected_for_each_observation():
    config = Config(hidden_sizes=(8,), gamma=0.9, loss="squared")
    agent = Agent(OBSERVATIONS, gym.spaces.Discrete(2), config)
    rng = np.random.default_rng(1)
    for network in (agent.q_network, agent.target_network):
        network.set_weights([rng.normal(size=weights.shape) for weights in network.get_weights()])
    batches = random_batches(num_batches=1, batch_size=256)
    online, target = (
        network(batches.next_observations[0]).numpy() for network in (agent.q_network, agent.target_network)
    )
    assert 20 < (online.argmax(axis=1) != target.argmax(axis=1)).sum() < 236
    next_q_values = np.array([target[k, online[k].argmax()] for k in range(256)])
    td_target = batches.rewards[0] + 0.9 * np.where(batches.terminated[0], 0.0, next_q_values)
    q_values = agent.q_network(batches.observations[0]).numpy()[np.arange(256), batches.actions[0]]
    expected = np.mean(0.5 * (td_target - q_values) ** 2)
    np.testing.assert_allclose(agent.update(batches, TINY)["td_loss"], expected, rtol=1e-5)

"""TD3 against the same computation in NumPy: the twin critics, the delay, and the target noise."""

from common.replay_buffer import Transitions
import numpy as np
import pytest
import tensorflow as tf

from td3 import td3
from td3.td3 import Agent, Config, train
from tests.test_ddpg import (
    ACTIONS,
    HIGH,
    LOW,
    OBSERVATIONS,
    NumpyActor,
    NumpyNet,
    assert_same_weights,
    random_batches,
)
from tests.test_off_policy import quick

NETWORKS = ("actor", "critic", "critic_2", "target_actor", "target_critic", "target_critic_2")


class NumpyTD3:
    def __init__(self, agent, config):
        for name in NETWORKS:
            kind = NumpyActor if "actor" in name else NumpyNet
            rate = config.actor_learning_rate if name == "actor" else config.critic_learning_rate
            setattr(self, name, kind(getattr(agent, name).get_weights(), rate))
        self.config, self.updates = config, 0

    def update(self, batch, noise):
        config, size = self.config, len(batch.rewards)
        noise = np.clip(noise, -config.target_noise_clip, config.target_noise_clip) * (HIGH - LOW) / 2
        next_actions = np.clip(self.target_actor.forward(batch.next_observations) + noise, LOW, HIGH)
        inputs = np.hstack([batch.next_observations, next_actions])
        next_q = np.minimum(self.target_critic.forward(inputs), self.target_critic_2.forward(inputs))[:, 0]
        target = batch.rewards + config.gamma * np.where(batch.terminated, 0.0, next_q)
        loss = 0.0
        for critic in (self.critic_2, self.critic):
            q = critic.forward(np.hstack([batch.observations, batch.actions]))[:, 0]
            critic.adam(critic.backward(2 * (q - target)[:, None] / size)[0])
            loss += ((q - target) ** 2).mean()
        self.updates += 1
        if self.updates % config.policy_frequency == 0:
            self.critic.forward(np.hstack([batch.observations, self.actor.forward(batch.observations)]))
            slope = self.critic.backward(np.full((size, 1), -1 / size))[1][:, 3:]
            self.actor.adam(self.actor.backward(slope)[0])
            for name in ("actor", "critic", "critic_2"):
                getattr(self, f"target_{name}").follow(getattr(self, name), config.tau)
        return loss, q.mean()  # of the first critic


def test_updates_equal_numpy():
    config = Config(
        hidden_sizes=(16,),
        gamma=0.9,
        tau=0.1,
        actor_learning_rate=0.003,
        critic_learning_rate=0.01,
        policy_frequency=3,
        seed=5,
    )
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    expected = NumpyTD3(agent, config)
    batches = random_batches(num_batches=7, batch_size=32)
    metrics = agent.update(batches)
    generator = tf.random.Generator.from_seed(config.seed)
    draw = tf.function(lambda: generator.normal((32, 2), stddev=config.target_noise), jit_compile=True)
    noises = [draw().numpy() for _ in range(7)]
    for k in range(7):
        loss, q_values = expected.update(Transitions(*(field[k] for field in batches)), noises[k])
    assert set(metrics) == {"td_loss", "q_values"}  # those of the last minibatch
    np.testing.assert_allclose(metrics["td_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_values"], q_values, rtol=1e-4, atol=1e-5)
    assert_same_weights(agent, expected, NETWORKS)


def test_twin_critics_differ():
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,)))
    for one, two in zip(agent.critic.get_weights()[::2], agent.critic_2.get_weights()[::2]):
        assert (one != two).all()
    for twin, target in ((agent.critic, agent.target_critic), (agent.critic_2, agent.target_critic_2)):
        for one, two in zip(twin.get_weights(), target.get_weights()):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("policy_frequency", [1, 2, 3])
def test_actor_and_targets_move_every_policy_frequency_updates(policy_frequency):
    agent = Agent(OBSERVATIONS, ACTIONS, Config(hidden_sizes=(16,), policy_frequency=policy_frequency))

    def weights(name):
        return np.concatenate([w.ravel() for w in getattr(agent, name).get_weights()])

    for k in range(1, 7):
        before = {name: weights(name) for name in NETWORKS}
        agent.update(random_batches(1, 32, seed=k))
        moved = {name for name in NETWORKS if (weights(name) != before[name]).any()}
        assert moved == (set(NETWORKS) if k % policy_frequency == 0 else {"critic", "critic_2"})
    assert agent.actor_optimizer.iterations == 6 // policy_frequency
    assert agent.update.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(("target_noise", "target_noise_clip"), [(0.05, 0.5), (0.2, 0.1)])
def test_target_noise(target_noise, target_noise_clip, monkeypatch):
    """Independent noise for each sample and dimension, in half ranges, clipped; the action in its bounds."""
    config = Config(target_noise=target_noise, target_noise_clip=target_noise_clip)
    agent = Agent(OBSERVATIONS, ACTIONS, config)
    seen = []
    q_values_of = td3.q_values_of
    monkeypatch.setattr(td3, "q_values_of", lambda *args: seen.append(args) or q_values_of(*args))
    batch = Transitions(*(field[0] for field in random_batches(1, 5000)))
    agent.learn_critic(batch)
    (critic, observations, actions), (critic_2, _, same_actions) = seen[:2]
    assert critic is agent.target_critic and critic_2 is agent.target_critic_2
    np.testing.assert_array_equal(observations, batch.next_observations)
    np.testing.assert_array_equal(actions, same_actions)
    noise = (actions - agent.target_actor(batch.next_observations)) / ((HIGH - LOW) / 2)
    noise = noise.numpy()[(np.abs(actions - LOW) > 0.01).all(1) & (np.abs(actions - HIGH) > 0.01).all(1)]
    assert noise.shape[1] == 2 and len(noise) > 2000
    clipped_normal = np.clip(
        target_noise * np.random.default_rng(0).normal(size=100_000), -target_noise_clip, target_noise_clip
    )
    np.testing.assert_allclose(noise.std(axis=0), clipped_normal.std(), rtol=0.1)
    assert np.abs(noise).max() <= target_noise_clip + 1e-5
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.06
    agent.config.target_noise = agent.config.target_noise_clip = 10.0
    agent.learn_critic(batch)
    actions = seen[4][2].numpy()
    np.testing.assert_array_equal([actions.min(axis=0), actions.max(axis=0)], [LOW, HIGH])


def test_the_generator_of_the_target_noise_is_in_the_checkpoint(tmp_path):
    """It is there with the state that it had reached."""
    result = train(quick(td3, "Quadratic", tmp_path, total_timesteps=600))
    (checkpoint,) = (result.folder / "checkpoints").iterdir()
    (name,) = (n for n, _ in tf.train.list_variables(str(checkpoint / "variables")) if "update_rng" in n)
    state = tf.train.load_variable(str(checkpoint / "variables"), name)
    assert (state != tf.random.Generator.from_seed(0).state.numpy()).any()

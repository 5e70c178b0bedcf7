"""What changes in the course of a training: ε, step sizes, and who chooses the actions."""

import numpy as np
import pytest

from tests.conftest import DQN_FAMILY, environment, metrics
from tests.environments import Recorded


@pytest.mark.parametrize("script", ["q_learning", *DQN_FAMILY])
def test_epsilon_falls_in_a_line_and_stays(script, module, configured):
    """From 0.8 to 0.1 in 60 of 200 steps, and from there on 0.1."""
    schedule = {"start_epsilon": 0.8, "end_epsilon": 0.1, "exploration_fraction": 0.3, "total_timesteps": 200}
    updates = {"learning_starts": 0, "train_frequency": 10, "gradient_steps": 1, "batch_size": 4}
    options = {"log_frequency": 10, "bins": (2,), "eager": True}
    config = configured(script, env_id="tests.environments:Recorded-v0", **schedule, **updates, **options)
    columns = metrics(module(script).train(config).folder)
    assert len(columns["epsilon"]) >= 20 and columns["global_step"][-1] == 200
    expected = np.interp(columns["global_step"], [0, 60], [0.8, 0.1])
    np.testing.assert_allclose(columns["epsilon"], expected, atol=0.7 / 60 + 1e-6)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_epsilon_is_the_share_of_random_actions(script, module, configured):
    """With 4 actions, 3 in 4 random ones are not the best; after half of the steps every action is."""
    schedule = {"start_epsilon": 1.0, "end_epsilon": 0.0, "exploration_fraction": 0.5}
    config = configured(
        script, env_id="tests.environments:Recorded-v0", total_timesteps=800, learning_starts=800, **schedule
    )
    Recorded.forget()
    result = module(script).train(config)
    best = np.argmax(result.model(np.array(Recorded.observations)), axis=-1)
    others = best != np.array(Recorded.actions)
    assert not others[400:].any()
    shares = others[:400].reshape(4, 100).mean(axis=1)
    np.testing.assert_allclose(shares, 0.75 * np.array([0.875, 0.625, 0.375, 0.125]), atol=0.15)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("script", ["reinforce", "a2c", "ppo", "trpo"])
def test_the_step_size_that_is_logged_falls_in_a_line(script, share, module, configured):
    rollouts = {"num_envs": 2, "num_steps": 5, "num_epochs": 1, "num_minibatches": 2, "batch_size": 10}
    config = configured(
        script,
        env_id="tests.environments:Recorded-v0",
        total_timesteps=100,
        learning_rate=0.02,
        anneal_learning_rate=share,
        log_frequency=1,
        eager=True,
        **rollouts,
    )
    columns = metrics(module(script).train(config).folder)
    assert len(columns["learning_rate"]) >= 10
    expected = 0.02 * (1 - share * columns["global_step"] / 100)
    one_rollout = 0.02 * share * 10 / 100
    np.testing.assert_allclose(columns["learning_rate"], expected, atol=one_rollout + 1e-6)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_the_step_size_of_adam_falls_in_a_line(script, module, configured):
    """As long as a gradient keeps its sign, Adam moves a weight by the step size: in all, by their sum."""

    def weights(share, learning_starts):
        config = configured(
            script,
            env_id="tests.environments:OneAction-v0",
            total_timesteps=20,
            learning_starts=learning_starts,
            train_frequency=1,
            gradient_steps=1,
            batch_size=4,
            learning_rate=1e-3,
            anneal_learning_rate=share,
            eager=True,
        )
        return module(script).train(config).model.get_weights()

    first = weights(share=0.0, learning_starts=20)
    moved = [
        max(np.abs(now - then).max() for now, then in zip(weights(share, learning_starts=0), first))
        for share in (0.0, 1.0)
    ]
    np.testing.assert_allclose(moved, [20e-3, 10e-3], rtol=0.1)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_the_step_size_of_q_learning_falls_in_a_line(share, module, configured):
    """One state, one action, one reward: what is missing from Q shrinks by 1 − α with every step."""
    script = module("q_learning")
    config = configured(
        "q_learning",
        env_id="tests.environments:OneAction-v0",
        total_timesteps=100,
        learning_rate=0.01,
        anneal_learning_rate=share,
        bins=(1,),
    )
    step_sizes = 0.01 * (1 - share * np.arange(1, 101) / 100)
    expected = 1 - np.prod(1 - step_sizes)
    np.testing.assert_allclose(script.train(config).model, expected, atol=0.01)


@pytest.mark.parametrize("script", ["ddpg", "td3"])
def test_actions_are_random_until_learning_starts_and_the_actors_from_there_on(script, module, configured):
    config = configured(
        script,
        env_id=environment(script, "Recorded"),
        total_timesteps=200,
        learning_starts=100,
        train_frequency=1_000,
        exploration_noise=0.0,
    )
    Recorded.forget()
    result = module(script).train(config)
    actions, greedy = np.array(Recorded.actions), result.model(np.array(Recorded.observations)).numpy()
    np.testing.assert_allclose(actions[100:], greedy[100:], rtol=1e-5, atol=1e-6)
    assert (np.abs(actions[:100] - greedy[:100]).max(axis=1) > 1e-3).all()
    places = (actions[:100] - [-1.0, 2.0]) / [4.0, 8.0]  # between the bounds, from 0 to 1
    quarters = np.quantile(places, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quarters, [0.25, 0.5, 0.75], atol=0.1)


@pytest.mark.parametrize("script", ["reinforce", "a2c", "ppo", "trpo", *DQN_FAMILY])
def test_no_step_size_stays_in_memory(script, module, configured, monkeypatch):
    """TensorFlow caches every Python float that becomes a tensor for good: 760 bytes for each update."""
    tf, given = module(script).tf, []
    constant = tf.constant
    monkeypatch.setattr(
        tf, "constant", lambda value, *rest: given.append(type(value)) or constant(value, *rest)
    )
    sizes = {"num_envs": 2, "num_steps": 5, "num_epochs": 1, "num_minibatches": 2, "batch_size": 10}
    updates = {"learning_starts": 0, "train_frequency": 10, "gradient_steps": 1}
    options = {"total_timesteps": 100, "anneal_learning_rate": 1.0, "eager": True}
    module(script).train(configured(script, **sizes, **updates, **options))
    assert np.float32 in given and float not in given

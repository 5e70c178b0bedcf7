"""What every script learns of environments whose values can be said beforehand."""

import numpy as np
import pytest

from tests import environments
from tests.conftest import DQN_FAMILY, SCRIPTS, environment

GAMMA = 0.8
LEARNING = {
    "gamma": GAMMA,
    "learning_rate": 0.01,
    "actor_learning_rate": 0.003,
    "critic_learning_rate": 0.01,
    "anneal_learning_rate": 1.0,
    "start_epsilon": 1.0,
    "end_epsilon": 1.0,
    "learning_starts": 100,
    "train_frequency": 50,
    "gradient_steps": 50,
    "batch_size": 64,
    "tau": 0.05,
    "target_network_frequency": 1,
    "normalize_rewards": False,
}
ROLLOUTS = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2}
OPTIONS = {  # what a script needs to have learned it in a few seconds
    "q_learning": {"total_timesteps": 3_000, "learning_rate": 0.5},
    "dqn": {"total_timesteps": 5_000},
    "double_dqn": {"total_timesteps": 5_000},
    "dueling_dqn": {"total_timesteps": 5_000},
    "a2c": {"total_timesteps": 15_000, **ROLLOUTS},
    "ppo": {"total_timesteps": 3_000, **ROLLOUTS},
    "trpo": {"total_timesteps": 3_000, **ROLLOUTS},
    "ddpg": {"total_timesteps": 2_500},
    "td3": {"total_timesteps": 2_500},
    "sac": {"total_timesteps": 2_500, "temperature": 1e-4, "temperature_learning_rate": 0.0},
}


def values(result, state, num_states):
    """What a script has learned a state to be worth: one number for each action, or for each critic."""
    inputs = np.eye(num_states, dtype=np.float32)[[state]]
    networks = result.networks
    if "q_table" in networks:
        return networks["q_table"][state]
    if "q_network" in networks:
        return networks["q_network"](inputs).numpy()[0]
    critics = [network for name, network in networks.items() if name.startswith("critic")]
    if critics[0].input_shape[-1] > num_states:  # Q(s, a), not V(s)
        inputs = np.hstack([inputs, result.model(inputs)])
    return np.ravel([critic(inputs) for critic in critics])


@pytest.mark.parametrize("script", OPTIONS)
def test_what_a_state_is_worth_where_episodes_end(script, module, configured):
    """A time limit does not end the value of the state it was reached in, and a terminal step does."""
    options = LEARNING | OPTIONS[script]
    result = module(script).train(configured(script, env_id=environment(script, "ThreeStates"), **options))
    for state, value in enumerate([GAMMA / (1 - GAMMA), 1 / (1 - GAMMA), 1.0]):
        np.testing.assert_allclose(values(result, state, 3), value, atol=0.1, err_msg=f"state {state}")


def test_every_script_is_seen_to_value_states():
    assert {*OPTIONS, "reinforce"} == set(SCRIPTS)


def test_the_baseline_of_reinforce_is_the_return_to_the_end_of_the_episode(module, configured):
    """Rewards 1, 2, 3, then the end: values in the proportion of 1 + 2 γ + 3 γ², 2 + 3 γ and 3."""
    options = {"learning_rate": 0.02, "num_envs": 2, "num_steps": 30, "batch_size": 60}
    env_id = "tests.environments:DiscreteObservation-v0"
    config = configured("reinforce", env_id=env_id, gamma=GAMMA, total_timesteps=15_000, **options)
    result = module("reinforce").train(config)
    learned = np.ravel([values(result, state, 5) for state in range(3)])
    returns = np.array([1 + 2 * GAMMA + 3 * GAMMA**2, 2 + 3 * GAMMA, 3])
    np.testing.assert_allclose(learned / learned.sum(), returns / returns.sum(), atol=0.03)


@pytest.mark.parametrize("script", DQN_FAMILY)
def test_which_network_chooses_the_action_that_the_target_takes(script, module, configured, monkeypatch):
    """The target network stays as it was at first, and the action that is good is the one it thinks least of.

    DQN values the second state by the best action of the target network; its successors by what that network
    says of the action that the online network has learned to be the best.
    """
    config = configured(
        script,
        env_id="tests.environments:TwoSteps-v0",
        **LEARNING | {"target_network_frequency": 10**6, "total_timesteps": 5_000, "learning_starts": 5_000},
    )
    train = module(script).train
    target = values(train(config), 1, 2)
    monkeypatch.setattr(environments.TwoSteps, "good", target.argmin())
    config.learning_starts = 100
    result = train(config)
    assert values(result, 1, 2).argmax() == target.argmin()
    assert target.max() - target.min() > 0.3
    chosen = target.max() if script == "dqn" else target.min()
    np.testing.assert_allclose(values(result, 0, 2), GAMMA * chosen, atol=0.05)

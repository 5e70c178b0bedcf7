"""A run that goes on from its checkpoint: the networks, what it does next, and what it learns from there."""

import dataclasses

from common.errors import UserError
import numpy as np
import pytest

from benchmarks.settings import SCRIPTS
from tests.conftest import BOX_ACTIONS, DQN_FAMILY, SMALL_UPDATES, environment, metrics
from tests.environments import Recorded

LEARNING = SMALL_UPDATES | {
    "tau": 0.5,
    "target_network_frequency": 3,
    "max_grad_norm": 100.0,
    "learning_rate": 0.02,
    "actor_learning_rate": 0.02,
    "critic_learning_rate": 0.02,
}


def steps_made(result):
    """Environment steps of a run, which may be some more than it was asked for."""
    return int(metrics(result.folder)["global_step"][-1])


def assert_same_networks(one, other):
    """All weights of all networks are equal, but for rounding."""
    assert one.networks.keys() == other.networks.keys()
    for name in one.networks:
        weights, same = (
            [network] if isinstance(network, np.ndarray) else network.get_weights()
            for network in (one.networks[name], other.networks[name])
        )
        for w, s in zip(weights, same):
            np.testing.assert_allclose(w, s, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_resumed_run_equals_one_that_never_stopped(script, module, configured):
    """Weights, targets, optimizers, buffer and generators: without one of them, the second half differs."""
    train = module(script).train
    options = LEARNING | {"anneal_learning_rate": 0.0, "start_epsilon": 0.5, "end_epsilon": 0.5, "bins": (1,)}
    box = "Box" in SCRIPTS[script].actions
    env_id = f"tests.environments:Repeated{'Box' if box else ''}-v0"
    config = configured(script, env_id=env_id, total_timesteps=60, **options)
    half = train(config)
    nothing_left = train(dataclasses.replace(config, resume=str(half.folder)))
    assert_same_networks(nothing_left, half)

    config.total_timesteps = 2 * steps_made(half)
    resumed = train(dataclasses.replace(config, resume=str(half.folder)))
    whole = train(config)
    assert len(whole.episode_returns) == config.total_timesteps
    np.testing.assert_allclose(resumed.episode_returns, whole.episode_returns, rtol=1e-5)
    assert_same_networks(resumed, whole)


@pytest.mark.parametrize("option", ["normalize_observations", "normalize_rewards"])
def test_a_resumed_run_does_not_lose_its_normalizer(option, module, configured):
    config = configured("ppo", env_id=environment("ppo", "Repeated"), total_timesteps=60, **LEARNING)
    first = module("ppo").train(config)
    config = dataclasses.replace(config, resume=str(first.folder), **{option: False})
    with pytest.raises(UserError, match="does not fit: resume with the options of that run"):
        module("ppo").train(config)


def test_a_table_is_not_resumed_with_other_bins_though_their_number_is_the_same(module, configured):
    config = configured("q_learning", bins=(2, 3, 4, 5), total_timesteps=60)
    config.resume = str(module("q_learning").train(config).folder)
    config.bins = (5, 4, 3, 2)
    with pytest.raises(UserError, match="has a table of other bins"):
        module("q_learning").train(config)


def test_the_returns_of_an_earlier_model_do_not_stay(module, configured):
    config = configured("q_learning", total_timesteps=60, eval_episodes=1)
    folder = module("q_learning").train(config).folder
    assert (folder / "evaluation.json").exists()
    config = dataclasses.replace(config, resume=str(folder), total_timesteps=90, eval_episodes=0)
    module("q_learning").train(config)
    assert not (folder / "evaluation.json").exists()


def best_actions(result, observations):
    """What the networks of a run think best: of a table, with 2 bins for each of 3 numbers."""
    if "q_table" in result.networks:
        return result.model[(observations >= 0) @ [4, 2, 1]].argmax(axis=-1)
    outputs = result.model(observations).numpy()
    return outputs if "actor" in result.networks else outputs.argmax(axis=-1)


@pytest.mark.parametrize("script", ["q_learning", *DQN_FAMILY, "ddpg", "td3"])
def test_a_resumed_run_acts_by_the_policy_that_was_saved(script, module, configured):
    """Nothing explores and no update follows: every action is the best one of the first run."""
    train = module(script).train
    env_id = environment(script, "Recorded")
    first = train(configured(script, env_id=env_id, total_timesteps=200, bins=(2,), **LEARNING))
    still = {"start_epsilon": 0.0, "end_epsilon": 0.0, "exploration_noise": 0.0, "train_frequency": 10**6}
    if script == "q_learning":
        still["learning_rate"] = 0.0
    options = LEARNING | still | {"bins": (2,), "resume": str(first.folder), "total_timesteps": 300}
    Recorded.forget()
    train(configured(script, env_id=env_id, **options))
    best = best_actions(first, np.array(Recorded.observations))
    assert len(best) == 100 and len(np.unique(best, axis=0)) > 1
    np.testing.assert_allclose(Recorded.actions, best, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("script", BOX_ACTIONS)  # the others set the rate in every update
def test_a_resumed_run_learns_at_the_rates_of_its_own_options(script, module, configured):
    """Rates so small that no weight moves, although the run before it had large ones."""
    train = module(script).train
    options = LEARNING | {"total_timesteps": 60, "log_frequency": 1}
    config = configured(script, env_id=environment(script, "Repeated"), **options)
    first = train(config)
    steps = steps_made(first)
    rates = {"actor_learning_rate": 1e-12, "critic_learning_rate": 1e-12}
    if script == "sac":
        rates["temperature_learning_rate"] = 0.0
    resumed = train(dataclasses.replace(config, **rates, resume=str(first.folder), total_timesteps=2 * steps))
    assert_same_networks(resumed, first)
    columns = metrics(resumed.folder)
    assert columns["global_step"][-1] > steps
    if script == "sac":
        temperatures = columns["temperature"][columns["global_step"] > steps]
        assert len(temperatures) > 1 and len(np.unique(temperatures)) == 1

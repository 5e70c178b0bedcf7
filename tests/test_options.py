"""Options: validation against their types and ranges, and the name of the script."""

import dataclasses
import re

from common.errors import UserError
from common.options import RunConfig, validate
import pytest

from tests.conftest import BOX_ACTIONS, DQN_FAMILY, ROOT


def test_the_defaults_are_valid(script, module):
    validate(module(script).Config())


@pytest.mark.parametrize(
    ("name", "value", "requirement"),
    [
        ("num_envs", 0, "greater than 0"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, "less than 4294967296"),
        ("log_frequency", 0, "greater than 0"),
        ("eval_episodes", -1, "greater than or equal to 0"),
        ("eval_frequency", -1000, "greater than or equal to 0"),
        ("total_timesteps", -5, "greater than 0"),
        ("total_timesteps", 1.5, "a valid integer"),
        ("total_timesteps", 10**13, "less than or equal to 1000000000000"),
        ("checkpoint_frequency", 10**30, "less than or equal to 1000000000000"),
        ("env_id", 3, "a valid string"),
    ],
)
def test_options_are_checked_against_their_annotations(name, value, requirement):
    config = dataclasses.replace(RunConfig(), **{name: value})
    with pytest.raises(UserError) as error:
        validate(config)
    message = str(error.value)
    assert message.startswith(f"--{name.replace('_', '-')} is {value}: it must be {requirement}"), message
    assert "\n" not in message


def test_values_of_another_type_are_converted():
    config = RunConfig(total_timesteps=1e5, save_model="false", log_frequency="300")
    validate(config)
    assert (config.total_timesteps, config.save_model, config.log_frequency) == (100_000, False, 300)
    assert type(config.total_timesteps) is int


@pytest.mark.parametrize("script", [*DQN_FAMILY, *BOX_ACTIONS])
def test_updates_are_not_left_out_for_many_environments(script, module):
    """An update can follow a step of all environments at most once."""
    validate(module(script).Config(num_envs=4, train_frequency=4))
    with pytest.raises(UserError, match="--num-envs is 5: it must be at most --train-frequency, 4; raise"):
        validate(module(script).Config(num_envs=5, train_frequency=4))
    validate(module(script).Config(num_envs=5, train_frequency=4, evaluate="an older run"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308, -1e308])
@pytest.mark.parametrize(
    ("owner", "name"), [("dqn", "initial_value"), ("ppo", "initial_log_std"), ("a2c", "max_grad_norm")]
)
def test_numbers_are_finite_in_float32(owner, name, value, module):
    """A learning rate of 1e308 is infinite in float32, and a Q-value of NaN stays one."""
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is {re.escape(str(value))}: it must be"):
        validate(module(owner).Config(**{name: value}))


def test_a_choice_that_does_not_exist_is_an_error_from_python_too(module):
    with pytest.raises(UserError, match="--loss is hubber: it must be 'squared' or 'huber'"):
        module("dqn").train(module("dqn").Config(loss="hubber"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "--num-envs is 0"),
        ({"total_timesteps": -5}, "--total-timesteps is -5"),
        ({"gamma": 1.5}, "--gamma is 1.5"),
        ({"gamma": float("nan")}, "--gamma is nan"),
        ({"env_id": "NoSuchEnv-v0"}, "doesn't exist"),
        ({"env_id": "tests.environments:TextObservation-v0"}, "wrap the environment"),
    ],
)
def test_wrong_options_stop_a_run_before_it_creates_anything(script, options, words, module, tmp_path):
    config = module(script).Config(**options, runs_dir=str(tmp_path / "runs"))
    with pytest.raises(UserError, match=words) as error:
        module(script).train(config)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_the_algorithm_is_the_name_of_the_script(script, module):
    assert module(script).Config().algorithm == script


def test_the_path_of_a_script_is_relative_to_a_folder_above_it(module, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert module("dqn").Config().script == "dqn/dqn.py" and module("dqn").Config().algorithm == "dqn"
    monkeypatch.chdir(tmp_path)
    assert module("dqn").Config().script == str(ROOT / "dqn" / "dqn.py")


def test_a_saved_model_is_evaluated_on_the_command_line_only(module):
    with pytest.raises(UserError, match="evaluate is for the command line"):
        module("q_learning").train(module("q_learning").Config(evaluate="policies/q_learning"))

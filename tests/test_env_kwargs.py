"""Options of environments: read, written, refused, and the same in training, evaluation, and bins."""

import json
import math

from common.bins import random_range
from common.cli import parse_config
from common.env_kwargs import parse, plain, to_arguments
from common.envs import has_time_limit, make_env, make_envs
from common.errors import UserError
from common.options import validate
from common.run_folder import load_config, save_config
import gymnasium as gym
import numpy as np
import pytest

from dqn import dqn
from q_learning import q_learning
from tests.conftest import error_line

VALUES = [1, -2.5, 0, True, None, "8x8", "1", "true", "none", "inf", "x=y", "", [1, "a"], {"a": [1]}]
VALUES += [math.inf, [0.7, math.inf], ["S F", "G"]]


class Tracks(gym.Env):
    """Observes a number without bounds, times an option; notes each copy in a list that it is given."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, scale, notes=None):
        if scale == 0:
            raise AssertionError("scale must not be 0")
        self.scale = scale
        if notes is not None:
            notes.append("seen")
            assert notes == ["seen"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.float32([self.scale * action]), 0.0, False, False, {}


gym.register("Tracks-v0", Tracks)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_that_is_written_is_read_as_it_was(value):
    read = parse(to_arguments({"name": value}))["name"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("False", False), ("false", False), ("FALSE", False), ("null", None), ("1e3", 1000.0),
        ("[true, false]", [True, False]), ("3in1", "3in1"), ("{[]}", "{[]}"), ("-" * 20_000, "-" * 20_000),
    ],
)  # fmt: skip
def test_a_value_is_a_literal_or_text(text, value, recwarn):
    read = parse([f"a={text}"])["a"]
    assert read == value and type(read) is type(value) and not recwarn


def test_values_from_python_become_those_of_json():
    given = {"a": (1, (2, 3)), "b": np.float32(0.5), "c": np.arange(2), "d": {"e": np.bool_(True)}}
    assert json.dumps(plain(given)) == '{"a": [1, [2, 3]], "b": 0.5, "c": [0, 1], "d": {"e": true}}'
    config = q_learning.Config(env_kwargs=given)
    validate(config)
    assert config.env_kwargs == plain(given) and type(config.env_kwargs["b"]) is float


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": [b"1"]}, {3}])
def test_a_value_that_json_cannot_hold_is_refused_by_name(value):
    with pytest.raises(UserError, match=r"^--env-kwargs size is .*: it must be a number, text, ") as error:
        validate(q_learning.Config(env_kwargs={"size": value}))
    assert "\n" not in str(error.value)


def test_options_that_are_no_dictionary_are_refused():
    with pytest.raises(UserError, match="env_kwargs is 3: it must be a dictionary"):
        validate(q_learning.Config(env_kwargs=3))


def test_infinity_survives_in_config_json(tmp_path, capsys):
    save_config(q_learning.Config(env_kwargs={"a": math.inf, "b": [0.7, math.inf]}), tmp_path)
    save_config(parse_config(q_learning.Config, ["--resume", str(tmp_path)]), tmp_path)
    assert load_config(tmp_path)["env_kwargs"] == {"a": math.inf, "b": [0.7, math.inf]}
    assert capsys.readouterr().out == ""  # no "options changed"


def test_options_of_a_run_are_left_out_with_another_environment(tmp_path):
    save_config(q_learning.Config(env_id="FrozenLake-v1", env_kwargs={"is_slippery": False}), tmp_path)
    run = ["--evaluate", str(tmp_path)]
    assert parse_config(q_learning.Config, run).env_kwargs == {"is_slippery": False}
    assert parse_config(q_learning.Config, [*run, "--env-id", "CartPole-v1"]).env_kwargs == {}
    both = [*run, "--env-id", "FrozenLake8x8-v1", "--env_kwargs", "is_slippery=True"]
    assert parse_config(q_learning.Config, both).env_kwargs == {"is_slippery": True}


@pytest.mark.parametrize("scale", [1, 100])
def test_bins_have_the_range_of_the_environment_with_its_options(scale):
    env = make_env("Tracks-v0", bins=(2,), env_kwargs={"scale": scale})
    assert random_range("Tracks-v0", json.dumps({"scale": scale})) == ((0.0,), (float(scale),))
    env.reset()
    assert [env.step(action)[0] for action in (0, 1)] == [0, 1]
    make_env("Tracks-v0", bins=(2,), env_kwargs={"scale": scale, "max_episode_steps": 1e2})  # as elsewhere


def test_each_environment_has_a_list_of_its_own():
    config = dqn.Config(
        env_id="Tracks-v0", num_envs=3, train_frequency=3, env_kwargs={"scale": 1, "notes": []}
    )
    make_envs(config, gym.spaces.Discrete).close()
    assert config.env_kwargs["notes"] == []


@pytest.mark.parametrize(
    ("env_id", "options", "words"),
    [
        ("Tracks-v0", {"scale": 0}, r"with --env-kwargs scale=0: AssertionError: scale must not be 0: "),
        ("Tracks-v0", {"no": 1}, r"argument 'no': its options are scale, notes, max_episode_steps$"),
        ("FrozenLake-v1", {"map_name": "5x5"}, "--env-kwargs map_name=5x5: KeyError: '5x5': its options"),
        ("CartPole-v1", {"max_episode_steps": "x"}, "cannot create 'CartPole-v1' with --env-kwargs max_ep"),
        ("CartPole-v1", {"render_mode": "human"}, "cannot set render_mode: use --render"),
        ("CartPole-v1", {"id": 1}, "cannot set id: use --env-id"),
        ("NoSuch-v0", {"a": 1}, "^cannot create 'NoSuch-v0': .*doesn't exist"),
        ("ALE/Pong-v5", {"frameskip": 2}, "cannot set frameskip: the preprocessing of --network cnn"),
        ("ALE/Pong-v5", {"obs_type": "ram"}, "cannot set obs_type: the preprocessing of --network cnn"),
        ("ALE/Pong-v5", {"max_episode_steps": 9}, "max_episode_steps: a game has max_num_frames_per_episode"),
        ("ALE/Pong-v5", {"repeat_action_probability": 2}, "action_probability is 2: it must be from 0 to 1"),
        ("ALE/Pong-v5", {"mode": 99}, "cannot create 'ALE/Pong-v5' with --env-kwargs mode=99: "),
    ],
)  # fmt: skip
def test_what_an_environment_does_not_accept_is_one_line(env_id, options, words):
    if env_id.startswith("ALE/"):
        pytest.importorskip("ale_py")
    with pytest.raises(UserError, match=words) as error:
        make_env(env_id, env_kwargs=options, network="cnn" if env_id.startswith("ALE/") else "mlp")
    assert "\n" not in str(error.value)


def test_an_error_of_an_environment_without_options_is_not_hidden():
    gym.register("Broken-v1", Tracks, kwargs={"scale": 0})
    with pytest.raises(AssertionError, match="scale must not be 0"):
        make_env("Broken-v1")


def test_a_number_of_steps_may_be_written_as_1e2():
    assert make_env("CartPole-v1", env_kwargs={"max_episode_steps": 1e2}).spec.max_episode_steps == 100


@pytest.mark.parametrize("frames", [0, None])
def test_a_game_without_a_limit_has_none(frames):
    pytest.importorskip("ale_py")
    env = make_env("ALE/Pong-v5", network="cnn", env_kwargs={"max_num_frames_per_episode": frames})
    assert not has_time_limit(env) and has_time_limit(make_env("ALE/Pong-v5", network="cnn"))


def test_an_evaluation_uses_the_options_of_the_run(command, tmp_path):
    lake = [
        "--env-id",
        "FrozenLake-v1",
        "--env-kwargs",
        "desc=['SG']",
        "is_slippery=False",
        "--eval-episodes",
        20,
    ]
    done = command("q_learning", *lake, "--total-timesteps", 400)
    assert "evaluation: mean return 1.0 ± 0.0 over 20 episodes" in done.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert "mean return 1.0 ± 0.0" in command("q_learning", "--evaluate", run).stdout
    other = command("q_learning", "--evaluate", run, "--env-kwargs", "desc=['SFG']")
    assert "give the --env-id and the --env-kwargs that it was trained with" in error_line(other)
    line = error_line(command("q_learning", "--repeat-action-probability", 0))
    assert line.endswith("give --env-kwargs repeat_action_probability=<value>")

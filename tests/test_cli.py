"""The command line: options, help, errors of one line, and exit codes."""

import dataclasses
import gc
import os
import re
import shutil
import subprocess
import sys

from common.cli import main, option_docs, parse_config
from common.errors import UserError
from common.options import RunConfig
from common.quiet import importing
from common.signals import Stopped
import pytest

from dqn.dqn import Config, evaluate, train
from tests.conftest import ROOT, error_line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--lr 0.1", "there is no option --lr: did you mean --learning-rate?"),
        ("--total-timestep 5", "there is no option --total-timestep: did you mean --total-timesteps?"),
        ("--total_timestep=5", "there is no option --total-timestep: did you mean --total-timesteps?"),
        ("--batchsize 5", "there is no option --batchsize: did you mean --batch-size?"),
        ("--xyzzy", "there is no option --xyzzy: see --help"),
        ("--no-seed", "there is no option --no-seed: "),
        ("--eager=yes", "--eager takes no value: give --eager or --no-eager"),
        ("--no-clip_rewards=1", "--no-clip-rewards takes no value: give --clip-rewards or --no-clip-rewards"),
        ("--seed 1 2", "'2' belongs to no option: see --help"),
    ],
)
def test_arguments_that_do_not_exist_are_one_line_with_advice(args, message):
    with pytest.raises(UserError) as error:
        parse_config(Config, args.split())
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("--seed one", "--seed.*'one'"),
        ("--env-kwargs no_value", "--env-kwargs.*'no_value' is not of the form name=value"),
        ("--env-kwargs =1", "--env-kwargs.*'=1' is not of the form name=value"),
        ("--num-envs 2.5", "--num-envs.*'2.5'"),
        ("--total-timesteps 1.5e0", "--total-timesteps.*'1.5e0'"),
        ("--learning-rate fast", "--learning-rate.*'fast'"),
        ("--hidden-sizes 8 eight", "--hidden-sizes"),
        ("--loss hubber", "'hubber'.*--loss.*'squared', 'huber'"),
        ("--seed", "--seed.*Expected"),
        ("five", "five"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_line(args, words):
    with pytest.raises(UserError) as error:
        parse_config(Config, args.split())
    assert re.search(words, str(error.value)), error.value
    assert "\n" not in str(error.value) and not set("│╭╰─\x1b") & set(str(error.value))


KWARGS = {"a": 1, "b": "x=y", "c": False, "d": [1, 2.5], "e": [0, 1]}


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        ("--total-timesteps 1e3", "total_timesteps", 1000),
        ("--total-timesteps=1.5e3", "total_timesteps", 1500),
        ("--total_timesteps 70", "total_timesteps", 70),
        ("--hidden-sizes 1e2 64", "hidden_sizes", (100, 64)),
        ("--learning-rate 1e3", "learning_rate", 1000.0),
        ("--env-id 1e3", "env_id", "1e3"),
        ("--max-grad-norm None", "max_grad_norm", None),
        ("--max-grad-norm 2", "max_grad_norm", 2.0),
        ("--clip-rewards", "clip_rewards", True),
        ("--no-save-model", "save_model", False),
        ("--env-kwargs a=1 b=x=y c=false d=[1,2.5] e=(0,1)", "env_kwargs", KWARGS),
        ("--env-kwargs a=1 --env-kwargs", "env_kwargs", {}),
        ("", "buffer_size", Config().buffer_size),
    ],
)
def test_values_are_read(args, name, value):
    config = parse_config(Config, args.split())
    read = getattr(config, name)
    assert read == value and type(read) is type(value)
    unchanged = {field.name for field in dataclasses.fields(Config)} - {name}
    assert {n: getattr(config, n) for n in unchanged} == {n: getattr(Config(), n) for n in unchanged}


def test_wrong_options_exit_with_2_and_one_line(command, tmp_path):
    line = error_line(command("q_learning", "--lr", 0.1))
    assert line == "error: there is no option --lr: did you mean --learning-rate?"
    assert "--seed" in error_line(command("q_learning", "--seed", "one"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", ["q_learning", "ppo"])  # without and with TensorFlow
def test_a_value_out_of_range_is_one_line(script, command):
    assert error_line(command(script, "--num-envs", 0)).startswith("error: --num-envs is 0: it must be")


def test_help_shows_the_docstring_of_every_option_in_two_groups(script, module, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # docstrings are wrapped
    config_class = module(script).Config
    with pytest.raises(SystemExit) as stop:
        parse_config(config_class, ["--help"])
    assert stop.value.code in (0, None)
    text = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert config_class.__doc__ in text
    _, algorithm, run = re.split(r"(?:algorithm|run) options .*\n", text)
    names = {field.name for field in dataclasses.fields(config_class)}
    own = names - {field.name for field in dataclasses.fields(RunConfig)}
    own |= {"env_id", "total_timesteps", "num_envs"}
    docs = option_docs(config_class)
    assert set(docs) == names
    for group, members in ((algorithm, own), (run, names - own)):
        for name in names:
            shown = re.search(rf"^\W*--{name.replace('_', '-')}\b", group, re.MULTILINE) is not None
            assert shown == (name in members), name
            assert (letters(docs[name]) in letters(group)) == (name in members), name


def letters(text):
    """Return a text without spaces, line breaks, and the lines of a box."""
    return re.sub(r"[\s|+│╭╮╰╯─-]", "", text)


def test_help_exits_with_0(command):
    process = command("q_learning", "--help")
    assert process.returncode == 0 and "--total-timesteps" in process.stdout and not process.stderr


LITTLE_HELP = "from common import cli\nwith cli._stdout_may_close(): print('usage')"


@pytest.mark.parametrize("arguments", [["q_learning/q_learning.py", "--help"], ["-c", LITTLE_HELP]])
def test_help_ends_quietly_if_nobody_reads_it(arguments):
    """As in `python ppo/ppo.py --help | head -3`; a little help stays in Python's buffer until the end."""
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": write, "stderr": subprocess.PIPE, "text": True}
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, timeout=120, **streams)
    os.close(write)
    assert (process.returncode, process.stderr) == (0, "")


def test_an_environment_in_a_module_of_the_current_folder(command, tmp_path):
    """The module lies in the folder that the command is run from, which is not the script's."""
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('My-v0', CartPoleEnv, max_episode_steps=7)\n"
    )
    options = ["--env-id", "my_envs:My-v0", "--total-timesteps", 100, "--eval-episodes", 2]
    process = command("q_learning", *options)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "evaluation: mean return 7.0 ± 0.0 over 2 episodes"
    again = command("q_learning", "--evaluate", next((tmp_path / "runs").iterdir()))
    assert again.stdout.splitlines()[-1] == process.stdout.splitlines()[-1], again.stderr


def test_an_option_needs_no_docstring():
    @dataclasses.dataclass(kw_only=True)
    class OwnConfig(Config):
        bonus: float = 0.1

    assert parse_config(OwnConfig, ["--bonus", "0.5"]).bonus == 0.5


def test_a_resumed_run_keeps_its_options(short_run):
    _, folder = short_run("dqn")
    config = parse_config(Config, ["--resume", str(folder)])
    assert (config.total_timesteps, config.gradient_steps, config.eval_episodes) == (1500, 5, 3)
    assert config.resume == str(folder) and config.hidden_sizes == Config().hidden_sizes
    config = parse_config(Config, ["--resume", str(folder), "--gradient-steps", "7"])
    assert (config.total_timesteps, config.gradient_steps) == (1500, 7)


def test_an_evaluation_has_episodes_though_the_run_had_none(short_run, tmp_path):
    folder = shutil.copytree(short_run("dqn")[1], tmp_path / "copy")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"eval_episodes": 3', '"eval_episodes": 0'))
    assert parse_config(Config, ["--evaluate", str(folder)]).eval_episodes == Config().eval_episodes
    assert parse_config(Config, ["--resume", str(folder)]).eval_episodes == 0


def test_an_evaluation_without_episodes_and_two_runs_at_once_are_one_line(command_here, short_run):
    _, folder = short_run("dqn")
    line = error_line(command_here("dqn", "--evaluate", folder, "--eval-episodes", 0))
    assert "--evaluate needs episodes to play" in line
    assert "give one of them" in error_line(command_here("dqn", "--evaluate", folder, "--resume", folder))


def test_the_objects_of_tensorflow_are_kept_from_the_garbage_collector(monkeypatch, tmp_path):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("tensorflow" in sys.modules))
    monkeypatch.setattr(sys, "argv", ["dqn.py", "--runs-dir", str(tmp_path)])
    main(Config, lambda config: frozen.append(config.env_id), None)
    assert frozen == [True, "CartPole-v1"]


@pytest.mark.parametrize("enabled", [True, False])
def test_an_import_leaves_the_garbage_collector_as_it_was(enabled, monkeypatch):
    calls = []
    monkeypatch.setattr(gc, "isenabled", lambda: enabled)
    monkeypatch.setattr(gc, "disable", lambda: calls.append("off"))
    monkeypatch.setattr(gc, "enable", lambda: calls.append("on"))
    with pytest.raises(ImportError), importing():
        calls.append("import")
        raise ImportError
    assert calls == ["off", "import"] + ["on"] * enabled


def test_an_evaluated_run_keeps_its_options_but_not_how_it_was_shown(short_run, tmp_path):
    folder = shutil.copytree(short_run("dqn")[1], tmp_path / "copy")
    text = (folder / "config.json").read_text()
    for name in ("capture_video", "render", "track", "eager"):
        assert f'"{name}": false' in text
        text = text.replace(f'"{name}": false', f'"{name}": true')
    (folder / "config.json").write_text(text)
    for path in (folder, folder / "model.keras"):
        config = parse_config(Config, ["--evaluate", str(path)])
        assert config.eval_episodes == 3
        assert not (config.capture_video or config.render or config.track or config.eager)
    assert parse_config(Config, ["--resume", str(folder)]).capture_video


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("it is wrong: mend it"), 2, "error: it is wrong: mend it"),
        (KeyboardInterrupt(), 130, "interrupted: stopped"),
        (Stopped("continue with --resume", 2), 130, "interrupted: continue with --resume"),
        (Stopped("continue with --resume", 15), 143, "interrupted: continue with --resume"),
    ],
)
def test_exit_codes(error, code, line, monkeypatch, capsys):
    def train(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["dqn.py", "--seed", "4"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        main(Config, train, evaluate=None)
    assert stop.value.code == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("batch-size", ": Unable to allocate 7.28 TiB"),
        ("hidden-sizes", ": OOM when allocating"),
        ("num-envs", ""),
    ],
)
def test_a_lack_of_memory_is_one_line(option, reason, tmp_path, monkeypatch, capsys):
    """NumPy, TensorFlow and Python each have an error of their own."""
    options = ["--learning-starts=1", "--gradient-steps=1", f"--{option}=1e12"]
    options += ["--train-frequency=1e12" if option == "num-envs" else "--train-frequency=1"]
    monkeypatch.setattr(sys, "argv", ["dqn.py", *options, f"--runs-dir={tmp_path / 'runs'}"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        main(Config, train, evaluate)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: not enough memory{reason}") and ": lower the sizes" in line
    assert (tmp_path / "runs").exists() == (option == "batch-size")  # drawn once the training runs


def test_other_errors_keep_their_traceback(monkeypatch):
    def train(config):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sys, "argv", ["dqn.py"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(RuntimeError, match="a bug"):
        main(Config, train, evaluate=None)

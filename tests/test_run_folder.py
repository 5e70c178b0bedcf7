"""The run folder: its name, config.json, and writes that are on the disk before they count."""

import contextlib
import errno
import json
import os
from pathlib import Path
import platform

from common.checkpoint import Checkpoints
from common.cli import parse_config
from common.errors import UserError
from common.options import RunConfig, validate
from common.run import Run
from common.run_folder import create_run_folder, load_config, lock, save_config, write_errors, write_text
from common.saved_model import save_model
import keras
import numpy as np
import pytest

from dqn.dqn import Config
from q_learning import q_learning
from tests.conftest import error_line


def test_the_name_says_environment_algorithm_and_seed(tmp_path):
    config = Config(env_id="ALE/Pong-v5", seed=3, runs_dir=str(tmp_path))
    folder = create_run_folder(config)
    assert folder.parent == tmp_path and folder.name.startswith("ALE_Pong-v5__dqn__3__")


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_000_000_000.5)
    config = RunConfig(runs_dir=str(tmp_path))
    names = [create_run_folder(config).name for _ in range(3)]
    assert names == [f"CartPole-v1__options__0__1000000000{suffix}" for suffix in ("", "_1", "_2")]


def test_config_json_has_options_algorithm_and_versions(tmp_path):
    config = Config(seed=5, hidden_sizes=(7, 8), runs_dir=str(tmp_path))
    save_config(config, tmp_path)
    content = load_config(tmp_path)
    assert content["algorithm"] == "dqn" and content["hidden_sizes"] == [7, 8] and content["seed"] == 5
    assert content["versions"]["python"] == platform.python_version()
    assert content["versions"]["keras"] == keras.__version__
    assert {"numpy", "gymnasium", "tensorflow"} <= set(content["versions"])


def test_a_limit_that_an_older_run_switched_off_with_infinity_is_none(tmp_path):
    (tmp_path / "config.json").write_text('{"max_grad_norm": Infinity, "gamma": 0.9}')
    assert load_config(tmp_path) == {"max_grad_norm": None, "gamma": 0.9, "env_kwargs": {}}
    validate(parse_config(Config, ["--evaluate", str(tmp_path)]))


def test_options_of_older_runs_have_todays_names(tmp_path):
    (tmp_path / "config.json").write_text('{"async_envs": true, "repeat_action_probability": 0.0}')
    config = parse_config(Config, ["--resume", str(tmp_path)])
    assert config.executor == "async" and config.env_kwargs == {"repeat_action_probability": 0.0}
    (tmp_path / "config.json").write_text('{"async_envs": false, "repeat_action_probability": null}')
    config = parse_config(Config, ["--resume", str(tmp_path)])
    assert config.executor == "sync" and config.env_kwargs == {}


@pytest.mark.parametrize("content", [None, "{", "[]", "3", "\udcff"])
def test_a_folder_without_a_readable_config_is_not_a_run_folder(content, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"is not a run folder: it has no readable config\.json"):
        load_config(tmp_path)


def test_a_run_that_is_going_on_cannot_be_resumed_by_another_process(command, tmp_path):
    run = Run(q_learning.Config(runs_dir=str(tmp_path)))
    run.checkpoint()
    line = error_line(command("q_learning", "--resume", run.folder))
    assert line == f"error: the run {run.folder} is still going on in another process: wait, or stop it"
    Run(q_learning.Config(resume=str(run.folder))).checkpoint()  # this process may continue its own


def test_a_file_system_without_locks_does_not_stop_a_run(monkeypatch, tmp_path):
    def fail(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", fail)
    lock(tmp_path).close()


def test_a_runs_dir_that_cannot_be_written_is_one_line_at_the_start(command, tmp_path):
    (tmp_path / "file").write_text("")
    assert "choose another --runs-dir" in error_line(command("q_learning", "--runs-dir", "file/runs"))
    assert "choose another --runs-dir" in error_line(command("q_learning", "--runs-dir", "/proc/runs"))


def test_a_write_that_fails_says_how_to_continue(tmp_path):
    words = rf"No space left.*continue with --resume {tmp_path}"
    with pytest.raises(UserError, match=words) as error, write_errors(tmp_path):
        raise OSError(28, "No space left on device")
    assert "\n" not in str(error.value)


@pytest.fixture
def disk(monkeypatch):
    """The calls of fsync, as names of files, and of rename and replace, as pairs of names, in order."""
    calls = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def record(function, entry):
        def called(*args):
            calls.append(entry(*args))
            return function(*args)

        return called

    def name_of(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    def names(old, new):
        return Path(old).name, Path(new).name

    monkeypatch.setattr(os, "fsync", record(fsync, name_of))
    monkeypatch.setattr(os, "rename", record(rename, names))
    monkeypatch.setattr(os, "replace", record(replace, names))
    return calls


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@needs_proc
def test_text_is_synced_before_it_is_renamed(disk, tmp_path):
    write_text(tmp_path / "notes.txt", "text")
    assert disk == ["notes.partial.txt", ("notes.partial.txt", "notes.txt")]
    assert (tmp_path / "notes.txt").read_text() == "text" and len(list(tmp_path.iterdir())) == 1


@needs_proc
def test_config_json_is_synced_before_it_is_renamed(disk, tmp_path):
    save_config(RunConfig(), tmp_path)
    assert disk == ["config.partial.json", ("config.partial.json", "config.json")]


@needs_proc
@pytest.mark.parametrize("kind", ["keras", "npz"])
def test_a_model_is_synced_before_it_is_renamed(kind, disk, tmp_path):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    save_model(network if kind == "keras" else np.zeros((2, 2)), tmp_path)
    ours = [call for call in disk if "model" in str(call)]
    assert ours == [f"model.partial.{kind}", (f"model.partial.{kind}", f"model.{kind}")]


@needs_proc
def test_all_files_of_a_checkpoint_are_synced_before_it_is_renamed(disk, tmp_path):
    variable = keras.Variable(1.0)
    objects = {"agent": keras_module(variable), "rng": np.random.default_rng(0), "table": np.zeros(3)}
    Checkpoints(tmp_path, objects).save(7, {"global_step": 7})
    last = disk.index((".partial", "000000000007"))
    files = {path.name for path in (tmp_path / "000000000007").rglob("*") if path.is_file()}
    assert {"run.json", "table.npy", "variables.index"} <= files
    assert files <= {call for call in disk[:last] if isinstance(call, str)}


def keras_module(variable):
    """Return a `tf.Module` that holds a variable."""
    import tensorflow as tf

    module = tf.Module()
    module.variable = variable
    return module


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "evaluation.json", json.dumps({"returns": [1.0]}))

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with contextlib.suppress(KeyboardInterrupt):
        write_text(tmp_path / "evaluation.json", "{")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"returns": [1.0]}

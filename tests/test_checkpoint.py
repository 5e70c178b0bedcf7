"""Checkpoints: what they hold, when they are due, how they fail, and what they cost."""

import json
import shutil
import subprocess
import sys
import time

from common.checkpoint import Checkpoints, last_checkpoint, read_counters
from common.errors import UserError
from common.options import RunConfig
from common.run import Run
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import error_line


class Module(tf.Module):
    """A variable and a generator of TensorFlow."""

    def __init__(self, value=0.0):
        super().__init__()
        self.variable = tf.Variable(value)
        self.generator = tf.random.Generator.from_seed(int(value))


class Stateful:
    """An object that saves and loads itself."""

    nbytes = 1000

    def __init__(self, content=""):
        self.content = content

    def save_state(self, path):
        with open(path, "w") as file:
            file.write(self.content)

    def load_state(self, path):
        with open(path) as file:
            self.content = file.read()


def objects(seed):
    """Return one object of each kind, with a state made from `seed`."""
    generator = np.random.default_rng(seed)
    agent, buffer = Module(float(seed)), Stateful(f"content {seed}")
    return {"agent": agent, "rng": generator, "table": np.full((2, 3), float(seed)), "buffer": buffer}


def test_a_checkpoint_restores_every_kind_of_object(tmp_path):
    saved, restored = objects(1), objects(2)
    saved["agent"].generator.normal((3,))
    Checkpoints(tmp_path, saved).save(500, {"global_step": 500})
    Checkpoints(tmp_path, restored).restore()
    assert restored["agent"].variable.numpy() == 1.0
    assert restored["buffer"].content == "content 1"
    np.testing.assert_array_equal(restored["table"], np.ones((2, 3)))
    np.testing.assert_array_equal(restored["rng"].random(3), saved["rng"].random(3))
    draws = [one["agent"].generator.normal((3,)).numpy() for one in (saved, restored)]
    np.testing.assert_array_equal(*draws)


def test_only_the_newest_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, objects(1))
    for step in (9, 10, 2_000_000):
        checkpoints.save(step, {"global_step": step})
        assert [path.name for path in tmp_path.iterdir()] == [f"{step:012d}"]
    assert last_checkpoint(tmp_path) == tmp_path / "000002000000"
    assert read_counters(tmp_path)["global_step"] == 2_000_000


def test_without_a_checkpoint_nothing_changes(tmp_path):
    state = objects(3)
    Checkpoints(tmp_path / "nowhere", state).restore()
    assert state["agent"].variable.numpy() == 3.0 and read_counters(tmp_path / "nowhere") is None


def test_an_interrupted_checkpoint_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, objects(1))
    checkpoints.save(500, {"global_step": 500})

    def fail(path):
        raise KeyboardInterrupt

    checkpoints.stateful["buffer"].save_state = fail
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(900, {"global_step": 900})
    assert (tmp_path / ".partial").exists()
    restored = objects(2)
    Checkpoints(tmp_path, restored).restore()
    assert restored["buffer"].content == "content 1" and read_counters(tmp_path)["global_step"] == 500


def test_counters_that_change_after_a_checkpoint_of_the_same_step_are_those_that_count(tmp_path):
    """Ctrl-C while a checkpoint is written: the last row of the run then takes the episodes."""
    run = Run(RunConfig(runs_dir=str(tmp_path), log_frequency=1000))
    run.checkpoint()
    run.global_step = 500
    run._unlogged_episodes = [(85.0, 85)]
    run.save_checkpoint()
    run._write_row()
    run.save_checkpoint()
    assert read_counters(run.folder / "checkpoints")["unlogged_episodes"] == []
    assert read_counters(run.folder / "checkpoints")["last_row_step"] == 500


def test_an_interrupted_checkpoint_is_not_resumed_from(tmp_path):
    run = Run(RunConfig(runs_dir=str(tmp_path)))
    rng = np.random.default_rng(0)
    run.checkpoint(rng=rng)
    run.global_step = 500
    run.save_checkpoint()
    numbers = rng.random(3)
    (run.folder / "checkpoints" / ".partial").mkdir()
    config = RunConfig(runs_dir=str(tmp_path), resume=str(run.folder))
    resumed, again = Run(config), np.random.default_rng(1)
    resumed.checkpoint(rng=again)
    assert resumed.global_step == 500
    np.testing.assert_array_equal(again.random(3), numbers)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("agent", tf.Module()),
        ("table", np.zeros((4, 2, 3))),  # an assignment would broadcast the saved one
        ("rng", np.random.Generator(np.random.MT19937(0))),
    ],
)
def test_objects_that_do_not_fit_are_an_error(name, other, tmp_path):
    Checkpoints(tmp_path, objects(1)).save(500, {})
    if name == "agent":
        other.variable = tf.Variable([1.0, 2.0])
    with pytest.raises(UserError, match="does not fit: resume with the options of that run") as error:
        Checkpoints(tmp_path, objects(2) | {name: other}).restore()
    assert "\n" not in str(error.value)


def test_counters_that_cannot_be_read_are_an_error(tmp_path):
    Checkpoints(tmp_path, objects(1)).save(500, {})
    (tmp_path / "000000000500" / "run.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read: delete it to train from the beginning"):
        read_counters(tmp_path)


def test_a_write_that_tensorflow_refuses_is_an_oserror(tmp_path, monkeypatch):
    def write(*args):
        raise tf.errors.ResourceExhaustedError(None, None, "disk full")

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    with pytest.raises(OSError, match="cannot write"):
        Checkpoints(tmp_path, objects(1)).save(500, {})
    assert last_checkpoint(tmp_path) is None


def test_a_full_disk_is_one_line_at_the_start(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    run = Run(RunConfig(runs_dir=str(tmp_path)))
    with pytest.raises(UserError, match=r"1,000 bytes free.*choose another --runs-dir"):
        run.checkpoint(rng=np.random.default_rng(0))


def test_room_is_needed_for_two_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000_000 + 2_000}))
    Run(RunConfig(runs_dir=str(tmp_path))).checkpoint(buffer=Stateful())
    with pytest.raises(UserError, match="10,002,048 bytes"):
        Run(RunConfig(runs_dir=str(tmp_path))).checkpoint(buffer=Stateful(), table=np.zeros(3))


def test_folders_that_cannot_be_resumed_are_one_line(command_here, short_run, tmp_path):
    assert "is not a run folder" in error_line(command_here("dqn", "--resume", tmp_path))
    folder = shutil.copytree(short_run("dqn")[1], tmp_path / "copy")
    line = error_line(command_here("dqn", "--resume", folder, "--env-id", "Acrobot-v1"))
    assert "run of dqn on CartPole-v1" in line and "resume it with its own script" in line
    line = error_line(command_here("double_dqn", "--resume", folder))
    assert "run of dqn on CartPole-v1" in line
    line = error_line(command_here("dqn", "--resume", folder, "--hidden-sizes", 7, "--total-timesteps", 9999))
    assert "does not fit" in line
    resumed = command_here("dqn", "--resume", folder, "--total-timesteps", 1600)  # that did it no harm
    assert resumed.returncode == 0, resumed.stderr


# When a checkpoint is due


def run_with(tmp_path, **options):
    """Return a run that has just started."""
    run = Run(RunConfig(runs_dir=str(tmp_path), **options))
    run.checkpoint()
    return run


def due_steps(run, increment=1):
    """Return the steps after which a checkpoint is due, whatever the time."""
    steps = range(increment, run.config.total_timesteps + 1, increment)
    due = []
    for run.global_step in steps:
        if run._checkpoint_is_due(increment):
            due.append(run.global_step)
    return due


def test_checkpoints_are_due_every_frequency_steps_but_for_the_last(tmp_path):
    assert due_steps(run_with(tmp_path, total_timesteps=100, checkpoint_frequency=25)) == [25, 50, 75]
    assert due_steps(run_with(tmp_path, total_timesteps=100, checkpoint_frequency=30)) == [30, 60, 90]
    run = run_with(tmp_path, total_timesteps=96, checkpoint_frequency=25, num_envs=8)
    assert due_steps(run, 8) == [32, 56, 80]
    assert due_steps(run_with(tmp_path, total_timesteps=100, checkpoint_frequency=0)) == []


def test_a_slow_checkpoint_waits_until_it_takes_2_percent_of_the_time(tmp_path, monkeypatch):
    run = run_with(tmp_path, total_timesteps=100, checkpoint_frequency=1)
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def save(step, counters):
        now[0] += 0.5

    monkeypatch.setattr(run.checkpoints, "save", save)
    run.global_step = 10
    run.save_checkpoint()
    for seconds, due in [(0.0, False), (24.0, False), (24.4, False), (24.6, True), (100.0, True)]:
        now[0] = 1000.5 + seconds
        assert run._checkpoint_is_due(1) == due, seconds


def test_fast_checkpoints_are_made_as_often_as_asked(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, counters: calls.append(step))
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # saving takes no time
    run = run_with(tmp_path, total_timesteps=50, checkpoint_frequency=10)
    for _ in run.steps(1):
        pass
    assert calls == [10, 20, 30, 40]


# What a checkpoint costs

MEMORY = """
import sys, tracemalloc
import gymnasium as gym, numpy as np
from common.checkpoint import Checkpoints
from common.replay_buffer import ReplayBuffer
from pathlib import Path

stacked = sys.argv[2] == "frames"
shape = (4, 84, 84, 1) if stacked else (25_000,)
space = gym.spaces.Box(0, 255, shape, np.uint8)
capacity, frame_stack = (13_500, 4) if stacked else (2_000, 1)
buffer = ReplayBuffer(capacity, space, gym.spaces.Discrete(2), frame_stack=frame_stack)
observation = np.zeros((1, *shape), np.uint8)
for k in range(buffer.capacity + 10):  # wrapped
    last, observation = observation, np.full((1, *shape), k % 251, np.uint8)
    if stacked:
        observation[0, :-1] = last[0, 1:]
    buffer.add(last, [0], [0.0], observation, [False])
assert len(buffer) == buffer.capacity
assert buffer.nbytes > 95_000_000, buffer.nbytes
checkpoints = Checkpoints(Path(sys.argv[1]), {"buffer": buffer})
tracemalloc.start()
checkpoints.save(1, {})
print(tracemalloc.get_traced_memory()[1] / buffer.nbytes)
tracemalloc.reset_peak()
checkpoints.restore()
print(tracemalloc.get_traced_memory()[1] / buffer.nbytes)
"""


@pytest.mark.parametrize("kind", ["vectors", "frames"])
def test_a_checkpoint_does_not_copy_the_replay_buffer(kind, tmp_path):
    """A buffer of 100 MB that has wrapped: the extra memory is at most one slice of it, saved or loaded."""
    process = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "checkpoints", kind], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    saving, loading = map(float, process.stdout.split())
    assert saving < 0.05 and loading < 0.05
    with np.load(next(tmp_path.glob("checkpoints/*/buffer.npz"))) as file:
        assert json.loads(file["rng"].tobytes())["bit_generator"] == "PCG64"
        assert len(file["rewards"]) == (2_000 if kind == "vectors" else 13_500)

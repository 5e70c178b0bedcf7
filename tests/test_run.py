"""A run: its files, the same numbers from the same seed, signals, resuming, progress, and rows."""

import dataclasses
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

from common.cli import parse_config
from common.errors import UserError
from common.options import RunConfig
from common.run import Run
from common.signals import Stopped
import numpy as np
import pytest

from tests.conftest import (
    ONE_THREAD,
    ROOT,
    SHORT,
    environment,
    metrics,
    model_in,
    rows,
    short_options,
    start_script,
    wait_for,
)


def test_a_run_leaves_its_folder_and_a_second_one_the_same_numbers(script, short_run, command, only_run):
    process, folder = short_run(script)
    lines = process.stdout.splitlines()
    assert lines[-1].startswith("evaluation: mean return ") and lines[-1].endswith(" over 3 episodes")
    config = json.loads((folder / "config.json").read_text())
    assert folder.name.startswith(f"{config['env_id']}__{script}__0__")
    names = {path.name.split(".")[0] for path in folder.iterdir()}
    assert {"config", "metrics", "evaluation", "model", "learning_curve", "checkpoints", "events"} <= names
    assert int(rows(folder)[-1]["global_step"]) >= config["total_timesteps"]
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("global_step,seconds,episodic_return,episodic_length,")
    assert len(rows(folder)) > 5
    for line in process.stderr.splitlines():  # no start-up message of TensorFlow reaches the terminal
        assert "step/s" in line or not line, line

    second = command(script, *short_options(script))
    assert second.stdout.splitlines()[-1] == lines[-1]
    assert rows(only_run()) == rows(folder)


def test_the_end_lists_model_and_learning_curve(script, short_run):
    process, folder = short_run(script)
    where = folder.relative_to(folder.parent.parent)  # the run was started in the folder that has runs/
    assert process.stdout.splitlines()[:-1] == [
        f"run folder: {where}",
        f"model: {where / model_in(folder).name}",
        f"learning curve: {where / 'learning_curve.png'}",
    ]


def test_the_progress_bar_ends_at_100_percent(script, short_run):
    process, folder = short_run(script)
    total = json.loads((folder / "config.json").read_text())["total_timesteps"]
    last = re.split(r"[\r\n]+", process.stderr.strip())[-1]
    assert last.startswith("100%|") and f"| {total}/{total} [" in last, last


@pytest.mark.parametrize("increment", [1, 7, 64, 100, 1000])
def test_the_progress_bar_ends_at_100_percent_if_rollouts_overshoot(increment, tmp_path, capsys):
    run = Run(RunConfig(total_timesteps=100, runs_dir=str(tmp_path)))
    run.checkpoint()
    steps = list(run.steps(increment))
    assert steps == list(range(increment, 100 + increment, increment))
    last = re.split(r"[\r\n]+", capsys.readouterr().err.strip())[-1]
    assert last.startswith("100%|") and "| 100/100 [" in last, last


def test_progress_is_that_before_the_iteration(tmp_path):
    run = Run(RunConfig(total_timesteps=100, runs_dir=str(tmp_path)))
    run.checkpoint()
    assert [run.progress for _ in run.steps(30)] == [0.0, 0.3, 0.6, 0.9]


# Signals


def test_a_killed_run_is_resumed(script, tmp_path, command, short_run):
    process = start_script(tmp_path, script, *short_options(script))
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/0*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = (tmp_path / "runs").iterdir()
    checkpoint = max(int(path.name) for path in folder.glob("checkpoints/0*"))
    resumed = command(script, "--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1].startswith("evaluation: ")
    assert "starts from the beginning" not in resumed.stdout
    _, uninterrupted = short_run(script)
    steps, expected = ([int(row["global_step"]) for row in rows(run)] for run in (folder, uninterrupted))
    kept = [step for step in expected if step <= checkpoint]
    assert steps[: len(kept)] == kept and steps == sorted(set(steps)) and steps[-1] == expected[-1]
    if script != "reinforce":  # whose updates, and so rows, follow the ends of its episodes
        assert steps == expected  # no hole, no duplicate


INTERRUPTED = [  # Ctrl-C for each script; SIGTERM goes the same way through `common`
    *((name, signal.SIGINT) for name in SHORT),
    ("dqn", signal.SIGTERM),
    ("q_learning", signal.SIGTERM),
]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(name, number, marks=pytest.mark.xdist_group(name), id=f"{name}-{number.name}")
        for name, number in INTERRUPTED
    ],
)
def test_a_signal_leaves_a_model_that_plays_and_a_run_that_resumes(name, number, tmp_path, command_here):
    long = [*short_options(name), "--total-timesteps", 10**7]
    process = start_script(tmp_path, name, *long)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/0*")), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in errors, errors
    (folder,) = (tmp_path / "runs").iterdir()
    advice = f"continue with python {ROOT / name / name}.py --resume {folder.relative_to(tmp_path)}"
    assert errors.splitlines()[-1].startswith("interrupted: ") and errors.splitlines()[-1].endswith(advice)
    last_step = int(rows(folder)[-1]["global_step"])
    assert [int(path.name) for path in (folder / "checkpoints").iterdir()] == [last_step]
    played = command_here(name, "--evaluate", model_in(folder))
    assert played.returncode == 0 and played.stdout.startswith("evaluation: "), played.stderr
    resumed = command_here(name, "--resume", folder, "--total-timesteps", last_step + 700)
    assert resumed.returncode == 0, resumed.stderr
    assert int(rows(folder)[-1]["global_step"]) >= last_step + 700


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_loop_after_its_iteration(number, tmp_path):
    run = Run(RunConfig(total_timesteps=100, runs_dir=str(tmp_path)))
    run.checkpoint()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    finished = []
    for step in run.steps(1):
        if step == 5:
            signal.raise_signal(number)
            assert {one: signal.getsignal(one) for one in before} == before  # a second one is not caught
        finished.append(step)
    assert finished == [1, 2, 3, 4, 5]
    assert {one: signal.getsignal(one) for one in before} == before
    with pytest.raises(Stopped, match=f"stopped at step 5; .* --resume {run.folder}") as stop:
        run.finish(evaluate=None, table=np.zeros((2, 2)))
    assert stop.value.signum == number and isinstance(stop.value, KeyboardInterrupt)
    assert (run.folder / "model.npz").exists() and (run.folder / "checkpoints" / f"{5:012d}").exists()


MANY_SIGNALS = """
import ctypes
import signal
from common import run
from common.signals import StopSignal
from double_dqn import double_dqn

class Stack(ctypes.Structure):  # stack_t of Linux
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

class ManySignals(StopSignal):
    def __enter__(self):
        super().__enter__()
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
        return self

    def __exit__(self, *error):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        super().__exit__(*error)

run.StopSignal = ManySignals
config = double_dqn.Config(
    total_timesteps=10_000, learning_starts=100, train_frequency=50, gradient_steps=5, eval_episodes=0
)
double_dqn.train(config)
stack = Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
print("size of the stack of signals:", stack.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stack_t of Linux")
def test_signals_leave_the_memory_of_an_update_alone(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", MANY_SIGNALS],  # pytest's own process has a stack for signals already
        cwd=tmp_path,
        env=os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout.split()[-1]) > 2048  # MINSIGSTKSZ


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_beginning(command, short_run, tmp_path):
    _, finished = short_run("q_learning")
    folder = shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    resumed = command("q_learning", "--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "it has no checkpoint yet: training starts from the beginning" in resumed.stdout.splitlines()
    assert rows(folder) == rows(finished)


# Rows


def step_to(run, step, *episodes):
    """Move a run to a step at which episodes (return, length) end."""
    run.global_step = step
    if episodes:
        returns, lengths = map(np.array, zip(*episodes))
        info = {"r": returns, "l": lengths}
        run.record({"final_info": {"episode": info, "_episode": np.ones(len(episodes), bool)}})


def test_a_row_has_the_means_over_the_episodes_since_the_last_one(tmp_path):
    run = Run(RunConfig(log_frequency=10, runs_dir=str(tmp_path)))
    run.checkpoint()
    step_to(run, 3, (1.0, 3))
    run.log(loss=7.0)  # the first row is written at once
    step_to(run, 5, (2.0, 5), (4.0, 7))
    run.log(loss=8.0)  # not due
    step_to(run, 11, (9.0, 6))
    run.log(loss=9.0)
    step_to(run, 20)
    run.log(loss=10.0)
    columns = metrics(run.folder)
    np.testing.assert_array_equal(columns["global_step"], [3, 11, 20])
    np.testing.assert_array_equal(columns["episodic_return"], [1.0, 5.0, np.nan])
    np.testing.assert_array_equal(columns["episodic_length"], [3.0, 6.0, np.nan])
    np.testing.assert_array_equal(columns["loss"], [7.0, 9.0, 10.0])
    assert run.episode_returns == [1.0, 2.0, 4.0, 9.0]


def test_the_last_step_has_a_row_and_episodes_survive_a_checkpoint(tmp_path):
    config = RunConfig(total_timesteps=8, log_frequency=1000, eval_episodes=0, runs_dir=str(tmp_path))
    run = Run(config)
    run.checkpoint()
    step_to(run, 3, (1.0, 3))
    run.log(loss=7.0)
    step_to(run, 5, (2.0, 2))
    run.save_checkpoint()
    resumed = Run(RunConfig(**vars(config) | {"resume": str(run.folder)}))
    resumed.checkpoint()
    step_to(resumed, 8, (4.0, 3))
    resumed.log(loss=9.0)
    result = resumed.finish(evaluate=None, table=np.zeros((2, 2)))
    np.testing.assert_array_equal(result.episode_returns, [1.0, 2.0, 4.0])
    columns = metrics(run.folder)
    np.testing.assert_array_equal(columns["global_step"], [3, 8])
    np.testing.assert_array_equal(columns["episodic_return"], [1.0, 3.0])


def test_seconds_of_a_resumed_run_continue(tmp_path):
    run = Run(RunConfig(runs_dir=str(tmp_path)))
    run.checkpoint()
    time.sleep(0.05)
    run.global_step = 5
    run.save_checkpoint()
    resumed = Run(RunConfig(runs_dir=str(tmp_path), resume=str(run.folder)))
    resumed.checkpoint()
    resumed.global_step = 6
    resumed.log()
    with (run.folder / "metrics.csv").open() as file:
        assert 0.05 <= float(file.read().splitlines()[1].split(",")[1]) < 5.0


# From Python, and anywhere


@pytest.mark.parametrize(("name", "place"), [("dqn", "td_target ="), ("a2c", "policy_loss = -")])
def test_eager_runs_the_update_line_by_line(name, place, tmp_path):
    """A breakpoint inside the update stops there, and again at the next update, with numbers to look at."""
    script = ROOT / name / f"{name}.py"
    (line,) = (k for k, text in enumerate(script.read_text().splitlines(), 1) if place in text)
    show = ["-c", "c", "-c", "p 'stopped at', np.asarray(batch.actions).shape"]
    stops = ["-c", f"b {line}", *show, *show, "-c", "q"]
    process = subprocess.run(
        [sys.executable, "-m", "pdb", *stops, script, *short_options(name), "--eager"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.stdout.count("('stopped at', (") == 2, process.stdout + process.stderr


def test_runs_from_any_folder_and_from_python(tmp_path, monkeypatch, module):
    monkeypatch.chdir(tmp_path)
    dqn = module("dqn")
    result = dqn.train(dqn.Config(total_timesteps=300, eval_episodes=2, runs_dir="here"))
    assert set(result.networks) == {"q_network"} and len(result.evaluation_returns) == 2
    assert result.model is result.networks["q_network"] and result.folder.is_dir()
    assert len(result.episode_returns) > 3 and Path("here").is_dir()


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_dict_observations_train(name, module, configured):
    rollouts = {"num_envs": 2, "num_steps": 10, "num_minibatches": 2, "num_epochs": 1}
    updates = {"learning_starts": 50, "train_frequency": 20, "gradient_steps": 1, "batch_size": 8}
    env_id = "tests.environments:DictObservation-v0"
    config = configured(name, env_id=env_id, total_timesteps=100, eval_episodes=2, **rollouts, **updates)
    result = module(name).train(config)
    assert result.model.input_shape == (None, 5)
    np.testing.assert_array_equal(result.evaluation_returns, [6.0, 6.0])


def test_a_model_is_not_saved_if_not_asked_for(tmp_path, module, capsys):
    q_learning = module("q_learning")
    config = q_learning.Config(total_timesteps=50, eval_episodes=0, save_model=False, runs_dir=str(tmp_path))
    result = q_learning.train(config)
    assert not list(result.folder.glob("model.*")) and "model:" not in capsys.readouterr().out


def test_a_metric_that_is_not_a_number_stops_the_run_before_its_next_checkpoint(tmp_path):
    run = Run(
        RunConfig(total_timesteps=30, checkpoint_frequency=10, log_frequency=10, runs_dir=str(tmp_path))
    )
    run.checkpoint()
    with pytest.raises(UserError, match="the metric td_loss is NaN: if it is a loss, training has diverged"):
        for step in run.steps(10):
            run.log(td_loss=np.nan if step == 20 else 1.0)
    assert int(run.checkpoints.last.name) == 10
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 2


def test_a_resumed_run_prints_the_options_that_have_changed(module, short_run, tmp_path, capsys):
    script = module("q_learning")
    folder = shutil.copytree(short_run("q_learning")[1], tmp_path / "copy")
    saved = parse_config(script.Config, ["--resume", str(folder)])
    script.train(saved)
    assert "options changed" not in capsys.readouterr().out
    script.train(dataclasses.replace(saved, gamma=0.5, eval_episodes=0))
    lines = capsys.readouterr().out.splitlines()
    changed = f"eval_episodes 0 (was {saved.eval_episodes}), gamma 0.5 (was {saved.gamma})"
    assert f"options changed since the run was started: {changed}" in lines


@pytest.mark.parametrize("updates", [0, 1])
def test_a_run_that_ends_before_the_first_update_says_so(updates, tmp_path, capsys):
    config = RunConfig(total_timesteps=10, eval_episodes=0, save_model=False, runs_dir=str(tmp_path))
    run = Run(config)
    run.checkpoint()
    for _ in run.steps(10):
        if updates:
            run.log(td_loss=1.0)
    run.finish(None, table=np.zeros(1))
    assert ("ended before its first update" in capsys.readouterr().err) == (not updates)

    resumed = Run(dataclasses.replace(config, resume=str(run.folder)))  # at its last step
    resumed.checkpoint()
    resumed.finish(None, table=np.zeros(1))
    assert "first update" not in capsys.readouterr().err


def test_a_script_copied_out_with_common_beside_it_runs(tmp_path):
    shutil.copy(ROOT / "dqn" / "dqn.py", tmp_path)
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "common" / "__init__.py").open("a") as file:
        file.write('\nprint("the common beside the script")\n')
    process = subprocess.run(
        [sys.executable, "dqn.py", *short_options("dqn")], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("the common beside the script")
    assert re.search(r"^evaluation: mean return", process.stdout, re.MULTILINE)


def test_a_script_closes_its_environments(script, module, configured, monkeypatch):
    """With --executor async, each is a process that would stay."""
    made, make_envs = [], module(script).make_envs
    monkeypatch.setattr(
        module(script), "make_envs", lambda *a, **k: made.append(make_envs(*a, **k)) or made[-1]
    )
    rollouts = {"num_steps": 4, "num_minibatches": 2, "bins": (2,), "eager": True}
    config = configured(script, env_id=environment(script, "Recorded"), total_timesteps=8, **rollouts)
    module(script).train(config)
    assert [envs.unwrapped.closed for envs in made] == [True]

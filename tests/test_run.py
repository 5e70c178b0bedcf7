"""What every script promises around its algorithm: files, faults, resuming, same seed same numbers."""

import csv
import json
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

from common.errors import UserError
from common.options import RunConfig, check
from common.run import Run
import numpy as np
import pytest

from tests.conftest import ROOT, short_options


def rows(folder):
    """The rows of metrics.csv without the time column."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


def start(script, *args, cwd):
    return subprocess.Popen(
        [sys.executable, ROOT / script / f"{script}.py", *map(str, args)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=120):
    """Wait until condition() holds while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not come so far in time"
        time.sleep(0.02)


def complaint(process):
    """The one line on stderr of a process that was used wrongly."""
    assert process.returncode == 2, (process.stdout, process.stderr)
    (line,) = process.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def model_in(folder):
    """The saved model of a run folder."""
    (path,) = folder.glob("model.*")
    return path


def test_a_run_leaves_its_folder_and_a_twin_the_same_numbers(script, short_run, command, only_run):
    process, folder = short_run(script)
    last_line = process.stdout.splitlines()[-1]
    assert last_line.startswith("evaluation: mean return ") and last_line.endswith(" over 3 episodes")
    config = json.loads((folder / "config.json").read_text())
    assert folder.name.startswith(f"{config['env_id']}__{script}__0__")
    names = {path.name.split(".")[0] for path in folder.iterdir()}
    assert {"config", "metrics", "evaluation", "model", "learning_curve", "checkpoints", "events"} <= names
    assert int(rows(folder)[-1]["global_step"]) >= config["total_timesteps"]
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith("global_step,seconds,episodic_return,episodic_length,")
    assert len(rows(folder)) > 5
    for line in process.stderr.splitlines():  # nothing of TensorFlow's start-up reaches the terminal
        assert "step/s" in line or not line, line

    twin = command(script, *short_options(script))
    assert twin.stdout.splitlines()[-1] == last_line
    assert rows(only_run()) == rows(folder)


def test_killed_and_resumed(script, tmp_path, command, short_run):
    process = start(script, *short_options(script), cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/0*")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = (tmp_path / "runs").iterdir()
    resumed = command(script, "--resume", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1].startswith("evaluation: ")
    _, uninterrupted = short_run(script)
    steps, expected = ([int(row["global_step"]) for row in rows(run)] for run in (folder, uninterrupted))
    assert steps == expected  # no hole, no duplicate


def test_interrupted_leaves_a_playable_model_and_can_be_resumed(script, tmp_path, command):
    long = [*short_options(script), "--total-timesteps", 10**7]
    process = start(script, *long, cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/0*")), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert "--resume" in errors.splitlines()[-1]
    (folder,) = (tmp_path / "runs").iterdir()
    played = command(script, "--evaluate", model_in(folder))
    assert played.returncode == 0 and played.stdout.startswith("evaluation: "), played.stderr
    last_step = int(rows(folder)[-1]["global_step"])
    resumed = command(script, "--resume", folder, "--total-timesteps", last_step + 700)
    assert resumed.returncode == 0, resumed.stderr
    assert int(rows(folder)[-1]["global_step"]) > last_step


def test_evaluating_a_saved_model_repeats_the_evaluation(script, command, short_run):
    trained, folder = short_run(script)
    played = command(script, "--evaluate", model_in(folder))
    assert played.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "--num-envs is 0"),
        ({"total_timesteps": -5}, "--total-timesteps is -5"),
        ({"gamma": 1.5}, "--gamma is 1.5"),
        ({"gamma": float("nan")}, "--gamma is nan"),
        ({"env_id": "NoSuchEnv-v0"}, "doesn't exist"),
        ({"env_id": "tests.environments:DictObservation-v0"}, "wrap the environment"),
    ],
)
def test_bad_options_stop_a_run_before_it_leaves_anything(script, options, words, module, tmp_path):
    config = module(script).Config(**options, runs_dir=str(tmp_path / "runs"))
    with pytest.raises(UserError, match=words):
        module(script).train(config)
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_played_or_made_is_one_line(script, command, tmp_path):
    assert "--num-envs is 0" in complaint(command(script, "--num-envs", 0))
    (tmp_path / "model.keras").write_text("not a model")
    assert "give the model" in complaint(command(script, "--evaluate", "model.keras"))


def test_a_choice_that_is_none_is_told_from_python_too(module):
    with pytest.raises(UserError, match="--loss is hubber: it must be squared or huber"):
        module("dqn").train(module("dqn").Config(loss="hubber"))


def test_a_folder_can_be_played_too(command, short_run):
    trained, folder = short_run("dqn")
    assert command("dqn", "--evaluate", folder).stdout.splitlines()[-1] == trained.stdout.splitlines()[-1]


def test_a_missing_model_is_one_line(command):
    assert "there is no model" in complaint(command("dqn", "--evaluate", "nowhere/model.keras"))


def test_a_model_of_another_environment_is_one_line(command, short_run):
    _, folder = short_run("dqn")
    line = complaint(command("dqn", "--evaluate", model_in(folder), "--env-id", "Acrobot-v1"))
    assert "(4,)" in line and "(6,)" in line and "--env-id" in line


def test_folders_that_cannot_be_resumed_are_one_line(command, short_run, tmp_path):
    assert "not a run folder" in complaint(command("dqn", "--resume", tmp_path))
    folder = shutil.copytree(short_run("dqn")[1], tmp_path / "copy")
    line = complaint(command("dqn", "--resume", folder, "--env-id", "Acrobot-v1"))
    assert "run of dqn on CartPole-v1" in line
    line = complaint(command("dqn", "--resume", folder, "--hidden-sizes", 7, "--total-timesteps", 9999))
    assert "does not fit" in line
    resumed = command("dqn", "--resume", folder, "--total-timesteps", 1600)  # that did it no harm
    assert resumed.returncode == 0, resumed.stderr


def test_a_run_folder_that_cannot_be_written_is_one_line_at_the_start(command, tmp_path):
    (tmp_path / "file").write_text("")
    assert "choose --runs-dir" in complaint(command("dqn", "--runs-dir", "file/runs"))
    assert "choose --runs-dir" in complaint(command("dqn", "--runs-dir", "/proc/runs"))


def test_a_full_disk_is_one_line_at_the_start(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    run = Run(RunConfig(runs_dir=str(tmp_path)), "dqn")
    with pytest.raises(UserError, match="1,000 bytes free"):
        run.checkpoint(rng=np.random.default_rng(0))


def test_a_write_that_fails_later_is_one_line(tmp_path):
    """A file-size limit of the process stands in for a disk that fills up in the middle."""
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.argv = sys.argv[1:];"
    limited += "runpy.run_path(sys.argv[0], run_name='__main__')"
    script = ROOT / "dqn" / "dqn.py"
    process = subprocess.run(
        [sys.executable, "-c", limited, script, *short_options("dqn")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: ")


def test_the_right_wandb_is_asked(command, only_run):
    offline = command(
        "dqn", *short_options("dqn"), "--track", env={"WANDB_MODE": "offline", "WANDB_API_KEY": ""}
    )
    assert offline.returncode == 0, offline.stderr
    assert list(only_run().parent.parent.glob("wandb/offline-run-*"))


def test_wandb_is_not_imported_unless_asked(tmp_path):
    code = (
        "import sys; from dqn.dqn import Config, train;"
        "train(Config(total_timesteps=50, eval_episodes=1)); assert 'wandb' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0


def test_an_interrupted_checkpoint_is_not_mistaken_for_one(tmp_path):
    run = Run(RunConfig(runs_dir=str(tmp_path)), "dqn")
    rng = np.random.default_rng(0)
    run.checkpoint(rng=rng)
    run.global_step = 500
    run.save_checkpoint()
    numbers = rng.random(3)
    (run.folder / "checkpoints" / ".partial").mkdir()
    config = RunConfig(runs_dir=str(tmp_path), resume=str(run.folder))
    resumed, again = Run(config, "dqn"), np.random.default_rng(1)
    resumed.checkpoint(rng=again)
    assert resumed.global_step == 500
    np.testing.assert_array_equal(again.random(3), numbers)


def test_options_are_checked_against_their_annotations():
    check(RunConfig())
    for name, value in [("num_envs", 0), ("seed", -1), ("log_frequency", 0), ("eval_episodes", -1)]:
        config = RunConfig()
        setattr(config, name, value)
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is {value}: it must be"):
            check(config)


def test_logging_costs_little(tmp_path):
    """Rows are due once in 1,000 steps: at 10,000 steps/s, 2 % of the time are 2 ms a row."""
    run = Run(RunConfig(runs_dir=str(tmp_path), log_frequency=1), "dqn")
    run.checkpoint()
    metrics = {f"metric_{k}": float(k) for k in range(6)}
    seconds = []
    for step in range(1, 300):
        run.global_step = step
        started = time.perf_counter()
        run.log(**metrics)
        seconds.append(time.perf_counter() - started)
    assert np.median(seconds) < 0.002


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


def test_video_of_the_evaluation(command, only_run):
    process = command("dqn", *short_options("dqn"), "--capture-video", env={"SDL_VIDEODRIVER": "dummy"})
    assert process.returncode == 0, process.stderr
    (video,) = only_run().glob("videos/*.mp4")
    from moviepy import VideoFileClip

    with VideoFileClip(str(video)) as clip:
        frame = clip.get_frame(0)
    assert (
        frame.shape == (400, 600, 3) and frame.std() > 10
    )  # a cart and a pole on white, not an empty picture


def test_an_environment_without_pictures_is_told_before_training(command):
    line = complaint(command("dqn", "--env-id", "tests.environments:Counter-v0", "--capture-video"))
    assert "--capture-video cannot record" in line


def test_runs_from_any_folder_and_from_python(tmp_path, monkeypatch, module):
    monkeypatch.chdir(tmp_path)
    dqn = module("dqn")
    result = dqn.train(dqn.Config(total_timesteps=300, eval_episodes=2, runs_dir="here"))
    assert set(result.networks) == {"q_network"} and len(result.evaluation_returns) == 2
    assert len(result.episode_returns) > 3 and Path("here").is_dir()


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

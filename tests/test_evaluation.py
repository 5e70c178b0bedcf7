"""Evaluation: greedy episodes with seeds of their own, saved models, video, and what cannot be shown."""

import json
import shutil

from common import evaluation
from common.errors import UserError
from common.evaluation import check_display, play_episodes
from common.options import RunConfig
from common.saved_model import evaluate_saved_model
import numpy as np
import pytest

from tests.conftest import error_line, model_in, run_script, short_options
from tests.environments import Recorded

COUNTER = "tests.environments:Counter-v0"


def constant(*outputs):
    """Return a network with the same outputs for every observation."""
    return lambda observations: np.tile(np.array(outputs, np.float32), (len(observations), 1))


def test_every_episode_counts_once():
    config = RunConfig(env_id=COUNTER, eval_episodes=20)
    np.testing.assert_array_equal(play_episodes(constant(1, 0), config), [6.0] * 20)


def test_episodes_repeat_and_differ_from_each_other():
    config = RunConfig(eval_episodes=20)
    first, again = (play_episodes(constant(1, 0), config) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first)) > 1


def test_a_return_belongs_to_its_seed_however_many_are_played_at_once(monkeypatch):
    config = RunConfig(eval_episodes=7)
    returns = play_episodes(constant(1, 0), config)
    monkeypatch.setattr(evaluation, "EPISODES_AT_ONCE", 2)
    np.testing.assert_array_equal(play_episodes(constant(1, 0), config), returns)


def test_the_greedy_action_is_the_argmax_of_the_outputs():
    """In the environment, and for every observation on its own: the network sees what the actions go with."""

    def network(observations):
        return np.pad(observations, ((0, 0), (0, 1)))  # three numbers and a 0 for the four actions

    Recorded.forget()
    play_episodes(network, RunConfig(env_id="tests.environments:Recorded-v0", eval_episodes=3))
    assert len(Recorded.actions) == 15 and len(set(map(int, Recorded.actions))) > 2
    expected = network(np.array(Recorded.observations)).argmax(axis=1)
    np.testing.assert_array_equal(Recorded.actions, expected)


def test_the_greedy_box_action_is_the_outputs():
    Recorded.forget()
    play_episodes(constant(0.5, 7.5), RunConfig(env_id="tests.environments:RecordedBox-v0", eval_episodes=1))
    np.testing.assert_array_equal(Recorded.actions, [[0.5, 7.5]] * 5)


@pytest.mark.parametrize(
    ("env_id", "size"), [("tests.environments:BoxActions-v0", 2), ("tests.environments:Shapes-v0", 6)]
)
def test_box_actions_are_clipped_to_their_bounds(env_id, size):
    config = RunConfig(env_id=env_id, eval_episodes=2)
    for action in (-100.0, 100.0):  # the environment asserts that they are of its space
        play_episodes(constant(*[action] * size), config)


def test_an_episode_that_never_ends_is_cut_off(capsys):
    config = RunConfig(env_id="CliffWalking-v1", eval_episodes=1)
    assert play_episodes(constant(1, 0, 0, 0), config) == [-10_000]  # up, into the wall, for ever
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 1 evaluation episode was cut off after 10,000 steps: limit them")


def test_a_time_limit_above_that_number_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 50)
    config = RunConfig(env_id="MountainCar-v0", eval_episodes=1)
    assert play_episodes(constant(0, 1, 0), config) == [-200]  # the car stands still up to its time limit
    assert not capsys.readouterr().err


# Saved models


def test_evaluating_a_saved_model_repeats_the_evaluation(script, command, short_run):
    trained, folder = short_run(script)
    played = command(script, "--evaluate", model_in(folder))
    assert played.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1]


def test_a_run_folder_can_be_evaluated_too(command_here, short_run):
    trained, folder = short_run("dqn")
    assert (
        command_here("dqn", "--evaluate", folder).stdout.splitlines()[-1] == trained.stdout.splitlines()[-1]
    )


@pytest.mark.parametrize("name", ["dqn", "q_learning"])
def test_a_model_file_without_its_run_folder_can_be_evaluated(name, command_here, short_run, tmp_path):
    trained, folder = short_run(name)
    model = shutil.copy(model_in(folder), tmp_path / f"alone{model_in(folder).suffix}")
    played = command_here(name, "--evaluate", model, "--eval-episodes", 3)
    assert played.returncode == 0, played.stderr
    assert played.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1]


def test_a_model_of_another_script_is_an_error_that_names_the_right_one(command_here, short_run):
    _, folder = short_run("dqn")
    for path in (folder, model_in(folder)):
        line = error_line(command_here("ppo", "--evaluate", path))
        assert f"python dqn/dqn.py --evaluate {model_in(folder)}" in line


def test_a_missing_model_is_an_error_of_one_line(command_here):
    assert "there is no model" in error_line(command_here("q_learning", "--evaluate", "nowhere/model.npz"))


@pytest.mark.parametrize("script", ["q_learning", "ppo"])
def test_a_file_that_is_no_model_is_an_error_of_one_line(script, command_here, tmp_path):
    (tmp_path / "model.keras").write_text("not a model")
    assert "give the model" in error_line(command_here(script, "--evaluate", "model.keras"))


def test_a_model_of_another_environment_is_an_error_of_one_line(command_here, short_run):
    _, folder = short_run("dqn")
    line = error_line(command_here("dqn", "--evaluate", model_in(folder), "--env-id", "Acrobot-v1"))
    assert "(4,)" in line and "(6,)" in line and "--env-id" in line


@pytest.mark.parametrize("name", ["ManyActions", "DictActions"])
def test_a_model_for_actions_that_no_script_has_is_an_error_of_one_line(name, command_here, short_run):
    _, folder = short_run("q_learning")
    line = error_line(
        command_here("q_learning", "--evaluate", folder, "--env-id", f"tests.environments:{name}-v0")
    )
    assert "the scripts act in Discrete and Box spaces" in line


@pytest.mark.parametrize("env_id", ["tests.environments:BoxActions-v0", "CartPole-v1"])
def test_a_policy_that_has_diverged_is_an_error_not_a_return(env_id):
    config = RunConfig(env_id=env_id, eval_episodes=2)
    with pytest.raises(UserError, match="not finite: its training has diverged"):
        play_episodes(lambda observations: np.full((len(observations), 2), np.nan, np.float32), config)


def test_a_table_of_another_environment_is_an_error_of_one_line(command_here, short_run):
    _, folder = short_run("q_learning")
    line = error_line(command_here("q_learning", "--evaluate", folder, "--env-id", "Taxi-v4"))
    assert "give the --env-id and the --env-kwargs that it was trained with" in line


# Video and window


def test_video_of_the_evaluation(command, only_run):
    process = command("dqn", *short_options("dqn"), "--capture-video", env={"SDL_VIDEODRIVER": "dummy"})
    assert process.returncode == 0, process.stderr
    (video,) = only_run().glob("videos/*.mp4")
    (line,) = (line for line in process.stdout.splitlines() if line.startswith("video: "))
    assert line.endswith(video.name)
    from moviepy import VideoFileClip

    with VideoFileClip(str(video)) as clip:
        frame = clip.get_frame(0)
    assert frame.shape == (400, 600, 3) and frame.std() > 10  # a cart and a pole on white, no empty picture


def test_a_video_of_a_saved_model_is_next_to_it_and_changes_no_return(command, short_run, tmp_path):
    trained, folder = short_run("q_learning")
    folder = shutil.copytree(folder, tmp_path / "copy")
    played = command("q_learning", "--evaluate", folder, "--capture-video", env={"SDL_VIDEODRIVER": "dummy"})
    assert played.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1], played.stderr
    shutil.copy(folder / "model.npz", folder / "best_model.npz")
    best = ("--evaluate", folder / "best_model.npz", "--capture-video", "--eval-episodes", 1)
    played = command("q_learning", *best, env={"SDL_VIDEODRIVER": "dummy"})
    names = ["best_model-episode-0.mp4", "model-episode-0.mp4"]  # beside the other
    assert sorted(path.name for path in folder.glob("videos/*")) == names
    assert f"videos/{names[0]}" in played.stdout


def test_an_environment_without_pictures_is_an_error_before_training(command, tmp_path):
    line = error_line(command("q_learning", "--env-id", COUNTER, "--capture-video"))
    assert "--capture-video cannot record" in line
    assert not (tmp_path / "runs").exists()


WITHOUT_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "SDL_VIDEODRIVER": ""}


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_a_window_without_a_display_is_an_error_of_one_line(what, command, short_run, tmp_path):
    options = ["--evaluate", short_run("q_learning")[1]] if what == "evaluate" else []
    line = error_line(command("q_learning", "--render", *options, env=WITHOUT_DISPLAY))
    assert "--render needs a display" in line and "--capture-video" in line
    assert not (tmp_path / "runs").exists()


def test_a_display_or_none_needed(monkeypatch):
    for name in WITHOUT_DISPLAY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    check_display(RunConfig())
    with pytest.raises(UserError):
        check_display(RunConfig(render=True))
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    check_display(RunConfig(render=True))


def test_a_window_is_rendered_with_a_display(tmp_path, short_run):
    """SDL's dummy driver stands in for a display."""
    trained, folder = short_run("q_learning")
    played = run_script(
        tmp_path,
        "q_learning",
        *("--evaluate", folder, "--render", "--eval-episodes", 1),
        env={"SDL_VIDEODRIVER": "dummy"},
    )
    assert played.returncode == 0, played.stderr
    returns = json.loads((folder / "evaluation.json").read_text())["returns"]
    assert f"mean return {returns[0]:.1f} " in played.stdout


def test_the_model_is_given_to_the_evaluation_of_the_script(short_run, capsys):
    """`evaluate_saved_model` hands the script its own model, config and the folder for the video."""
    _, folder = short_run("q_learning")
    from q_learning.q_learning import Config

    calls = []

    def evaluate(*args):
        calls.append(args)
        return np.array([1.0, 3.0])

    config = Config(evaluate=str(folder))
    evaluate_saved_model(config, evaluate)
    ((model, same, where),) = calls
    with np.load(folder / "model.npz") as saved:
        np.testing.assert_array_equal(model, saved["model"])
    assert same is config and where == folder
    assert capsys.readouterr().out == "evaluation: mean return 2.0 ± 1.0 over 2 episodes\n"

"""Evaluations during training: no effect on it, evaluations.csv, the best model, seeds, and the clock."""

import contextlib
import csv
import json
import time
from unittest.mock import Mock

from common.errors import UserError
from common.logger import draw_learning_curve
from common.options import RunConfig
from common.periodic_evaluation import PeriodicEvaluation
from common.run import Run
import matplotlib.figure
import numpy as np
import pytest
from tqdm import tqdm

from tests.conftest import BOX_ACTIONS, SMALL_UPDATES, environment, error_line, rows, short_options
from tests.environments import Global

SMALL = SMALL_UPDATES | {"log_frequency": 20, "bins": (2,), "eval_episodes": 3}


def evaluations(folder):
    """Return the columns of evaluations.csv as numbers."""
    with (folder / "evaluations.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: [float(line[name]) for line in lines] for name in (lines[0] if lines else ())}


def weights(result):
    """Return the weights of all networks, or the table."""
    networks = result.networks.values()
    return [w for n in networks for w in ([n] if isinstance(n, np.ndarray) else n.get_weights())]


def test_training_is_the_same_with_and_without(script, module, configured):
    """In an environment that draws from the global generators, and counts what it is asked for."""
    options = SMALL | {"env_id": environment(script, "Global"), "total_timesteps": 200}
    Global.seeds.clear()
    without = module(script).train(configured(script, **options, eval_frequency=0))
    training_seeds, Global.seeds = set(Global.seeds), []
    evaluated = module(script).train(configured(script, **options, eval_frequency=50))
    assert rows(evaluated.folder) == rows(without.folder) and len(rows(without.folder)) > 3
    np.testing.assert_array_equal(evaluated.episode_returns, without.episode_returns)
    assert len(weights(without)) > 0
    for one, other in zip(weights(evaluated), weights(without), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(evaluated.evaluation_returns, without.evaluation_returns)
    columns = evaluations(evaluated.folder)
    steps = int(rows(evaluated.folder)[-1]["global_step"])
    assert len(columns["global_step"]) == 4 and columns["global_step"][-1] == min(steps, 200)
    assert not (without.folder / "evaluations.csv").exists()
    assert not list(without.folder.glob("best_model*"))
    # seeds of training, of the final evaluation, and three others that all evaluations share
    others = [seed for seed in Global.seeds if seed not in training_seeds]
    assert len(others) == 4 * 3 and others == others[:3] * 4 and len(set(others)) == 3


def test_the_greedy_policy_has_the_current_weights(script, module, configured):
    """The last evaluation, at the last step, has the returns of the final network."""
    options = SMALL | {"total_timesteps": 200, "eval_frequency": 100, "learning_rate": 0.02}
    env_id = "Pendulum-v1" if script in BOX_ACTIONS else "CartPole-v1"
    result = module(script).train(configured(script, env_id=env_id, **options))
    run = Run(configured(script, env_id=env_id, **options))
    run.checkpoint()
    again = module(script).evaluate(result.model, run.periodic_evaluation.config)
    assert len(set(again)) > 1 or script == "q_learning"
    columns = evaluations(result.folder)
    assert columns["global_step"][-1] >= 200
    assert columns["mean_return"][-1] == pytest.approx(again.mean(), rel=1e-6)
    assert columns["std_return"][-1] == pytest.approx(again.std(), rel=1e-5, abs=1e-6)
    assert columns["min_return"][-1] == pytest.approx(again.min(), rel=1e-6)
    assert columns["max_return"][-1] == pytest.approx(again.max(), rel=1e-6)


# The run, with the model's returns given by hand


def returns_of(model, config):
    """An evaluation that gives a table's own numbers as returns."""
    return model


def make_run(tmp_path, **options):
    """Make a run that is evaluated every 10 steps."""
    options = {"eval_frequency": 10, "eval_episodes": 2, "runs_dir": str(tmp_path)} | options
    run = Run(RunConfig(**options))
    run.checkpoint()
    return run


def evaluate_at(run, means):
    """Let a run go on by 10 steps for each mean return."""
    for _, mean in zip(run.steps(10), means):
        run.evaluate(returns_of, np.array([mean - 1.0, mean + 1.0]))


def best_of(folder):
    """Return the mean return of the model in best_model.npz."""
    with np.load(folder / "best_model.npz") as saved:
        return saved["model"].mean()


def test_the_best_model_is_the_one_with_the_highest_mean_return(tmp_path, capsys):
    run = make_run(tmp_path)
    evaluate_at(run, [-7.0, -3.0, -5.0, -3.0])
    assert best_of(run.folder) == -3.0
    assert (
        json.loads((run.folder / "best_model.json").read_text())["global_step"] == 20
    )  # the first of equals
    run.periodic_evaluation.print_best()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"best model: {run.folder / 'best_model.npz'} (mean return -3.0 at step 20)"


def test_an_evaluation_is_due_once_every_so_many_steps(tmp_path):
    run = make_run(tmp_path, eval_frequency=100, total_timesteps=500)
    for _ in run.steps(30):
        run.evaluate(returns_of, np.array([1.0, 3.0]))
    assert evaluations(run.folder)["global_step"] == [120, 210, 300, 420, 510]


def test_a_resumed_run_cuts_the_rows_after_its_checkpoint_and_keeps_the_best(tmp_path):
    run = make_run(tmp_path)
    evaluate_at(run, [1.0, 9.0])
    run.save_checkpoint()
    evaluate_at(run, [4.0, 5.0])
    assert len(evaluations(run.folder)["global_step"]) == 4
    for frequency in (10, 0):  # a run that is no longer evaluated keeps its rows too
        resumed = make_run(tmp_path, resume=str(run.folder), eval_frequency=frequency)
        assert evaluations(run.folder)["mean_return"] == [1.0, 9.0]
    resumed = make_run(tmp_path, resume=str(run.folder))
    evaluate_at(resumed, [6.0])
    assert evaluations(run.folder)["mean_return"] == [1.0, 9.0, 6.0] and best_of(run.folder) == 9.0
    evaluate_at(resumed, [10.0])
    assert best_of(run.folder) == 10.0


@pytest.mark.parametrize("option", [{"env_kwargs": {"size": 1}}, {"seed": 5}, {"eval_episodes": 3}])
def test_a_model_that_played_other_episodes_is_not_the_best(option, tmp_path):
    run = make_run(tmp_path)
    evaluate_at(run, [9.0])
    run.save_checkpoint()
    resumed = make_run(tmp_path, resume=str(run.folder), **option)
    evaluate_at(resumed, [6.0])
    assert best_of(run.folder) == 6.0


def test_the_clock_stands_still_meanwhile(tmp_path):
    def slow(model, config):
        time.sleep(0.3)
        return model

    run = make_run(tmp_path, total_timesteps=30)
    for _ in run.steps(10):
        rate_start = run._bar.start_t
        run.evaluate(slow, np.array([1.0, 3.0]))
        assert run._bar.start_t >= rate_start + 0.3
    assert evaluations(run.folder)["seconds"][-1] < 0.3
    run.log(loss=1.0)
    assert float((run.folder / "metrics.csv").read_text().splitlines()[1].split(",")[1]) < 0.3


def test_a_bar_that_is_switched_off_has_no_clock(tmp_path, monkeypatch):
    monkeypatch.setattr("common.run.tqdm", lambda *args, **options: tqdm(*args, **options, disable=True))
    run = make_run(tmp_path, total_timesteps=10)
    evaluate_at(run, [1.0])
    assert evaluations(run.folder)["mean_return"] == [1.0]


def test_video_and_window_are_for_the_final_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    run = make_run(tmp_path, render=True)
    seen = []

    def evaluate(model, config, folder=None):
        seen.append((config.render, folder, config.eval_episodes))
        return model

    for _ in zip(run.steps(10), range(1)):
        run.evaluate(evaluate, np.array([1.0, 3.0]))
    assert seen == [(False, None, 2)]


def test_training_that_ends_before_the_first_evaluation_says_so(tmp_path, capsys):
    make_run(tmp_path, total_timesteps=10)
    assert "warning" not in capsys.readouterr().err
    make_run(tmp_path, total_timesteps=9)
    warning = "training ends at step 9, before the first evaluation: --eval-frequency is 10"
    assert capsys.readouterr().err == f"warning: {warning}\n"


def test_no_model_is_saved_if_not_asked_for(tmp_path):
    run = make_run(tmp_path, save_model=False)
    evaluate_at(run, [1.0])
    assert evaluations(run.folder)["mean_return"] == [1.0] and not list(run.folder.glob("best_model*"))


def test_evaluations_reach_tensorboard(tmp_path):
    run = make_run(tmp_path)
    evaluate_at(run, [1.0, 2.0])
    run.logger.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("evaluation/mean_return")]
    assert points == [(10, 1.0), (20, 2.0)]


def test_evaluations_are_points_of_the_learning_curve(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    evaluate_at(run, [1.0, 2.0])
    drawn = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *a, **k: drawn.append(figure))
    monkeypatch.setattr("common.logger.replacing", lambda path: contextlib.nullcontext(path))
    draw_learning_curve(run.config, run.folder)
    ((axes,),) = (figure.axes for figure in drawn)
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(points.get_xydata(), [[10, 1.0], [20, 2.0]])


# At the command line


@pytest.mark.parametrize("script", ["q_learning", "dqn"])
def test_the_best_model_is_listed_and_plays(script, command, only_run):
    process = command(script, *short_options(script), "--eval-frequency", 500)
    assert process.returncode == 0, process.stderr
    (line,) = (line for line in process.stdout.splitlines() if line.startswith("best model: "))
    assert not [line for line in process.stderr.splitlines() if line and "step/s" not in line]
    (best,) = (path for path in only_run().glob("best_model.*") if path.suffix != ".json")
    assert line.split()[2].endswith(best.name)
    played = command(script, "--evaluate", best)
    assert played.returncode == 0 and played.stdout.startswith("evaluation: mean return "), played.stderr


def test_evaluations_without_episodes_are_an_error_of_one_line(command, tmp_path):
    for option in (("--eval-frequency", 1000), ("--capture-video",)):
        line = error_line(command("q_learning", *option, "--eval-episodes", 0))
        assert f"{option[0]} needs episodes" in line and "give at least 1" in line
    assert error_line(command("q_learning", "--eval-frequency", -5)).startswith(
        "error: --eval-frequency is -5"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": "best_model.npz", "mean_return": "high"}'])
def test_a_best_model_that_cannot_be_read_is_an_error_of_one_line(text, tmp_path):
    run = make_run(tmp_path)
    (run.folder / "best_model.json").write_text(text)
    with pytest.raises(UserError, match=r"best_model\.json cannot be read: delete it"):
        make_run(tmp_path, resume=str(run.folder))


def test_seeds_are_neither_those_of_training_nor_of_the_final_evaluation(tmp_path):
    seen = []
    for seed in (4, 4, 5):
        evaluations = PeriodicEvaluation(RunConfig(seed=seed, save_model=False), tmp_path, Mock())
        evaluations.play(lambda _, config: seen.append(config.seed) or np.zeros(2), None, 10, 0.0)
    assert seen[0] == seen[1] and len({4, 5, *seen}) == 4

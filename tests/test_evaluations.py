"""Evaluations during training: they change nothing, are written, resumed, and keep the best model."""

import csv
import json

from common.errors import UserError
from common.evaluations import Evaluations, read_best
from common.logger import Logger
from common.options import RunConfig
import keras
import numpy as np
import pytest

SMALL = {"total_timesteps": 600, "num_envs": 2, "num_steps": 50, "num_minibatches": 2, "batch_size": 32}
SMALL |= {"learning_starts": 100, "train_frequency": 20, "gradient_steps": 2, "log_frequency": 50}
SMALL |= {"normalize_observations": True, "normalize_rewards": True}


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def arrays(model):
    return [model] if isinstance(model, np.ndarray) else model.get_weights()


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("name", ["q_learning", "dueling_dqn", "reinforce", "ppo", "td3", "sac"])
def test_training_is_the_same_with_and_without_them(name, module, configured):
    options = SMALL | ({"batch_size": 100} if name == "reinforce" else {})
    plain, watched = (
        module(name).train(configured(name, eval_frequency=frequency, eval_episodes=2, **options))
        for frequency in (0, 100)
    )
    rows = [without_seconds(read_csv(result.folder / "metrics.csv")) for result in (plain, watched)]
    assert rows[0] == rows[1] and len(rows[0]) > 3
    for one, two in zip(arrays(plain.model), arrays(watched.model), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(plain.evaluation_returns, watched.evaluation_returns)
    assert not (plain.folder / "evaluations.csv").exists()
    steps = [int(row["global_step"]) for row in read_csv(watched.folder / "evaluations.csv")]
    assert steps == [100, 200, 300, 400, 500, 600]


def test_the_greedy_policy_of_the_moment_plays(module, configured):
    """The best model gives the returns that were written for its step."""
    script = module("ppo")
    config = configured("ppo", eval_frequency=1_000, eval_episodes=3, total_timesteps=6_000, num_envs=2)
    result = script.train(config)
    rows = read_csv(result.folder / "evaluations.csv")
    means = [float(row["mean_return"]) for row in rows]
    assert len(set(means)) > 2
    best = json.loads((result.folder / "best_model.json").read_text())
    assert best["mean_return"] == max(means)
    assert best["global_step"] == int(rows[int(np.argmax(means))]["global_step"])
    model = keras.models.load_model(result.folder / "best_model.keras", compile=False)
    (seed,) = np.random.SeedSequence([config.seed, 3]).generate_state(1).tolist()
    config.seed = seed
    returns = script.evaluate(model, config)
    row = rows[int(np.argmax(means))]
    np.testing.assert_allclose(
        [returns.mean(), returns.std(), returns.min(), returns.max()],
        [float(row[name]) for name in ("mean_return", "std_return", "min_return", "max_return")],
    )


class FakeLogger:
    def __init__(self):
        self.rows = []

    def write_evaluation(self, row):
        self.rows.append(row)


def test_only_a_better_model_replaces_the_best(tmp_path):
    config, logger = RunConfig(eval_frequency=10), FakeLogger()
    evaluations = Evaluations(config, tmp_path, logger)
    for step, mean in ((10, 1.0), (20, 3.0), (30, 2.0), (40, 3.0)):
        evaluations.play(lambda *_, mean=mean: np.array([mean, mean]), np.full(2, mean), step, 0.5)
    assert read_best(tmp_path / "best_model.json") == {
        "model": "best_model.npz",
        "global_step": 20,
        "mean_return": 3.0,
    }
    with np.load(tmp_path / "best_model.npz") as saved:
        np.testing.assert_array_equal(saved["model"], [3.0, 3.0])
    assert [row["global_step"] for row in logger.rows] == [10, 20, 30, 40]
    resumed = Evaluations(config, tmp_path, logger)
    resumed.play(lambda *_: np.array([2.5]), np.full(2, 2.5), 50, 0.5)
    assert read_best(tmp_path / "best_model.json")["global_step"] == 20
    unsaved = Evaluations(RunConfig(eval_frequency=10, save_model=False), tmp_path / "other", logger)
    unsaved.play(lambda *_: np.array([9.0]), np.full(2, 9.0), 60, 0.5)
    assert not (tmp_path / "other").exists()


def test_the_seeds_are_neither_those_of_training_nor_of_the_final_evaluation(tmp_path):
    seen = []
    evaluations = Evaluations(RunConfig(seed=4, eval_frequency=10), tmp_path, FakeLogger())
    for step in (10, 20):
        evaluations.play(lambda _, config: seen.append(config.seed) or np.zeros(2), np.zeros(2), step, 0.0)
    assert seen[0] == seen[1] != 4
    other = Evaluations(RunConfig(seed=5, eval_frequency=10), tmp_path, FakeLogger())
    assert other.config.seed != seen[0]


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    config = RunConfig(eval_frequency=10)
    row = {"seconds": 1.0, "mean_return": 2.0, "std_return": 0.0, "min_return": 2.0, "max_return": 2.0}
    logger = Logger(config, tmp_path, first_step=0)
    for step in (10, 20, 30):
        logger.write_evaluation({"global_step": step} | row)
    logger.close()
    logger = Logger(config, tmp_path, first_step=20)
    logger.write_evaluation({"global_step": 40} | row)
    logger.close()
    steps = [int(row["global_step"]) for row in read_csv(tmp_path / "evaluations.csv")]
    assert steps == [10, 20, 40]


def test_a_resumed_run_continues_its_evaluations(module, configured):
    script = module("q_learning")
    first = script.train(configured("q_learning", total_timesteps=300, eval_frequency=100, eval_episodes=2))
    (first.folder / "best_model.json").write_text(
        json.dumps({"model": "best_model.npz", "global_step": 100, "mean_return": 1e6})
    )
    before = (first.folder / "best_model.npz").read_bytes()
    options = {"total_timesteps": 600, "resume": str(first.folder)}
    script.train(configured("q_learning", eval_frequency=100, eval_episodes=2, **options))
    steps = [int(row["global_step"]) for row in read_csv(first.folder / "evaluations.csv")]
    assert steps == [100, 200, 300, 400, 500, 600]
    assert (first.folder / "best_model.npz").read_bytes() == before


def test_the_clock_stands_still(module, configured, monkeypatch):
    import time

    script = module("q_learning")
    evaluate = script.evaluate
    monkeypatch.setattr(script, "evaluate", lambda *a: time.sleep(1.0) or evaluate(*a))
    options = {"total_timesteps": 600, "log_frequency": 100, "eval_frequency": 200, "eval_episodes": 1}
    result = script.train(configured("q_learning", **options))
    seconds = [float(row["seconds"]) for row in read_csv(result.folder / "metrics.csv")]
    assert seconds[-1] < 1.0


def test_the_curve_shows_evaluations(module, configured, capsys):
    result = module("q_learning").train(
        configured("q_learning", total_timesteps=300, eval_frequency=100, eval_episodes=2)
    )
    assert (result.folder / "learning_curve.png").stat().st_size > 1_000
    assert f"best model: {result.folder / 'best_model.npz'} (mean return" in capsys.readouterr().out


def test_no_episodes_is_an_error_of_one_line(module, configured):
    with pytest.raises(UserError, match="--eval-frequency evaluates with --eval-episodes") as error:
        module("q_learning").train(configured("q_learning", eval_frequency=100, eval_episodes=0))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="--eval-frequency is -1"):
        module("q_learning").train(configured("q_learning", eval_frequency=-1))

"""Metrics: metrics.csv, TensorBoard, Weights & Biases, and the learning curve."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

from common.errors import UserError
import common.logger
from common.logger import METRICS_COLUMNS, Logger, MetricsFile, draw_learning_curve, moving_average
from common.options import RunConfig
from common.run import Run
import numpy as np
import pytest

from tests.conftest import ONE_THREAD, ROOT, metrics, short_options


def test_the_first_row_decides_the_columns(tmp_path, capsys):
    file = MetricsFile(tmp_path / "metrics.csv", keep_until=0)
    file.write({"global_step": 10, "loss": 0.1, "return": math.nan})
    file.write({"global_step": 20, "return": 1 / 3, "unknown": 5.0})
    file.write({"global_step": 30, "unknown": 6.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("metrics.csv has no column for these metrics, which are left out: unknown")
    assert (tmp_path / "metrics.csv").read_text() == (
        "global_step,loss,return\n10,0.1,\n20,,0.3333333333\n30,,\n"  # each row is written at once
    )
    file.close()


def test_rows_before_the_first_update_get_the_columns_of_the_later_ones(tmp_path, capsys):
    """A run that is stopped before its first update, and resumed."""
    path, row = tmp_path / "metrics.csv", dict.fromkeys(METRICS_COLUMNS, 1.0)
    for loss, step in ({}, 10), ({}, 20), ({"loss": 0.5}, 30), ({"loss": 0.25}, 40):
        file = MetricsFile(path, keep_until=step)
        file.write(row | loss | {"global_step": step})
        file.close()
    assert path.read_text().splitlines() == [
        "global_step,seconds,episodic_return,episodic_length,loss",
        "10,1,1,1,",
        "20,1,1,1,",
        "30,1,1,1,0.5",
        "40,1,1,1,0.25",
    ]
    assert not capsys.readouterr().err


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("global_step,loss\n10,1\n20,2\n30,3\n40")  # the last row was cut off by a crash
    file = MetricsFile(path, keep_until=20)
    file.write({"loss": 7, "global_step": 30})
    file.close()
    assert path.read_text() == "global_step,loss\n10,1\n20,2\n30,7\n"


def test_a_run_from_the_beginning_drops_all_rows_and_may_have_other_columns(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("global_step,loss\n10,1\n")
    file = MetricsFile(path, keep_until=0)
    file.write({"global_step": 5, "return": 3})
    file.close()
    assert path.read_text() == "global_step,return\n5,3\n"


def test_a_run_without_rows_leaves_a_header(tmp_path):
    MetricsFile(tmp_path / "metrics.csv", keep_until=0).close()
    header = (tmp_path / "metrics.csv").read_text()
    assert header == "global_step,seconds,episodic_return,episodic_length\n"


def test_rows_reach_tensorboard_without_their_nans(tmp_path):
    logger = Logger(RunConfig(), tmp_path, first_step=0)
    logger.write({"global_step": 10, "loss": 0.5, "episodic_return": math.nan})
    logger.write({"global_step": 20, "loss": 0.25, "episodic_return": 3.0})
    logger.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    values = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert values["loss"] == [(10, 0.5), (20, 0.25)]
    assert values["episodic_return"] == [(20, 3.0)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_tensorboard_writer_that_has_died_is_noticed(tmp_path, monkeypatch):
    """Its thread ends at the first write that fails; without a check, the events would pile up in memory."""
    run = Run(RunConfig(runs_dir=str(tmp_path), log_frequency=1))
    run.checkpoint()
    run.global_step = 1
    run.log(loss=1.0)
    worker = run.logger.tensorboard.file_writer.event_writer._worker

    def fail(*args):
        raise SystemExit  # ends the thread without a traceback

    monkeypatch.setattr(worker._record_writer, "write_event", fail)
    monkeypatch.setattr(worker._record_writer, "flush", fail)
    run.global_step = 2
    with pytest.raises(UserError, match=r"the TensorBoard writer has stopped.*continue with --resume"):
        run.log(loss=2.0)  # raises if the thread has ended by the end of this row
        worker.join(timeout=20)
        assert not worker.is_alive()
        run.global_step = 3
        run.log(loss=3.0)
    np.testing.assert_array_equal(metrics(run.folder)["loss"], np.arange(1.0, run.global_step + 1.0))


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
    last = process.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "continue with --resume" in last


# Weights & Biases


def test_wandb_works_offline_and_without_an_account(command, only_run):
    options = ["--total-timesteps", 600, "--eval-episodes", 1]
    process = command("q_learning", *options, "--track", env={"WANDB_MODE": "offline", "WANDB_API_KEY": ""})
    assert process.returncode == 0, process.stderr
    folder = only_run()
    assert list(folder.parent.parent.glob("wandb/offline-run-*"))
    assert (folder / "wandb_id.txt").read_text()


def test_wandb_gets_the_returns_of_evaluations(tmp_path, monkeypatch):
    logged = []
    run = SimpleNamespace(log=logged.append, finish=lambda: None)
    monkeypatch.setattr(common.logger, "start_wandb", lambda config, folder: run)
    logger = Logger(RunConfig(track=True, eval_frequency=10), tmp_path, first_step=0)
    returns = {"mean_return": 2.0, "std_return": 1.0, "min_return": 1.0, "max_return": 3.0}
    logger.write_evaluation({"global_step": 20, "seconds": 0.5, **returns})
    logger.close()
    assert logged == [{"global_step": 20} | {f"evaluation/{name}": value for name, value in returns.items()}]


def test_wandb_without_an_api_key_is_one_line(tmp_path, monkeypatch):
    import wandb

    def init(**options):
        raise wandb.errors.UsageError("api_key not configured (no-tty). Call wandb.login().\nMore lines")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match=r"--track: api_key not configured.*WANDB_MODE=offline") as error:
        Logger(RunConfig(track=True), tmp_path, first_step=0)
    assert "\n" not in str(error.value)


def test_wandb_is_not_imported_unless_asked(tmp_path):
    code = (
        "import sys; from dqn.dqn import Config, train;"
        "train(Config(total_timesteps=50, eval_episodes=1)); assert 'wandb' not in sys.modules"
    )
    environment = os.environ | ONE_THREAD
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, env=environment)
    assert process.returncode == 0, process.stderr


# The learning curve


def test_the_learning_curve_is_a_picture(short_run):
    _, folder = short_run("q_learning")
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob("*.partial*"))


def test_no_finished_episode_no_learning_curve(tmp_path):
    (tmp_path / "metrics.csv").write_text("global_step,seconds,episodic_return,episodic_length\n9,1,,\n")
    assert draw_learning_curve(RunConfig(), tmp_path) is None
    assert not (tmp_path / "learning_curve.png").exists()


def test_the_moving_average_reaches_a_twentieth_to_each_side():
    np.testing.assert_array_equal(moving_average([3.0, 1.0]), [3.0, 1.0])
    values = np.arange(40.0) ** 2
    average = moving_average(values)
    assert average[20] == values[18:23].mean()
    assert average[0] == values[:3].mean() and average[-1] == values[-3:].mean()

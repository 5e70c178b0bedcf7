"""Benchmarks: short runs of a script, and the numbers, tables and figures made from them."""

import contextlib
import dataclasses
from functools import partial
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

from common.errors import UserError
import gymnasium as gym
import numpy as np
import pandas as pd
import psutil
import pytest
import tensorflow as tf

from benchmarks import (
    animation,
    cells,
    cli,
    curves,
    figures,
    job,
    learning,
    options,
    overestimation,
    policies,
    records,
    report,
    settings,
    speed,
    speed_tables,
    tables,
)
from benchmarks.intervals import interquartile_mean, interval, with_interval
from tests.conftest import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent
TINY = "--total-timesteps 1500 --num-envs 1 --train-frequency 128 --learning-starts 200 --eval-episodes 3"
SHORT = {"total_timesteps": 1500, "num_envs": 1, "train_frequency": 128, "learning_starts": 200}
SHORT |= {"eval_episodes": 3, "log_frequency": 100}
TINY += " --log-frequency 100"
GOOD = settings.Task("dqn", "CartPole-v1", SHORT, seeds=2)
BAD = settings.Task("dqn", "Acrobot-v1", {"tau": 7}, seeds=1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Results of two short runs that end well and one that cannot, and what was printed."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "TASKS", [GOOD, BAD])
        patch.setattr(records, "commit", lambda: "1234567")
        failures = learning.main(learning.Options(results=results, workers=2))
    return results, failures


def test_a_run_that_ends_well_leaves_its_row_and_its_curve(learned):
    results, _ = learned
    rows = records.read_csv(results / "learning" / "dqn__CartPole-v1.csv")
    assert [row["seed"] for row in rows] == ["0", "1"]
    for row in rows:
        assert 8 <= float(row["evaluation_mean"]) <= 500
        assert row["command"] == f"python dqn/dqn.py --env-id CartPole-v1 --seed {row['seed']} {TINY}"
        assert row["total_timesteps"] == "1500"
        assert "tensorflow" in row["versions"] and "cores" in row["machine"]
        assert row["commit"] == "1234567"
    curve = records.read_csv(results / "curves" / "dqn__CartPole-v1.csv")
    assert {row["seed"] for row in curve} == {"0", "1"}
    steps = [int(row["global_step"]) for row in curve if row["seed"] == "1"]
    assert steps == sorted(steps) and 5 < len(steps) <= curves.POINTS
    seconds = [float(row["seconds"]) for row in curve if row["seed"] == "1"]
    assert 1 < seconds[0] <= seconds[-1] < float(rows[1]["whole_seconds"])  # they count from the command


def test_a_run_that_fails_is_counted_and_tried_again_and_what_is_done_is_not(learned, monkeypatch, capsys):
    results, failures = learned
    assert failures == 1
    monkeypatch.setattr(learning, "TASKS", [GOOD, BAD])
    assert learning.main(learning.Options(results=results)) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("runs to do: 1\n")  # the two that are done are skipped
    assert "dqn Acrobot-v1 seed 0" in printed.err and "--tau is 7.0" in printed.err


def test_a_changed_command_is_planned_again_and_a_longer_list_of_seeds_only_adds(learned, monkeypatch):
    results, _ = learned
    monkeypatch.setattr(learning, "TASKS", [GOOD])
    assert learning.plan(learning.Options(results=results)) == []
    assert [work.seed for work in learning.plan(learning.Options(results=results, seeds=(0, 1, 2)))] == [2]
    assert len(learning.plan(learning.Options(results=results, extra="--gamma 0.9"))) == 2
    assert learning.plan(learning.Options(results=results, extra="--gamma 0.99 --no-save-model")) == []
    with pytest.raises(UserError, match="no such row"):
        learning.plan(learning.Options(results=results, scripts=("sarsa",)))


def test_evaluations_during_training_are_kept_and_only_a_run_without_them_is_repeated(
    learned, monkeypatch, tmp_path
):
    chosen = learning.Options(results=tmp_path, seeds=(1,))
    path = tmp_path / "evaluations" / GOOD.file

    def main(options):
        monkeypatch.setattr(learning, "TASKS", [dataclasses.replace(GOOD, options=options)])
        assert learning.main(chosen) == 0
        return records.read_csv(tmp_path / "learning" / GOOD.file)

    (tmp_path / "learning").mkdir()
    plain = records.read_csv(learned[0] / "learning" / GOOD.file)
    records.write_csv(tmp_path / "learning" / GOOD.file, plain)  # as if made before the row had the option
    before, (_, row) = (plain[1], main(SHORT | {"eval_frequency": 700}))
    assert "--eval-frequency 700" in row["command"]
    for column in ("evaluation_mean", "evaluation_std", "options"):  # training is the same
        assert row[column] == before[column]
    kept = records.read_csv(path)
    assert [(one["seed"], one["global_step"]) for one in kept] == [("1", "700"), ("1", "1400")]
    assert all(8 <= float(one["mean_return"]) <= 500 and float(one["std_return"]) >= 0 for one in kept)
    assert options.is_current(row, learning.TASKS[0], options.defaults("dqn"))  # the tables show it
    assert learning.plan(chosen) == []  # done
    assert len(learning.plan(dataclasses.replace(chosen, extra="--eval-frequency 500"))) == 1
    main(SHORT)
    assert path.exists()  # the row without the option is satisfied too
    main(SHORT | {"gamma": 0.9})
    assert not path.exists()  # those of the earlier run are gone


def test_a_run_without_a_row_is_continued(short_run, monkeypatch, tmp_path):
    """Its rows of metrics.csv stay, and its seconds count."""
    task = settings.Task("q_learning", "CartPole-v1", {"total_timesteps": 1500, "eval_episodes": 3})
    runs, finished = tmp_path / "runs", short_run("q_learning")[1]
    folder = runs / finished.name
    shutil.copytree(finished, folder)
    (folder / "evaluation.json").unlink()  # it was cut off
    assert learning.earlier(learning.Job(task, 0), runs) == folder
    for other in (
        learning.Job(task, 1),
        learning.Job(task, 0, "--gamma 0.9"),
        learning.Job(task, 0, "--eval-frequency 500"),
        learning.Job(dataclasses.replace(task, script="dqn"), 0),
    ):
        assert learning.earlier(other, runs) is None
    (counters,) = folder.glob("checkpoints/*/run.json")
    before = json.loads(counters.read_text()) | {"seconds": 1000.0, "global_step": 1000}
    counters.write_text(json.dumps(before))
    monkeypatch.setattr(learning, "TASKS", [task])
    chosen = learning.Options(results=tmp_path, seeds=(0,), runs_dir=str(runs))
    assert learning.main(chosen) == 0 and list(runs.iterdir()) == [folder]
    (row,) = records.read_csv(tmp_path / "learning" / task.file)
    assert row["command"].endswith("--eval-episodes 3  # continued at step 1000")
    assert 1000 < float(row["whole_seconds"]) < 1100
    returns = json.loads((folder / "evaluation.json").read_text())["returns"]
    assert float(row["evaluation_mean"]) == round(np.mean(returns), 3)
    assert learning.plan(chosen) == []
    metrics = (folder / "metrics.csv").read_bytes()
    (tmp_path / "learning" / task.file).unlink()  # as if learning.py had been killed before it wrote the row
    assert learning.main(chosen) == 0 and list(runs.iterdir()) == [folder]
    (again,) = records.read_csv(tmp_path / "learning" / task.file)
    assert again["evaluation_mean"] == row["evaluation_mean"] and again["command"].endswith(
        "--eval-episodes 3"
    )
    assert (folder / "metrics.csv").read_bytes() == metrics  # no further step
    shutil.rmtree(folder / "checkpoints")  # nothing to continue from
    assert learning.earlier(learning.Job(task, 0), runs) is None


def test_a_continued_run_says_in_its_command_how_often_it_was_evaluated(tmp_path):
    work = learning.Job(settings.Task("q_learning", "CartPole-v1", {"eval_frequency": 700}), 0)
    row = {"seed": 0, "options": json.dumps(options.resolved("q_learning", work.arguments))}
    row |= {"command": f"python q_learning/q_learning.py {work.arguments}  # continued at step 300"}
    records.write_csv(tmp_path / "learning" / work.task.file, [row])
    assert learning.done(work, tmp_path)


def test_rows_of_a_default_that_has_changed_are_not_taken_for_done():
    recorded = '{"gamma":0.99,"hidden_sizes":[64,64]}'
    assert options.matches(recorded, {"gamma": 0.99, "hidden_sizes": [64, 64], "a_new_option": 1})
    assert not options.matches(recorded, {"gamma": 0.98, "hidden_sizes": [64, 64]})
    assert not options.matches(recorded, {})  # the script does not accept the command
    assert options.matches('{"max_grad_norm":Infinity}', {"max_grad_norm": None})  # both are off
    assert options.matches('{"async_envs":false}', {"executor": "sync"})
    assert not options.matches('{"async_envs":false}', {"executor": "envpool"})
    recorded = '{"repeat_action_probability":0.0}'  # now one of env_kwargs
    assert options.matches(recorded, {"env_kwargs": {"repeat_action_probability": 0}}, {"env_kwargs": {}})
    assert not options.matches(recorded, {"env_kwargs": {}}, {"env_kwargs": {}})
    assert not options.matches('{"repeat_action_probability":null}', {"env_kwargs": {"chance": 0}})


def test_an_option_that_the_run_did_not_have_counts_at_its_default():
    recorded, defaults = '{"gamma":0.99}', {"gamma": 0.9, "clip_bonus": None, "sizes": (3,)}
    assert options.matches(recorded, {"gamma": 0.99, "clip_bonus": None, "sizes": [3]}, defaults)
    assert options.matches(recorded, {"gamma": 0.99, "sizes": 0}, defaults)  # off, as it was then
    assert not options.matches(recorded, {"gamma": 0.99, "clip_bonus": 7.5}, defaults)
    assert not options.matches(recorded, {"gamma": 0.9, "clip_bonus": None}, defaults)
    assert not options.matches(recorded, {"gamma": 0.99, "no_option_any_more": 1}, defaults)


def test_runs_are_repeated_if_asked_and_extra_options_change_no_table(learned, monkeypatch):
    monkeypatch.setattr(learning, "TASKS", [GOOD])
    chosen = learning.Options(results=learned[0], seeds=(0,))
    assert learning.plan(chosen) == []
    assert len(learning.plan(dataclasses.replace(chosen, repeat=True))) == 1
    assert len(learning.plan(dataclasses.replace(chosen, extra="--gamma 0.9"))) == 1
    with pytest.raises(UserError, match="--extra would replace rows of the tables"):
        learning.plan(dataclasses.replace(chosen, extra="--gamma 0.9", results=records.RESULTS))


def test_seeds_that_the_tables_leave_out_are_named(monkeypatch, tmp_path, capsys):
    task = dataclasses.replace(GOOD, seeds=1)
    monkeypatch.setattr(learning, "TASKS", [task])
    assert learning.main(learning.Options(results=tmp_path, seeds=(1,))) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"warning: {task.file}: seeds [1] are not in the tables, which show seeds below 1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"dqn": {"CartPole-v1": {"preset": "no_such"}}},
            "learning.toml: [dqn.CartPole-v1]: there is no such preset",
        ),
        ({"dqn": {"seeds": 2}}, "learning.toml: [dqn.seeds]: an environment is missing"),
        ({"my_dqn": {"CartPole-v1": {}}}, "[my_dqn.CartPole-v1]: scripts.toml has no such script"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(content, words, capsys):
    with pytest.raises(SystemExit) as stop:
        list(settings._rows(content, "learning.toml"))
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_a_table_of_a_variant_has_a_title_and_files_of_its_own():
    content = {"ppo": {"Ant-v5": {}, "Ant-v5 on ice": {"env_id": "Ant-v5", "seeds": 2, "gamma": 0.9}}}
    plain, variant = (settings._task(*row) for row in settings._rows(content, "learning.toml"))
    assert (plain.title, plain.env_id, plain.file) == ("Ant-v5", "Ant-v5", "ppo__Ant-v5.csv")
    assert (variant.title, variant.env_id, variant.file) == (
        "Ant-v5 on ice",
        "Ant-v5",
        "ppo__Ant-v5_on_ice.csv",
    )
    assert variant.options == {"gamma": 0.9} and variant.is_mujoco and variant.seeds == 2
    assert settings.select([plain, variant], (), ("Ant-v5",)) == [plain]
    assert settings.select([plain, variant], (), ("Ant-v5 on ice",)) == [variant]
    assert str(learning.Job(variant, 1)) == "ppo Ant-v5 on ice seed 1"
    assert learning.Job(variant, 1).arguments == "--env-id Ant-v5 --seed 1 --gamma 0.9"


def test_a_mistake_in_scripts_toml_is_one_line(capsys):
    with pytest.raises(SystemExit):
        settings._script("my_dqn", {"name": "My DQN"})
    assert "[my_dqn]: missing 1 required positional argument: 'actions'" in capsys.readouterr().err


def test_rows_of_other_options_or_seeds_are_left_out():
    task = settings.Task("ppo", "X-v0", {"gamma": 0.9, "max_grad_norm": "none"}, seeds=2)
    defaults = {"env_id": "Y-v0", "gamma": 0.99, "max_grad_norm": 0.5, "hidden_sizes": (64,), "seed": 0}
    made_with = {"env_id": "X-v0", "gamma": 0.9, "max_grad_norm": None, "hidden_sizes": [64]}
    row = {"seed": "1", "options": json.dumps(made_with)}
    assert options.is_current(row, task, defaults)
    assert not options.is_current(row | {"seed": "2"}, task, defaults)
    assert not options.is_current(row, task, defaults | {"hidden_sizes": (32,)})


def test_the_figures_of_the_advice_are_those_of_the_results():
    """The table below "Which algorithm should I use?" on the front page."""
    names = {about.name: script for script, about in settings.SCRIPTS.items()}
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (\S+) \((?:Discrete|Box)\) \| (.+) \| (.+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 2
    for env_id, *columns in rows:
        for cell in columns:
            name, steps, seconds = re.fullmatch(r"(.+): ([\d,]+) steps, ([\d.]+) seconds", cell).groups()
            script = names[name]
            (task,) = (task for task in settings.TASKS if (task.script, task.env_id) == (script, env_id))
            frame = cells.runs(task, records.RESULTS)
            assert (steps, seconds) == (
                cells.middle(frame["solved_step"]),
                cells.middle(frame["solved_seconds"], 1),
            )


@pytest.mark.parametrize(
    ("result", "code", "line"),
    [
        (None, 0, ""),
        (3, 1, ""),
        (UserError("it is wrong: fix it"), 2, "error: it is wrong: fix it\n"),
        (subprocess.CalledProcessError(2, "dqn.py"), 2, ""),
        (KeyboardInterrupt(), "interrupted: repeat it", ""),
    ],
)
def test_exit_codes(result, code, line, monkeypatch, capsys):
    def main(chosen):
        assert chosen.scripts == ("dqn",)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(job, "exit_when_told", lambda: None)
    monkeypatch.setattr(sys, "argv", ["learning.py", "--scripts", "dqn"])
    with pytest.raises(SystemExit) as stop:
        cli.run(main, learning.Options, ": repeat it")
    assert stop.value.code == code and capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        (learning, "--scripts sarsa --envs CartPole-v1", "sarsa"),
        (learning, "--workers 0", "--workers is 0: it must be at least 1"),
        (speed, "pairs --scripts sarsa", "sarsa"),
        (speed, "solve --envs Pong-v5", "no row for Pong-v5"),
        (speed, "num-envs --scripts sac", "no row for sac CartPole-v1"),
        (speed, "--repeats 0", "--repeats is 0: it must be at least 1"),
        (speed, "--attempts 0", "--attempts is 0: it must be at least 1"),
        (policies, "sarsa", "sarsa"),
        (animation, "nowhere", "nowhere is not a run folder"),
        (overestimation, "", "name the scripts to compare"),
        (overestimation, "ppo", "ppo"),
        (overestimation, "dqn --plot-only --results nowhere", "measure first, without --plot-only"),
    ],
)
def test_wrong_arguments_are_reported_without_a_traceback(program, arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(job, "exit_when_told", lambda: None)
    monkeypatch.setattr(sys, "argv", ["program.py", *arguments.split()])
    with pytest.raises(SystemExit) as stop:
        cli.run(program.main, program.Options)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_a_run_beyond_its_time_is_ended_and_counts_as_failed():
    outcome = job.run_script("dqn", "--total-timesteps 100000000", timeout=4)
    assert outcome.returncode != 0 and outcome.error
    assert outcome.whole_seconds < 20


def test_ray_gives_the_rows_of_the_pool_and_runs_a_lost_workers_job_again(learned, monkeypatch, tmp_path):
    pytest.importorskip("ray")
    monkeypatch.setattr(learning, "TASKS", [GOOD])
    arguments = ["--scripts", "dqn", "--envs", "CartPole-v1", f"--extra={TINY}", "--seeds", "0", "1"]
    code = (
        "import tyro; from benchmarks import learning, records, settings;"
        "records.commit = lambda: '1234567';"
        "learning.TASKS = [settings.Task('dqn', 'CartPole-v1')];"
        "raise SystemExit(learning.main(tyro.cli(learning.Options)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--results", tmp_path, "--workers", "2", "--ray"],
        env=job.environment(0),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.kill(script_below(process.pid).ppid(), signal.SIGKILL)
    assert process.wait(timeout=240) == 0
    columns = ("seed", "evaluation_mean", "evaluation_std", "command", "commit")
    table = [
        [[row[name] for name in columns] for row in rows]
        for rows in (records.read_csv(folder / "learning" / GOOD.file) for folder in (tmp_path, learned[0]))
    ]
    assert table[0] == table[1]


def wait_for(find, patience=120):
    """Return the first true result of `find`."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.2)
    raise TimeoutError


def script_below(pid):
    """Wait for a script among the descendants of a process."""

    def find():
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(argument.endswith("/dqn/dqn.py") for argument in process.cmdline()):
                    return process
        return None

    return wait_for(find)


def has_rows(path):
    """Whether a metrics.csv has a row below its header."""
    return len(path.read_text().splitlines()) > 1


@pytest.mark.parametrize("by_terminal", [False, True])
def test_learning_that_is_ended_ends_its_scripts_after_they_have_saved(by_terminal, tmp_path):
    """A terminal sends Ctrl-C to all processes of its command."""
    command = [sys.executable, "benchmarks/learning.py", "--scripts", "dqn", "--envs", "CartPole-v1"]
    large = "--hidden-sizes 2048 2048 --gradient-steps 1"  # so that saving takes longer than a second signal
    soon = "--learning-starts 50 --train-frequency 50"  # the first row, which shows that training goes on
    extra = f"--extra=--total-timesteps 100000000 --checkpoint-frequency 0 {large} {soon}"
    command += [extra, "--seeds", "0", "1", "2", "--workers", "2"]
    command += ["--results", tmp_path, "--runs-dir", tmp_path / "runs"]
    learner = psutil.Popen(
        command,
        env=job.environment(0),
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background, it is ignored
    )
    running = []
    try:
        wait_for(lambda: sum(map(has_rows, (tmp_path / "runs").glob("*/metrics.csv"))) == 2)
        running = learner.children()
        os.killpg(learner.pid, signal.SIGINT) if by_terminal else learner.terminate()
        assert learner.wait(timeout=60) == (1 if by_terminal else 128 + signal.SIGTERM)
    finally:
        left = [*learner.children(), learner] if learner.is_running() else running
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert len(running) == 2 and not any(script.is_running() for script in running)
    assert len(list((tmp_path / "runs").glob("*/checkpoints/*/run.json"))) == 2  # the third was not started


def test_the_first_signal_ends_a_program_and_later_ones_are_ignored(monkeypatch):
    handlers = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    job.exit_when_told()
    assert handlers[signal.SIGHUP] == signal.SIG_IGN  # nohup
    with pytest.raises(SystemExit) as stop:
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert stop.value.code == 143 and handlers[signal.SIGTERM] == signal.SIG_IGN
    handlers[signal.SIGHUP] = signal.SIG_DFL
    job.exit_when_told()
    with pytest.raises(SystemExit):
        handlers[signal.SIGHUP](signal.SIGHUP, None)


def test_a_row_without_options_is_of_no_task():
    assert not options.matches("", {"gamma": 0.9}) and not options.matches(float("nan"), {"gamma": 0.9})


def test_the_front_page_shows_the_speed_of_the_first_pair_only(reported, monkeypatch):
    first = settings.Comparison("dqn", "CartPole-v1", ["sb3"], 1_000)
    other = dataclasses.replace(first, num_envs=8)
    for pairs, shown in (([first, other], True), ([other, first], False)):
        for module in (tables, speed_tables):
            monkeypatch.setattr(module, "PAIRS", pairs)
        monkeypatch.setattr(tables, "COLLECTION", {"dqn": settings.SCRIPTS["dqn"]})
        assert ("| 2.5 (2.0–3.0) |" in tables.summary_table(reported.results)) == shown


@pytest.mark.parametrize(
    "row", [*settings.TASKS, *settings.PAIRS], ids=lambda row: f"{row.script}-{row.title}"
)
def test_each_row_of_the_settings_is_a_command_that_the_script_accepts(row):
    from common.options import validate

    pair = isinstance(row, settings.Comparison)
    arguments = row.pair.arguments if pair else row.arguments
    validate(options.parse(row.script, f"--env-id {row.env_id} {arguments}"))
    published = {(result["script"], result["env_id"]) for result in records.read_csv(tables.PUBLISHED)}
    assert pair or row.env_id in settings.THRESHOLDS or (row.script, row.title) in published
    assert row.script in settings.SCRIPTS


def test_no_task_is_listed_twice_and_every_race_has_its_task():
    tasks = [(task.script, task.title) for task in settings.TASKS]
    assert len(tasks) == len(set(tasks))
    assert all((race.script, race.env_id) in tasks for race in settings.RACES)
    for race in settings.RACES:  # no option that the script lacks
        options.parse(race.script, settings.command_line(race.ours))


def test_options_become_arguments():
    row = {"hidden_sizes": [64, 32], "baseline": False, "max_grad_norm": "none", "gamma": 0.9}
    assert settings.command_line(row) == "--hidden-sizes 64 32 --no-baseline --max-grad-norm None --gamma 0.9"


def test_options_of_an_environment_mean_the_same_in_a_command_and_in_a_row():
    kwargs = {
        "is_slippery": False,
        "map_name": "8x8",
        "size": "1",
        "word": "true",
        "limit": "none",
        "l": [1, 2],
    }
    task = settings.Task("dqn", "FrozenLake-v1", {"env_kwargs": kwargs})
    config = options.parse("dqn", f"--env-id FrozenLake-v1 {task.arguments}")
    assert config.env_kwargs == kwargs | {"limit": None}
    row = {"seed": 0, "options": json.dumps(options.of_learning(dataclasses.asdict(config)))}
    assert options.is_current(row, task, options.defaults("dqn"))
    row["options"] = row["options"].replace('"size": "1"', '"size": 1')
    assert not options.is_current(row, task, options.defaults("dqn"))


def test_solved_is_the_first_row_at_which_the_last_twenty_episodes_reach_the_threshold():
    # 10 episodes of 100 steps a row: returns 0, then 100; 20 episodes of 100 are there at step 4,000
    rows = [(1000 * k, 10.0 * k, 0.0 if k <= 2 else 100.0, 100.0) for k in range(1, 6)]
    assert curves.first_solved(rows, threshold=100.0) == (4000, 40.0)
    assert curves.first_solved(rows, threshold=50.0) == (3000, 30.0)  # 10 episodes of 0 and 10 of 100
    assert curves.first_solved(rows, threshold=100.1) is None
    assert curves.first_solved(rows[:3], threshold=100.0) is None  # too few episodes of 100
    gap = [(1000, 1.0, 100.0, 100.0), (2000, 2.0, None, None), (3000, 3.0, 100.0, 100.0)]
    assert curves.first_solved(gap, threshold=100.0) == (3000, 3.0)  # a row without episodes says nothing


def test_episodes_that_end_together_all_count():
    """16 environments, episodes of 1,000 steps, a row every 2,000: 16 episodes end in every eighth row."""
    rows = [
        (
            step,
            step / 1000,
            *((0.0 if step < 30_000 else 100.0, 1000.0) if step % 16_000 == 0 else (None,) * 2),
        )
        for step in range(2_000, 100_001, 2_000)
    ]
    assert curves.first_solved(rows, threshold=100.0) == (48_000, 48.0)


def test_speed_is_measured_from_the_warm_up_on():
    rows = [(1000, 9.0, None, None), (2000, 10.0, None, None), (6000, 12.0, None, None)]
    assert curves.steps_per_second(rows, warm_up=1500) == 2000.0


def test_rows_replace_those_of_their_key_and_leave_the_others(tmp_path):
    path = tmp_path / "rows.csv"
    records.replace_rows(path, [{"seed": 10, "value": 1}, {"seed": 9, "value": 2}], ("seed",))
    records.replace_rows(path, [{"seed": 9, "value": 3}], ("seed",))
    assert records.read_csv(path) == [{"seed": "9", "value": "3"}, {"seed": "10", "value": "1"}]
    records.replace_rows(path, [{"seed": 9, "new": 4}], ("seed",))  # rows of an earlier version stay
    assert records.read_csv(path) == [{"seed": "9", "new": "4"}, {"seed": "10", "new": ""}]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A Git repository with a script and a page in a commit; returns it and the commit's hash."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # of a hook that runs the tests
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True, text=True)
    git(["git", "init"])
    for path in ("dqn.py", "page.md", "benchmarks/results/rows.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("old\n")
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first"])
    return tmp_path, git(["git", "rev-parse", "HEAD"]).stdout


@pytest.mark.parametrize(
    ("path", "changes"),
    [("benchmarks/results/rows.csv", False), ("page.md", False), ("dqn.py", True), ("new.py", True)],
)
def test_a_row_names_its_commit_and_whether_the_code_has_changed_since(path, changes, checkout):
    folder, commit = checkout
    assert records.commit(folder) and commit.startswith(records.commit(folder))
    (folder / path).write_text("new\n")
    assert records.commit(folder).endswith("+") == changes
    assert commit.startswith(records.commit(folder).removesuffix("+"))


def test_a_copy_without_the_history_does_not_have_the_commit_of_a_folder_above(checkout):
    folder, _ = checkout
    (folder / "copy").mkdir()
    assert records.commit(folder / "copy") == ""


def test_a_folder_without_a_commit_has_none(tmp_path, capfd):
    assert records.commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()  # not a repository
    assert records.commit(tmp_path) == "" and capfd.readouterr() == ("", "")


def test_a_write_that_fails_leaves_the_old_rows(tmp_path, monkeypatch):
    records.write_csv(tmp_path / "rows.csv", [{"seed": 1}])

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        records.replace_rows(tmp_path / "rows.csv", [{"seed": 2}], ("seed",))
    assert records.read_csv(tmp_path / "rows.csv") == [{"seed": "1"}]


def test_a_line_of_evaluations_that_is_still_being_written_is_left_out(tmp_path):
    path = tmp_path / "evaluations.csv"
    assert curves.read_evaluations(path) == []
    path.write_text("global_step,seconds,mean_return,std_return\n10,0.5,20.5,1.5\n20,1.0,21.5,1")
    assert curves.read_evaluations(path) == [(10, 20.5, 1.5)]


def test_a_curve_is_thinned_to_means_over_equal_stretches():
    rows = [(10 * k, 0.1 * k, float(k), 1.0) for k in range(1, 101)]
    curve = curves.thin(rows, seed=3, start_seconds=5.0)
    assert len(curve) == curves.POINTS
    assert curve[0] == {"seed": 3, "global_step": 20, "seconds": 5.2, "episodic_return": "1.5"}


def test_intervals_hold_the_mean_and_equal_seeds_have_no_width():
    low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert with_interval([500.0, 500.0, 500.0]) == "500.0 [500.0, 500.0]"
    assert with_interval([7.0]) == "7.00"  # small numbers have two decimals
    assert interquartile_mean([0.0, 1.0, 2.0, 100.0]) == 1.5


@pytest.fixture
def peer(tmp_path):
    """A program that prints what peers.py prints: 1,000 steps a second, solved after 3,000."""
    path = tmp_path / "peer"
    path.write_text(
        f"#!{sys.executable}\nimport json, sys\ntask = json.loads(sys.argv[2])\n"
        "steps = range(1000, task['total_timesteps'] + 1, 1000)\n"
        "rows = [[step, step / 1000, 500.0 if step > 2000 else 10.0, 50.0] for step in steps]\n"
        "print('peer: ' + json.dumps({'rows': rows, 'versions': 'peer 1', 'start_seconds': 2.5,"
        " 'evaluation': [500.0, 0.0]}))\n"
    )
    path.chmod(0o755)
    return path


def test_ours_and_theirs_are_measured_by_commands_of_their_own(monkeypatch, tmp_path, peer):
    (row,) = settings.select(settings.PAIRS, ("dqn",), ("CartPole-v1",))
    short = dataclasses.replace(row, total_timesteps=4_000, warm_up=2_000)
    monkeypatch.setattr(speed, "PAIRS", [short])
    speed.pairs(speed.Options(peers=("sb3",), repeats=1, peer_python=str(peer), results=tmp_path))
    (measured,) = records.read_csv(tmp_path / "speed.csv")
    assert measured["peer_steps_per_second"] == "1000"
    assert float(measured["ratio"]) == pytest.approx(float(measured["steps_per_second"]) / 1000, abs=1e-3)
    assert "--train-frequency 100" in measured["command"]
    monkeypatch.setattr(speed_tables, "PAIRS", [short])
    assert "| DQN, CartPole-v1 | SB3 |" in speed_tables.speed_table(tmp_path)
    changed = dataclasses.replace(short, ours=short.ours | {"gamma": 0.9})
    monkeypatch.setattr(speed_tables, "PAIRS", [changed])
    assert speed_tables.speed_table(tmp_path) == "No results yet."  # the row shows a pair as it was


def test_speeds_by_number_of_environments_are_those_of_the_settings(monkeypatch, tmp_path):
    pair = settings.Comparison("q_learning", "CartPole-v1", ["sb3"], 4_000, ours={"bins": [4]})
    for module in (speed, speed_tables):
        monkeypatch.setattr(module, "PAIRS", [pair])
    monkeypatch.setattr(speed, "NUM_ENVS", (4, 8))
    chosen = speed.Options("num-envs", ("q_learning",), ("CartPole-v1",), repeats=1, results=tmp_path)
    speed.num_envs(chosen)
    four, eight = records.read_csv(tmp_path / "num_envs.csv")
    assert "--num-envs 4 --total-timesteps 4000 " in four["command"] and "--bins 4" in four["command"]
    assert "--num-envs 8 --total-timesteps 8000 " in eight["command"]
    title, _, line, *_ = speed_tables.num_envs_table(tmp_path).splitlines()
    assert title.endswith("| 4 | 8 |") and line.startswith("| Q-learning, CartPole-v1 |")
    key = ("num_envs", "threads")
    records.replace_rows(tmp_path / "num_envs.csv", [four | {"threads": "1", "steps_per_second": "3"}], key)
    assert "| Q-learning, CartPole-v1, 1 thread(s) | 3 |" in speed_tables.num_envs_table(tmp_path)
    monkeypatch.setattr(speed_tables, "PAIRS", [dataclasses.replace(pair, ours={"bins": [5]})])
    assert speed_tables.num_envs_table(tmp_path) == "No results yet."


def test_a_pair_may_vary_another_row():
    rows = settings.select(settings.PAIRS, ("ppo",), ("HalfCheetah-v5",))
    one, *others = sorted(rows, key=lambda row: row.num_envs)
    assert (one.executor, one.num_envs, one.peers) == ("sync", 1, ["sb3", "sbx"])
    assert one.ours["num_steps"] == 2_048 and [row.num_envs for row in others] == [8, 64]
    for row in others:
        num_steps = 2_048 // row.num_envs  # the same number of transitions in a rollout
        assert row.executor == "envpool" and row.peers == ["sb3"]
        assert row.ours == one.ours | {"num_steps": num_steps, "executor": "envpool"}
        assert row.theirs == one.theirs | {"n_steps": num_steps}


def test_executors_select_the_pairs(monkeypatch, tmp_path):
    measured = []

    def measure_pair(pair, library, seed, options):
        measured.append((pair.script, pair.num_envs, library))
        return {"script": pair.script, "env_id": pair.env_id, "num_envs": pair.num_envs} | {
            "executor": pair.executor,
            "peer": library,
            "pair": seed,
            "threads": "default",
        }

    monkeypatch.setattr(speed, "measure_pair", measure_pair)
    chosen = speed.Options(scripts=("trpo",), executors=("envpool",), repeats=1, results=tmp_path)
    speed.pairs(chosen)
    assert measured == [("trpo", num_envs, "sb3-contrib") for num_envs in (8, 64, 64)]
    speed.pairs(dataclasses.replace(chosen, executors=()))  # the others are added, and replace none of these
    rows = records.read_csv(tmp_path / "speed.csv")
    assert [(row["env_id"], row["num_envs"], row["executor"]) for row in rows] == [
        ("CartPole-v1", "1", "sync"),
        ("CartPole-v1", "64", "envpool"),
        ("HalfCheetah-v5", "1", "sync"),
        ("HalfCheetah-v5", "8", "envpool"),
        ("HalfCheetah-v5", "64", "envpool"),
    ]


def test_a_python_without_the_libraries_is_refused_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "pairs", lambda options: pytest.fail("measured"))
    chosen = speed.Options(scripts=("dqn",), envs=("CartPole-v1",), peer_python="no/such/python")
    with pytest.raises(UserError, match="not a Python that runs"):
        speed.main(chosen)
    monkeypatch.setitem(speed.MODULES, "sb3", "no_such_module")
    with pytest.raises(UserError, match="has no no_such_module: install"):
        speed.main(dataclasses.replace(chosen, peers=("sb3",), peer_python=sys.executable))
    monkeypatch.setitem(speed.MODULES, "sb3", "json")
    with pytest.raises(pytest.fail.Exception, match="measured"):
        speed.main(dataclasses.replace(chosen, peers=("sb3",), peer_python=sys.executable))


def test_a_race_counts_both_from_the_command_with_the_same_threshold(monkeypatch, tmp_path, peer):
    monkeypatch.setattr(settings, "TASKS", [GOOD])
    race = settings.Comparison("dqn", "CartPole-v1", ["sb3"], 5_000, ours={"gamma": 0.97})
    monkeypatch.setattr(speed, "RACES", [race])
    monkeypatch.setattr(speed_tables, "RACES", [race])
    speed.solve(speed.Options(repeats=1, peer_python=str(peer), results=tmp_path))
    (row,) = records.read_csv(tmp_path / "time_to_solve.csv")
    assert (row["peer_solved_step"], row["peer_solved_seconds"]) == ("3000", "5.5")  # 20 episodes of 50 steps
    assert row["solved_step"] == "" and float(row["evaluation"]) < 475  # 1,500 steps are too few
    assert float(row["whole_seconds"]) > 2 and f"{TINY} --gamma 0.97" in row["command"]
    assert "| DQN, CartPole-v1 | SB3 | – (0 of 1) |" in speed_tables.solve_table(tmp_path)
    records.replace_rows(tmp_path / "time_to_solve.csv", [row | {"solved_seconds": "1.1"}], ("seed",))
    assert "(1 of 1) | 5.0 |" in speed_tables.solve_table(tmp_path)
    assert "(0 of 1) | 5.5 (1 of 1) | 0." in speed_tables.solve_table(tmp_path)
    row |= {"whole_seconds": "4", "peer_whole_seconds": "6"}
    records.replace_rows(tmp_path / "time_to_solve.csv", [row], ("seed",))
    assert "| – | 1.5 |" in speed_tables.solve_table(tmp_path)  # threshold not reached; total seconds
    for changed in ([dataclasses.replace(race, ours={"gamma": 0.9})], []):
        monkeypatch.setattr(speed_tables, "RACES", changed)
        assert speed_tables.solve_table(tmp_path) == "No results yet."  # of the race as it was


def test_a_measurement_is_made_again_if_the_host_took_the_processors_meanwhile(monkeypatch, capsys):
    clock = iter([0.0, 1e6, 1e6, 1e6, 1e6, 2e6])  # before and after each measurement
    monkeypatch.setattr(records, "stolen_seconds", lambda: next(clock))
    made = []

    def measure(script, options):
        made.append({"script": script})
        return made[-1]

    assert speed.undisturbed(measure, "dqn", options=speed.Options()) is made[1] and len(made) == 2
    assert "repeated" in capsys.readouterr().out
    assert speed.undisturbed(measure, "dqn", options=speed.Options(attempts=1)) is made[2] and len(made) == 3
    assert "result kept" in capsys.readouterr().out


def test_time_that_the_host_takes_is_read_in_seconds(tmp_path):
    path = tmp_path / "stat"
    assert records.stolen_seconds(path) == 0.0  # not Linux
    ticks = os.sysconf("SC_CLK_TCK")
    path.write_text(f"cpu  1 2 3 4 5 6 7 {8 * ticks} 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert records.stolen_seconds(path) == 8.0


def test_a_measurement_that_fails_says_why():
    row = settings.Comparison("dqn", "NoSuchEnv-v0", ["sb3"], 1_000)
    with pytest.raises(RuntimeError, match="--tau is 7"):
        speed.run_ours(row.pair, {"tau": 7}, speed.Options(threads=1))
    with pytest.raises(RuntimeError, match="sb3 dqn: "):
        speed.run_theirs(row, "sb3", 0, speed.Options(threads=1))


@pytest.fixture
def reported(learned, monkeypatch, tmp_path):
    """Options of a report on the short runs, with a page that asks for two tables."""
    results, _ = learned
    for module in (cells, figures, tables):
        monkeypatch.setattr(module, "TASKS", [GOOD])
    about = {"options": "{}", "threads": "default", "command": ""}
    about |= {"versions": "v", "machine": "m", "date": "2026-01-01"}
    monkeypatch.setattr(speed_tables, "current", lambda frame, tasks: frame)
    for pair, ratio in enumerate((2.0, 3.0, 2.5)):
        row = {"script": "dqn", "env_id": "CartPole-v1", "num_envs": 1, "executor": "sync"}
        row |= {"peer": "sb3", "pair": pair}
        row |= {"steps_per_second": 9000, "peer_steps_per_second": 3000, "ratio": ratio}
        records.replace_rows(results / "speed.csv", [row | about | {"peer_versions": "p"}], ("pair",))
    for count in (1, 2):
        row = {"script": "dqn", "env_id": "CartPole-v1", "executor": "sync", "num_envs": count}
        row |= {"steps_per_second": 9000 * count} | about
        records.replace_rows(results / "num_envs.csv", [row], ("num_envs",))
    page = tmp_path / "README.md"
    page.write_text(
        "before\n\n<!-- benchmarks: learning dqn -->\noutdated\n<!-- end of benchmarks -->\n\nbetween\n"
        "<!-- benchmarks: speed -->\n<!-- end of benchmarks -->\nafter\n"
    )
    return report.Options(results=results, pages=(page,))


def test_the_report_writes_tables_and_figures_and_fills_pages(reported):
    report.main(reported)
    text = (reported.results / "README.md").read_text()
    assert "[DQN](../../dqn/README.md)" in text and "0 of 2" in text
    for name in ("learning_steps", "learning_seconds", "speed", "num_envs", "dqn"):
        assert 2_000 < (reported.results / "figures" / f"{name}.png").stat().st_size < 60_000
    page = reported.pages[0].read_text()
    assert page.startswith("before\n") and "between" in page and page.endswith("after\n")
    assert "outdated" not in page and "RL Baselines3 Zoo" in page
    assert "| DQN, CartPole-v1 | SB3 | 9,000 | 3,000 | 2.50 (2.00–3.00) | 3 |" in page
    assert report.fill(page, reported.results) == page  # filled once, it stays as it is


def test_results_elsewhere_leave_the_pages_alone(reported, monkeypatch, tmp_path):
    """Without --pages, the tables of this repository are those of its own results."""
    (tmp_path / "README.md").write_text(reported.pages[0].read_text())
    before = (tmp_path / "README.md").read_text()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    report.main(dataclasses.replace(reported, pages=()))
    assert (tmp_path / "README.md").read_text() == before
    monkeypatch.setattr(report, "RESULTS", reported.results)
    report.main(dataclasses.replace(reported, pages=()))
    assert (tmp_path / "README.md").read_text() != before


def test_a_run_finds_an_environment_in_the_current_folder(monkeypatch, tmp_path):
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('My-v0', CartPoleEnv, max_episode_steps=7)\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = "--env-id my_envs:My-v0 --total-timesteps 100 --eval-episodes 2"
    assert job.run_script("q_learning", arguments).check().evaluation == (7.0, 0.0)


def test_every_script_with_a_page_is_in_scripts_toml():
    assert set(settings.COLLECTION) == set(SCRIPTS)


def test_a_script_without_a_page_is_an_experiment(tmp_path):
    for name in ("published", "experiment"):
        (tmp_path / name).mkdir()
    (tmp_path / "published" / "README.md").touch()
    table = {name: settings.Script(name, ["Box"]) for name in ("published", "experiment", "nowhere")}
    assert list(settings._with_pages(table, tmp_path)) == ["published"]


def test_mujoco_tasks_show_the_return_at_500_000_steps(monkeypatch, tmp_path):
    monkeypatch.setattr(options, "is_current", lambda *row: True)
    tasks = [
        settings.Task("trpo", "Hopper-v5"),
        settings.Task("trpo", "Ant-v5"),
        settings.Task("ppo", "Hopper-v5"),
        settings.Task("trpo", "Walker2d-v5"),
    ]
    monkeypatch.setattr(tables, "TASKS", [settings.Task("ppo", "CartPole-v1"), *tasks])
    about = {"whole_seconds": 60, "total_timesteps": 1_000_000, "versions": "v", "machine": "m", "date": "d"}
    for task in tables.TASKS:
        rows = [{"seed": seed, "evaluation_mean": 3000.0, **about} for seed in (0, 1)]
        records.replace_rows(tmp_path / "learning" / task.file, rows, ("seed",))
    # seed 2 has no run; at 600,000 steps it is another return
    steps = {0: (250_880, 501_760, 1_001_472), 1: (501_760, 1_001_472), 2: (501_760,)}
    rows = [
        {"seed": seed, "global_step": step, "mean_return": 2000.0 if step == 501_760 else 9.0}
        for seed, each in steps.items()
        for step in each
    ]
    rows[-1]["mean_return"] = 7000.0
    some = [row for row in rows if row["seed"] == 0]
    records.replace_rows(tmp_path / "evaluations" / "trpo__Walker2d-v5.csv", some, ("seed",))
    records.replace_rows(tmp_path / "evaluations" / "ppo__Hopper-v5.csv", rows, ("seed",))
    late = [{"seed": 0, "global_step": 600_000, "mean_return": 5.0}]
    records.replace_rows(tmp_path / "evaluations" / "trpo__Hopper-v5.csv", late, ("seed",))
    _, _, ant, ppo, trpo, walker, *_ = tables.mujoco_table(tmp_path).splitlines()
    assert ant.startswith("| Ant-v5 | TRPO | 1,000,000 | 2 |") and "| – | 60.0 |" in ant  # not evaluated
    assert ppo.startswith("| Hopper-v5 | PPO |") and "| 2000.0 [2000.0, 2000.0] | 60.0 |" in ppo
    assert ppo.endswith(", 1,000,000 steps, Hopper-v4, one run) |")  # the version of the published run
    assert trpo.startswith("| Hopper-v5 | TRPO |") and "| – | 60.0 |" in trpo
    assert "| 3000.0 [3000.0, 3000.0] | 2000.0 (1 of 2 seeds) | 60.0 |" in walker
    assert "CartPole" not in tables.mujoco_table(tmp_path)
    assert tables.games_table(tmp_path) == "No results yet."


@pytest.mark.parametrize(
    ("returns", "seeds", "cell"),
    [
        ("evaluation", 3, "3.21 ([A](https://a.org), 1,000 steps, Hopper-v2)"),
        ("evaluation", 1, "3.21 ([A](https://a.org), 1,000 steps, Hopper-v2, one run)"),
        ("training", np.nan, "3.21 ([A](https://a.org), 1,000 steps, training, Hopper-v2)"),
        ("best evaluation", 3, "3.21 ([A](https://a.org), 1,000 steps, best evaluation, Hopper-v2)"),
    ],
)
def test_a_published_return_says_what_it_is(returns, seeds, cell):
    row = {"script": "ppo", "env_id": "Hopper-v5", "steps": 1000.0, "mean": 3.21, "returns": returns}
    row |= {"name": "A", "source": "https://a.org", "note": "on Hopper-v2", "seeds": seeds}
    published = pd.DataFrame([row]).set_index(["script", "env_id"])
    assert tables.best_published(settings.Task("ppo", "Hopper-v5"), published) == cell
    assert tables.best_published(settings.Task("ppo", "Hopper-v5", name="Hopper-v5 on ice"), published) == "–"


def test_a_mujoco_row_below_the_best_published_return_has_a_note():
    published = tables.published_returns()["mean"]
    for task in settings.TASKS:
        returns = cells.runs(task, records.RESULTS).get("evaluation_mean", pd.Series(dtype=float))
        if task.is_mujoco and returns.mean() < published.get((task.script, task.title), -np.inf):
            assert task.note, f"{task.script} {task.title}: {returns.mean()}"


def test_a_run_that_ends_at_500_000_steps_shows_its_final_return(monkeypatch, tmp_path):
    monkeypatch.setattr(options, "is_current", lambda *row: True)
    tasks = [settings.Task("td3", "Ant-v5"), settings.Task("dqn", "MinAtar/Breakout-v1")]
    monkeypatch.setattr(tables, "TASKS", tasks)
    about = {"whole_seconds": 60, "total_timesteps": 500_000, "versions": "v", "machine": "m", "date": "d"}
    for task in tasks:
        row = {"seed": 0, "evaluation_mean": 3000.0, **about}
        records.replace_rows(tmp_path / "learning" / task.file, [row], ("seed",))
    assert "| Ant-v5 | TD3 | 500,000 | 1 | 3000.0 | 3000.0 | 60.0 |" in tables.mujoco_table(tmp_path)
    games = tables.games_table(tmp_path)
    assert "| MinAtar/Breakout-v1 | DQN | 500,000 | 1 | 3000.0 | 60.0 |" in games and "Ant" not in games


def test_the_runs_of_a_task_are_its_seeds(tmp_path):
    task = settings.Task("ppo", "CartPole-v1", seeds=2)
    recorded = json.dumps(options.resolved("ppo", "--env-id CartPole-v1"))
    rows = [{"seed": seed, "evaluation_mean": 500.0, "options": recorded} for seed in (0, 1, 2, 1000)]
    records.replace_rows(tmp_path / "learning" / task.file, rows, ("seed",))
    assert list(cells.runs(task, tmp_path)["seed"]) == [0, 1]


def test_a_task_without_a_threshold_shows_its_number_of_seeds():
    frame = pd.DataFrame({"evaluation_mean": [475.0, 470.0]})
    assert cells.solved(frame, "CartPole-v1") == "1 of 2"
    assert cells.solved(frame, "Walker2d-v5") == "– (2)"


def test_results_of_other_options_are_not_shown(reported, monkeypatch):
    monkeypatch.setattr(tables, "TASKS", [dataclasses.replace(GOOD, options=SHORT | {"gamma": 0.9})])
    assert tables.learning_table(reported.results) == "No results yet."


def test_runs_from_ray_are_shown_beside_those_of_the_pool(reported):
    assert tables.ray_table(reported.results) == "No results yet."
    name = "dqn__CartPole-v1.csv"
    rows = records.read_csv(reported.results / "learning" / name)
    other = rows[1] | {"evaluation_mean": "123.4", "whole_seconds": "77"}
    records.replace_rows(reported.results / "ray" / "learning" / name, [other], ("seed",))
    mean, seconds = rows[1]["evaluation_mean"], float(rows[1]["whole_seconds"])
    line = f"| DQN, CartPole-v1 | 1 | {mean} | 123.4 | {seconds:,.1f} | 77.0 |"
    assert line in tables.ray_table(reported.results)
    assert tables.ray_table(reported.results, "ppo") == "No results yet."


def test_a_mark_without_a_table_or_an_end_is_reported(tmp_path):
    with pytest.raises(UserError, match="no table speeds"):
        report.fill("<!-- benchmarks: speeds -->\n<!-- end of benchmarks -->", tmp_path)
    with pytest.raises(UserError, match="needs its"):
        report.fill("<!-- benchmarks: speed -->\n", tmp_path)


def test_the_pages_show_the_results_that_are_there():
    for page in [*ROOT.glob("README.md"), *ROOT.glob("*/README.md")]:
        text = page.read_text()
        assert report.fill(text, records.RESULTS) == text, f"{page}: run python benchmarks/report.py"


def test_overestimation_starts_from_the_initial_value_that_is_asked_for(module, monkeypatch):
    dqn, configs = module("dqn"), []
    monkeypatch.setattr(dqn, "train", configs.append)
    monkeypatch.setattr(dqn, "Run", dqn.Run)  # is replaced, and restored here
    for value in (None, 0.0):
        overestimation.train(overestimation.Options(scripts=("dqn",), seeds=1, initial_value=value))
    assert [config.initial_value for config in configs] == [dqn.Config().initial_value, 0.0]


def test_overestimation_takes_the_options_of_learning_toml(module, monkeypatch):
    configs = []
    for name in ("dqn", "double_dqn"):
        monkeypatch.setattr(module(name), "train", configs.append)
        monkeypatch.setattr(module(name), "Run", module(name).Run)  # is replaced, and restored here
    task = settings.Task("double_dqn", "Acrobot-v1", {"gamma": 0.9, "total_timesteps": 100_000})
    monkeypatch.setattr(overestimation, "TASKS", [task])
    for env_id in ("Acrobot-v1", "CartPole-v1"):
        overestimation.train(overestimation.Options(scripts=("dqn", "double_dqn"), env_id=env_id, seeds=1))
    found = [
        (one.algorithm, one.env_id, one.gamma, one.total_timesteps, one.log_frequency) for one in configs
    ]
    assert found == [
        ("dqn", "Acrobot-v1", 0.9, 100_000, 2_000),
        ("double_dqn", "Acrobot-v1", 0.9, 100_000, 2_000),
        ("dqn", "CartPole-v1", 0.99, 50_000, 1_000),
        ("double_dqn", "CartPole-v1", 0.99, 50_000, 1_000),
    ]


def test_overestimation_is_the_value_of_the_first_states_minus_the_discounted_return_from_them():
    def discounted(env, action, seed):
        total, discount, ended = 0.0, 1.0, False
        env.reset(seed=seed)
        while not ended:
            _, reward, terminated, truncated, _ = env.step(action)
            total, discount, ended = total + discount * reward, 0.9 * discount, terminated or truncated
        return total

    def run_of(env_id, **agent):
        config = SimpleNamespace(env_id=env_id, gamma=0.9)
        trackables = {"agent": SimpleNamespace(**agent)}
        return SimpleNamespace(config=config, checkpoints=SimpleNamespace(trackables=trackables))

    q_values = np.tile([1.0, 7.0], (10, 1))  # so many that some episodes end two steps before others
    run = run_of("CartPole-v1", q_network=None, acting_network=lambda observations: q_values)
    means = overestimation.measure(run, episodes=10)
    env = gym.make("CartPole-v1")
    returns = [discounted(env, 1, 1_000_000 + k) for k in range(10)]  # the greedy action is 1
    assert (means["stated"], means["realized"]) == (7.0, pytest.approx(np.mean(returns), rel=1e-3))
    assert means["overestimation"] == means["stated"] - means["realized"]

    seen = []
    critic = lambda inputs: tf.constant(np.float32(seen.append(inputs) or [-3.0, -5.0]))[:, None]  # noqa: E731
    actions = np.full((2, 1), 0.5, np.float32)
    run = run_of("Pendulum-v1", acting_network=lambda observations: actions, critic=critic)
    means = overestimation.measure(run, episodes=2)
    env = gym.make("Pendulum-v1")
    returns = [discounted(env, actions[0], 1_000_000 + k) for k in range(2)]
    assert (means["stated"], means["realized"]) == (-4.0, pytest.approx(np.mean(returns), rel=1e-3))
    assert seen[0].shape == (2, 4) and (seen[0][:, 3] == 0.5).all()  # observation and action

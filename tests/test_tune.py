"""The search for settings: trials of a stand-in for a script, what they leave, and how they end."""

import dataclasses
from itertools import pairwise
import json
import os
from pathlib import Path
import platform
import signal
import subprocess
import sys
import threading
import time

from common.errors import UserError
import optuna
import psutil
import pytest

from benchmarks import job, ranges, records, settings, studies, tune, workers
from tests.conftest import ROOT, error_line

STAND_IN = """
import argparse, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
for name in ("seed", "total-timesteps", "eval-frequency"):
    parser.add_argument("--" + name, type=int)
parser.add_argument("--learning-rate", type=float)
parser.add_argument("--runs-dir", type=pathlib.Path)
given, _ = parser.parse_known_args()
with open(pathlib.Path(__file__).parents[1] / "commands", "a") as file:
    print(*sys.argv[1:], file=file)
folder = given.runs_dir / "run"
folder.mkdir(parents=True)
print("run folder:", folder, flush=True)
if given.learning_rate == 1.0 and given.seed == 1000:
    sys.exit("error: this one fails")
value = 100 * given.learning_rate + given.seed - 1000
with open(folder / "evaluations.csv", "w", buffering=1) as file:
    print("global_step,seconds,mean_return,std_return", file=file)
    for step in range(given.eval_frequency, given.total_timesteps + 1, given.eval_frequency):
        print(f"{step + 7},0.1,{value},1.0", file=file)
ended = pathlib.Path(__file__).parents[1] / "ended"
if given.learning_rate == 0.01:
    signal.signal(signal.SIGTERM, lambda *_: (ended.touch(), sys.exit(1)))
if given.learning_rate in (0.01, 1.0):
    time.sleep(300)
for _ in range(600 * (given.learning_rate == 0.9)):  # until the other one is ended, and a little longer
    if ended.exists():
        time.sleep(1)
        break
    time.sleep(0.1)
(folder / "evaluation.json").write_text('{"returns": [%f]}' % value)
"""
TABLE = """
[q_learning."CartPole-v1"]
total_timesteps = 1000
bins = [8]
learning_rate = { low = 0.01, high = 1.0 }
"""


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Run tune.py on the stand-in, whose return is 100 learning_rate + seed - 1000; return the rows."""
    (tmp_path / "q_learning").mkdir()
    (tmp_path / "q_learning" / "q_learning.py").write_text(STAND_IN)
    (tmp_path / "tune.toml").write_text(TABLE)
    monkeypatch.setattr(job, "ROOT", tmp_path)
    monkeypatch.setattr(workers, "INTERVAL", 0.05)

    def run(trials, **options):
        given = {"storage": f"sqlite:///{tmp_path}/study.db", "results": tmp_path, "workers": 2}
        chosen = tune.Options(trials=trials, ranges_file=tmp_path / "tune.toml", **given | options)
        assert tune.main(chosen) == 0
        return records.read_csv(tmp_path / "tune" / "q_learning__CartPole-v1.csv")

    return run


@pytest.fixture
def next_settings(monkeypatch):
    """Let the trials after the first one have these learning rates."""

    def enqueue(*rates):
        open_study = studies.open_study

        def opened(*args):
            study = open_study(*args)
            for rate in rates:
                study.enqueue_trial({"learning_rate": rate})
            return study

        monkeypatch.setattr(studies, "open_study", opened)

    return enqueue


@pytest.fixture
def open_search(tmp_path):
    """Open the study of a small search without running it."""
    path = tmp_path / "tune.toml"
    path.write_text(TABLE)
    (search,) = ranges.read(path, (), (), None)

    def opened(made_with=None):
        storage, pruner = f"sqlite:///{tmp_path}/study.db", studies.pruner("none", 100)
        return search, studies.open_study(search, storage, pruner, made_with or {"x": 1}, tmp_path / "tune")

    return opened


def commands(tmp_path):
    """Return the options that the stand-in was called with, by name."""
    lines = [line.split() for line in (tmp_path / "commands").read_text().splitlines()]
    return [dict(pairwise(line)) for line in lines]


def scripts_of(tmp_path):
    """Return the processes of the stand-in that are still running."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and str(tmp_path) in child.cwd()]


def test_trials_begin_with_the_base_setting_and_each_has_a_row(tuned, next_settings, tmp_path, capsys):
    next_settings(0.3, 0.4)  # random ones would have scores that differ when rounded twice
    rows = tuned(trials=3)
    assert [(row["trial"], row["state"]) for row in rows] == [(str(k), "complete") for k in range(3)]
    assert rows[0]["learning_rate"] == "0.2"  # the default of the script
    assert rows[0]["score"] == "20.5" and rows[0]["scores"] == "20.00 21.00"  # seeds 1000 and 1001
    assert rows[0]["last_step"] == "1000" and "tensorflow" in rows[0]["versions"]
    best = max(rows, key=lambda row: float(row["score"]))
    printed = capsys.readouterr().out
    score = f"{float(best['score']):.1f} (trial {best['trial']}), base setting: 20.5"
    assert f"3 complete, 0 pruned, 0 failed; mean return with seeds 1000, 1001: {score}" in printed
    table = settings.tomllib.loads(printed[printed.index("[q_learning.") :])
    expected = {"total_timesteps": 1000, "bins": [8], "learning_rate": json.loads(best["learning_rate"])}
    assert table == {"q_learning": {"CartPole-v1": expected}}
    called = commands(tmp_path)
    assert sorted(command["--seed"] for command in called) == ["1000"] * 3 + ["1001"] * 3
    assert all(command["--bins"] == "8" and command["--eval-frequency"] == "100" for command in called)
    assert {command["--learning-rate"] for command in called} == {row["learning_rate"] for row in rows}


def test_pruning_ends_the_scripts_of_a_trial_and_the_search_goes_on(tuned, next_settings, tmp_path):
    next_settings(0.3, 0.4, 0.5, 0.6, 0.01, 0.7)
    rows = tuned(trials=7)  # the sixth would take minutes
    assert [row["state"] for row in rows] == ["complete"] * 5 + ["pruned", "complete"]
    assert rows[5]["score"] == "1.5" and rows[5]["scores"] == ""  # the mean at the last evaluation
    assert scripts_of(tmp_path) == []


def test_more_workers_run_trials_side_by_side_and_pruning_one_leaves_the_others_alone(
    tuned, next_settings, tmp_path
):
    next_settings(0.01, 0.9, 0.3, 0.4, 0.5, 0.6)
    rows = tuned(trials=7, workers=6)
    # the second would take minutes; it is pruned once five are complete, while the third one waits for that
    assert [row["state"] for row in rows] == ["complete", "pruned"] + ["complete"] * 5
    assert scripts_of(tmp_path) == []


def test_ctrl_c_ends_the_trials_that_run_side_by_side(tuned, next_settings, tmp_path):
    def interrupt():
        while not (tmp_path / "commands").exists() or len(commands(tmp_path)) < 6:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    next_settings(0.01, 0.01)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            tuned(trials=3, workers=4)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, handler)
    rows = records.read_csv(tmp_path / "tune" / "q_learning__CartPole-v1.csv")
    assert [row["state"] for row in rows] == ["complete", "interrupted", "interrupted"]
    assert scripts_of(tmp_path) == []


def test_the_base_setting_is_never_pruned(tuned, monkeypatch):
    monkeypatch.setattr(studies, "pruner", lambda *_: optuna.pruners.ThresholdPruner(lower=1e9))
    rows = tuned(trials=1)
    assert rows[0]["state"] == "complete"


def test_a_failed_run_fails_its_trial_only_and_ends_its_other_runs(tuned, next_settings, tmp_path):
    next_settings(1.0, 0.3)
    rows = tuned(trials=3)  # the other seed of the second trial would take minutes
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"]
    assert "error: this one fails" in rows[1]["error"] and rows[1]["score"] == ""
    assert scripts_of(tmp_path) == []


def test_a_repeated_command_continues_the_numbering_and_repeats_nothing(tuned, tmp_path):
    first = tuned(trials=2)
    count = len(commands(tmp_path))
    assert tuned(trials=2) == first and len(commands(tmp_path)) == count == 4
    more = tuned(trials=4)
    assert more[:2] == first and [row["trial"] for row in more] == ["0", "1", "2", "3"]
    assert [row["learning_rate"] for row in more].count("0.2") == 1  # the base setting, once
    with pytest.raises(UserError, match="have other options, ranges, seeds, or evaluations"):
        tuned(trials=5, seeds=(1000, 1001, 1002))
    (tmp_path / "tune.toml").write_text(TABLE.replace("[8]", "[9]"))
    with pytest.raises(UserError, match="have other options, ranges, seeds, or evaluations"):
        tuned(trials=5)


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/journal.log"])
def test_an_interrupted_trial_is_repeated(storage, tuned, tmp_path, monkeypatch):
    storage = storage.format(tmp_path)
    run_trial = tune.run_trial

    def interrupted(trial, *args):
        if trial.number == 1:
            raise KeyboardInterrupt
        return run_trial(trial, *args)

    monkeypatch.setattr(tune, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(trials=3, storage=storage)
    rows = tuned(trials=3, storage=storage)
    assert [row["state"] for row in rows] == ["complete", "interrupted", "complete", "complete"]
    assert rows[2]["learning_rate"] == rows[1]["learning_rate"]


def gone():
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("process", "repeated"),
    [
        (lambda: [platform.node(), gone(), 1.0], True),
        (lambda: [platform.node(), os.getpid(), 1.0], True),  # another process had this id
        (lambda: [platform.node(), os.getpid(), psutil.Process().create_time()], False),
        (lambda: ["another machine", gone(), 1.0], False),
    ],
)
def test_a_trial_of_a_killed_process_is_repeated(process, repeated, open_search, tmp_path):
    search, study = open_search()
    trial = study.ask()
    search.suggest(trial)
    trial.set_user_attr("process", process())
    _, study = open_search()
    states = [studies.state(trial) for trial in study.get_trials()]
    assert states == (["interrupted", "waiting"] if repeated else ["running"])
    if repeated:
        assert studies.next_trial(study, search, 2, tmp_path).params == trial.params


def test_running_trials_of_other_processes_count(open_search, tmp_path):
    search, study = open_search()
    first, second = (studies.next_trial(study, search, 2, tmp_path) for _ in range(2))
    assert search.is_base(first.params) and not search.is_base(second.params)
    assert studies.next_trial(study, search, 2, tmp_path) is None
    studies.repeat(study, second)
    assert studies.next_trial(study, search, 2, tmp_path).params == second.params


def test_a_mean_is_reported_when_all_seeds_have_reached_the_step(tmp_path):
    header = "global_step,seconds,mean_return,std_return\n"
    for seed, rows in (
        (1000, "1024,1,10,0\n2048,2,20,0\n3072,3,30,0\n"),
        (1001, "1024,1,30,0\n2048,2,60,0\n"),
    ):
        (tmp_path / f"{seed}" / "run").mkdir(parents=True)
        (tmp_path / f"{seed}" / "run" / "evaluations.csv").write_text(header + rows)
    assert tune.mean_returns(tmp_path, (1000, 1001), 1000) == {1000: 20.0, 2000: 40.0}
    assert tune.mean_returns(tmp_path, (1000, 1001, 1002), 1000) == {}


def test_a_preset_leaves_a_variant_what_it_is(tmp_path):
    line = 'preset = "trpo_mujoco"\ntarget_kl = { low = 0.01, high = 0.1 }'
    (tmp_path / "tune.toml").write_text(f'[trpo."Ant-v5 without contact forces"]\n{line}\n')
    (search,) = ranges.read(tmp_path / "tune.toml", (), (), None)
    assert search.options["env_kwargs"] == {"include_cfrc_ext_in_observation": False}
    assert search.base == {"target_kl": 0.02}


def test_values_are_stored_and_read_back():
    given = {"a": {"choices": [[64, 64], [8]]}, "b": {"low": 0.0, "high": 1.0}, "c": {"low": 1, "high": 9}}
    given |= {"d": {"choices": [True, False]}, "e": {"choices": ["none", 0.5]}}
    search = ranges.Search("q_learning", "CartPole-v1", "CartPole-v1", {}, given)
    values = {"a": [64, 64], "b": 0.25, "c": 3, "d": False, "e": "none"}
    assert search.values(search.params(values)) == values
    study = optuna.create_study()
    study.enqueue_trial(search.params(values))
    trial = study.ask()
    search.suggest(trial)
    assert search.values(trial.params) == values
    assert type(trial.params["c"]) is int
    assert search.values({"b": 0.123456789}) == {"b": 0.123457}


def test_a_preset_or_a_row_of_learning_toml_is_the_base(tmp_path):
    path = tmp_path / "tune.toml"
    path.write_text(
        "[ranges.shared]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n"
        '[ppo."Hopper-v5"]\nranges = "shared"\ngamma = 0.98\n'
        '[dqn."CartPole-v1"]\npreset = "dqn_acrobot"\nranges = "shared"\n'
    )
    hopper, cartpole = ranges.read(path, (), (), None)
    row = next(task for task in settings.TASKS if (task.script, task.env_id) == ("ppo", "Hopper-v5"))
    assert hopper.options == row.options | {"gamma": 0.98} and hopper.base == {"learning_rate": 3e-4}
    assert cartpole.options == settings.PRESETS["dqn_acrobot"] and cartpole.base == {"learning_rate": 1e-3}
    (other,) = ranges.read(path, ("a2c",), ("CartPole-v1",), "shared")
    assert (other.options, list(other.ranges)) == ({}, ["learning_rate"])


def test_every_table_of_the_settings_can_be_searched():
    path = tune.Options().ranges_file
    assert ranges.read(path, (), (), None)
    serves = {"dqn": ("dqn", "double_dqn", "dueling_dqn"), "off_policy": ("ddpg", "td3", "sac")}
    tuned = set()
    for name in settings.read_toml(path)["ranges"]:
        for script in serves.get(name, (name,)):
            tasks = settings.select(settings.TASKS, (script,), ())
            (search,) = ranges.read(path, (script,), (tasks[0].title,), name)
            tuned.add(script)
            for task in tasks:  # without making its environment, which may be missing
                for option, value in dataclasses.replace(search, options=task.options).base.items():
                    assert ranges._contains(search.ranges[option], value), (task, option)
    assert tuned == set(settings.SCRIPTS)


def test_a_variant_of_a_task_is_tuned_in_files_of_its_own():
    name = "Humanoid-v5 without contact forces"
    (search,) = ranges.read(tune.Options().ranges_file, ("td3",), (name,), "off_policy")
    assert search.env_id == "Humanoid-v5" and search.base["batch_size"] == 256  # that of its preset
    assert search.name == "td3__Humanoid-v5_without_contact_forces"
    study = optuna.create_study()
    params = search.params(search.base)
    kinds = {name: optuna.distributions.CategoricalDistribution([value]) for name, value in params.items()}
    study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=1))
    table = settings.tomllib.loads(tune.summary(study, search, (1000,)).partition("\n\n")[2])
    assert table["td3"][name]["env_id"] == "Humanoid-v5" and table["td3"][name]["batch_size"] == 256


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": (7, 1000)}, "--seeds must be 1000 or more"),
        ({"seeds": ()}, "--seeds must be 1000 or more"),
        ({"trials": 0}, "--trials is 0: it must be at least 1"),
        ({"eval_frequency": 0}, "--eval-frequency is 0"),
        ({"eval_episodes": 0}, "--eval-episodes is 0"),
        ({"scratch": Path("/no/folder")}, "--scratch /no/folder is not a folder"),
        ({"scripts": ("sarsa",)}, "there is no script sarsa"),
        ({"envs": ("Pendulum-v1",)}, "has no table for Pendulum-v1"),
        ({"ranges": "ppo"}, "--ranges ppo needs --scripts and --envs"),
        ({"ranges": "x", "scripts": ("dqn",), "envs": ("CartPole-v1",)}, "there is no table of ranges x"),
        ({"ranges": "ppo", "scripts": ("ppo",), "envs": ("Nowhere-v0",)}, "cannot create 'Nowhere-v0'"),
        (
            {"storage": "/no/folder/journal", "scripts": ("q_learning",)},
            "--storage cannot be opened.*journal",
        ),
        ({"storage": "mydb://ann:secret@host/x", "scripts": ("q_learning",)}, "--storage cannot be opened"),
        ({"ranges_file": Path("/no/file")}, "cannot read /no/file"),
    ],
)
def test_wrong_options_are_refused_on_one_line(options, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        tune.main(tune.Options(**{"results": tmp_path} | options))
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rate = { low = 0.5, high = 0.1 }", "low = 0.5, which is not below high = 0.1"),
        ("learning_rate = { low = 0.0, high = 0.5, log = true }", "a logarithmic range begins above 0"),
        ("learning_rate = { low = 0.1, high = 7.0 }", "--learning-rate is 7.0: it must be"),
        ("learning_rate = { low = 0.3, high = 0.5 }", "is 0.2 in the base setting, outside of its range"),
        ("learning_rate = { low = 0, high = 1 }", "is 0.2 in the base setting, outside of its range"),
        ("learning_rate = { low = 0.1 }", "learning_rate needs { low = …"),
        ("learning_rate = { low = 0.1, high = 0.5, step = 0.1 }", "learning_rate needs { low = …"),
        ("bins = { choices = [] }", "bins needs { low = …"),
        ("bins = { choices = [[9], [0]] }", "--bins is 0: it must be"),
        (
            "lerning_rate = { low = 0.1, high = 0.5 }",
            "no option --lerning-rate: did you mean --learning-rate?",
        ),
        ("lerning_rate = 0.1", "no option --lerning-rate: did you mean --learning-rate?"),
        ("seed = { low = 0, high = 9 }", "seed is not allowed here"),
        ("eval_episodes = 3", "eval_episodes is not allowed here"),
        ('preset = "nothing"', "there is no preset nothing"),
        ("gamma = 0.9", "there is no range to search"),
        ("gamma =", "cannot read"),
    ],
)
def test_wrong_ranges_are_refused_on_one_line(line, words, tmp_path):
    (tmp_path / "tune.toml").write_text(f'[q_learning."CartPole-v1"]\n{line}\n')
    with pytest.raises(UserError, match=words) as error:
        ranges.read(tmp_path / "tune.toml", (), (), None)
    assert "\n" not in str(error.value)


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tune, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -r benchmarks/requirements\.txt"):
        tune.main(tune.Options())


def test_a_mistake_ends_the_command_with_code_2():
    command = [sys.executable, "benchmarks/tune.py", "--seeds", "999"]
    process = subprocess.run(command, cwd=ROOT, env=job.environment(0), capture_output=True, text=True)
    assert "--seeds must be 1000 or more" in error_line(process)


def test_ray_ends_the_scripts_when_the_watch_raises(monkeypatch):
    pytest.importorskip("ray")

    def watch():
        found = [process for process in psutil.Process().children(recursive=True) if is_script(process)]
        if len(found) == 2:
            running.extend(found)
            raise optuna.TrialPruned

    running = []
    arguments = [f"--total-timesteps 100000000 --seed {seed}" for seed in (1000, 1001)]
    with workers.fan_out(2, (), 0) as run_all:
        with pytest.raises(optuna.TrialPruned):
            list(run_all(lambda given: job.run_script("q_learning", given, 1), arguments, watch=watch))
        psutil.wait_procs(running, timeout=20)
        assert not any(process.is_running() for process in running)
        ((_, result),) = run_all(lambda given: given, ["Ray is still there"])
        assert result() == "Ray is still there"


def is_script(process):
    """Whether a process is a run of Q-learning."""
    try:
        return any(argument.endswith("/q_learning/q_learning.py") for argument in process.cmdline())
    except psutil.Error:
        return False


def test_options_of_the_environment_are_fixed_and_shown_as_toml(tmp_path):
    line = 'env_kwargs = { is_slippery = false, map_name = "8x8" }\ngamma = { low = 0.9, high = 0.99 }'
    (tmp_path / "tune.toml").write_text(f'[q_learning."FrozenLake-v1"]\n{line}\n')
    (search,) = ranges.read(tmp_path / "tune.toml", (), (), None)
    assert list(search.ranges) == ["gamma"]
    study = optuna.create_study()
    study.add_trial(
        optuna.trial.create_trial(
            params={"gamma": 0.95},
            distributions={"gamma": optuna.distributions.FloatDistribution(0.9, 0.99)},
            value=1,
        )
    )
    table = settings.tomllib.loads(tune.summary(study, search, (1000,)).partition("\n\n")[2])
    assert table["q_learning"]["FrozenLake-v1"]["env_kwargs"] == {"is_slippery": False, "map_name": "8x8"}


def test_a_trial_of_a_study_without_commits_still_has_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "1234567")
    gamma = {"gamma": {"low": 0.9, "high": 0.99}}
    search = ranges.Search("q_learning", "CartPole-v1", "CartPole-v1", {}, gamma)
    study = optuna.create_study()
    distributions = {"gamma": optuna.distributions.FloatDistribution(0.9, 0.99)}
    for origin in ({"date": "2026-01-01"}, records.origin()):
        about = {"params": {"gamma": 0.95}, "user_attrs": {"origin": origin}}
        study.add_trial(optuna.trial.create_trial(value=1, distributions=distributions, **about))
    records.write_csv(tmp_path / "trials.csv", studies.table(study, search))
    old, new = records.read_csv(tmp_path / "trials.csv")
    assert (old["date"], old["commit"], new["commit"]) == ("2026-01-01", "", "1234567")

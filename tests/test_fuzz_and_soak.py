"""The two programs fuzz.py and soak.py: a few cases, a short run, and how they judge."""

import multiprocessing
import random
import subprocess
import sys

import pytest

from tests import soak
from tests.conftest import ROOT

BAR = "\r 40%|####      | 12/30 [00:00<00:00, 99.0step/s]"
forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")


@forks
def test_random_cases_pass(tmp_path):
    command = [sys.executable, ROOT / "tests" / "fuzz.py", "--scripts", "q_learning", "--cases", "20"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, (process.stdout, process.stderr)
    assert process.stdout.startswith("q_learning: 20 cases, ") and process.stdout.endswith(" 0 failed\n")
    assert not list(tmp_path.iterdir())


def test_equal_seeds_give_equal_cases(script, module):
    from tests import fuzz

    first, second = (
        [fuzz.draw_case(random.Random(f"0 {k}"), module(script).Config) for k in range(20)] for _ in range(2)
    )
    assert first == second and len({tuple(case) for case in first}) == 20


@pytest.mark.parametrize(
    ("code", "err", "unchanged", "kind"),
    [
        (0, BAR, False, "trained"),
        (2, "error: no\n", True, "refused"),
        (2, f"{BAR}\nx.py:3: RuntimeWarning: overflow\n  x * y\nerror: no\n", True, "refused"),
        (2, "error: no\n", False, "failed"),
        (2, "error: no\nand more\n", True, "failed"),
        (2, "no\n", True, "failed"),
        (1, "error: no\n", True, "failed"),
        (0, 'Traceback (most recent call last):\n  File "x.py"\n', True, "failed"),
        (-11, "", True, "failed"),
        (None, BAR, False, "failed"),
    ],
)
def test_how_a_case_is_judged(code, err, unchanged, kind):
    from tests import fuzz

    assert fuzz.judge(code, "", err, unchanged).kind == kind
    if kind == "failed" and not unchanged and code == 2:
        assert fuzz.judge(code, "run folder: runs/x\n", err, unchanged).kind == "refused"


@forks
def test_a_case_without_end_is_stopped(tmp_path):
    from tests import fuzz

    worker = fuzz.Worker("q_learning")
    code, *_ = worker.run(["--total-timesteps=1e9"], tmp_path, timeout=5)
    assert code is None and not worker.process.is_alive() and list(tmp_path.glob("runs/*"))


def test_a_short_run_is_watched(capsys, monkeypatch):
    monkeypatch.setattr(soak, "INTERVAL", 0.02)
    assert soak.soak("q_learning", 100_000)
    name, steps, _, before, after, growth, files, files_at_end = capsys.readouterr().out.split()
    assert (name, steps) == ("q_learning", "100,000") and growth.endswith("%")
    assert 20 < float(before) <= 1.02 * float(after) < 1000 and 3 <= int(files_at_end) <= int(files)


def test_memory_and_files_that_grow_are_found(capsys, monkeypatch):
    samples = [soak.Sample(k / 10, k, 100.0 + 0.05 * k, 7) for k in range(1, 100)]
    for limit, files, kept in [(0.02, 0, False), (0.04, 0, True), (0.04, 1, False)]:
        late = [sample._replace(files=7 + files) if sample.step >= 75 else sample for sample in samples]
        monkeypatch.setattr(soak, "watch", lambda *_, late=late: iter(late))
        monkeypatch.setattr(soak, "MAX_GROWTH", limit)
        assert soak.soak("dqn", 100) == kept
        assert capsys.readouterr().out.rstrip().endswith("grows") != kept


def test_a_run_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(soak, "ROOT", ROOT / "nothing")
    with pytest.raises(RuntimeError, match="dqn failed"):
        soak.soak("dqn", 100)


def test_every_script_is_soaked(script):
    assert script in soak.STEPS

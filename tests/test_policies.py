"""The trained policies in policies/: each one solves its task, and the gallery says how to play it."""

import dataclasses
import json
from pathlib import Path
import re
import subprocess

from common.cli import parse_config
from common.saved_model import evaluate_saved_model
from moviepy import ImageSequenceClip
import numpy as np
from PIL import Image
import pytest

from benchmarks import animation
from benchmarks.options import matches, of_learning
from benchmarks.policies import POLICIES
from benchmarks.settings import THRESHOLDS
from tests.conftest import ROOT, SCRIPTS

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def gallery():
    """The rows of the table of policies/README.md, cell by cell."""
    lines = (POLICIES / "README.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| !")]


def saved_options(script):
    return json.loads((POLICIES / script / "config.json").read_text())


def test_a_policy_solves_its_task_with_the_command_of_the_gallery(script, module, gallery, monkeypatch):
    (cells,) = (row for row in gallery if f"]({script}/" in row[0])
    _, _, env_id, shown, command = cells
    path, *arguments = command.strip("`").split()[1:]
    assert path == f"{script}/{script}.py" and env_id == saved_options(script)["env_id"]

    monkeypatch.chdir(ROOT)
    config = parse_config(module(script).Config, [*arguments, "--eval-episodes", "20"])
    played = []

    def evaluate(*args):
        played.append(module(script).evaluate(*args))
        return played[0]

    evaluate_saved_model(config, evaluate)
    assert played[0].mean() >= THRESHOLDS[env_id]
    assert played[0][0] == pytest.approx(float(shown), abs=0.1)  # the animation shows the first episode


def test_a_policy_was_trained_with_todays_defaults(script, module):
    today = of_learning(dataclasses.asdict(module(script).Config()))
    saved = saved_options(script)
    assert matches(json.dumps(saved), json.loads(json.dumps(today)))
    assert saved["algorithm"] == script and saved["seed"] == 0


def test_a_policy_names_no_path(script):
    assert "/" not in (POLICIES / script / "config.json").read_text()


def test_an_animation_moves_and_is_small(script):
    path = POLICIES / script / "episode.gif"
    assert path.stat().st_size <= 150_000
    with Image.open(path) as image:
        assert image.n_frames > 20  # equal frames are stored once


def test_the_folder_is_small_and_complete(gallery):
    assert sorted(re.search(r"\((\w+)/episode.gif\)", row[0])[1] for row in gallery) == SCRIPTS
    files = [path for path in POLICIES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3 * MEGABYTE


@pytest.mark.parametrize(("seconds", "frames"), [(None, 30), (1.0, 15), (9.0, 30)])
def test_an_animation_shows_the_first_seconds_of_an_episode(seconds, frames, tmp_path, monkeypatch):
    """The episode lasts 2 seconds, and its frames become brighter."""

    def play(command, **options):
        images = [np.full((40, 60, 3), 4 * k, np.uint8) for k in range(60)]
        folder = Path(command[command.index("--evaluate") + 1], "videos")
        folder.mkdir()
        ImageSequenceClip(images, fps=30).write_videofile(str(folder / "episode.mp4"), logger=None)
        return subprocess.CompletedProcess(command, 0, "evaluation: mean return 7.5 ± 0.0 over 1 episodes\n")

    monkeypatch.setattr(animation.subprocess, "run", play)
    (tmp_path / "config.json").write_text('{"algorithm": "dqn"}')
    animation.main(animation.Options(run=tmp_path, seconds=seconds))
    with Image.open(tmp_path / "episode.gif") as image:
        assert (image.n_frames, image.width) == (frames, animation.WIDTH)
        brightest = []
        for k in range(image.n_frames):
            image.seek(k)
            brightest.append(np.array(image.convert("L")).mean())
        assert brightest == sorted(brightest)
        assert brightest[-1] == pytest.approx(8 * frames, abs=12)

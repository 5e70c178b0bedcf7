"""Animations of trained agents: the first evaluation episode of each, as a GIF.

    python benchmarks/animation.py                                                # all policies: the gallery
    python benchmarks/animation.py runs/<run> --to benchmarks/results/agent.gif   # the one of the front page
    python benchmarks/animation.py runs/<run> --to benchmarks/results/pong.gif --seconds 20

The scripts play and record their saved models; this program converts the videos. For the gallery, it writes
policies/<script>/episode.gif and the table of policies/README.md.
"""

from dataclasses import dataclass
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile

from common.run_folder import load_config
from moviepy import VideoFileClip
from PIL import Image
import tyro

from benchmarks import cli, job
from benchmarks.cells import markdown
from benchmarks.policies import POLICIES
from benchmarks.records import ROOT
from benchmarks.settings import COLLECTION, SCRIPTS

WIDTH, COLORS, FRAMES_PER_SECOND = 300, 32, 15  # of the front page
SMALL, FEW = 200, 16  # width and colors in the gallery
HEADER = "| episode |"  # of the table of policies/README.md, the last part of the page
SCENES = {"CartPole-v1": "A cart balances a pole", "Pendulum-v1": "A pendulum swings up and stays upright"}


@dataclass
class Options:
    """What to show, and where to save it."""

    run: tyro.conf.Positional[Path | None] = None
    """Run folder of a trained agent (default: all policies, for the gallery)."""
    to: Path | None = None
    """GIF file of that run (default: episode.gif in the run folder)."""
    seed: int = 0
    """Seed of the episode."""
    seconds: float | None = None
    """Seconds of that run's episode to show (default: all)."""


def animate(
    run: Path, target: Path, seed: int, width: int, colors: int, seconds: float | None = None
) -> float:
    """Play an episode with a saved model, write it or its first seconds as a GIF, and return its return."""
    script = load_config(run)["algorithm"]
    with tempfile.TemporaryDirectory() as scratch:
        for file in [run / "config.json", *run.glob("model.*")]:
            shutil.copy(file, scratch)
        command = [sys.executable, f"{script}/{script}.py", "--evaluate", scratch, "--capture-video"]
        command += ["--eval-episodes", "1", "--seed", str(seed)]
        streams = {"check": True, "text": True, "stdout": subprocess.PIPE}
        output = subprocess.run(command, cwd=ROOT, env=job.environment(0), **streams).stdout
        (video,) = Path(scratch, "videos").glob("*.mp4")
        with VideoFileClip(str(video)) as clip:
            shown = clip.subclipped(0, min(seconds or clip.duration, clip.duration))
            frames = [Image.fromarray(frame) for frame in shown.iter_frames(fps=FRAMES_PER_SECOND)]
    size = width, round(frames[0].height * width / frames[0].width)
    first, *others = [frame.resize(size).quantize(colors) for frame in frames]
    first.save(target, save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)
    print(f"{target}: {len(frames)} frames, {target.stat().st_size:,} bytes", flush=True)
    return float(re.search(r"evaluation: mean return (\S+)", output)[1])


def row(script: str, seed: int) -> dict[str, str]:
    """Animate the policy of a script; return its row of the gallery."""
    run, name = POLICIES / script, SCRIPTS[script].name
    env_id = load_config(run)["env_id"]
    reached = animate(run, run / "episode.gif", seed, SMALL, FEW)
    return {
        "episode": f"![{SCENES[env_id]}, played by {name}]({script}/episode.gif)",
        "script": f"[{name}](../{script}/README.md), [{script}.py](../{script}/{script}.py)",
        "task": env_id,
        "return": f"{reached:.1f}",
        "command": f"`python {script}/{script}.py --evaluate policies/{script}`",
    }


def main(options: Options) -> None:
    """Animate a run, or all policies."""
    if options.run:
        target = options.to or options.run / "episode.gif"
        animate(options.run, target, options.seed, WIDTH, COLORS, options.seconds)
        return
    page = POLICIES / "README.md"
    text = page.read_text(encoding="utf-8").partition(HEADER)[0]
    table = markdown([row(script, options.seed) for script in COLLECTION])
    page.write_text(f"{text}{table}\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main, Options)

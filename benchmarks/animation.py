"""The animation of the front page: a trained agent's first evaluation episode as a GIF.

    python ppo/ppo.py --env-id LunarLander-v3 ...            # leaves runs/<run>; options: settings.py
    python benchmarks/animation.py runs/<run>

The script itself plays its saved model and records it; here the video becomes small enough for a page.
"""

from dataclasses import dataclass
from pathlib import Path
import subprocess
import sys

from common.options import load_config
from moviepy import VideoFileClip
from PIL import Image
import tyro

from benchmarks import job


@dataclass
class Options:
    """What is shown, and how."""

    run: tyro.conf.Positional[Path]
    """Run folder of the trained agent."""
    seed: int = 0
    """Which first episode."""
    width: int = 300
    """Pixels from left to right."""
    frames_per_second: int = 15
    """Pictures a second; the episode keeps its own pace."""
    colours: int = 32
    """Colours that are left."""
    results: Path = job.RESULTS
    """Folder for agent.gif."""


def main(options: Options) -> None:
    """Play, record, and write agent.gif."""
    script = load_config(options.run)["algorithm"]
    command = [sys.executable, f"{script}/{script}.py", "--evaluate", str(options.run.resolve())]
    command += ["--capture-video", "--eval-episodes", "1", "--seed", str(options.seed)]
    subprocess.run(command, cwd=job.ROOT, env=job.environment(0), check=True)
    video = max((options.run / "videos").glob("*.mp4"), key=lambda path: path.stat().st_mtime)
    with VideoFileClip(str(video)) as clip:
        frames = [Image.fromarray(frame) for frame in clip.iter_frames(fps=options.frames_per_second)]
    size = options.width, round(frames[0].height * options.width / frames[0].width)
    first, *others = [frame.resize(size).quantize(options.colours) for frame in frames]
    target = options.results / "agent.gif"
    first.save(
        target, save_all=True, append_images=others, duration=1000 // options.frames_per_second, loop=0
    )
    print(f"{target}: {len(frames)} frames, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

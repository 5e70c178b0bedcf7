"""Animation of the front page: the first evaluation episode of a trained agent, as a GIF.

    python ppo/ppo.py --env-id LunarLander-v3 ...    # options: learning.toml
    python benchmarks/animation.py runs/<run>

The script plays and records its saved model; this program converts the video.
"""

from dataclasses import dataclass
import json
from pathlib import Path
import subprocess
import sys

from moviepy import VideoFileClip
from PIL import Image
import tyro

from benchmarks import job, records

WIDTH, COLOURS, FRAMES_PER_SECOND = 300, 32, 15


@dataclass
class Options:
    """What to show, and how."""

    run: tyro.conf.Positional[Path]
    """Run folder of the trained agent."""
    seed: int = 0
    """Seed of the episode."""
    results: Path = records.RESULTS
    """Folder of agent.gif."""


def main(options: Options) -> None:
    """Play, record, and write agent.gif."""
    script = json.loads((options.run / "config.json").read_text())["algorithm"]
    command = [sys.executable, f"{script}/{script}.py", "--evaluate", str(options.run.resolve())]
    command += ["--capture-video", "--eval-episodes", "1", "--seed", str(options.seed)]
    subprocess.run(command, cwd=records.ROOT, env=job.environment(0), check=True)
    video = max((options.run / "videos").glob("*.mp4"), key=lambda path: path.stat().st_mtime)
    with VideoFileClip(str(video)) as clip:
        frames = [Image.fromarray(frame) for frame in clip.iter_frames(fps=FRAMES_PER_SECOND)]
    size = WIDTH, round(frames[0].height * WIDTH / frames[0].width)
    first, *others = [frame.resize(size).quantize(COLOURS) for frame in frames]
    target, duration = options.results / "agent.gif", 1000 // FRAMES_PER_SECOND
    first.save(target, save_all=True, append_images=others, duration=duration, loop=0)
    print(f"{target}: {len(frames)} frames, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

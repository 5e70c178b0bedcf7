"""Soak test: long runs of the scripts, watched for growing memory and for files that stay open.

    python tests/soak.py                        # all scripts, one after another: about 20 minutes
    python tests/soak.py --scripts dqn td3 --fraction 0.1

Every script runs with its defaults, 4 environments, and 2,000,000 steps; those with a replay buffer, with
200,000. Once a quarter of the steps is done, everything that may grow has grown: updates are compiled,
checkpoints and metrics have been written, buffers are full (except those of DDPG, TD3, and SAC, which are
full at the end and take 7 MB). From then on a run may take at most 2 % more memory and no more open files.
Ends with exit code 1 if one does.

Prints a line per script:

    steps, seconds       of the training, without start and evaluation
    MB at 25 %           resident memory after a quarter of the steps
    MB at the end        the maximum over the last quarter of the steps
    growth               from the one to the other
    files at 25 %, end   the fewest open file handles in the second and the last quarter of the steps
"""

import argparse
from collections.abc import Iterator
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
STEPS = {"q_learning": 2_000_000, "reinforce": 2_000_000, "a2c": 2_000_000, "ppo": 2_000_000}
STEPS |= {"trpo": 2_000_000, "dqn": 200_000, "double_dqn": 200_000, "dueling_dqn": 200_000}
STEPS |= {"ddpg": 200_000, "td3": 200_000, "sac": 200_000}
MAX_GROWTH = 0.02
INTERVAL = 0.2  # seconds between two samples


class Sample(NamedTuple):
    """A look at a running script."""

    seconds: float
    step: int
    megabytes: float
    files: int


def watch(script: str, steps: int, folder: Path) -> Iterator[Sample]:
    """Run a script in `folder`; yield samples of it from its first row of metrics to its last.

    Raises:
        RuntimeError: if the run fails.
    """
    command = [sys.executable, str(ROOT / script / f"{script}.py"), "--num-envs", "4"]
    command += ["--total-timesteps", str(steps), "--eval-episodes", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "output.txt").open("w") as output:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        while process.poll() is None:
            time.sleep(INTERVAL)
            step = last_step(folder)
            try:
                sample = Sample(time.monotonic(), step, process.memory_info().rss / 1e6, open_files(process))
            except psutil.NoSuchProcess:  # it has ended since
                break
            if 0 < step < steps:
                yield sample
        if process.wait():
            raise RuntimeError(f"{script} failed:\n{(folder / 'output.txt').read_text()[-2000:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def last_step(folder: Path) -> int:
    """Return the step of the last complete row of metrics.csv, 0 before there is one."""
    for path in folder.glob("runs/*/metrics.csv"):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1000))
            rows = file.read().split(b"\n")[1:-1]  # the first may be cut, the last is empty or half written
        if rows and rows[-1].split(b",")[0].isdigit():
            return int(rows[-1].split(b",")[0])
    return 0


def open_files(process: psutil.Process) -> int:
    """Return the number of open file handles."""
    return process.num_handles() if sys.platform == "win32" else process.num_fds()


def soak(script: str, steps: int) -> bool:
    """Run a script, print its line of the table; return whether it stays within the limits."""
    with tempfile.TemporaryDirectory() as folder:
        samples = list(watch(script, steps, Path(folder)))
    quarters = [[sample for sample in samples if sample.step * 4 // steps == k] for k in range(4)]
    if not quarters[1] or not quarters[3]:
        raise RuntimeError(f"{script} ended before it could be watched: give it more steps")
    before, after = quarters[1][0].megabytes, max(sample.megabytes for sample in quarters[3])
    files, files_at_end = (min(sample.files for sample in quarters[k]) for k in (1, 3))
    growth = after / before - 1.0
    kept = growth <= MAX_GROWTH and files_at_end <= files
    print(
        f"{script:12}{steps:>10,}{samples[-1].seconds - samples[0].seconds:>9.0f}{before:>12.1f}"
        f"{after:>15.1f}{growth:>9.2%}{files:>15}{files_at_end:>6}{'' if kept else '   grows'}",
        flush=True,
    )
    return kept


def main() -> None:
    """Soak the scripts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scripts", nargs="+", choices=STEPS, default=list(STEPS), metavar="SCRIPT")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the steps, for a quick look")
    options = parser.parse_args()
    print(
        "script           steps  seconds  MB at 25 %  MB at the end   growth  files at 25 %   end", flush=True
    )
    kept = [soak(script, int(STEPS[script] * options.fraction)) for script in options.scripts]
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()

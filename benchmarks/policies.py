"""Trains the policies in the folder policies/: each script on its default task, with seed 0, one at a time.

    python benchmarks/policies.py             # all scripts
    python benchmarks/policies.py ppo sac     # some

All scripts together take about 10 minutes.
"""

from dataclasses import dataclass
from pathlib import Path
import shlex
import shutil
import subprocess
import sys
import tempfile

import tyro

from benchmarks import cli, job, records
from benchmarks.cells import default_task
from benchmarks.settings import COLLECTION, ScriptName

POLICIES = records.ROOT / "policies"
KEPT = ("config.json", "model.keras", "model.npz")


@dataclass
class Options:
    """Which policies to train."""

    scripts: tyro.conf.Positional[tuple[ScriptName, ...]] = tuple(COLLECTION)
    """Scripts (default: all)."""
    folder: Path = POLICIES
    """Folder of the policies."""


def main(options: Options) -> None:
    """Train, and keep the model and the options of each run."""
    for script in options.scripts:
        task = default_task(script)
        arguments = shlex.split(f"--env-id {task.env_id} --seed 0 {task.arguments}")
        with tempfile.TemporaryDirectory() as scratch:  # as the current folder: config.json names no path
            command = [sys.executable, records.ROOT / script / f"{script}.py", *arguments]
            subprocess.run(command, cwd=scratch, env=job.environment(0), check=True)
            target = options.folder / script
            target.mkdir(parents=True, exist_ok=True)
            for file in Path(scratch).glob("runs/*/*"):
                if file.name in KEPT:
                    shutil.copy(file, target)


if __name__ == "__main__":
    cli.run(main, Options)

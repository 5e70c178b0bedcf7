"""The run folder: its name, its config.json, and writes that survive a crash."""

from collections.abc import Iterator
from contextlib import contextmanager
import dataclasses
from importlib.metadata import version
import json
import math
import os
from pathlib import Path
import platform
import sys
import time
from typing import Any, TextIO

from common.errors import UserError
from common.options import RunConfig


def create_run_folder(config: RunConfig) -> Path:
    """Create and return `<runs_dir>/<env>__<algorithm>__<seed>__<time>`.

    Raises:
        UserError: if the folder cannot be created.
    """
    env_name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in config.env_id)
    name = f"{env_name}__{config.algorithm}__{config.seed}__{int(time.time())}"
    try:
        Path(config.runs_dir).mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"_{k}" for k in range(1, 1000))):
            folder = Path(config.runs_dir) / (name + suffix)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another run started in the same second
                continue
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to {config.runs_dir}: {reason}: choose another --runs-dir") from error
    raise UserError(f"{config.runs_dir} already has 1000 runs named {name}: choose another --runs-dir")


def lock(folder: Path) -> TextIO | None:
    """Lock a run folder until this process ends; return the file to keep open (None on Windows).

    Two processes in one folder would delete each other's checkpoints and rows.

    Raises:
        UserError: if another process has the lock, on this machine or on one that shares the file system.
    """
    try:
        import fcntl
    except ImportError:
        return None
    with write_errors(folder):
        file = (folder / ".lock").open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # this process itself may lock it again
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise UserError(f"the run {folder} is still going on in another process: wait, or stop it") from error
    except OSError:  # a file system without locks
        pass
    return file


def save_config(config: RunConfig, folder: Path) -> None:
    """Write config.json: all options, the algorithm, and the versions of the main packages.

    For a resumed run, the options that differ from those in its old config.json are printed.
    """
    packages = ("numpy", "gymnasium", *(name for name in ("tensorflow", "keras") if name in sys.modules))
    content = dataclasses.asdict(config) | {
        "algorithm": config.algorithm,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    text = json.dumps(content, indent=2) + "\n"
    if (folder / "config.json").exists():
        old, new = load_config(folder), json.loads(text)  # in which tuples are lists
        options = {field.name for field in dataclasses.fields(config)} - {"resume"}
        changed = [name for name in new if name in options & old.keys() and old[name] != new[name]]
        if changed:
            values = ", ".join(f"{name} {new[name]} (was {old[name]})" for name in changed)
            print(f"options changed since the run was started: {values}", flush=True)
    write_text(folder / "config.json", text)


def load_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run folder, as `read_options`.

    Raises:
        UserError: if it is missing or not valid JSON.
    """
    try:
        return read_options((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a run folder: it has no readable config.json") from error


def read_options(text: str) -> dict[str, Any]:
    """Read options from JSON; those of older runs get today's names and values.

    Infinity, with which a limit was switched off, becomes None; `async_envs` becomes `executor`, and
    `repeat_action_probability` goes into `env_kwargs`, which was empty otherwise.

    Raises:
        ValueError: if it is not a JSON object.
    """
    options = json.loads(text)
    if not isinstance(options, dict):
        raise ValueError("it is not a JSON object")
    options = {name: None if value in (math.inf, -math.inf) else value for name, value in options.items()}
    if "async_envs" in options:
        options["executor"] = "async" if options.pop("async_envs") else "sync"
    options.setdefault("env_kwargs", {})
    if (chance := options.pop("repeat_action_probability", None)) is not None:
        options["env_kwargs"]["repeat_action_probability"] = chance
    return options


def check_same_task(folder: Path, config: RunConfig) -> None:
    """Check that a run folder is of the script, the environment, and the bins of `config`.

    Raises:
        UserError: if it is of others, or not a run folder.
    """
    saved = load_config(folder)
    if (saved.get("algorithm"), saved.get("env_id")) != (config.algorithm, config.env_id):
        raise UserError(
            f"{folder} is a run of {saved.get('algorithm')} on {saved.get('env_id')}, not of"
            f" {config.algorithm} on {config.env_id}: resume it with its own script and environment"
        )
    bins = getattr(config, "bins", ())
    if saved.get("bins", [*bins]) != [*bins]:  # a table of as many states may mean other states
        raise UserError(f"{folder} has a table of other bins: resume it with its own --bins")


def write_text(path: Path, text: str) -> None:
    """Write a text file; after a crash or power cut the old or the new file is there, never half of one."""
    with replacing(path) as partial:
        partial.write_text(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; when the block ends, sync it to disk and rename it to `path`."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    yield partial
    sync(partial)
    os.replace(partial, path)


def sync(path: Path) -> None:
    """Ask the operating system to write a file, or all files of a folder, to the disk now (fsync)."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError in this block into a UserError that says how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write to {folder}: {reason}: fix that, then continue with --resume {folder}"
        ) from error

"""The command line: options, help in two groups, saved models, and errors in one line."""

import ast
from collections.abc import Callable, Iterator
import contextlib
import copy
import dataclasses
import difflib
import functools
import gc
import inspect
import io
import os
from pathlib import Path
import re
import sys
import textwrap
import typing
from typing import Annotated, Any

from common import env_kwargs
from common.errors import UserError
from common.options import RunConfig
from common.run_folder import load_config
from common.saved_model import evaluate_saved_model
from common.signals import Stopped
import tyro


def main(config_class: type[RunConfig], train: Callable, evaluate: Callable) -> None:
    """Run a script from the command line: train, or evaluate a saved model.

    A `UserError` ends with one line on stderr and exit code 2, and so does a lack of memory. Ctrl-C exits
    with code 130, SIGTERM with 143.

    Args:
        config_class: the script's options.
        train: the script's `train(config)`.
        evaluate: the script's `evaluate(model, config, folder)`.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # for terminals that cannot show Greek letters
    sys.path.append(os.getcwd())  # finds environments in a module of the user's own
    gc.freeze()  # the collector need not go through the 600,000 objects of TensorFlow
    try:
        config = parse_config(config_class)
        if config.evaluate:
            evaluate_saved_model(config, evaluate)
        else:
            train(config)
    except UserError as error:
        sys.exit(_print_and_exit_code(f"error: {error}", 2))
    except Exception as error:
        if not _is_lack_of_memory(error):
            raise
        sys.exit(_print_and_exit_code(_lack_of_memory_line(error), 2))
    except KeyboardInterrupt as interrupt:
        signum = interrupt.signum if isinstance(interrupt, Stopped) else 2
        sys.exit(_print_and_exit_code(f"interrupted: {str(interrupt) or 'stopped'}", 128 + signum))


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether NumPy or TensorFlow says that an array is too large."""
    too_large = "array is too big", "Maximum allowed dimension", "would have more than 2**63"
    kind = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return kind or any(text in str(error) for text in too_large)


def _lack_of_memory_line(error: Exception) -> str:
    """Return one line: what TensorFlow or NumPy says, without its internal names, and what to do."""
    reason = re.split(r" on /job| \[Op:|\n", re.sub(r"^\{\{.*?\}\} ", "", str(error)))[0]
    advice = "lower the sizes among the options, such as --num-envs, --batch-size, or --hidden-sizes"
    return ": ".join(filter(None, ("error: not enough memory", reason, advice)))


def _print_and_exit_code(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def parse_config(config_class: type[RunConfig], args: list[str] | None = None) -> RunConfig:
    """Parse the command line. With `--resume` and `--evaluate`, the options of that run are the defaults.

    Raises:
        UserError: for an unknown option, a value of the wrong type, or both `--resume` and `--evaluate`.
    """
    args = sys.argv[1:] if args is None else args
    config = typed = _parse(config_class, args, config_class())
    if config.resume and config.evaluate:
        raise UserError("--resume and --evaluate exclude each other: give one of them")
    path = Path(config.resume or config.evaluate or "")
    folder = path if path.is_dir() else path.parent
    if (config.resume or config.evaluate) and (folder / "config.json").exists():
        known = {field.name for field in dataclasses.fields(config_class)} - {"resume", "evaluate"}
        recorded = load_config(folder)
        if config.evaluate:  # how the run was trained, not how it was shown
            known -= {"render", "capture_video", "track", "eager"}
            if not recorded.get("eval_episodes"):
                known -= {"eval_episodes"}
        saved = {name: value for name, value in recorded.items() if name in known}
        saved = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        config = _parse(config_class, args, config_class(**saved))
        if config.env_id != recorded.get("env_id", config.env_id):
            config.env_kwargs = typed.env_kwargs  # those of the run belong to its environment
    return config


NAMED_VALUES = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[NAME=VALUE ...]",
    instance_from_str=env_kwargs.parse,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=env_kwargs.to_arguments,
)


def _shown(default: str) -> str:
    return f"(default: {default or 'none'})"


def _parse(config_class: type[RunConfig], args: list[str], defaults: RunConfig) -> RunConfig:
    """Parse with tyro, the script's own options and the shared ones as two groups of the help."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    args = _integers(_known(args, hints), hints)
    docs = option_docs(config_class)
    shared = {field.name for field in dataclasses.fields(RunConfig)}
    moved = ("env_id", "total_timesteps", "num_envs")  # shared, but their defaults depend on the script
    groups: dict[str, list] = {"algorithm": [], "run": []}
    for field in dataclasses.fields(config_class):
        default = getattr(defaults, field.name)
        hint = Annotated[hints[field.name], tyro.conf.arg(help=docs.get(field.name, ""))]
        if isinstance(default, dict):
            hint = Annotated[hint, NAMED_VALUES, tyro.conf.arg(help_behavior_hint=_shown)]
        group = "run" if field.name in shared and field.name not in moved else "algorithm"
        factory = functools.partial(copy.deepcopy, default)
        groups[group].append((field.name, hint, dataclasses.field(default_factory=factory)))
    parts = {
        group: dataclasses.make_dataclass(group, fields, kw_only=True) for group, fields in groups.items()
    }
    flat = [
        (group, tyro.conf.OmitArgPrefixes[part], dataclasses.field(default_factory=part))
        for group, part in parts.items()
    ]
    both = dataclasses.make_dataclass("Options", flat)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _stdout_may_close():
            parsed = tyro.cli(both, args=args, description=inspect.getdoc(config_class))
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            raise
        raise UserError(_without_box(errors.getvalue())) from None
    return config_class(**vars(parsed.algorithm), **vars(parsed.run))


@contextlib.contextmanager
def _stdout_may_close() -> Iterator[None]:
    """Exit with code 0 if the reader of stdout has closed it, as `head` does after some lines of help."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again when it ends
        sys.exit(0)


@functools.cache
def option_docs(config_class: type) -> dict[str, str]:
    """Return the docstring below each option, inherited options included."""
    docs = {}
    for cls in reversed(config_class.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                docs[field.target.id] = inspect.cleandoc(text.value.value)
    return docs


def _known(args: list[str], hints: dict[str, Any]) -> list[str]:
    """Return the arguments if all of their options exist; otherwise say which ones do.

    Raises:
        UserError: for an unknown option, with the nearest one, and for a flag with a value.
    """
    names = {name.replace("_", "-") for name in hints}
    flags = {name.replace("_", "-") for name, hint in hints.items() if hint is bool}
    names |= {f"no-{name}" for name in flags} | {"help"}
    for arg in args:
        name, equals, _ = arg[2:].replace("_", "-").partition("=")
        if not arg.startswith("--"):
            continue
        if equals and name.removeprefix("no-") in flags:
            flag = name.removeprefix("no-")
            raise UserError(f"--{name} takes no value: give --{flag} or --no-{flag}")
        if name in names:
            continue
        if name == "repeat-action-probability":  # of older versions
            raise UserError(
                f"there is no option --{name}: give --env-kwargs repeat_action_probability=<value>"
            )
        initials = [option for option in sorted(names) if "".join(w[0] for w in option.split("-")) == name]
        nearest = initials or difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
        advice = f"did you mean --{nearest[0]}?" if nearest else "see --help"
        raise UserError(f"there is no option --{name}: {advice}")
    return args


def _integers(args: list[str], hints: dict[str, Any]) -> list[str]:
    """Write whole numbers such as 1e5 as integers where an option takes integers."""
    result, option = [], ""
    for arg in args:
        name, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
        option = name[2:].replace("-", "_") or option
        takes_int = "int" in re.findall(r"\w+", str(hints.get(option, "")))
        if takes_int and re.fullmatch(r"\d+(\.\d*)?[eE]\+?\d{1,2}", value) and float(value).is_integer():
            value = str(int(float(value)))
        result.append(name + equals + value if name else value)
    return result


def _without_box(text: str) -> str:
    """Return tyro's error message, which it prints in a box, on one line, with advice."""
    lines = [line.strip("│╭╮╰╯─ \n") for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()]
    message = []
    for line in lines[1:]:  # the first line is the title of the box
        if not line:
            break
        message.append(line)
    text = " ".join(" ".join(message).split()) or "the options cannot be read"
    text = re.sub(r"Unrecognized options: ?(.*)", r"'\1' belongs to no option", text)
    return text.rstrip(".") + ": see --help"

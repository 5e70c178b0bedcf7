"""Options of an environment: read from the command line, and made plain, so that JSON can hold them."""

import ast
from collections.abc import Mapping
import contextlib
import json
from typing import Any
import warnings

from common.errors import UserError
import numpy as np

WORDS = {"true": True, "false": False, "none": None, "null": None, "inf": np.inf, "-inf": -np.inf}
NO_LITERAL = ValueError, SyntaxError, TypeError, MemoryError, RecursionError


def parse(args: list[str]) -> dict[str, Any]:
    """Read arguments such as ["is_slippery=False", "map_name=8x8"].

    A value is a Python literal, JSON, or else text.

    Raises:
        ValueError: for an argument that is not of the form name=value.
    """
    options = {}
    for arg in args:
        name, equals, text = arg.partition("=")
        if not (name and equals):
            raise ValueError(f"{arg!r} is not of the form name=value")
        options[name] = _value(text)
    return options


def to_arguments(options: Mapping[str, Any]) -> list[str]:
    """Return the arguments that `parse` reads as these options."""
    return [f"{name}={_text(value)}" for name, value in options.items()]


def _text(value: Any) -> str:
    forms = str(value), json.dumps(value)
    return next((text for text in forms if _value(text) == value), str(value))


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(*NO_LITERAL), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about text such as 3in1
            value = read(text)
            return list(value) if isinstance(value, tuple) else value
    return text


def plain(options: Any) -> dict[str, Any]:
    """Return a copy of options in which tuples and arrays are lists, and NumPy's numbers are Python's.

    Raises:
        UserError: if they are no dictionary, or for a value that JSON cannot hold.
    """
    if not isinstance(options, Mapping):
        raise UserError(f"env_kwargs is {_short(options)}: it must be a dictionary")
    return {str(name): _plain(value, f"--env-kwargs {name}") for name, value in options.items()}


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, place) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, place) for key, item in value.items()}
    raise UserError(
        f"{place} is {_short(value)}: it must be a number, text, True, False, None, or a list of these, or a"
        " dictionary with names"
    )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"

"""Keeps TensorFlow's start-up chatter off the terminal, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
import re
import sys
import tempfile

_CHATTER = re.compile(
    rb"[IWE]\d{4} |\d{4}-\d\d-\d\d [\d:.]+ [IWE] |WARNING: All log messages before absl|To enable the "
)


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back the log lines that C++ libraries write to stderr meanwhile; let every other line through.

    While it is being loaded TensorFlow logs before it reads TF_CPP_MIN_LOG_LEVEL (its issue 100442), from
    C++, so that only the file descriptor itself can be kept from the terminal.
    """
    try:
        sys.stderr.flush()
        terminal = os.dup(2)
    except (OSError, AttributeError):  # a process without a stderr has nothing to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held_back.seek(0)
            for line in held_back:
                if not _CHATTER.match(line):
                    os.write(2, line)

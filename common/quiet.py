"""A quiet and quick start: no messages of C++ libraries, no garbage collection while TensorFlow loads."""

from collections.abc import Iterator
from contextlib import contextmanager
import gc
import os
import re
import sys
import tempfile

_NOISE = re.compile(
    rb"[IWE]\d{4} |\d{4}-\d\d-\d\d [\d:.]+ [IWE] |WARNING: All log messages before absl|To enable the "
    rb"|error: XDG_RUNTIME_DIR|.*settotalmass is deprecated"
)


@contextmanager
def without_noise() -> Iterator[None]:
    """Drop known log lines that C++ libraries write to stderr in this block; pass on every other line.

    TensorFlow logs while it loads, before it reads TF_CPP_MIN_LOG_LEVEL (its issue 100442). It logs from
    C++, so the file descriptor itself has to be redirected.
    """
    try:
        sys.stderr.flush()
        terminal = os.dup(2)
    except (OSError, AttributeError):  # a process without stderr
        yield
        return
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            captured.seek(0)
            for line in captured:
                if not _NOISE.match(line):
                    os.write(2, line)


@contextmanager
def importing() -> Iterator[None]:
    """Import TensorFlow or Keras in this block, without messages and without garbage collection.

    The two create 600,000 objects that stay, and the collector would go through them again and again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        with without_noise():
            yield
    finally:
        if enabled:
            gc.enable()

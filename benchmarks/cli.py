"""How the programs of this folder run from the command line: options, errors in one line, exit codes."""

from collections.abc import Callable
import inspect
import subprocess
import sys

from common.errors import UserError
import tyro

from benchmarks import job


def run(main: Callable, options: type, after_ctrl_c: str = "") -> None:
    """Call `main` with the options of the command line, and exit.

    The exit code is 0, or 1 if `main` returns a number of failures. A `UserError` becomes one line on stderr
    and code 2. A script that fails has written its own line; its code is kept. `after_ctrl_c` is what to do
    after an interruption.
    """
    job.exit_when_told()
    try:
        sys.exit(min(1, main(tyro.cli(options, description=inspect.getmodule(main).__doc__)) or 0))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(f"interrupted{after_ctrl_c}")

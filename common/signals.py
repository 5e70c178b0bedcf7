"""Ctrl-C and SIGTERM: the first one ends the training loop, a second one the process."""

import faulthandler
import signal
import sys
import threading


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the training; everything is saved.

    Args:
        message: says how to continue.
        signum: number of the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


class StopSignal:
    """Notes the first Ctrl-C or SIGTERM while the context is active; the second one has its usual effect.

    Attributes:
        number: number of the signal, or None. Only the main thread receives signals.
    """

    def __init__(self):
        self.number: int | None = None
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            # During a matrix product of oneDNN, which TensorFlow uses, the stack pointer can point into the
            # heap, and a signal handler would overwrite it (oneDNN issue 4845): faulthandler makes a stack
            # for signals.
            if sys.__stderr__ and not faulthandler.is_enabled():
                faulthandler.enable(sys.__stderr__)
            self._handlers = {
                number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        self.number = number
        self.__exit__()

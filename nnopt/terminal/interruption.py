"""Interruption by Ctrl-C or a signal: the process writes its results and ends.

Schedulers and ``kill`` send SIGTERM. A closed terminal or connection causes SIGHUP. The exit code
is 143 after both signals, and 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

SIGINT_CODE, SIGTERM_CODE = 130, 143

_REQUESTS = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interruption(SystemExit):
    """Exception that SIGTERM and SIGHUP raise, at whichever line of code is running."""

    def __init__(self, number: int) -> None:
        super().__init__(SIGTERM_CODE)
        self.number = number

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.number).name}"


def stop_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise Interruption, and Ctrl-C raise KeyboardInterrupt.

    After the first signal or Ctrl-C, later SIGTERM and SIGHUP have no effect, and Ctrl-C ends the
    process immediately. Signals that are already ignored, as after nohup, remain ignored.
    """
    _handle(_stop)


def message_of(error: KeyboardInterrupt | SystemExit) -> str:
    """Return the text of a message about an interruption."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    return str(error) if isinstance(error, Interruption) else f"ended with exit code {error.code}"


def code_of(error: KeyboardInterrupt | SystemExit) -> int:
    """Return the exit code of an interruption."""
    return SIGINT_CODE if isinstance(error, KeyboardInterrupt) else SIGTERM_CODE


def _handle(handler: object) -> None:
    for name in ("SIGINT", *_REQUESTS):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _stop(number: int, frame: FrameType | None) -> None:
    _handle(_exit_on_second_signal)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interruption(number)


def _exit_on_second_signal(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        with suppress(OSError, ValueError, AttributeError):
            os.write(sys.stderr.fileno(), b"nnopt: error: interrupted twice; left at once\n")
        os._exit(SIGINT_CODE)

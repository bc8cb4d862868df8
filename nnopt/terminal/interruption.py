"""Interruption by Ctrl-C or a signal: the process writes its results and ends.

Schedulers and ``kill`` send SIGTERM. A closed terminal or connection causes SIGHUP. SLURM can send
SIGUSR1 before a time limit. The exit code is 143 after these signals, and 130 after Ctrl-C.

A signal handler can run at any line, also within an update of the weights. Training therefore
postpones interruptions until its state is consistent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from nnopt.errors import TimeLimitError

Stop = KeyboardInterrupt | SystemExit | TimeLimitError
"""The exceptions that interrupt a run. The run can be resumed."""

SIGINT_CODE, SIGTERM_CODE = 130, 143

_REQUESTS = ("SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has only SIGTERM


class Interruption(SystemExit):
    """Exception that SIGTERM, SIGHUP and SIGUSR1 raise, at whichever line of code is running."""

    def __init__(self, number: int) -> None:
        super().__init__(SIGTERM_CODE)
        self.number = number

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.number).name}"


class Postponed:
    """Interruptions that wait until ``raise_pending`` is called.

    Attributes:
        pending: The interruption that was requested first, or None. A signal or Ctrl-C replaces a
            time limit, because a signal or Ctrl-C also ends a sweep.
        raised: The interruption that ``raise_pending`` has raised, or None.
    """

    def __init__(self) -> None:
        self.pending: BaseException | None = None
        self.raised: BaseException | None = None

    @property
    def was_raised(self) -> bool:
        """Whether ``raise_pending`` has raised an interruption. If so, the state is consistent."""
        return self.raised is not None

    def request(self, error: BaseException) -> None:
        """Request an interruption. It replaces a pending time limit, but no other interruption."""
        if self.pending is None or isinstance(self.pending, TimeLimitError):
            self.pending = error

    def raise_pending(self) -> None:
        """Raise the interruption that has been requested, if any."""
        if self.pending is not None:
            self.raised = self.pending
            raise self.pending


_active: list[Postponed] = []
"""The active contexts of ``postpone_interruptions`` in all threads, in the order of entry."""


@contextmanager
def postpone_interruptions() -> Iterator[Postponed]:
    """Within the context, postpone interruptions until ``raise_pending`` is called.

    An interruption that is still pending at the end of the context is raised there, even if an
    error or a time limit ends the context. In a program without ``stop_on_signals``, the first
    Ctrl-C is postponed, and the second one is not.
    """
    own = Postponed()
    _active.append(own)
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    replaces_default = is_default and threading.current_thread() is threading.main_thread()
    if replaces_default:
        signal.signal(signal.SIGINT, _postpone_once)
    try:
        yield own
    finally:
        _active.remove(own)  # not always the last item: another thread may have entered later
        if replaces_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        is_stopped = isinstance(sys.exception(), KeyboardInterrupt | SystemExit)
        if own.pending is not own.raised and not is_stopped:
            own.raise_pending()


def interrupt(error: BaseException) -> None:
    """Raise an interruption now or, if interruptions are postponed, in ``raise_pending``."""
    if not _active:
        raise error
    _active[-1].request(error)


def stop_on_signals() -> None:
    """Make SIGTERM, SIGHUP and SIGUSR1 raise Interruption, and Ctrl-C raise KeyboardInterrupt.

    After the first signal or Ctrl-C, later signals have no effect, and Ctrl-C ends the process
    immediately. Signals that are already ignored, as after nohup, remain ignored.
    """
    _handle(_stop)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Call ``stop_on_signals``, and restore the previous handlers at the end of the context."""
    before = {number: signal.getsignal(number) for number in _numbers()}
    stop_on_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def message_of(error: Stop) -> str:
    """Return the text of a message about an interruption."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    if isinstance(error, Interruption | TimeLimitError):
        return str(error)
    return f"ended with exit code {error.code}"


def code_of(error: Stop) -> int:
    """Return the exit code of an interruption."""
    if isinstance(error, TimeLimitError):
        return error.exit_code
    return SIGINT_CODE if isinstance(error, KeyboardInterrupt) else SIGTERM_CODE


def _numbers() -> list[int]:
    """Return the numbers of the handled signals that this system has and that are not ignored."""
    numbers = [getattr(signal, name) for name in ("SIGINT", *_REQUESTS) if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _numbers():
        signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    _handle(_exit_on_second_signal)
    interrupt(KeyboardInterrupt() if number == signal.SIGINT else Interruption(number))


def _postpone_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt(KeyboardInterrupt())


def _exit_on_second_signal(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        with suppress(OSError, ValueError, AttributeError):
            os.write(sys.stderr.fileno(), b"nnopt: error: interrupted twice; left at once\n")
        os._exit(SIGINT_CODE)

"""The errors a user meets: one line each, and an exit code per kind.

The line says what is wrong, which key or file, the value seen, what is allowed and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class NnoptError(Exception):
    """An error the user can act on; anything else that escapes is a bug in nnopt (exit code 1)."""

    exit_code = 1
    status = "failed"


class ConfigError(NnoptError):
    """Wrong key, type, value or combination, or wrong usage. Carries every problem found."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class CombinationError(ConfigError):
    """Every value is allowed, but not beside the others: with other ones it might be."""


class DataError(NnoptError):
    """A dataset's file is missing, damaged, or does not hold what it should."""

    exit_code = 3


class ResumeError(NnoptError):
    """A run or sweep cannot be resumed: its record is missing, damaged or does not match."""

    exit_code = 4


class TrainingError(NnoptError):
    """Training, or a check of it, failed."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """Memory did not suffice for a step of so many samples, computed in so many parts."""

    def __init__(self, batch_size: int, accumulation: int, why: Exception) -> None:
        what = f"out of memory with batch_size = {batch_size}" + (f": {why}" if str(why) else "")
        if batch_size > 1:
            what += f"; try batch_size={batch_size // 2}"
        if batch_size >= 2 * accumulation:
            what += f", or accumulation={2 * accumulation} for the same batch in smaller parts"
        super().__init__(what)


@contextmanager
def memory_shortage(batch_size: int, accumulation: int) -> Iterator[None]:
    """A context in which want of memory becomes an OutOfMemoryError, which says what to do."""
    try:
        yield
    except Exception as error:
        if not is_memory_shortage(error):
            raise
        raise OutOfMemoryError(batch_size, accumulation, error) from error


SHORTAGE_MESSAGES = (
    "failed to map segment from shared object",
    "cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "error return without exception set",
)
"""Parts of what the loader of libraries, the threads and Python itself say when memory runs out."""


def is_memory_shortage(error: Exception) -> bool:
    """Return whether an exception was raised because memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError | SystemError | RuntimeError):
        return any(part in str(error).lower() for part in SHORTAGE_MESSAGES)
    return isinstance(error, MemoryError)


class TimeLimitError(BaseException):
    """A point of a sweep took longer than it may.

    Raised by a timer, wherever the program is: so, like KeyboardInterrupt, it is no Exception, or
    what goes on after any of these, as logging does, could swallow it.
    """

    status = "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"took longer than hydra.launcher.timeout = {seconds:g} s")


class DivergedError(TrainingError):
    """The loss became NaN or infinite."""

    status = "diverged"


class PrunedError(NnoptError):
    """A search has stopped the run, which promised too little. Nothing is wrong with it."""

    exit_code = 0
    status = "pruned"


class OutputError(NnoptError):
    """A result cannot be written: disk, permission, or a folder already in use."""

    exit_code = 6

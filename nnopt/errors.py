"""Exceptions for errors that a user can fix. Each class has an exit code.

A message is one line: the problem, the key or file, the value, the allowed values and a remedy.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MAX_LISTED_NAMES = 20  # a hint with the nearest name has no longer list of allowed names

MAX_JOINED_PROBLEMS = 5


def suggest(name: object, allowed: Iterable[str]) -> str:
    """Return a hint for a refused name: the nearest allowed name, all allowed names, or both."""
    names = list(allowed)
    close = nearest(str(name), names)
    listed = f"allowed: {', '.join(names) or 'none'}"
    if close is None:
        return listed
    hint = f"did you mean {close!r}?"
    return hint if len(names) > MAX_LISTED_NAMES else f"{hint} {listed}"


def nearest(name: str, allowed: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the allowed name whose spelling is nearest, or None if no name is near.

    ``cutoff`` is the minimum similarity, from 0 to 1, of ``difflib.get_close_matches``.
    """
    from difflib import get_close_matches  # imported here because nnopt version must be fast

    return next(iter(get_close_matches(name, list(allowed), n=1, cutoff=cutoff)), None)


def join_problems(problems: Sequence[str], separator: str) -> str:
    """Return one text with the first problems and the number of further problems."""
    others = len(problems) - MAX_JOINED_PROBLEMS
    more = f" and {others} more" if others > 0 else ""
    return separator.join(problems[:MAX_JOINED_PROBLEMS]) + more


class Problem(str):
    """A message about a key. The key may be set on the command line or in a YAML file."""

    key: str  # dotted key, such as optimizer.lr or architecture.hidden[0]
    value: Any  # the refused value; Ellipsis if the message is only about the key

    def __new__(cls, message: str, key: str, value: Any = ...) -> Problem:
        """Create the message."""
        problem = super().__new__(cls, message)
        problem.key, problem.value = key, value
        return problem


def refused_value(key: str, value: Any, reason: str) -> Problem:
    """Return the problem ``KEY = VALUE: REASON``."""
    return Problem(f"{key} = {value!r}: {reason}", key, value)


class NnoptError(Exception):
    """An error that the user can fix. Any other exception is a bug in nnopt (exit code 1)."""

    exit_code = 1
    status = "failed"


class ConfigError(NnoptError):
    """A wrong key, type, value, combination or usage. ``problems`` lists each problem once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


class Problems(list[str]):
    """Problems that are collected, and raised as one ConfigError."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Add the problems of a ConfigError that the body raises."""
        try:
            yield
        except ConfigError as error:
            self.extend(error.problems)

    def check(self) -> None:
        """Raise ConfigError if there are problems."""
        if self:
            raise ConfigError(self)


def described(error: BaseException, file: str) -> str:
    """Return an exception as one line, with the last line of ``file`` in its traceback, if any.

    For example ``line 3: ZeroDivisionError: division by zero``.
    """
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    place = "" if line is None else f"line {line}: "
    return f"{place}{type(error).__name__}{text and f': {text}'}"


class CombinationError(ConfigError):
    """Each value is allowed, but the combination of the values is not."""


class DataError(NnoptError):
    """A file of a dataset is missing, damaged, or has unexpected contents."""

    exit_code = 3


class ResumeError(NnoptError):
    """A run or sweep cannot be resumed: its files are missing, damaged or inconsistent."""

    exit_code = 4


class ModelError(NnoptError):
    """A trained model cannot be used: its files are missing, damaged, or of a newer nnopt."""

    exit_code = 4


class LengthError(ResumeError):
    """The length of a training was changed on resume, and this training does not allow it."""


class TrainingError(NnoptError):
    """Training, a gradient check or a learning rate search failed."""

    exit_code = 5


@contextmanager
def memory_shortage(batch_size: int, accumulation_steps: int) -> Iterator[None]:
    """Raise a ``TrainingError`` if memory runs out in the body of the ``with`` statement."""
    try:
        yield
    except Exception as error:
        if not is_memory_shortage(error):
            raise
        reason = f": {error}" if str(error) else ""
        message = f"out of memory with batch_size = {batch_size}{reason}"
        if batch_size > 1:
            message += f"; try batch_size={batch_size // 2}"
        if batch_size >= 2 * accumulation_steps:
            more = 2 * accumulation_steps
            message += f", or accumulation_steps={more} for the same batch in smaller parts"
        raise TrainingError(message) from error


SHORTAGE_MESSAGES = (
    "failed to map segment from shared object",
    "cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "error return without exception set",
)
"""Parts of messages about a lack of memory, from the dynamic linker, the system and Python."""


def is_memory_shortage(error: Exception) -> bool:
    """Return whether an exception was raised because memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError | SystemError | RuntimeError):
        return any(part in str(error).lower() for part in SHORTAGE_MESSAGES)
    return isinstance(error, MemoryError)


class TimeLimitError(BaseException):
    """A run exceeded its time limit of ``seconds``, the value of the configuration key ``key``.

    A timer can raise this exception at any line of the program. The class is a ``BaseException``,
    so that handlers for ``Exception`` do not catch it.
    """

    exit_code = 5
    status = "timeout"

    def __init__(self, seconds: float, key: str = "hydra.launcher.timeout") -> None:
        super().__init__(f"took longer than {key} = {seconds:g} s")


class DivergedError(TrainingError):
    """The loss, a weight or the state of the optimizer became NaN or infinite."""

    status = "diverged"


class PrunedError(NnoptError):
    """A search stopped an unpromising run early. This is not a failure."""

    exit_code = 0
    status = "pruned"


class OutputError(NnoptError):
    """A result cannot be written: full disk, missing permission, or a folder in use."""

    exit_code = 6

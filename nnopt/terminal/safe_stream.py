"""Wrappers of the standard streams. Writes never fail, so that output never stops a training.

If the stream was closed, or the process that reads the pipe has ended, output is discarded. After
any other error, output is discarded too, and the command ends with exit code 6. Control characters,
and characters that the encoding of the stream lacks, are written as escapes.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from types import SimpleNamespace

from nnopt.io.safe_text import visible, visible_lines

TYPE_CHECKING = False  # importing typing would take a tenth of the time of ``nnopt version``
if TYPE_CHECKING:
    from typing import Any, TextIO

    from rich.console import Console


class Stream:
    """A standard stream whose writes accept every character and never fail."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None if the process was started without the stream
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self.errors = "backslashreplace"
        self.failure: OSError | None = None  # the error of a failed write, except for a broken pipe

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped stream, such as its ``buffer``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write_line(self, line: str) -> None:
        """Write a line, and flush the stream."""
        self.write(line + "\n")
        self.flush()

    def write(self, text: str) -> int:
        """Write text, with control characters other than line ends and tabs as escapes."""
        self.write_codes(visible_lines(text))
        return len(text)

    def write_codes(self, text: str) -> int:
        """Write text that may contain control sequences, such as the output of rich."""
        if self._stream is not None:
            shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            with self._dropping():
                self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer."""
        if self._stream is not None:
            with self._dropping():
                self._stream.flush()

    def is_terminal(self) -> bool:
        """Return whether output can be redrawn: False for a pipe, a file or a dumb terminal."""
        return self.isatty() and os.environ.get("TERM") != "dumb"

    def can_show(self, text: str) -> bool:
        """Return whether the encoding of the stream has all characters of the text."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor. Raises OSError if the stream is closed."""
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def rich(self) -> Console:
        """Return a console of rich for this stream. It respects NO_COLOR and the encoding."""
        from rich.console import Console

        file = SimpleNamespace(
            write=self.write_codes,
            flush=self.flush,
            isatty=self.isatty,
            fileno=self.fileno,
            encoding=self.encoding,
        )
        return Console(file=file, force_terminal=True)  # type: ignore[arg-type]

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Discard a failing write and all later writes, and store the first error."""
        try:
            yield
        except ValueError:  # the stream was closed
            self._stream = None
        except OSError as error:
            if error.errno != errno.EPIPE and self.failure is None:
                self.failure = error
            # Redirect the descriptor to /dev/null. Otherwise the flush at the interpreter's exit
            # would fail, print a message and cause exit code 120.
            with suppress(OSError, ValueError):
                null_device = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null_device, self.fileno())
                os.close(null_device)


def standard_output() -> Stream:
    """Return the stream for results."""
    return _as_stream(sys.stdout)


def standard_error() -> Stream:
    """Return the stream for errors and notes."""
    return _as_stream(sys.stderr)


def _as_stream(stream: Any) -> Stream:
    return stream if isinstance(stream, Stream) else Stream(stream)


@contextmanager
def guarded_streams() -> Iterator[tuple[Stream, Stream]]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams whose writes never fail."""
    output, errors = standard_output(), standard_error()
    with redirect_stdout(output), redirect_stderr(errors):
        yield output, errors


def aligned(row: Sequence[str], widths: Sequence[int], align: str) -> str:
    """Return cells as a line, two spaces apart. ``align`` has "l" or "r" for each column."""
    cells = [
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(row, widths, align, strict=True)
    ]
    return visible("  ".join(cells).rstrip())


def aligned_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str
) -> Iterator[str]:
    """Return the lines of a table. Each column is as wide as its longest cell."""
    lines = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return (aligned(line, widths, align) for line in lines)

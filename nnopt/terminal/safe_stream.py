"""The standard streams of a process, made safe to write to.

A write never fails, so output never stops a training. If the reader of a pipe is gone, or the
stream was closed, the rest is dropped in silence. Any other failure is dropped too, but
remembered, and the command then ends with exit code 6. Characters that a terminal
obeys, and those that the output's encoding lacks, are written as escapes.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from nnopt.io.safe_text import visible, visible_lines

TYPE_CHECKING = False  # importing typing would take a tenth of the time of nnopt version
if TYPE_CHECKING:
    from typing import Any, TextIO

    from rich.console import Console


class Stream:
    """A text stream that accepts every character and never fails.

    failure: the error of the first write that was lost; None also if its reader had gone.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: the process was started with it closed
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self.errors = "backslashreplace"
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the standard stream, such as its ``buffer``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write_line(self, line: str) -> None:
        """Write a line, and flush it."""
        self.write(line + "\n")
        self.flush()

    def write(self, text: str) -> int:
        """Write text; control characters other than line ends and tabs become escapes."""
        self._write(visible_lines(text))
        return len(text)

    def write_codes(self, text: str) -> int:
        """Write text as it is, with the terminal's control sequences, which rich makes."""
        self._write(text)
        return len(text)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            with self._dropping():
                self._stream.write(shown)

    def flush(self) -> None:
        """Flush the buffer."""
        if self._stream is not None:
            with self._dropping():
                self._stream.flush()

    def is_terminal(self) -> bool:
        """Return whether lines can be drawn over: not in a pipe, a file or a dumb terminal."""
        return self.isatty() and os.environ.get("TERM") != "dumb"

    def can_show(self, text: str) -> bool:
        """Return whether the encoding has all these characters."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError if the stream is closed."""
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def rich(self) -> Console:
        """Return rich's console on this stream. It honours NO_COLOR, and draws in ASCII if it
        must."""
        from rich.console import Console

        return Console(file=_Codes(self), force_terminal=True)  # type: ignore[arg-type]

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Drop a write that fails, and all later ones, and keep the first error."""
        try:
            yield
        except ValueError:  # written to after close()
            self._stream = None
        except OSError as error:
            if error.errno != errno.EPIPE and self.failure is None:
                self.failure = error
            # The descriptor itself is turned to /dev/null: else the interpreter's own flush at exit
            # would fail again, complain, and end with exit code 120.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)


class _Codes:
    """A stream for rich, which writes control sequences on purpose."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write_codes(text)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)


def standard_output() -> Stream:
    """Return the stream of the results."""
    return _as_stream(sys.stdout)


def standard_error() -> Stream:
    """Return the stream of errors and notes."""
    return _as_stream(sys.stderr)


def _as_stream(stream: Any) -> Stream:
    return stream if isinstance(stream, Stream) else Stream(stream)


@contextmanager
def guarded_streams() -> Iterator[tuple[Stream, Stream]]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that are safe to write to.

    nnopt, argparse, Hydra and logging write to them.
    """
    before = sys.stdout, sys.stderr
    guarded = _as_stream(sys.stdout), _as_stream(sys.stderr)
    sys.stdout, sys.stderr = guarded
    try:
        yield guarded
    finally:
        sys.stdout, sys.stderr = before


def aligned(row: Sequence[str], widths: Sequence[int], align: str) -> str:
    """Return a line of cells two spaces apart. align: "l" or "r" for each."""
    cells = [
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(row, widths, align, strict=True)
    ]
    return visible("  ".join(cells).rstrip())


def aligned_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str
) -> Iterator[str]:
    """Return the lines of a table; a column is as wide as its longest cell."""
    lines = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return (aligned(line, widths, align) for line in lines)

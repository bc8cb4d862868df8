"""A text stream that never fails, and what may be written to it.

Talking never stops a training: if the reader of a pipe is gone, or the terminal was closed, the
rest is dropped in silence. Characters the output's encoding lacks are shown as escapes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from nnopt.text import visible

if TYPE_CHECKING:
    from rich.console import Console


class Stream:
    """A text stream that takes every character and never fails; the file that rich writes to."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: the process was started with it closed
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write_line(self, line: str) -> None:
        self.write(line + "\n")
        self.flush()

    def write(self, text: str) -> int:
        if self._stream is not None:
            shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            with self._dropping():
                self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with self._dropping():
                self._stream.flush()

    def is_terminal(self) -> bool:
        """Can lines be drawn over? Not in a pipe, a file or an editor's dumb terminal."""
        return self.isatty() and os.environ.get("TERM") != "dumb"

    def can_show(self, text: str) -> bool:
        """Has its encoding all these characters?"""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def rich(self) -> Console:
        """Rich's console on this stream. It honours NO_COLOR, and draws in ASCII if it must."""
        from rich.console import Console

        return Console(file=cast(TextIO, self), force_terminal=True)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Swallow the failure of a write, and send all that is still to be written to nowhere."""
        try:
            yield
        except ValueError:  # written to after close()
            self._stream = None
        except OSError:
            # The descriptor itself is turned to /dev/null: else the interpreter's own flush at exit
            # would meet the broken pipe again, complain, and end with exit code 120.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)


def aligned(row: Sequence[str], widths: Sequence[int], align: str) -> str:
    """A line of cells two spaces apart. align: "l" or "r" for each."""
    cells = [
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(row, widths, align, strict=True)
    ]
    return visible("  ".join(cells).rstrip())


def aligned_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str
) -> Iterator[str]:
    """The lines of a table, its columns as wide as they need to be."""
    lines = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return (aligned(line, widths, align) for line in lines)

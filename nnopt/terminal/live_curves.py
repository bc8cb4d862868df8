"""When learning curves are drawn in a terminal, and whether it can show them."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from nnopt.io.safe_text import visible
from nnopt.results.metrics_file import EpochRow
from nnopt.terminal.safe_stream import Stream

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

log = logging.getLogger("nnopt")

LEAST_COLUMNS, LEAST_LINES = 40, 12  # of a terminal
OTHER_LINES = 3  # the bar and the metrics, or a title and the line of a sweep; and the cursor's


def why_not(stream: Stream) -> str | None:
    """What keeps curves from being drawn there; None if nothing does."""
    if not stream.is_terminal():
        return "the output is no terminal that can be drawn over"
    if not stream.can_show("┤⣿▟"):
        return f"the output's encoding, {stream.encoding}, has no characters to draw with"
    columns, lines = shutil.get_terminal_size()
    if columns < LEAST_COLUMNS or lines < LEAST_LINES:
        return (
            f"the terminal has {columns} columns and {lines} lines, but curves need at least "
            f"{LEAST_COLUMNS} and {LEAST_LINES}"
        )
    return None


def live_curves(view: str, stream: Stream) -> LiveCurves | None:
    """Curves, if they are asked for and can be drawn there."""
    return LiveCurves() if view == "terminal" and why_not(stream) is None else None


class LiveCurves:
    """The curves of the rows so far, as large as the terminal is now, drawn when they are asked for
    and something has changed.

        curves.add(row, name)      # after each epoch; name: of a sweep's point, stands above them
        curves.make_room(terminal)
        curves.text(terminal)

    Those of one point stand until the first epoch of the next.
    """

    def __init__(self) -> None:
        import plotext  # noqa: F401  # now, since it takes a while: not when the first epoch ends

        self._rows: list[EpochRow] = []
        self._name = ""
        self._drawn: tuple[int, int, int] | None = None
        self._text: Text | None = None
        self._size: tuple[int, int] | None = None

    def add(self, row: EpochRow, name: str = "") -> None:
        """One more epoch, of the same training unless its name or the count of epochs says no."""
        if name != self._name or (self._rows and row.epoch <= self._rows[-1].epoch):
            self._name, self._drawn = name, None
            self._rows.clear()
        self._rows.append(row)

    def make_room(self, terminal: Console) -> None:
        """Wipe the screen if the terminal has another size than before: it has broken the lines
        that stood there, so that they cannot be drawn over."""
        if self._size not in (None, terminal.size):
            terminal.clear()
        self._size = terminal.size

    def text(self, terminal: Console) -> Text | None:
        """None before the first epoch, and while the terminal is too small."""
        columns, lines = terminal.size
        now = len(self._rows), columns, lines
        if now != self._drawn:
            self._drawn, self._text = now, None
            if self._rows and columns >= LEAST_COLUMNS and lines >= LEAST_LINES:
                self._text = self._draw(columns, lines - OTHER_LINES)
        return self._text

    def _draw(self, columns: int, lines: int) -> Text | None:
        from rich.text import Text

        from nnopt.terminal.plotext_curves import curves

        try:
            drawn = curves(self._rows, columns, lines)
        except Exception:  # no picture is worth a training
            log.exception("the learning curves cannot be drawn")
            return None
        if not self._name:
            return drawn
        title = Text(visible(self._name), no_wrap=True, style="bold")
        title.truncate(columns, overflow="ellipsis")
        return title.append("\n").append_text(drawn)

"""The live line of a sweep or a search on a terminal, and the lines that stay above it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nnopt.results.metrics_file import EpochRow
from nnopt.terminal.console import next_refresh
from nnopt.terminal.live_curves import live_curves
from nnopt.terminal.progress_bars import live_line
from nnopt.terminal.safe_stream import standard_output

if TYPE_CHECKING:
    from rich.progress import Progress


class LiveLine:
    """A line that is drawn again and again, with view=terminal below the learning curves of what
    runs; and lines that stay. Where nothing can be drawn over, only the latter.

        line = LiveLine(view)
        line.start()
        line.curve(row, lambda: "[1] optimizer=adam")
        if line.is_due():
            line.draw("3 done, 1 running")
        line.tell("[1/4] optimizer=adam  done")
        line.stop()
    """

    def __init__(self, view: str) -> None:
        self._stream = standard_output()
        self._is_wanted = view != "none"
        self._curves = live_curves(view, self._stream)
        self._progress: Progress | None = None
        self._next = 0.0

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where nothing is drawn."""
        return None if self._progress is None else self._progress.console.width

    def start(self) -> None:
        """Put the line there, empty."""
        if self._is_wanted and self._stream.is_terminal():
            terminal = self._stream.rich()
            above = None if self._curves is None else partial(self._curves.text, terminal)
            self._progress = live_line(terminal, above)
            self._progress.add_task("", text="")
            self._progress.start()

    def stop(self) -> None:
        """Take the line away, if it is there."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def tell(self, text: str) -> None:
        """Write a line that stays."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write_line(text)

    def curve(self, row: EpochRow, name: Callable[[], str]) -> None:
        """An epoch for the curves of what runs, if there are any. name: stands above them."""
        if self._curves is not None:
            self._curves.add(row, name())

    def is_due(self) -> bool:
        """May the line be drawn again? Costs a look at a clock."""
        return self._progress is not None and time.monotonic() >= self._next

    def draw(self, text: str) -> None:
        """Draw the line anew, whether it is due or not."""
        if self._progress is None:
            return
        started = time.monotonic()
        self._progress.update(self._progress.task_ids[0], text=text)
        if self._curves is not None:
            self._curves.make_room(self._progress.console)
        self._progress.refresh()
        self._next = next_refresh(started)

"""What a sweep says while it runs: a line for each point that has ended and, on a terminal, one
live line below them that counts the points and tells the time left; with view=terminal the learning
curves of the point that runs stand between them.
"""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from nnopt.io.safe_text import visible
from nnopt.results.metrics_file import EpochRow
from nnopt.sweeps.manifest import Sweep
from nnopt.sweeps.point_folder import FAILED
from nnopt.sweeps.results_table import Entry
from nnopt.terminal.live_display import LiveDisplay

LONGEST, SHORTEST = 60, 16  # characters of what varies, in a line
OTHER_COLUMNS = 50  # characters of the rest of it, or fewer


class SweepProgress(LiveDisplay):
    """The progress of a sweep; a context manager.

        with SweepProgress(sweep, entries, is_open) as progress:
            progress.began(point_id)
            progress.epoch(row, is_best)       # of the point that runs, if it is in this process
            progress.ended(point_id, entries)  # entries of all points, as they are then

    is_open: for each point, whether it is yet to be run.
    """

    def __init__(self, sweep: Sweep, entries: Sequence[Entry], is_open: Sequence[bool]) -> None:
        self._sweep = sweep
        self._entries = entries
        self._numbers = {point.id: number for number, point in enumerate(sweep.points, start=1)}
        self._names = {point.id: _what_varies(point.overrides, sweep) for point in sweep.points}
        self._width = min(LONGEST, max(map(len, self._names.values()), default=0))
        self._cut = 2 * LONGEST  # characters of an error, which is told in full at the end
        self._open = {p.id for p, yet in zip(sweep.points, is_open, strict=False) if yet}
        self._running: list[str] = []
        self._finished = 0
        self._started = time.monotonic()
        self._epoch = ""
        super().__init__(sweep.points[0].config.view if sweep.points else "none")

    def __enter__(self) -> Self:
        super().__enter__()
        if (columns := self.width) is not None:
            self._width = max(SHORTEST, min(self._width, columns - OTHER_COLUMNS))
            self._cut = max(SHORTEST, columns - self._width - OTHER_COLUMNS // 2)
        self._refresh()
        return self

    def began(self, identity: str) -> None:
        """A point was given to the launcher."""
        self._running.append(identity)
        self._epoch = ""
        self._refresh()

    def skipped(self, identity: str) -> None:
        """A point needs nothing, or another process has taken it."""
        self._open.discard(identity)

    def epoch(self, row: EpochRow, best: bool) -> None:
        """The point that runs has finished an epoch. Most calls only look at a clock."""
        identity = self._running[-1]
        number = self._numbers[identity]
        self.add_epoch(row, f"[{number}] {self._names[identity]}")
        if not self.is_due():
            return
        config = self._sweep.points[number - 1].config
        most = f"/{config.epochs}" if config.steps is None else ""
        self._epoch = f"epoch {row.epoch}{most}"
        self._refresh()

    def ended(self, identity: str, entries: Sequence[Entry]) -> None:
        """A point has ended, or is another process's."""
        self._entries = entries
        self._running.remove(identity)
        self._open.discard(identity)
        self._epoch = ""
        entry = entries[self._numbers[identity] - 1]
        if entry.status != "running":
            self._finished += 1
            line = self._line_of(identity, entry)
            is_live = self.width is not None  # the live line shows the time left
            left = f"  {self._time_left()}" if self._open and not is_live else ""
            self.print_line(line + left)
        self._refresh()

    def _line_of(self, identity: str, entry: Entry) -> str:
        total = len(self._sweep.points)
        number = f"[{self._numbers[identity]:>{len(str(total))}}/{total}]"
        outcome = "" if entry.accuracy is None else f"test accuracy {entry.accuracy:.4f}"
        if entry.error:
            outcome = textwrap.shorten(visible(entry.error), self._cut, placeholder=" ...")
        name = visible(self._names[identity])
        if len(name) > self._width:
            name = name[: self._width - 3] + "..."
        seconds = "" if entry.seconds is None else f"{entry.seconds:7.1f} s"
        return f"{number} {name:<{self._width}}  {entry.status:<8}  {outcome}{seconds}".rstrip()

    def _refresh(self) -> None:
        if self.width is None:
            return
        counts = Counter(entry.status for entry in self._entries)
        failed = sum(counts[status] for status in FAILED)
        running = len(self._running)
        parts = [f"{counts['done']} done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{counts['pruned']} pruned"] if counts["pruned"] else []
        parts += [f"{running} running", f"{max(len(self._open) - running, 0)} pending"]
        parts = [", ".join(parts), self._time_left(), self._epoch]
        self.text = "  ".join(filter(None, parts))
        self.draw()

    def _time_left(self) -> str:
        """From how long it took to finish so many points, however many ran at once."""
        if not self._finished:
            return ""
        seconds = (time.monotonic() - self._started) / self._finished * len(self._open)
        return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time in words, to two digits or so: ``40 s``, ``12 min``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _what_varies(overrides: Sequence[str], sweep: Sweep) -> str:
    keys = set(sweep.varied)
    words = [word for word in overrides if word.lstrip("+").partition("=")[0] in keys]
    return " ".join(words)

"""Progress display of a sweep: a line for each finished point, and a live line below them."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

from nnopt.analysis.number_format import format_rough_duration
from nnopt.io.safe_text import visible
from nnopt.results.metrics_file import EpochRow
from nnopt.sweeps.manifest import Sweep
from nnopt.sweeps.point_folder import FAILED
from nnopt.sweeps.results_table import TableRow
from nnopt.terminal.live_display import LiveDisplay, ProgressMode

MAX_NAME, MIN_NAME = 60, 16  # maximum and minimum width of a point's settings, in characters
OTHER_COLUMNS = 50  # maximum width of the rest of the line, in characters


class PointsProgress(LiveDisplay):
    """Progress display of many points: the base class for sweeps and searches."""

    def __init__(self, mode: ProgressMode) -> None:
        super().__init__(mode)
        self._started = time.monotonic()

    def finish(self, identity: str, rows: Sequence[TableRow]) -> None:
        """Print the result of a point. ``rows`` are the current rows of all points."""
        raise NotImplementedError

    def epoch(self, row: EpochRow, is_best: bool) -> None:
        """Show an epoch of the running point, unless the display was redrawn just before."""
        title, total = self._running_point()
        self.add_epoch(row, title)
        if self.is_due():
            self._refresh(f"epoch {row.epoch}{total}")

    def _running_point(self) -> tuple[str, str]:
        """Return the title of the running point, and the text to print after the epoch number."""
        raise NotImplementedError

    def _parts(self) -> Iterator[str]:
        """Yield the texts of the live line, from left to right."""
        raise NotImplementedError

    def _refresh(self, epoch: str = "") -> None:
        if self.width is not None:
            self.text = "  ".join(filter(None, [*self._parts(), epoch]))
            self.draw()

    def _time_left(self, finished: int, left: int) -> str:
        """Estimate the remaining time from the mean time per finished point."""
        if not finished:
            return ""
        seconds = (time.monotonic() - self._started) / finished * left
        return f"about {format_rough_duration(seconds)} left"


class SweepProgress(PointsProgress):
    """Progress display of a sweep. ``to_run`` has the ids of the points to run."""

    def __init__(self, sweep: Sweep, rows: Sequence[TableRow], to_run: set[str]) -> None:
        super().__init__(sweep.points[0].config.progress if sweep.points else "none")
        self._sweep = sweep
        self._table_rows = rows
        self._to_run = to_run
        self._numbers = {point.id: number for number, point in enumerate(sweep.points, start=1)}
        self._names = {}  # the overrides of the varied keys of each point
        for point in sweep.points:
            varied = [x for x in point.overrides if x.lstrip("+").partition("=")[0] in sweep.varied]
            self._names[point.id] = " ".join(varied)
        self._name_width = min(MAX_NAME, max(map(len, self._names.values()), default=0))
        self._error_width = 2 * MAX_NAME
        self._running: list[str] = []
        self._finished = 0

    def __enter__(self) -> Self:
        super().__enter__()
        if (columns := self.width) is not None:
            self._name_width = max(MIN_NAME, min(self._name_width, columns - OTHER_COLUMNS))
            self._error_width = max(MIN_NAME, columns - self._name_width - OTHER_COLUMNS // 2)
        self._refresh()
        return self

    def start(self, identity: str) -> None:
        """Count a point as running."""
        self._running.append(identity)
        self._refresh()

    def skip(self, identity: str) -> None:
        """Remove a point from those to run, because another process runs it or has finished it."""
        self._to_run.discard(identity)

    def finish(self, identity: str, rows: Sequence[TableRow]) -> None:
        """Print the result of a point, unless another process runs it."""
        self._table_rows = rows
        self._running.remove(identity)
        self._to_run.discard(identity)
        row = rows[self._numbers[identity] - 1]
        if row.status != "running":
            self._finished += 1
            line = self._line(identity, row)
            if self._to_run and self.width is None:  # there is no live line
                line += f"  {self._time_left(self._finished, len(self._to_run))}"
            self.print_line(line)
        self._refresh()

    def _line(self, identity: str, row: TableRow) -> str:
        total = len(self._sweep.points)
        number = f"[{self._numbers[identity]:>{len(str(total))}}/{total}]"
        result = "" if row.accuracy is None else f"test accuracy {row.accuracy:.4f}"
        if row.error:
            result = textwrap.shorten(visible(row.error), self._error_width, placeholder=" ...")
        width, name = self._name_width, visible(self._names[identity])
        if len(name) > width:
            name = name[: width - 3] + "..."
        seconds = "" if row.seconds is None else f"{row.seconds:7.1f} s"
        return f"{number} {name:<{width}}  {row.status:<8}  {result}{seconds}".rstrip()

    def _running_point(self) -> tuple[str, str]:
        identity = self._running[-1]
        number = self._numbers[identity]
        config = self._sweep.points[number - 1].config
        total = f"/{config.epochs}" if config.max_steps is None else ""
        return f"[{number}] {self._names[identity]}", total

    def _parts(self) -> Iterator[str]:
        counts = Counter(row.status for row in self._table_rows)
        failed, running = sum(counts[status] for status in FAILED), len(self._running)
        parts = [f"{counts['done']} done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{counts['pruned']} pruned"] if counts["pruned"] else []
        parts += [f"{running} running", f"{max(len(self._to_run) - running, 0)} pending"]
        yield ", ".join(parts)
        yield self._time_left(self._finished, len(self._to_run))

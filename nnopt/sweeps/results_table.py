"""``results.csv``: one row for every point of a sweep."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nnopt.config.point import Point
from nnopt.errors import ResumeError
from nnopt.io.atomic_files import output_error, write_text
from nnopt.io.locks import hold
from nnopt.results.collect import setting_text
from nnopt.results.metrics import METRICS
from nnopt.sweeps.manifest import NAME, Sweep, read_sweep, write_sweep
from nnopt.sweeps.point_folder import ENDED, FAILED, PENDING, PointState, read_state

FILE = "results.csv"

log = logging.getLogger("nnopt")


@dataclass(frozen=True)
class Entry:
    """What a point's folder said when it was last read. seconds: in all; None before the end."""

    status: str
    error: str | None
    stamp: int | None
    size: int
    accuracy: float | None
    seconds: float | None
    text: str


class Table:
    """The table of a sweep, written over and over as its points' folders stand.

    What was read stays in memory, so that only the summaries that have changed since are read
    again. Several processes may write the table of one sweep: each takes the sweep's lock, and what
    it writes are all rows as they are then, those of points that others have added included.

    Columns: number, id, status, error, every key swept over under its full name, seed, metrics.
    Numbers have full precision; what is not there is an empty cell.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._entries: list[Entry | None] = []
        self._varied: list[str] = []
        self._told: dict[str, PointState] = {}
        self.take(sweep)

    def take(self, sweep: Sweep) -> None:
        """From now on it is the table of this sweep: the same, perhaps with more points."""
        self._sweep = sweep
        varied = [key for key in sweep.varied if key != "seed"]
        if varied != self._varied:  # the rows have other columns
            self._varied, self._entries = varied, []
        self._summaries = [str(sweep.folder / point.id / "summary.json") for point in sweep.points]
        self._settings = [
            [*(_setting(point, key) for key in self._varied), str(point.config.seed)]
            for point in sweep.points
        ]
        self._entries += [None] * (len(sweep.points) - len(self._entries))
        self._written = self._stamp_of_sweep()

    def tell(self, identity: str, status: str, error: str | None) -> None:
        """How a point came to a bad end, by the word of whoever worked on it. It counts where the
        point's folder does not say: if that could not be made, or no summary be written to it."""
        if status in FAILED:
            self._told[identity] = PointState(status, error)

    def write(self) -> list[Entry]:
        """Look at the folders and write the table; the entries of all points, in their order.
        Raises OutputError."""
        folder = self._sweep.folder
        with hold(folder, wait=True):
            if self._stamp_of_sweep() != self._written:
                self.take(self._read_sweep())
            try:
                entries = self.read()
            except OSError as error:
                raise output_error("read the folder", folder, error) from error
            write_text(folder / FILE, self._header() + "".join(x.text for x in entries))
        return entries

    def _read_sweep(self) -> Sweep:
        """Return what ``sweep.json`` says now. One that was removed or damaged is written again:
        the sweep is in memory. Raises OutputError."""
        try:
            return read_sweep(self._sweep.folder, self._sweep)
        except ResumeError as error:
            log.warning("%s; it is written again, as this process has it", error)
            write_sweep(self._sweep)
            return self._sweep

    def read(self) -> list[Entry]:
        """The entries of all points as their folders stand now."""
        there = {entry.name for entry in os.scandir(self._sweep.folder)}
        for index, point in enumerate(self._sweep.points):
            before = self._entries[index]
            told = self._told.get(point.id)
            if point.id not in there:
                state = told or PENDING
                if before is None or before.status != state.status:
                    self._entries[index] = self._entry(index, state, 0)
                continue
            try:
                found = os.stat(self._summaries[index])
                size, stamp = found.st_size, found.st_mtime_ns
            except OSError:
                size, stamp = 0, None
            if before is None or stamp is None or (stamp, size) != (before.stamp, before.size):
                state = read_state(self._sweep.folder / point.id)
                if told and state.status not in (*ENDED, "running"):
                    state = told
                now = (state.status, state.stamp, size)
                if before is None or (before.status, before.stamp, before.size) != now:
                    self._entries[index] = self._entry(index, state, size)
        return [entry for entry in self._entries if entry is not None]

    def _entry(self, index: int, state: PointState, size: int) -> Entry:
        point, summary = self._sweep.points[index], state.summary
        cells = [index + 1, point.id, state.status, state.error, *self._settings[index]]
        cells += [summary.get(key) for key in METRICS]
        return Entry(
            state.status,
            state.error,
            state.stamp,
            size,
            summary.get("test_accuracy"),
            summary.get("total_seconds"),
            _line(["" if cell is None else cell for cell in cells]),
        )

    def _header(self) -> str:
        # "epochs" may be both: asked for, and done when patience ran out
        varied = set(self._varied)
        metrics = [f"{key}_done" if key in varied else key for key in METRICS]
        return _line(["number", "id", "status", "error", *self._varied, "seed", *metrics])

    def _stamp_of_sweep(self) -> int | None:
        with suppress(OSError):
            return (self._sweep.folder / NAME).stat().st_mtime_ns
        return None


def _line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _setting(point: Point, key: str) -> str:
    """The value that a key which varies has at a point: as it was given, of a group the name of the
    file; else as it is by default. Empty if the point does not have the key."""
    chosen = dict(word.lstrip("+").partition("=")[::2] for word in point.overrides)
    if key in chosen:
        return chosen[key]
    value: Any = point.container
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        return str(value.get("name", ""))
    return "" if value is None else setting_text(tuple(value) if isinstance(value, list) else value)

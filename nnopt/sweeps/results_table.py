"""``results.csv``: one row for each point of a sweep."""

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
from nnopt.io.own_files import SUMMARY
from nnopt.results.collect import setting_text
from nnopt.results.metrics import METRICS
from nnopt.sweeps.manifest import MANIFEST, Sweep, read_sweep, write_sweep
from nnopt.sweeps.point_folder import ENDED, FAILED, PENDING, PointState, read_state
from nnopt.sweeps.task import TaskResult

TABLE = "results.csv"

log = logging.getLogger("nnopt")


@dataclass(frozen=True)
class TableRow:
    """The row of a point in the table. ``text`` is the line of ``results.csv``."""

    status: str
    error: str | None
    accuracy: float | None
    seconds: float | None
    text: str


class ResultsTable:
    """The table of the results of a sweep. It is rewritten after each result.

    Only summaries that have changed are read again. Several processes may write the same table:
    each holds the sweep's lock while it writes the rows of all points, including added points. The
    columns are number, id, status, error, the varied keys with their full names, seed, and the
    metrics. Numbers have full precision. A missing value is an empty cell.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.folder = sweep.folder
        self.rows: list[TableRow] = []  # a row for each point of the sweep, in the same order
        self._varied: list[str] = []
        self._metrics: tuple[str, ...] = METRICS
        self._cache: dict[str, tuple[int | None, int, TableRow]] = {}  # id -> mtime, size, row
        self._reported: dict[str, PointState] = {}
        self.use(sweep)

    def use(self, sweep: Sweep) -> None:
        """Replace the sweep by a newer version of the same sweep, which may have more points."""
        self._sweep = sweep
        varied = [key for key in sweep.varied if key != "seed"]
        of_plugins = (f"test_{x}" for p in sweep.points for x in p.config.evaluation.metrics)
        metrics = tuple(dict.fromkeys((*METRICS, *of_plugins)))
        if (varied, metrics) != (self._varied, self._metrics):
            self._varied, self._metrics, self._cache = varied, metrics, {}
        self._manifest_stamp = self._read_manifest_stamp()

    def report(self, result: TaskResult) -> None:
        """Store a failure, in case the point could not write a summary, as on a full disk."""
        if result.status in FAILED:
            self._reported[result.task.point.id] = PointState(result.status, result.error)

    def write(self) -> list[TableRow]:
        """Read the states of all points, and write and return their rows. Raises OutputError."""
        with hold(self.folder, wait=True):
            if self._read_manifest_stamp() != self._manifest_stamp:
                self.use(self._read_sweep())
            try:
                self.rows = self._read_rows()
            except OSError as error:
                raise output_error("read the folder", self.folder, error) from error
            # A varied key may have the same name as a metric, such as "epochs".
            metrics = [f"{x}_done" if x in self._varied else x for x in self._metrics]
            names = ["number", "id", "status", "error", *self._varied, "seed", *metrics]
            write_text(self.folder / TABLE, _csv_line(names) + "".join(r.text for r in self.rows))
        return self.rows

    def _read_sweep(self) -> Sweep:
        """Read the sweep. If ``sweep.json`` was removed or damaged, write it again."""
        try:
            return read_sweep(self.folder, self._sweep)
        except ResumeError as error:
            reason = str(error).partition(";")[0]  # without the remedy
            log.warning("%s; %s is written again from memory", reason, MANIFEST)
            write_sweep(self._sweep)
            return self._sweep

    def _read_rows(self) -> list[TableRow]:
        present = {entry.name for entry in os.scandir(self.folder)}
        for number, point in enumerate(self._sweep.points, start=1):
            stamp, size = None, 0
            if point.id in present:
                with suppress(OSError):
                    found = os.stat(f"{self.folder}/{point.id}/{SUMMARY}")
                    stamp, size = found.st_mtime_ns, found.st_size
            cached = self._cache.get(point.id)
            if cached is not None and stamp is not None and cached[:2] == (stamp, size):
                continue
            state = read_state(self.folder / point.id) if point.id in present else PENDING
            if state.status not in (*ENDED, "running"):
                state = self._reported.get(point.id, state)
            version = state.stamp, size
            if cached is None or cached[:2] != version or cached[2].status != state.status:
                self._cache[point.id] = *version, self._row(number, point, state)
        return [self._cache[point.id][2] for point in self._sweep.points]

    def _row(self, number: int, point: Point, state: PointState) -> TableRow:
        cells = [number, point.id, state.status, state.error]
        cells += [_setting(point, key) for key in self._varied]
        cells += [point.config.seed, *map(state.summary.get, self._metrics)]
        accuracy, seconds = map(state.summary.get, ("test_accuracy", "total_seconds"))
        return TableRow(state.status, state.error, accuracy, seconds, _csv_line(cells))

    def _read_manifest_stamp(self) -> int | None:
        with suppress(OSError):
            return (self.folder / MANIFEST).stat().st_mtime_ns
        return None


def _csv_line(cells: Sequence[Any]) -> str:
    text = io.StringIO()  # the csv module writes None as an empty cell
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _setting(point: Point, key: str) -> str:
    """Return a key's value, the name of a group's chosen file, or "" if both are missing."""
    overrides = dict(override.lstrip("+").partition("=")[::2] for override in point.overrides)
    if key in overrides:
        return overrides[key]
    value: Any = point.container
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        return str(value.get("name", ""))
    return "" if value is None else setting_text(tuple(value) if isinstance(value, list) else value)

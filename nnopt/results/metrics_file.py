"""The CSV files of a run: ``metrics.csv``, ``layers.csv`` and ``lr_find.csv``."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import DataError
from nnopt.io.atomic_files import output_error, shown, write_bytes
from nnopt.io.received_files import TABLE_BYTES, read_received
from nnopt.io.safe_text import shortened


@dataclass(frozen=True)
class EpochRow:
    """Metrics of one epoch, a row of ``metrics.csv``.

    The training metrics are means over the augmented samples, in training mode. The validation
    metrics are measured after the epoch, and are None without validation data.
    """

    epoch: int  # counted from 1
    step: int  # optimizer steps since the start of training
    lr: float  # learning rate of the last step of the epoch
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    penalty: float  # sum of the L1 and L2 penalties, which the losses do not include
    gradient_norm: float  # L2 norm over all parameters in the last step, before clipping
    seconds: float  # wall time of the epoch
    sparsity: float = 0.0  # fraction of the prunable weights or units that are pruned


@dataclass(frozen=True)
class LayerRow:
    """Statistics of one layer at the end of one epoch, a row of ``layers.csv``.

    The activations are all outputs of the layer for some fixed samples, in evaluation mode. A unit
    (for images: a channel) is dead if it is 0 for every sample at every position. The gradient of
    ``weight`` is that of the last step of the epoch, with penalties and after clipping. The update
    ratio is ‖w' - w‖ / ‖w‖, with the weight w before and w' after this step, and L2 norms.
    """

    epoch: int  # counted from 1
    layer: str
    activation_mean: float
    activation_std: float
    dead_fraction: float | None  # None for layers other than ReLU
    gradient_mean: float | None  # None for a layer without weights
    gradient_std: float | None
    weight_norm: float | None = None  # ‖w'‖; None for a layer without weights
    update_ratio: float | None = None  # also None if w is 0, and in epochs of earlier versions


METRICS_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(EpochRow))

FIRST_COLUMNS = METRICS_COLUMNS[:-1]
"""Columns of the files of an earlier version, which had no pruning."""

_INTEGERS = {"epoch", "step"}
_OPTIONAL = {"validation_loss", "validation_accuracy"}
_INTEGER = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?|nan|-?inf")
"""Numbers as ``repr`` writes them; ``float`` would also accept ``1_000`` and non-ASCII digits."""

FileRow = EpochRow | LayerRow
Floats = NDArray[np.float64]


class MetricsFile(AbstractContextManager["MetricsFile"]):
    """Writer of a new CSV file whose columns are the fields of ``record``. A context manager.

    The file begins with ``rows``, the earlier rows of a resumed run. Each call of ``append`` writes
    and syncs all its rows at once. If only a part can be written, the file is truncated, so that it
    always ends with a complete epoch. The class and its methods raise OutputError if the file
    cannot be written; an existing file is not overwritten.
    """

    def __init__(
        self, path: Path, rows: Sequence[FileRow] = (), record: type[FileRow] = EpochRow
    ) -> None:
        self.path = path
        self._length = 0  # bytes of complete rows
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise output_error("write", path, error) from error
        try:
            header = _line(field.name for field in fields(record))
            self._write(header + b"".join(map(_row_line, rows)))
        except BaseException:
            self.close()
            with suppress(OSError):
                path.unlink()
            raise

    def append(self, *rows: FileRow) -> None:
        """Write the rows of one epoch, with numbers in full precision."""
        self._write(b"".join(map(_row_line, rows)))

    def complete(self, rows: Sequence[FileRow]) -> None:
        """Write the rows that the file lacks. rows: all rows of the run so far."""
        written = self.path.read_bytes().count(b"\n") - 1
        self.append(*rows[written:])

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        try:
            if (written := os.write(self._descriptor, line)) < len(line):
                # This second write raises the error that prevented a complete write.
                os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
            # If the file or its folder was removed, rows would be lost without an error.
            if not os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
                raise OSError(errno.ESTALE, "another file has taken its place", str(self.path))
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
            raise output_error("write", self.path, error, len(line)) from error
        self._length += len(line)


def read_metrics(path: Path, checksum: str | None = None) -> list[EpochRow]:
    """Return the rows of a ``metrics.csv``, without an incomplete last line.

    ``checksum`` is the SHA-256 of the file at the end of the run, or None if it is unknown. Raises
    DataError if the file is missing or was changed, or has wrong columns or an invalid cell.
    """
    try:
        data = read_received(path, path.parent, TABLE_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror}") from error
    if checksum is not None and checksum != hashlib.sha256(data).hexdigest():
        raise DataError(
            f"{shown(path)} was changed after the run: its checksum in summary.json does not match"
        )
    text = data.decode("utf-8", errors="replace")
    header, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
    columns = tuple(header.split(","))
    if columns not in (METRICS_COLUMNS, FIRST_COLUMNS):
        raise DataError(
            f"{shown(path)} is no metrics file of nnopt: its columns are "
            f"{shortened(repr(header), 200)}, expected {','.join(METRICS_COLUMNS)!r}"
        )
    rows = enumerate(lines, start=2)
    return [_row(path, number, columns, line.split(",")) for number, line in rows]


def _row(path: Path, line: int, columns: tuple[str, ...], cells: list[str]) -> EpochRow:
    place = f"{shown(path)}, line {line}"
    if len(cells) != len(columns):
        raise DataError(f"{place}: {len(cells)} cells, expected {len(columns)}")
    values: dict[str, float | None] = {}
    for column, cell in zip(columns, cells, strict=True):
        if cell == "" and column in _OPTIONAL:
            values[column] = None
        elif (_INTEGER if column in _INTEGERS else _NUMBER).fullmatch(cell):
            values[column] = int(cell) if column in _INTEGERS else float(cell)
        else:
            expected = "whole number" if column in _INTEGERS else "number"
            raise DataError(
                f"{place}: {column} is {shortened(repr(cell), 50)}, expected a {expected}"
            )
    if values["epoch"] != line - 1:
        raise DataError(f"{place}: the epoch is {cells[0]}, expected {line - 1}")
    return EpochRow(**values)  # type: ignore[arg-type]  # the types are checked above


def _row_line(row: FileRow) -> bytes:
    return _line(map(_cell, astuple(row)))


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    # repr is the shortest text that reads back as the same float64.
    return repr(int(value)) if isinstance(value, int) else repr(float(value))


def _line(cells: Iterable[str]) -> bytes:
    """Return a line of CSV. No cell needs quotes: names and numbers contain no comma or quote."""
    return (",".join(cells) + "\n").encode("ascii")


def write_lr_curve(path: Path, rates: Floats, losses: Floats, smoothed: Floats) -> None:
    """Write the arrays (steps,) of a learning-rate range test as CSV. Raises OutputError."""
    steps = range(1, len(rates) + 1)
    rows = zip(steps, rates.tolist(), losses.tolist(), smoothed.tolist(), strict=True)
    header = ("step", "lr", "loss", "smoothed_loss")
    write_bytes(path, b"".join([_line(header), *(_line(map(_cell, row)) for row in rows)]))

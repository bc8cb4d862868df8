"""The curves of a report: the rows of ``metrics.csv``, thinned to a maximum size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from nnopt.errors import DataError
from nnopt.results.metrics_file import EpochRow, read_metrics

COLUMNS = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "lr",
    "penalty",
    "gradient_norm",
    "sparsity",
)
"""Columns that can be drawn against epochs, steps or seconds."""

MAX_PAGE_VALUES = 300_000  # limit of the numbers in a page's curves: 2.1 MB at 7 bytes each
MAX_EPOCHS, MIN_EPOCHS = 500, 20  # limits of the number of selected epochs of a run
DIGITS = 5

Column = list[float | None] | float | None
"""The numbers of a column, with None for a missing number. If all are equal, a single number."""


@dataclass(frozen=True)
class Curve:
    """The curves of one run: values at the selected epochs."""

    epochs: list[int]
    steps: list[int]  # optimizer steps until the end of each epoch
    seconds: list[float | None]  # seconds until the end of each epoch
    columns: Mapping[str, Column]
    every: int  # distance between the selected epochs, in epochs


def read_curves(locations: Sequence[tuple[Path, str | None] | None]) -> list[Curve | str | None]:
    """Return a curve for each run: None if it has no epochs, a message if its file is unreadable.

    A location is a run's folder and the SHA-256 of its ``metrics.csv``, if known. A run that has
    not started has the location None. For runs of similar length, the same epochs are selected, so
    that their curves can be averaged.
    """
    histories = [_history(*location) if location else [] for location in locations]
    runs = sum(bool(rows) and not isinstance(rows, str) for rows in histories)
    max_epochs = MAX_PAGE_VALUES // (max(runs, 1) * (len(COLUMNS) + 1))
    max_epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, max_epochs))
    return [
        rows if isinstance(rows, str) else _thin(rows, max_epochs) if rows else None
        for rows in histories
    ]


def _history(folder: Path, checksum: str | None) -> list[EpochRow] | str:
    try:
        return read_metrics(folder / "metrics.csv", checksum)
    except DataError as error:
        exists = (folder / "metrics.csv").exists()  # absent if the run failed in its first epoch
        return str(error) if exists else []


def _thin(rows: Sequence[EpochRow], max_epochs: int) -> Curve:
    """Return a curve of the last row and every n-th row, at most ``max_epochs`` + 1 in all."""
    every = 1
    while len(rows) > every * max_epochs:
        every *= 2
    kept = sorted({*range(0, len(rows), every), len(rows) - 1})
    seconds = list(accumulate(row.seconds for row in rows))
    columns = {name: _column([getattr(rows[i], name) for i in kept]) for name in COLUMNS}
    return Curve(
        epochs=[rows[i].epoch for i in kept],
        steps=[rows[i].step for i in kept],
        seconds=[short(seconds[i], DIGITS) for i in kept],
        columns={name: column for name, column in columns.items() if column is not None},
        every=every,
    )


def _column(values: Sequence[float | None]) -> Column:
    numbers = [short(value, DIGITS) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def short(value: Any, digits: int) -> float | None:
    """Round a number to ``digits`` significant digits; None if not finite, an int if whole."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    if not math.isfinite(rounded):  # rounding up can exceed the largest float64
        return float(value)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded

"""The curves of a report: the rows of ``metrics.csv``, thinned until all of them are small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
)
"""What can be drawn against epochs, steps or seconds."""

NUMBERS = 300_000
"""Of all curves of a page together: at seven characters each, 2.1 MB at most."""

MOST, LEAST = 500, 20
"""Epochs of one run that are kept: more cannot be told apart, of fewer there is no curve."""

DIGITS = 5

Column = list[float | None] | float | None
"""Numbers, None where there is none; one number stands for a column of equal ones."""


@dataclass(frozen=True)
class Curve:
    """One run's: the epochs that are kept, the optimizer steps and the seconds until their ends,
    and the columns by name. every: of how many epochs one is kept."""

    epochs: list[int]
    steps: list[int]
    seconds: list[float | None]
    columns: Mapping[str, Column]
    every: int


Place = tuple[Path, str | None]
"""The folder of a run, and the SHA-256 of its ``metrics.csv`` if its summary has it."""


def read_curves(places: Sequence[Place | None]) -> list[Curve | str | None]:
    """The curve of each run; None where there is none, and why it cannot be read where it
    cannot. Runs of like length keep the same epochs, so that they can be averaged."""
    histories = [_history(*place) if place else [] for place in places]
    runs = sum(bool(rows) and not isinstance(rows, str) for rows in histories)
    most = min(MOST, max(LEAST, NUMBERS // (runs * (len(COLUMNS) + 1)))) if runs else MOST
    return [
        rows if isinstance(rows, str) else _thinned(rows, most) if rows else None
        for rows in histories
    ]


def _history(folder: Path, checksum: str | None) -> list[EpochRow] | str:
    try:
        return read_metrics(folder / "metrics.csv", checksum)
    except DataError as error:
        is_there = (folder / "metrics.csv").exists()  # not if it failed before the first epoch
        return str(error) if is_there else []


def _thinned(rows: Sequence[EpochRow], most: int) -> Curve:
    """The first row, the last, and those between at distances of a power of two, at most
    ``most`` + 1 of them."""
    every = 1
    while len(rows) > every * most:
        every *= 2
    kept = [row for row in rows if (row.epoch - 1) % every == 0 or row is rows[-1]]
    elapsed, seconds = 0.0, {}
    for row in rows:
        elapsed += row.seconds
        seconds[row.epoch] = elapsed
    columns = {name: _column([getattr(row, name) for row in kept]) for name in COLUMNS}
    return Curve(
        epochs=[row.epoch for row in kept],
        steps=[row.step for row in kept],
        seconds=[short(seconds[row.epoch], DIGITS) for row in kept],
        columns={name: column for name, column in columns.items() if column is not None},
        every=every,
    )


def _column(values: Sequence[float | None]) -> Column:
    numbers = [short(value, DIGITS) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def short(value: Any, digits: int) -> float | None:
    """A number rounded to so many digits, a whole one as an int; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    if not math.isfinite(rounded):  # the largest numbers are rounded up to infinity
        return float(value)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded

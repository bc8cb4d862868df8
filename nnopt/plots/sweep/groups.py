"""The key on the horizontal axis of the plot ``by_key``, and the groups that its lines connect.

- The axis is the numeric key with the most values. Keys with four or more values are treated as
  equal. Among equals, ``pruning.sparsity`` and then ``optimizer.lr`` are preferred, then the key
  with more values, then the first key.
- A line connects the settings that agree in all other keys. A numeric key that rises or falls along
  with the axis, as in a sweep with ``mode=zip``, does not separate lines.
- The axis is linear if a value is negative, if three or more values are evenly spaced, or if there
  is a 0 and the others span less than a power of ten. Otherwise it is logarithmic, and a 0 is drawn
  at its left end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.settings import sort_key

ENOUGH_VALUES = 4
SPARSITY, RATIO, RATE = "pruning.sparsity", "compression_ratio", "optimizer.lr"
NAMES = {RATE: "learning rate"}
MIN_RATIO_WITH_ZERO = 10  # a smaller range of positive values and a 0 have a linear axis
EVEN = 1e-6  # relative difference of distances that count as equal

Group = Sequence[Row]
"""Settings that differ only in the key of the axis, sorted by its value."""


@dataclass(frozen=True)
class KeyAxis:
    """The horizontal axis: the values of a key, or compression ratios for ``pruning.sparsity``."""

    key: str

    @property
    def is_ratio(self) -> bool:
        """Whether the axis shows the measured compression ratio of each setting."""
        return self.key == SPARSITY

    @property
    def name(self) -> str:
        """The name in a title."""
        return "compression ratio" if self.is_ratio else NAMES.get(self.key, self.key)

    @property
    def label(self) -> str:
        """The label of the axis."""
        if self.is_ratio:
            return "compression ratio, and parameters kept"
        return f"{self.name} ({self.key})" if self.key in NAMES else self.key

    def value(self, row: Row) -> float | None:
        """Return the position of a setting; None if it has none, as a network without pruning."""
        if self.is_ratio:
            ratios = list(row.setting.metric(RATIO).values())
            ratio = float(np.mean(ratios)) if ratios else 1.0
            return ratio if ratio > 1 else None
        value = row.setting.values.get(self.key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and np.isfinite(value) else None  # type: ignore[arg-type]

    def values(self, rows: Sequence[Row]) -> list[float]:
        """Return the distinct positions of settings, in ascending order."""
        return sorted({x for row in rows if (x := self.value(row)) is not None})


@dataclass(frozen=True)
class Grouping:
    """The settings of a plot: the groups, and the settings without a value on the axis.

    Attributes:
        axis: The horizontal axis.
        keys: The keys whose values separate the groups.
        along: The keys whose values rise or fall along with the axis.
        groups: The groups, sorted by the values of ``keys``.
        references: The settings without a value on the axis.
    """

    axis: KeyAxis
    keys: tuple[str, ...]
    along: tuple[str, ...]
    groups: tuple[Group, ...]
    references: tuple[Row, ...]


def group_settings(comparison: Comparison) -> Grouping | None:
    """Choose the axis, and group the settings. Return None if no key has two numeric values."""
    axis = choose_axis(comparison)
    if axis is None:
        return None
    rows = [row for row in comparison.rows if axis.value(row) is not None]
    others = [key for key in comparison.keys if key != axis.key and _varies(key, rows)]
    along = tuple(key for key in others if _is_monotone(key, axis, rows))
    keys = tuple(key for key in others if key not in along)
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda x: tuple(sort_key(x.setting.values, k) for k in keys)):
        values = tuple(sort_key(row.setting.values, key) for key in keys)
        groups.setdefault(values, []).append(row)
    ordered = tuple(sorted(x, key=lambda row: axis.value(row) or 0.0) for x in groups.values())
    references = tuple(row for row in comparison.rows if axis.value(row) is None)
    return Grouping(axis, keys, along, ordered, references)


def choose_axis(comparison: Comparison) -> KeyAxis | None:
    """Return the key for the horizontal axis, or None if no key has two numeric values."""
    counts = {}
    for key in comparison.keys:
        axis = KeyAxis(key)
        count = len(axis.values(comparison.rows))
        if count > 1:
            is_dense = axis.is_ratio and any(axis.value(row) is None for row in comparison.rows)
            counts[key] = count + is_dense  # the networks without pruning are a value of the ratio

    def preference(key: str) -> tuple[int, bool, bool, int]:
        count = counts[key]
        return (min(count, ENOUGH_VALUES), key == SPARSITY, key == RATE, count)

    return KeyAxis(max(counts, key=preference)) if counts else None


def is_logarithmic(values: Sequence[float]) -> bool:
    """Return whether an axis with these distinct values in ascending order is logarithmic."""
    positive = [value for value in values if value > 0]
    if values[0] < 0 or len(positive) < 2:
        return False
    if len(values) > 2:
        distances = [after - before for before, after in pairwise(values)]
        if max(distances) - min(distances) <= EVEN * max(distances):
            return False
    return values[0] > 0 or positive[-1] >= MIN_RATIO_WITH_ZERO * positive[0]


def _varies(key: str, rows: Sequence[Row]) -> bool:
    return len({sort_key(row.setting.values, key) for row in rows}) > 1


def _is_monotone(key: str, axis: KeyAxis, rows: Sequence[Row]) -> bool:
    """Return whether a numeric key has one value for each value of the axis, rising or falling.

    The values of the axis are those of its key, because settings with the same sparsity can have
    slightly different compression ratios.
    """
    by_value: dict[tuple[int, object], set[float]] = {}
    for row in rows:
        value = KeyAxis(key).value(row)
        if value is None:
            return False
        by_value.setdefault(sort_key(row.setting.values, axis.key), set()).add(value)
    if any(len(found) > 1 for found in by_value.values()):
        return False
    values = [by_value[x].copy().pop() for x in sorted(by_value)]
    distances = [after - before for before, after in pairwise(values)]
    return all(x >= 0 for x in distances) or all(x <= 0 for x in distances)

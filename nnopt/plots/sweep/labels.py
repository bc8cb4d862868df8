"""Texts, line styles and axis limits that the plots of a sweep share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.statistics import Estimate
from nnopt.analysis.tabulate import counted, short_text, value_of
from nnopt.plots import style
from nnopt.results.metrics import better_direction

MAX_ALL_NAMED, MAX_NAMED = 10, 7
"""The legend names all of up to 10 settings. If there are more, it names the best 7."""

MAX_VALUE_CHARACTERS = 24
COLOURS = tuple(colour for colour in style.PALETTE if colour != style.YELLOW)  # faint on white
DASHES = ("-", "--", "-.", ":")  # 4 and 7 colours are coprime

UNITS = {"accuracy": "%", "loss": "mean per sample", "seconds": "s", "mb": "MiB"}
"""Last word of a metric's name -> its unit."""

METRIC_NAMES = {
    "train_seconds": "training time",
    "total_seconds": "total time",
    "peak_memory_mb": "peak memory",
    "peak_device_memory_mb": "peak memory of the device",
    "suggested_lr": "suggested learning rate",
    "flops_per_sample": "FLOPs per sample",
    "final_train_loss": "final training loss",
    "final_train_accuracy": "final training accuracy",
}


@dataclass(frozen=True)
class Metric:
    """A metric as plots show it.

    Attributes:
        name: Name of the metric in words.
        unit: Unit of the metric; empty if it has none.
        label: Name and unit.
        factor: Converts the unit of ``summary.json`` to ``unit``.
        direction: "higher" if higher values are better, "lower" if lower ones are, else None.
    """

    name: str
    unit: str
    label: str
    factor: float
    direction: str | None


def metric_of(comparison: Comparison) -> Metric:
    """Return the first metric of a comparison."""
    key = comparison.metrics[0]
    unit = UNITS.get(key.rpartition("_")[2], "")
    name = METRIC_NAMES.get(key) or comparison.label(key).replace("_", " ")
    label = f"{name} ({unit})" if unit else name
    return Metric(name, unit, label, 100.0 if unit == "%" else 1.0, better_direction(key))


def result_of(row: Row, metric: Metric) -> Estimate | None:
    """Return the mean of a setting in the unit of the plot; None if no run has the metric."""
    estimate, factor = row.outcomes[0].estimate, metric.factor
    if estimate is None or factor == 1:
        return estimate
    low, high = estimate.interval or (None, None)
    return replace(
        estimate,
        mean=factor * estimate.mean,
        std=None if estimate.std is None else factor * estimate.std,
        interval=None if low is None or high is None else (factor * low, factor * high),
    )


def means_of(rows: Iterable[Row], metric: Metric) -> list[float]:
    """Return the means of the settings that have one."""
    return [result.mean for row in rows if (result := result_of(row, metric)) is not None]


def key_labels(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the last part of each key (``lr`` of ``optimizer.lr``), or the key if ambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    return tuple(k if last.count(x) > 1 else x for k, x in zip(keys, last, strict=True))


def value_labels(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a setting in the syntax of the command line, shortened."""
    return tuple(value_label(row, key) for key in keys)


def value_label(row: Row, key: str) -> str:
    """Return a value in a few characters. Numbers with many digits are rounded to four."""
    value = row.setting.values.get(key)
    if isinstance(value, float) and len(str(value)) > 8:
        return f"{value:.4g}"
    return style.readable(short_text(value_of(row.setting, key), MAX_VALUE_CHARACTERS))


def best_first(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Return the settings sorted by their mean; settings without a mean are last.

    The order is unchanged if the metric has no better direction.
    """
    sign = {"higher": -1.0, "lower": 1.0, None: 0.0}[metric.direction]

    def rank(row: Row) -> tuple[bool, float]:
        estimate = row.outcomes[0].estimate
        return (True, 0.0) if estimate is None else (False, sign * estimate.mean)

    return sorted(rows, key=rank)


def split_named(rows: Sequence[Row], metric: Metric) -> tuple[list[Row], list[Row]]:
    """Return the settings named in a legend, and the others, which are drawn in grey."""
    if len(rows) <= MAX_ALL_NAMED:
        return list(rows), []
    ordered = best_first(rows, metric)
    return ordered[:MAX_NAMED], ordered[MAX_NAMED:]


def count_label(named: int, others: int, metric: Metric, noun: str = "setting") -> str:
    """Return ``7 settings`` or ``the best 7 of 40 settings``, for a title."""
    if not others:
        return counted(named, noun)
    first = "first" if metric.direction is None else "best"
    return f"the {first} {named} of {named + others} {noun}s"


def seed_counts(rows: Iterable[Row]) -> list[int]:
    """Return the number of seeds of each setting that has a mean."""
    return [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]


def seeds_label(counts: Sequence[int]) -> str:
    """Return ``3 seeds``, or ``2 to 5 seeds`` if settings differ in their number of seeds."""
    low, high = min(counts, default=0), max(counts, default=0)
    return counted(low, "seed") if low == high else f"{low} to {high} seeds"


def line_style(index: int) -> dict[str, Any]:
    """Return the colour, dashes and marker of a named line, distinct in greyscale as well."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": style.MARKERS[index % len(style.MARKERS)],
    }


def capitalized(text: str) -> str:
    """Return the text with a capital first letter and no other change."""
    return text[:1].upper() + text[1:]


def is_logarithmic(values: Sequence[float], metric: Metric) -> bool:
    """Return whether a metric, such as a loss, is shown on a logarithmic axis.

    The axis is logarithmic if lower values are better and the values span more than a decade. On a
    linear axis, the best values would then coincide.
    """
    return metric.direction == "lower" and style.spans_decades(np.array(values, np.float64), 1)


def axis_limits(values: Sequence[float], direction: str | None) -> tuple[float, float]:
    """Return axis limits that ignore outliers on the worse side.

    An outlier is farther from the better three quarters of the values than three times their
    spread. Without outliers, the axis contains all finite values. direction: as in ``Metric``.
    """
    x = np.sort(np.array([value for value in values if np.isfinite(value)]))
    if not len(x):
        return 0.0, 1.0
    low, high = float(x[0]), float(x[-1])
    if direction == "higher" and len(x) > 3 and high > (quartile := float(x[len(x) // 4])):
        low = max(low, quartile - 3 * (high - quartile))
    elif direction == "lower" and len(x) > 3 and low < (quartile := float(x[-1 - len(x) // 4])):
        high = min(high, quartile + 3 * (quartile - low))
    return low, high


def with_margin(
    low: float, high: float, fraction: float, logarithmic: bool = False
) -> tuple[float, float]:
    """Return axis limits widened at both ends by a fraction of their distance."""
    if logarithmic:
        ratio = float(np.exp(fraction * (np.log(high) - np.log(low))))
        return low / ratio, high * ratio
    margin = fraction * (high - low) or 0.02 * abs(high) or 0.02
    return low - margin, high + margin

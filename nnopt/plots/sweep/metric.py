"""The metric that the plots of a sweep show: its results, axis limits and colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.statistics import Estimate
from nnopt.plots import style
from nnopt.results import metrics
from nnopt.results.metrics import better_direction

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

MAX_LIGHTNESS = 0.93  # end of the part of cividis that is used, as a fraction

POINTS = "percentage points"
"""Unit of a difference of fractions, which can be negative."""

UNITS = metrics.UNITS | {"accuracy": "%", "gap": POINTS, "loss": "mean per sample"}
"""Last word of a metric's name -> its unit in plots."""

METRIC_NAMES = {
    "test_top5_accuracy": "test top-5 accuracy",
    "test_macro_f1": "test macro F1",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
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
    """A metric, with its name and unit as the plots show them."""

    name: str  # in words
    unit: str  # empty if the metric has no unit
    factor: float  # converts the unit of ``summary.json`` to ``unit``
    direction: str | None  # the better direction, "higher" or "lower"; None if there is none

    @property
    def label(self) -> str:
        """The name and the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def title(self) -> str:
        """The name with a capital first letter."""
        return self.name[:1].upper() + self.name[1:]

    def result(self, row: Row) -> Estimate | None:
        """Return the mean of a setting in the unit of the plot; None if no run has the metric."""
        estimate, factor = row.outcomes[0].estimate, self.factor
        if estimate is None or factor == 1:
            return estimate
        low, high = estimate.interval or (None, None)
        return replace(
            estimate,
            location=factor * estimate.location,
            std=None if estimate.std is None else factor * estimate.std,
            interval=None if low is None or high is None else (factor * low, factor * high),
        )

    def means(self, rows: Iterable[Row]) -> list[float]:
        """Return the means of the settings that have a mean."""
        return [result.location for row in rows if (result := self.result(row)) is not None]

    def rank(self, row: Row) -> tuple[bool, float]:
        """Return a sort key: better means are first, settings without a mean are last.

        All means have the same key if the metric has no better direction.
        """
        sign = {"higher": -1.0, "lower": 1.0, None: 0.0}[self.direction]
        estimate = row.outcomes[0].estimate
        return (True, 0.0) if estimate is None else (False, sign * estimate.location)

    def is_logarithmic(self, values: Sequence[float]) -> bool:
        """Return whether the metric, such as a loss, is shown on a logarithmic axis.

        The axis is logarithmic if lower values are better and the values span more than a decade,
        because the best values would coincide on a linear axis.
        """
        return self.direction == "lower" and style.spans_decades(np.array(values, np.float64), 1)

    def colours(self) -> Colormap:
        """Return the colour map cividis, whose lightness increases evenly.

        Better values are darker. If the metric has no better direction, higher values are darker.
        """
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap

        shades = colormaps["cividis"](np.linspace(0, MAX_LIGHTNESS, 256))
        return ListedColormap(shades if self.direction == "lower" else shades[::-1])

    def colour_scale(self, values: Sequence[float]) -> tuple[Normalize, str]:
        """Return the colour scale of values, and ``extend`` for matplotlib's ``colorbar``.

        ``extend`` is "min" or "max" if values lie below or above the scale, else "neither".
        """
        from matplotlib.colors import LogNorm, Normalize

        finite = [value for value in values if np.isfinite(value)]
        if self.is_logarithmic(finite):
            return LogNorm(min(x for x in finite if x > 0), max(finite), clip=True), "neither"
        low, high = axis_limits(finite, self.direction)
        if low == high:
            low, high = low - 0.5, high + 0.5
        extend = "min" if min(finite, default=low) < low else "neither"
        extend = "max" if max(finite, default=high) > high else extend
        return Normalize(low, high, clip=True), extend


def metric_of(comparison: Comparison) -> Metric:
    """Return the first metric of a comparison."""
    key = comparison.metrics[0]
    unit = UNITS.get(key.rpartition("_")[2], "")
    name = METRIC_NAMES.get(key) or comparison.label(key).replace("_", " ")
    factor = 100.0 if unit in ("%", POINTS) else 1.0
    return Metric(name, unit, factor, better_direction(key))


def axis_limits(values: Sequence[float], direction: str | None) -> tuple[float, float]:
    """Return axis limits that ignore outliers on the worse side.

    The distance of an outlier to the better three quarters of the values is more than three times
    the spread of these quarters. All other finite values are inside. direction: see ``Metric``.
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


def limits_with_intervals(
    rows: Sequence[Row], values: Sequence[float], metric: Metric
) -> tuple[float, float]:
    """Return axis limits that contain the intervals, except for the ends of very wide intervals.

    The interval of two seeds can be far wider than the range of all values.
    """
    low, high = axis_limits(values, metric.direction)
    results = [x for row in rows if (x := metric.result(row)) is not None]
    ends = [end for result in results for end in result.interval or ()]
    spread = high - low or 0.01 * abs(high) or 0.01
    lowest = 0.0 if low >= 0 and metric.unit != POINTS else -np.inf
    highest = 100.0 if metric.unit == "%" else np.inf
    low = max(min([low, *ends]), low - spread, lowest)
    high = min(max([high, *ends]), high + spread, highest)
    return with_margin(low, high, 0.04)


def with_margin(
    low: float, high: float, fraction: float, logarithmic: bool = False
) -> tuple[float, float]:
    """Return axis limits, widened at both ends by ``fraction`` times their distance."""
    if logarithmic:
        ratio = float(np.exp(fraction * (np.log(high) - np.log(low))))
        return low / ratio, high * ratio
    margin = fraction * (high - low) or 0.02 * abs(high) or 0.02
    return low - margin, high + margin

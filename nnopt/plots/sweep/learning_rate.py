"""The result against the learning rate: a line for each combination of the other keys' values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING, format_value
from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.sweep.labels import (
    count_label,
    footnote,
    key_labels,
    line_style,
    over_seeds,
    seed_counts,
    split_named,
    value_labels,
)
from nnopt.plots.sweep.layout import UNNAMED_COLOUR, Legend, SettingTable, sweep_figure
from nnopt.plots.sweep.metric import Metric, axis_limits, metric_of, with_margin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY = "optimizer.lr"
PANEL_SIZE = (5.6, 3.2)  # inches
MAX_RATE_TICKS = 9

Group = Sequence[Row]
"""Settings that differ only in the learning rate, sorted by learning rate."""


def rate_of(row: Row) -> float | None:
    """Return the learning rate of a setting; None if it is not a positive number."""
    value = row.setting.values.get(KEY)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return float(value)


def groups_by_rate(comparison: Comparison) -> list[Group]:
    """Return the settings with a positive learning rate, grouped by the other keys' values."""
    others = [key for key in comparison.keys if key != KEY]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in comparison.rows:
        if rate_of(row) is not None:
            values = tuple(row.setting.values.get(key, MISSING) for key in others)
            groups.setdefault(values, []).append(row)
    return [sorted(group, key=lambda row: rate_of(row) or 0) for group in groups.values()]


def plot_learning_rates(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Draw the mean over seeds and its 95 % interval against the learning rate.

    A line connects settings that differ only in the learning rate. Of many lines, only the best are
    coloured. If most lines would have one setting, as in a random search, dots are drawn. A cross
    marks a setting without a finished run. Outliers do not stretch the axis.
    """
    metric = metric_of(comparison)
    groups = groups_by_rate(comparison)
    are_dots = sum(len(group) > 1 for group in groups) * 2 < len(groups)
    others = [key for key in comparison.keys if key != KEY]
    best = partial(min, key=metric.rank)
    named, unnamed = ([], groups) if are_dots else split_named(groups, best, metric)
    legend = None
    if len(named) > 1:
        table = SettingTable(
            (*key_labels(others), "best rate", metric.label),
            tuple(_legend_row(group, others, metric) for group in named),
            tuple(any(row.outcomes[0].is_best for row in group) for group in named),
        )
        text = counted(len(unnamed), "other line") if unnamed else ""
        legend = Legend(table, text)
    title = f"{metric.title} by learning rate"
    if unnamed and not are_dots:
        title += f": {count_label(len(named), len(unnamed), metric, 'line')}"
    note = _note(comparison, groups, are_dots)
    with sweep_figure(paths, title, note, PANEL_SIZE, legend=legend) as content:
        axes = content.axes(0, 0, *PANEL_SIZE)
        _draw(axes, named, unnamed, metric, are_dots)
        style.label(axes, f"learning rate ({KEY})", metric.label, left=0.6)


def _legend_row(group: Group, others: Sequence[str], metric: Metric) -> tuple[str, ...]:
    best = min(group, key=metric.rank)
    result = metric.result(best)
    if result is None or metric.direction is None:
        return (*value_labels(best, others), MISSING, MISSING)
    return (*value_labels(best, others), f"{rate_of(best):g}", format_value(result.mean))


def _note(comparison: Comparison, groups: Sequence[Group], are_dots: bool) -> str:
    rows = [row for group in groups for row in group]
    statistic = "mean" if are_dots else "mean and its 95 % interval"
    missing = len(comparison.rows) - len(rows)
    return footnote(
        (True, f"{over_seeds(seed_counts(rows), statistic)} a setting"),
        (are_dots, "every dot a setting"),
        (any(row.outcomes[0].is_best for row in rows), "★ best mean"),
        (any(row.outcomes[0].estimate is None for row in rows), "✗ no run finished"),
        (missing, f"{counted(missing, 'setting')} without a positive learning rate left out"),
    )


def _draw(
    axes: Axes, named: Sequence[Group], unnamed: Sequence[Group], metric: Metric, are_dots: bool
) -> None:
    rows = [row for group in (*named, *unnamed) for row in group]
    means = metric.means(rows)
    logarithmic = metric.is_logarithmic(means)
    ends = (min(means), max(means)) if logarithmic else axis_limits(means, metric.direction)
    axes.set_ylim(*with_margin(*ends, 0.07, logarithmic))
    style.set_scale(axes, "y", logarithmic)
    rates = sorted({rate_of(row) or 1.0 for row in rows})
    axes.set_xlim(*with_margin(rates[0], rates[-1], 0.04, logarithmic=True))
    _set_rate_ticks(axes, rates)
    dot = {"color": style.BLUE, "marker": "o", "linestyle": ""}
    for group in unnamed:
        form = dot if are_dots else {"color": UNNAMED_COLOUR}
        _draw_line(axes, group, form, metric, is_named=False)
    for index, group in enumerate(named):
        _draw_line(axes, group, line_style(index), metric, is_named=True)


def _set_rate_ticks(axes: Axes, rates: Sequence[float]) -> None:
    """Set ticks at the learning rates themselves if they are few and not close together."""
    style.log_scale(axes, "x")
    min_ratio = (rates[-1] / rates[0]) ** 0.07
    if len(rates) <= MAX_RATE_TICKS and all(b / a > min_ratio for a, b in pairwise(rates)):
        axes.set_xticks(rates, [f"{rate:.4g}".replace("e+0", "e") for rate in rates])


def _draw_line(
    axes: Axes, group: Group, form: dict[str, Any], metric: Metric, is_named: bool
) -> None:
    """Draw the results of a group. Missing values and outliers are drawn at the edge."""
    low, high = axes.get_ylim()
    results = [(rate_of(row) or 1.0, metric.result(row)) for row in group]
    points = [(rate, x) for rate, x in results if x is not None]
    x, y = [rate for rate, _ in points], [result.mean for _, result in points]
    worst = high if metric.direction == "lower" else low
    missing = [rate for rate, result in results if result is None]
    colour, size = (form["color"], 8) if is_named else (UNNAMED_COLOUR, 5)
    axes.plot(missing, [worst] * len(missing), "X", color=colour, markersize=size, clip_on=False)
    for row, (rate, result) in zip(group, results, strict=True):
        if row.outcomes[0].is_best and result is not None:
            axes.plot([rate], [result.mean], "*", color=style.INK, markersize=13, zorder=4)
    for rate, result in points:
        if not low <= result.mean <= high:
            edge, marker = (high, "^") if result.mean > high else (low, "v")
            axes.plot([rate], [edge], marker, color=form["color"], markersize=7, clip_on=False)
    if not is_named:
        axes.plot(x, y, **{"linewidth": 0.8, "markersize": 4.5, "alpha": 0.7, **form}, zorder=1.5)
        return
    axes.plot(x, y, **form, markersize=6, markeredgecolor="white", markeredgewidth=0.6)
    for rate, result in points:
        if result.interval is not None:
            # On a logarithmic axis, an interval whose lower end is below 0 starts at the frame.
            ends = np.maximum(result.interval, low)
            axes.plot([rate, rate], ends, color=form["color"], linewidth=1)
            axes.plot([rate, rate], result.interval, "_", color=form["color"])

"""The result against the compression ratio: a line for each way of pruning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING
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
from nnopt.plots.sweep.layout import UNNAMED_COLOUR, Legend, Margins, SettingTable, sweep_figure
from nnopt.plots.sweep.metric import Metric, limits_with_intervals, metric_of, with_margin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY, RATIO = "pruning.sparsity", "compression_ratio"
PANEL_SIZE = (5.8, 3.4)  # inches
MARGINS = Margins(bottom=0.75)  # room for two lines of tick labels
MAX_TICKS = 8

Group = Sequence[Row]
"""Settings that differ only in the sparsity, sorted by compression ratio."""


def ratio_of(row: Row) -> float | None:
    """Return the mean compression ratio over the seeds of a setting, or None without a result."""
    ratios = list(row.setting.metric(RATIO).values())
    return float(np.mean(ratios)) if ratios else None


def is_dense(row: Row) -> bool:
    """Return whether a setting has results and does not prune."""
    return row.outcomes[0].estimate is not None and (ratio_of(row) or 1.0) == 1.0


def groups_by_compression(comparison: Comparison) -> list[Group]:
    """Return the settings that prune, grouped by the values of the other keys.

    A key whose value follows from the sparsity, such as the number of epochs of an iterative
    schedule, does not separate groups.
    """
    rows = [row for row in comparison.rows if (ratio_of(row) or 1.0) > 1.0]
    keys = group_keys(comparison, rows)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        values = tuple(row.setting.values.get(key, MISSING) for key in keys)
        groups.setdefault(values, []).append(row)
    return [sorted(group, key=lambda row: ratio_of(row) or 1.0) for group in groups.values()]


def group_keys(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    """Return the keys, except the sparsity, that differ between settings of equal sparsity."""

    def depends_on_sparsity(key: str) -> bool:
        values: dict[object, set[object]] = {}
        for row in rows:
            sparsity = row.setting.values.get(KEY, MISSING)
            values.setdefault(sparsity, set()).add(row.setting.values.get(key, MISSING))
        return all(len(found) == 1 for found in values.values())

    return [key for key in comparison.keys if key != KEY and not depends_on_sparsity(key)]


def plot_compression(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Draw the mean over seeds and its 95 % interval (band) against the compression ratio.

    A line connects settings that differ only in the sparsity. The result of each dense setting is a
    horizontal line. Outliers do not stretch the axis; an arrow at its edge points to them.
    """
    metric = metric_of(comparison)
    groups = groups_by_compression(comparison)
    dense = [row for row in comparison.rows if is_dense(row)]
    keys = group_keys(comparison, [row for group in groups for row in group])
    named, unnamed = split_named(groups, partial(min, key=metric.rank), metric)
    legend = None
    if len(named) > 1:
        table = SettingTable(
            (*key_labels(keys), "≥ dense up to"),
            tuple((*value_labels(x[0], keys), _largest_ratio(x, dense, metric)) for x in named),
            tuple(any(row.outcomes[0].is_best for row in group) for group in named),
        )
        legend = Legend(table, f"{len(unnamed)} other lines" if unnamed else "")
    title = f"{metric.title} by compression ratio"
    if unnamed:
        title += f": {count_label(len(named), len(unnamed), metric, 'line')}"
    rows = [row for group in groups for row in group] + dense
    note = footnote(
        (True, f"{over_seeds(seed_counts(rows), 'mean and its 95 % interval (band)')} a setting"),
        (dense, "grey: without pruning"),
        (any(row.outcomes[0].is_best for row in rows), "★ best mean"),
    )
    with sweep_figure(paths, title, note, PANEL_SIZE, MARGINS, legend) as content:
        axes = content.axes(0, 0, *PANEL_SIZE)
        _draw(axes, named, unnamed, dense, metric)
        label = "compression ratio, and parameters kept"
        style.label(axes, label, metric.label, left=0.6, below=0.5)


def _largest_ratio(group: Group, dense: Sequence[Row], metric: Metric) -> str:
    """Return the largest compression ratio with a mean at least as good as the dense mean."""
    if not dense or metric.direction is None:
        return MISSING
    bound = min(metric.rank(row) for row in dense)
    ratios = [ratio_of(row) for row in group if metric.rank(row) <= bound]
    return f"{max(filter(None, ratios)):.3g}" if ratios else MISSING


def _draw(
    axes: Axes,
    named: Sequence[Group],
    unnamed: Sequence[Group],
    dense: Sequence[Row],
    metric: Metric,
) -> None:
    rows = [row for group in (*named, *unnamed) for row in group]
    means = metric.means([*rows, *dense])
    logarithmic = metric.is_logarithmic(means)
    if logarithmic:
        limits = with_margin(min(means), max(means), 0.07, logarithmic=True)
    else:
        limits = limits_with_intervals([*rows, *dense], means, metric)
    axes.set_ylim(*limits)
    style.set_scale(axes, "y", logarithmic)
    ratios = sorted({ratio_of(row) or 1.0 for row in rows})
    axes.set_xlim(*with_margin(ratios[0], ratios[-1], 0.05, logarithmic=True))
    _set_ratio_ticks(axes, ratios)
    for row in dense:
        _draw_dense(axes, row, metric)
    for group in unnamed:
        points = [(ratio_of(row) or 1.0, x.mean) for row in group if (x := metric.result(row))]
        axes.plot(*zip(*points, strict=True), color=UNNAMED_COLOUR, linewidth=0.8, zorder=1.5)
    for index, group in enumerate(named):
        _draw_line(axes, group, line_style(index), metric)


def _set_ratio_ticks(axes: Axes, ratios: Sequence[float]) -> None:
    """Set ticks at the ratios, without those close to another; at round numbers if too many."""
    style.log_scale(axes, "x")
    min_ratio = (ratios[-1] / ratios[0]) ** 0.07
    ticks = [ratios[0]]
    for ratio in ratios[1:]:
        if ratio > min_ratio * ticks[-1]:
            ticks.append(ratio)
    if len(ticks) <= MAX_TICKS:
        axes.set_xticks(ticks, [f"{ratio:.3g}\n{100 / ratio:.2g} %" for ratio in ticks])


def _draw_dense(axes: Axes, row: Row, metric: Metric) -> None:
    result = metric.result(row)
    assert result is not None, "is_dense has checked it"
    axes.axhline(result.mean, color=style.FAINT, linewidth=1.2, linestyle="--", zorder=1.2)
    if result.interval is not None:
        axes.axhspan(*result.interval, color=style.FAINT, alpha=0.12, linewidth=0, zorder=1)


def _draw_line(axes: Axes, group: Group, form: dict[str, Any], metric: Metric) -> None:
    low, high = axes.get_ylim()
    results = [(ratio_of(row) or 1.0, r) for row in group if (r := metric.result(row)) is not None]
    ratios = np.array([ratio for ratio, _ in results])
    means = np.array([result.mean for _, result in results])
    ends = np.array([result.interval or (result.mean, result.mean) for _, result in results])
    axes.fill_between(ratios, ends[:, 0], ends[:, 1], color=form["color"], alpha=0.16, linewidth=0)
    axes.plot(ratios, means, **form, markersize=6, markeredgecolor="white", markeredgewidth=0.6)
    for row in group:
        result = metric.result(row)
        if result is None:
            continue
        ratio = ratio_of(row) or 1.0
        if row.outcomes[0].is_best:
            axes.plot([ratio], [result.mean], "*", color=style.INK, markersize=13, zorder=4)
        elif not low <= result.mean <= high:
            edge, marker = (high, "^") if result.mean > high else (low, "v")
            axes.plot([ratio], [edge], marker, color=form["color"], markersize=8, clip_on=False)

"""The mean of each setting over seeds, with its confidence interval and the result per seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import format_mean
from nnopt.analysis.tabulate import format_left_out
from nnopt.plots import style
from nnopt.plots.sweep.labels import (
    count_label,
    footnote,
    key_labels,
    over_seeds,
    seed_counts,
    value_labels,
)
from nnopt.plots.sweep.layout import Margins, SettingTable, sweep_figure
from nnopt.plots.sweep.metric import (
    Metric,
    limits_with_intervals,
    metric_of,
    with_margin,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ALL_ROWS, MAX_ROWS = 40, 30  # if there are more than 40 settings, the best 30 are drawn
PANEL_WIDTH, ROW_HEIGHT = 4.2, 0.27  # inches
TABLE_MARGIN = 0.25


def plot_means(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Draw a row for each setting: values of the keys, mean, 95 % interval and result per seed.

    A star marks the best mean, a dotted line the mean of the baseline. Outliers do not stretch the
    axis; an arrow at the end of the axis points to them.
    """
    metric = metric_of(comparison)
    rows, others = list(comparison.rows), []
    if len(rows) > MAX_ALL_ROWS:
        rows.sort(key=metric.rank)
        rows, others = rows[:MAX_ROWS], rows[MAX_ROWS:]
    bold = tuple(row.outcomes[0].is_best for row in rows)
    values = tuple(value_labels(row, comparison.keys) for row in rows)
    settings = SettingTable(key_labels(comparison.keys), values, bold)
    mean = "mean ± std" if max(seed_counts(rows), default=0) > 1 else "value"
    results = SettingTable((mean, "n"), tuple(_result_cells(row, metric) for row in rows), bold)
    left, right = (table.width() + 2 * TABLE_MARGIN for table in (settings, results))
    size = (PANEL_WIDTH, ROW_HEIGHT * (len(rows) + 0.4))
    title = f"{metric.title} of {count_label(len(rows), len(others), metric)}"
    name = comparison.metrics[0]
    seeds = [metric.factor * np.array(list(row.setting.metric(name).values())) for row in rows]
    limits = _limits(rows, seeds, metric)
    note = _note(rows, others, metric, limits)
    with sweep_figure(paths, title, note, size, Margins(left, right, 0.75, 0.65)) as content:
        axes = content.axes(0, 0, *size)
        _draw(axes, rows, seeds, metric, limits)
        style.label(axes, metric.label, "")
        header = content.bottom + size[1] + 0.3 * ROW_HEIGHT
        settings.draw(content.figure, TABLE_MARGIN, header, ROW_HEIGHT)
        right = content.left + PANEL_WIDTH + TABLE_MARGIN
        results.draw(content.figure, right, header, ROW_HEIGHT)


def _result_cells(row: Row, metric: Metric) -> tuple[str, str]:
    """Return mean ± standard deviation and the number of seeds, or why there is no mean."""
    result, left_out = metric.result(row), format_left_out(row)
    if result is None:
        return left_out or "no value", "0"
    return format_mean(result), f"{result.n}{f', {left_out}' if left_out else ''}"


def _note(
    rows: Sequence[Row], others: Sequence[Row], metric: Metric, limits: tuple[float, float]
) -> str:
    counts, hidden, means = seed_counts(rows), metric.means(others), metric.means(rows)
    ends = sorted({min(hidden, default=0), max(hidden, default=0)})
    return footnote(
        (True, f"{over_seeds(counts, 'mean and its 95 % interval')} a setting"),
        (max(counts, default=0) > 1, "faint: single seeds"),
        (any(row.outcomes[0].is_best for row in rows), "★ best mean"),
        (any(mean < limits[0] for mean in means), "◀ mean below the axis"),
        (any(mean > limits[1] for mean in means), "▶ mean above the axis"),
        (hidden, f"the other {len(hidden)}: {' to '.join(f'{x:.4g}' for x in ends)}"),
        (len(others) > len(hidden), f"{len(others) - len(hidden)} more have no value"),
    )


def _limits(
    rows: Sequence[Row], seeds: Sequence[np.ndarray], metric: Metric
) -> tuple[float, float]:
    """Return the ends of the axis. Outliers are outside of a linear axis."""
    means = metric.means(rows)
    values = np.concatenate([*seeds, means]).tolist() if means else []
    if metric.is_logarithmic(means):
        return with_margin(min(values), max(values), 0.05, logarithmic=True)
    return limits_with_intervals(rows, values, metric)


def _draw(
    axes: Axes,
    rows: Sequence[Row],
    seeds: Sequence[np.ndarray],
    metric: Metric,
    limits: tuple[float, float],
) -> None:
    axes.set_xlim(*limits)
    style.set_scale(axes, "x", metric.is_logarithmic(metric.means(rows)))
    baselines = [row for row in rows if row.is_baseline]
    for mean in metric.means(baselines if len(baselines) == 1 else []):
        axes.axvline(mean, color=style.FAINT, linewidth=1, linestyle=":")
    for index, row in enumerate(rows):
        _draw_row(axes, -index, row, seeds[index], metric)
    axes.set_ylim(-len(rows) + 0.3, 0.7)
    axes.set_yticks([-index for index in range(len(rows))], [])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_row(axes: Axes, y: int, row: Row, seeds: np.ndarray, metric: Metric) -> None:
    result = metric.result(row)
    if result is None:
        return
    low, high = axes.get_xlim()
    if not low <= result.location <= high:
        edge, marker = (low, "<") if result.location < low else (high, ">")
        axes.plot([edge], [y], marker, color=style.VERMILLION, markersize=8, clip_on=False)
        return
    if len(seeds) > 1:
        axes.plot(seeds, np.full(len(seeds), y), "o", color=style.SKY, markersize=4.5, alpha=0.6)
    if result.interval is not None:
        # On a logarithmic axis, an interval whose lower end is below 0 starts at the frame.
        axes.plot(np.maximum(result.interval, low), [y, y], color=style.INK, linewidth=1.4)
        axes.plot(result.interval, [y, y], "|", color=style.INK, markersize=8, markeredgewidth=1.4)
    best = row.outcomes[0].is_best
    marker, colour, size = ("*", style.VERMILLION, 13) if best else ("o", style.BLUE, 7)
    axes.plot(
        [result.location], [y], marker, color=colour, markersize=size, markeredgecolor="white"
    )

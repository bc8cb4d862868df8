"""What each setting came to: its mean over seeds, the interval of the mean, and every seed."""

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
    Metric,
    best_first,
    capital,
    draw_footnote,
    footnote_height,
    is_logarithmic,
    key_words,
    metric_of,
    named_words,
    result_of,
    seeds_words,
    value_words,
    window,
)
from nnopt.plots.sweep.setting_table import SettingTable, draw_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL_ROWS, MOST_ROWS = 40, 30  # of more than 40 settings the best 30
WIDTH, STEP = 4.2, 0.27  # inches of the panel, of a row


def plot_means(comparison: Comparison, paths: Sequence[Path]) -> None:
    """A row for each setting: its values, the mean with its 95 % interval, a faint dot for each
    seed, and mean ± standard deviation in figures. A star is the best mean; a dotted line the
    baseline where the comparison has one.

    A value far worse than the others does not stretch the axis: an arrow at its edge points to it.
    Raises OutputError.
    """
    metric = metric_of(comparison)
    rows: Sequence[Row] = comparison.rows
    if len(rows) > ALL_ROWS:
        rows = best_first(rows, metric)[:MOST_ROWS]
    bold = tuple(row.outcomes[0].is_best for row in rows)
    names = SettingTable(
        key_words(comparison.keys), tuple(value_words(row, comparison.keys) for row in rows), bold
    )
    seeds = [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]
    header = ("mean ± std" if max(seeds, default=0) > 1 else "value", "n")
    figures = SettingTable(header, tuple(_figures(row, metric) for row in rows), bold)
    left = 0.25 + names.width() + 0.25
    right = left + WIDTH + 0.25
    title = f"{capital(metric.words)} of {_named(rows, comparison, metric)}"
    width = max(right + figures.width() + 0.2, 6.5, style.title_width(title))
    panel = STEP * (len(rows) + 0.4)
    note = _note(rows, comparison, metric)
    bottom = 0.65 + footnote_height(note, width)
    top = bottom + panel
    with style.drawing(paths, width, top + 0.75, title) as figure:
        axes = style.panel(figure, left, bottom, WIDTH, panel)
        _draw(axes, comparison, rows, metric)
        style.label(axes, metric.label, "")
        draw_table(figure, names, 0.25, top + 0.3 * STEP, STEP)
        draw_table(figure, figures, right, top + 0.3 * STEP, STEP)
        draw_footnote(figure, note)


def _named(rows: Sequence[Row], comparison: Comparison, metric: Metric) -> str:
    return named_words(len(rows), len(comparison.rows) - len(rows), metric)


def _figures(row: Row, metric: Metric) -> tuple[str, str]:
    """Mean ± standard deviation, and the number of seeds; or why there is none."""
    found = result_of(row, metric)
    lost = format_left_out(row.setting)
    if found is None:
        return lost or "no value", "0"
    return format_mean(found), f"{found.n}{f', {lost}' if lost else ''}"


def _note(rows: Sequence[Row], comparison: Comparison, metric: Metric) -> str:
    counts = [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]
    text = f"{seeds_words(counts)} a setting"
    if max(counts, default=0) > 1:
        text = f"mean and its 95 % interval over {text}; faint: single seeds"
    if any(row.outcomes[0].is_best for row in rows):
        text += "; ★ best mean"
    shown = {id(row) for row in rows}
    rest = [
        x.mean for row in comparison.rows if id(row) not in shown and (x := result_of(row, metric))
    ]
    if rest:
        span = " to ".join(f"{x:.4g}" for x in sorted({min(rest), max(rest)}))
        text += f"; the other {len(rest)}: {span}"
    if lost := len(comparison.rows) - len(rows) - len(rest):
        text += f"; {lost} more have no value"
    return text


def _draw(axes: Axes, comparison: Comparison, rows: Sequence[Row], metric: Metric) -> None:
    name, factor = comparison.metrics[0], metric.factor
    seeds = [factor * np.array(list(row.setting.metric(name).values())) for row in rows]
    means = [x.mean for row in rows if (x := result_of(row, metric)) is not None]
    logarithmic = is_logarithmic(means, metric)
    values = np.concatenate([*seeds, means]) if means else np.empty(0)
    low, high = (
        (values.min(), values.max()) if logarithmic else window(values.tolist(), metric.wanted)
    )
    baseline = [row for row in rows if row.is_baseline]
    if len(baseline) == 1 and (found := result_of(baseline[0], metric)) is not None:
        axes.axvline(found.mean, color=style.FAINT, linewidth=1, linestyle=":")
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
    else:
        reach = [x for row in rows if (y := result_of(row, metric)) for x in y.interval or ()]
        spread = high - low or 0.01 * abs(high) or 0.01
        # Of two seeds an interval is so wide that it would hide all the rest: it is cut.
        least, most = (0.0 if low >= 0 else -np.inf), (100.0 if factor == 100 else np.inf)
        low = max(min([low, *reach]), low - spread, least)
        high = min(max([high, *reach]), high + spread, most)
        margin = 0.04 * (high - low) or 0.02 * abs(high) or 0.02
        axes.set_xlim(low - margin, high + margin)
    for place, (row, found_seeds) in enumerate(zip(rows, seeds, strict=True)):
        _draw_row(axes, -place, row, found_seeds, metric)
    if logarithmic:
        style.log_scale(axes, "x")
    else:
        style.few_ticks(axes.xaxis, 5)
    axes.set_ylim(-len(rows) + 0.3, 0.7)
    axes.set_yticks([-place for place in range(len(rows))], [])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_row(axes: Axes, y: int, row: Row, seeds: np.ndarray, metric: Metric) -> None:
    found = result_of(row, metric)
    if found is None:
        return
    low, high = axes.get_xlim()
    if found.mean < low or found.mean > high:
        edge, marker = (low, "<") if found.mean < low else (high, ">")
        axes.plot([edge], [y], marker, color=style.VERMILLION, markersize=8, clip_on=False)
        return
    if len(seeds) > 1:
        axes.plot(seeds, np.full(len(seeds), y), "o", color=style.SKY, markersize=4.5, alpha=0.6)
    if found.interval is not None:
        # On a logarithmic axis an end below 0 lies nowhere: the line is cut at the frame, uncapped.
        axes.plot(np.maximum(found.interval, low), [y, y], color=style.INK, linewidth=1.4)
        axes.plot(found.interval, [y, y], "|", color=style.INK, markersize=8, markeredgewidth=1.4)
    best = row.outcomes[0].is_best
    form, colour, size = ("*", style.VERMILLION, 13) if best else ("o", style.BLUE, 7)
    axes.plot([found.mean], [y], form, color=colour, markersize=size, markeredgecolor="white")

"""The learning rate against the result, a line for each setting of the other keys."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING, format_value
from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.sweep.labels import (
    ALL_NAMED,
    REST,
    SOME_NAMED,
    Metric,
    best_first,
    capital,
    draw_footnote,
    footnote_height,
    is_logarithmic,
    key_words,
    look,
    metric_of,
    named_words,
    result_of,
    seeds_words,
    value_words,
    window,
)
from nnopt.plots.sweep.setting_table import SAMPLE, SettingTable, draw_legend, legend_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY = "optimizer.lr"
WIDTH, HEIGHT = 5.6, 3.2  # inches of the panel
MOST_TICKS = 9  # of learning rates
BESIDE = 3.6  # inches: a legend that is wider stands below the panel

Group = Sequence[Row]
"""Settings that differ in nothing but the learning rate, by that."""


def rate_of(row: Row) -> float | None:
    """The learning rate of a setting; None if it is no positive number."""
    value = row.setting.values.get(KEY)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return float(value)


def groups_by_rate(comparison: Comparison) -> list[Group]:
    """Settings of several learning rates each, by the values of the other keys."""
    others = [key for key in comparison.keys if key != KEY]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in comparison.rows:
        if rate_of(row) is not None:
            values = tuple(row.setting.values.get(key, MISSING) for key in others)
            groups.setdefault(values, []).append(row)
    return [sorted(group, key=lambda row: rate_of(row) or 0) for group in groups.values()]


def plot_learning_rates(comparison: Comparison, paths: Sequence[Path]) -> None:
    """The metric against the learning rate: means over seeds with 95 % intervals, a line for each
    setting of the other keys, a cross where no run finished. Of many lines those with the best
    results have colours, the others are grey; where hardly any two settings differ in the learning
    rate alone, as in a random search, all are dots.

    A value far worse than the others does not stretch the axis. Raises OutputError.
    """
    metric = metric_of(comparison)
    groups = groups_by_rate(comparison)
    are_dots = sum(len(group) > 1 for group in groups) * 2 < len(groups)
    others = [key for key in comparison.keys if key != KEY]
    named, rest = ([], groups) if are_dots else _split(groups, metric)
    looks = [look(place) for place in range(len(named))]
    table = SettingTable(
        (*key_words(others), "best rate", metric.label),
        tuple(_legend_row(group, others, metric) for group in named),
        tuple(any(row.outcomes[0].is_best for row in group) for group in named),
    )
    has_legend = len(named) > 1
    taken = table.width() + SAMPLE if has_legend else 0.0
    beside = taken <= BESIDE
    below = 0.0 if beside else legend_height(len(named), bool(rest)) + 0.1
    width = 0.9 + WIDTH + 0.3 + (taken + 0.15 if has_legend and beside else 0.0)
    title = f"{capital(metric.words)} by learning rate"
    if rest and not are_dots:
        title += f": {named_words(len(named), len(rest), metric, 'line')}"
    width = max(width, taken + 0.8 if not beside else 0.0, style.title_width(title))
    note = _note(comparison, groups, are_dots)
    bottom = 0.6 + footnote_height(note, width) + below
    height = bottom + HEIGHT + 0.6
    with style.drawing(paths, width, height, title) as figure:
        axes = style.panel(figure, 0.9, bottom, WIDTH, HEIGHT)
        _draw(axes, named, rest, looks, metric, are_dots)
        style.label(axes, f"learning rate ({KEY})", metric.label, left=0.6)
        if has_legend:
            place = (0.9 + WIDTH + 0.2, bottom + HEIGHT - 0.1) if beside else (0.4, bottom - 0.7)
            remaining = counted(len(rest), "other line") if rest else ""
            draw_legend(figure, table, looks, *place, remaining, REST)
        draw_footnote(figure, note)


def _split(groups: Sequence[Group], metric: Metric) -> tuple[list[Group], list[Group]]:
    """The lines to be named, and the rest: of many those with the best settings."""
    if len(groups) <= ALL_NAMED:
        return list(groups), []
    best = best_first([best_first(group, metric)[0] for group in groups], metric)
    place = {id(row): number for number, row in enumerate(best)}
    ordered = sorted(groups, key=lambda group: min(place.get(id(row), len(best)) for row in group))
    return ordered[:SOME_NAMED], ordered[SOME_NAMED:]


def _legend_row(group: Group, others: Sequence[str], metric: Metric) -> tuple[str, ...]:
    best = best_first(group, metric)[0]
    found = result_of(best, metric)
    if found is None or metric.wanted is None:
        return (*value_words(best, others), MISSING, MISSING)
    return (*value_words(best, others), f"{rate_of(best):g}", format_value(found.mean))


def _note(comparison: Comparison, groups: Sequence[Group], are_dots: bool) -> str:
    rows = [row for group in groups for row in group]
    counts = [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]
    text = f"{seeds_words(counts)} a setting"
    if max(counts, default=0) > 1:
        text = f"mean over {text}" if are_dots else f"mean and its 95 % interval over {text}"
    if are_dots:
        text += "; every dot a setting"
    if any(row.outcomes[0].is_best for row in rows):
        text += "; ★ best mean"
    if any(row.outcomes[0].estimate is None for row in rows):
        text += "; ✗ no run finished"
    if missing := len(comparison.rows) - len(rows):
        text += f"; {counted(missing, 'setting')} without such a number left out"
    return text


def _draw(
    axes: Axes,
    named: Sequence[Group],
    rest: Sequence[Group],
    looks: Sequence[dict[str, Any]],
    metric: Metric,
    are_dots: bool,
) -> None:
    rows = [row for group in (*named, *rest) for row in group]
    means = [x.mean for row in rows if (x := result_of(row, metric)) is not None]
    logarithmic = is_logarithmic(means, metric)
    low, high = (min(means), max(means)) if logarithmic else window(means, metric.wanted)
    if logarithmic:
        axes.set_yscale("log")
        margin = (high / low) ** 0.07
        axes.set_ylim(low / margin, high * margin)
    else:
        margin = 0.07 * (high - low) or 0.02 * abs(high) or 0.02
        axes.set_ylim(low - margin, high + margin)
    rates = [rate_of(row) or 1.0 for row in rows]
    reach = (max(rates) / min(rates)) ** 0.04
    axes.set_xlim(min(rates) / reach, max(rates) * reach)
    for group in rest:
        form = (
            {"color": style.BLUE, "marker": "o", "linestyle": ""} if are_dots else {"color": REST}
        )
        _draw_line(axes, group, form, metric, is_named=False)
    for group, form in zip(named, looks, strict=True):
        _draw_line(axes, group, form, metric, is_named=True)
    _name_rates(axes, sorted(set(rates)))
    if logarithmic:
        style.log_scale(axes)
    else:
        style.few_ticks(axes.yaxis)


def _name_rates(axes: Axes, rates: Sequence[float]) -> None:
    """Ticks at the learning rates themselves, where they are few and far enough apart."""
    style.log_scale(axes, "x")
    far = (rates[-1] / rates[0]) ** 0.07
    if len(rates) <= MOST_TICKS and all(b / a > far for a, b in pairwise(rates)):
        axes.set_xticks(rates, [f"{rate:.4g}".replace("e+0", "e") for rate in rates])


def _draw_line(
    axes: Axes, group: Group, form: dict[str, Any], metric: Metric, is_named: bool
) -> None:
    """Results by learning rate; those beyond the axis, and those of no finished run, at its edge on
    the worse side."""
    low, high = axes.get_ylim()
    found = [(rate_of(row) or 1.0, result_of(row, metric)) for row in group]
    points = [(rate, x) for rate, x in found if x is not None]
    x, y = [rate for rate, _ in points], [result.mean for _, result in points]
    worst = high if metric.wanted == "lower" else low
    lost = [rate for rate, result in found if result is None]
    colour, size = (form["color"], 8) if is_named else (REST, 5)
    axes.plot(lost, [worst] * len(lost), "X", color=colour, markersize=size, clip_on=False)
    for row, (rate, result) in zip(group, found, strict=True):
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
            # On a logarithmic axis an end below 0 lies nowhere: the line is cut at the frame.
            ends = np.maximum(result.interval, low)
            axes.plot([rate, rate], ends, color=form["color"], linewidth=1)
            axes.plot([rate, rate], result.interval, "_", color=form["color"])

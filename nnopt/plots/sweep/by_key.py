"""The metric against a numeric key: a line and a band for each setting of the other keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING, format_value
from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.sweep.groups import Group, Grouping, KeyAxis, is_logarithmic
from nnopt.plots.sweep.labels import (
    count_label,
    footnote,
    key_labels,
    line_style,
    over_seeds,
    seed_counts,
    split_named,
    value_label,
    value_labels,
)
from nnopt.plots.sweep.layout import UNNAMED_COLOUR, Legend, Margins, SettingTable, sweep_figure
from nnopt.plots.sweep.metric import Metric, limits_with_intervals, metric_of, with_margin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_SIZE = (5.8, 3.4)  # inches
MAX_TICKS = 9
MAX_REFERENCES = 3  # more settings without a value on the axis are not drawn
MANY_POINTS = 20  # lines with more points have smaller markers
MANY_BANDS = 4  # more bands are paler


def plot_by_key(comparison: Comparison, grouping: Grouping, paths: Sequence[Path]) -> None:
    """Draw the mean over seeds and its 95 % interval (band) against the key of the axis.

    A line connects settings that differ only in this key. Of many lines, only the best are
    coloured. If most lines would have one setting, as in a random search, dots are drawn. Up to
    three settings without a value on the axis, such as a network without pruning, are horizontal
    dashes. A cross marks a setting without a finished run. Outliers do not stretch the axis; an
    arrow at its edge points to them.
    """
    metric, groups = metric_of(comparison), grouping.groups
    are_dots = sum(len(group) > 1 for group in groups) * 2 < len(groups)
    best = partial(min, key=metric.rank)
    named, unnamed = ([], list(groups)) if are_dots else split_named(groups, best, metric)
    references = [row for row in grouping.references if metric.result(row) is not None]
    plot = _Plot(grouping.axis, metric, named, unnamed, references, are_dots)
    legend = None
    if len(named) > 1:
        header = "≥ dense up to" if plot.shows_dense else "best at"
        table = SettingTable(
            (*key_labels(grouping.keys), header, metric.label),
            tuple(_legend_row(group, grouping.keys, plot) for group in named),
            tuple(any(row.outcomes[0].is_best for row in group) for group in named),
        )
        legend = Legend(table, counted(len(unnamed), "other line") if unnamed else "")
    title = f"{metric.title} by {grouping.axis.name}"
    if unnamed and not are_dots:
        title += f": {count_label(len(named), len(unnamed), metric, 'line')}"
    # The labels of compression ratios have two lines.
    margins, below = (Margins(bottom=0.75), 0.5) if grouping.axis.is_ratio else (Margins(), 0.36)
    note = _note(grouping, plot)
    with sweep_figure(paths, title, note, PANEL_SIZE, margins, legend) as content:
        axes = content.axes(0, 0, *PANEL_SIZE)
        plot.draw(axes)
        style.label(axes, grouping.axis.label, metric.label, left=0.6, below=below)


@dataclass(frozen=True)
class _Plot:
    """The drawn settings, and their positions."""

    axis: KeyAxis
    metric: Metric
    named: Sequence[Group]
    unnamed: Sequence[Group]
    references: Sequence[Row]
    are_dots: bool

    @cached_property
    def rows(self) -> list[Row]:
        """The settings with a value on the axis."""
        return [row for group in (*self.named, *self.unnamed) for row in group]

    @cached_property
    def values(self) -> list[float]:
        """The distinct values on the axis."""
        return self.axis.values(self.rows)

    @cached_property
    def is_log(self) -> bool:
        """Whether the axis is logarithmic."""
        return self.axis.is_ratio or is_logarithmic(self.values)

    @cached_property
    def zero(self) -> float | None:
        """The position of the value 0 on a logarithmic axis, left of the others."""
        if not self.is_log or self.values[0] > 0:
            return None
        low, high = self.values[1], self.values[-1]
        return float(low / (high / low) ** 0.2)

    @property
    def shown_references(self) -> Sequence[Row]:
        """The settings without a value on the axis that are drawn."""
        return self.references if len(self.references) <= MAX_REFERENCES else ()

    @property
    def shows_dense(self) -> bool:
        """Whether networks without pruning are drawn."""
        return self.axis.is_ratio and bool(self.shown_references) and bool(self.metric.direction)

    @property
    def band_alpha(self) -> float:
        """The opacity of the bands."""
        return 0.16 if len(self.named) <= MANY_BANDS else 0.09

    def position(self, row: Row) -> float:
        """Return the horizontal position of a setting."""
        value = self.axis.value(row)
        assert value is not None
        return self.zero if value == 0 and self.zero is not None else value

    @cached_property
    def means(self) -> list[float]:
        """The means of all drawn settings."""
        return self.metric.means([*self.rows, *self.shown_references])

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The ends of the vertical axis. Outliers are outside of a linear axis."""
        if self.metric.is_logarithmic(self.means):
            return with_margin(min(self.means), max(self.means), 0.07, logarithmic=True)
        return limits_with_intervals([*self.rows, *self.shown_references], self.means, self.metric)

    def draw(self, axes: Axes) -> None:
        """Draw the references and all lines."""
        axes.set_ylim(*self.limits)
        style.set_scale(axes, "y", self.metric.is_logarithmic(self.means))
        ends = self.zero or self.values[0], self.values[-1]
        axes.set_xlim(*with_margin(*ends, 0.05, self.is_log))
        style.set_scale(axes, "x", self.is_log, 7)
        _set_ticks(axes, self)
        for row in self.shown_references:
            _draw_reference(axes, row, self.metric)
        for group in self.unnamed:
            form = {"color": style.BLUE, "marker": "o", "linestyle": ""}
            form = form if self.are_dots else {"color": UNNAMED_COLOUR}
            _draw_line(axes, group, form, self, is_named=False)
        for index, group in enumerate(self.named):
            _draw_line(axes, group, line_style(index), self, is_named=True)


def _legend_row(group: Group, keys: Sequence[str], plot: _Plot) -> tuple[str, ...]:
    """Return the cells: values of the keys, the best value of the axis, and the best mean.

    With dense networks, the second last cell is the largest compression ratio whose mean is at
    least as good as the best dense mean.
    """
    metric, values = plot.metric, value_labels(group[0], keys)
    best = min(group, key=metric.rank)
    result = metric.result(best)
    if result is None or metric.direction is None:
        return (*values, MISSING, MISSING)
    where = value_label(best, plot.axis.key)
    if plot.axis.is_ratio:
        good = [best]
        if plot.shows_dense:
            bound = min(map(metric.rank, plot.shown_references))
            good = [row for row in group if metric.rank(row) <= bound]
        where = f"{max(map(plot.position, good)):.3g}" if good else MISSING
    return (*values, where, format_value(result.location))


def _note(grouping: Grouping, plot: _Plot) -> str:
    rows = [*plot.rows, *plot.shown_references]
    low, high = plot.limits
    statistic = "mean" if plot.are_dots else "mean and its 95 % interval (band)"
    missing = len(grouping.references) - len(plot.shown_references)
    omitted = f"{counted(missing, 'setting')} without a number for {grouping.axis.key} omitted"
    verb = "varies" if len(grouping.along) == 1 else "vary"
    return footnote(
        (True, f"{over_seeds(seed_counts(rows), statistic)} a setting"),
        (plot.are_dots, "every dot a setting"),
        (grouping.along, f"{', '.join(key_labels(grouping.along))} {verb} along the axis"),
        (plot.shown_references, f"grey dashes: {_reference_text(grouping, plot)}"),
        (any(row.outcomes[0].is_best for row in plot.rows), "★ best mean"),
        (any(mean > high for mean in plot.means), "▲ mean above the axis"),
        (any(mean < low for mean in plot.means), "▼ mean below the axis"),
        (any(plot.metric.result(row) is None for row in rows), "✗ no run finished"),
        (missing, omitted),
    )


def _reference_text(grouping: Grouping, plot: _Plot) -> str:
    if grouping.axis.is_ratio:
        return "without pruning"
    texts = {value_label(row, grouping.axis.key) for row in plot.shown_references}
    key = grouping.axis.key
    return f"{key}={texts.pop()}" if len(texts) == 1 else f"no number for {key}"


def _set_ticks(axes: Axes, plot: _Plot) -> None:
    """Set ticks at the values, without those whose labels would touch the label of another.

    The ticks stay at round numbers if there are too many values, or if the settings are dots.
    """
    values = [plot.zero or 0.0 if value == 0 else value for value in plot.values]
    texts = [_tick_text(value, plot.axis) for value in plot.values]
    places = np.log(values) if plot.is_log else np.array(values)
    width = style.text_width([line for text in texts for line in text.split("\n")]) + 0.1  # inches
    gap = max(0.07, width / PANEL_SIZE[0]) * (places[-1] - places[0])
    kept = [0]
    for index in range(1, len(values)):
        if places[index] - places[kept[-1]] > gap:
            kept.append(index)
    are_dense = len(kept) < len(values) and max(map(len, texts)) > 6
    if plot.zero is not None:
        middle = float(np.sqrt(values[0] * values[1]))
        form: dict[str, Any] = {"ha": "center", "va": "center", "color": style.FAINT}
        form |= {"transform": axes.get_xaxis_transform(), "fontsize": 9}
        axes.text(middle, 0, "//", **form, bbox={"color": "white", "pad": 0.5})
    are_round = (are_dense or plot.are_dots) and plot.zero is None and not plot.axis.is_ratio
    if len(kept) <= MAX_TICKS and not are_round:
        axes.set_xticks([values[i] for i in kept], [texts[i] for i in kept])


def _tick_text(value: float, axis: KeyAxis) -> str:
    if axis.is_ratio:
        return f"{value:.3g}\n{100 / value:.2g} %"
    return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-").replace("-", "−")


def _draw_reference(axes: Axes, row: Row, metric: Metric) -> None:
    result = metric.result(row)
    assert result is not None, "the caller has checked it"
    axes.axhline(result.location, color=style.FAINT, linewidth=1.2, linestyle="--", zorder=1.2)
    if result.interval is not None:
        axes.axhspan(*result.interval, color=style.FAINT, alpha=0.12, linewidth=0, zorder=1)


def _draw_line(axes: Axes, group: Group, form: dict[str, Any], plot: _Plot, is_named: bool) -> None:
    """Draw the results of a group. Missing values and outliers are drawn at the edge."""
    metric, (low, high) = plot.metric, axes.get_ylim()
    results = [(plot.position(row), metric.result(row)) for row in group]
    points = [(x, result) for x, result in results if result is not None]
    worst = high if metric.direction == "lower" else low
    missing = [x for x, result in results if result is None]
    colour, size = (form["color"], 8) if is_named else (UNNAMED_COLOUR, 5)
    if missing:
        heights = [worst] * len(missing)
        axes.plot(missing, heights, "X", color=colour, markersize=size, clip_on=False)
    for row, (x, result) in zip(group, results, strict=True):
        if row.outcomes[0].is_best and result is not None:
            axes.plot([x], [result.location], "*", color=style.INK, markersize=13, zorder=4)
    for x, result in points:
        if not low <= result.location <= high:
            edge, marker = (high, "^") if result.location > high else (low, "v")
            axes.plot([x], [edge], marker, color=form["color"], markersize=8, clip_on=False)
    xs = np.array([x for x, _ in points])
    y = np.array([result.location for _, result in points])
    if not is_named:
        axes.plot(xs, y, **{"linewidth": 0.8, "markersize": 4.5, "alpha": 0.7, **form}, zorder=1.5)
        return
    edges = [result.interval or (result.location, result.location) for _, result in points]
    # On a logarithmic axis, an interval whose lower end is below 0 starts at the frame.
    lower, upper = np.maximum(np.array(edges).reshape(-1, 2), low).T
    is_zero = xs == plot.zero
    band = {"color": form["color"], "alpha": plot.band_alpha, "linewidth": 0}
    axes.fill_between(xs[~is_zero], lower[~is_zero], upper[~is_zero], **band)
    shape: dict[str, Any] = {
        "markersize": 6 if len(xs) <= MANY_POINTS else 4,
        "markeredgewidth": 0.6,
    }
    axes.plot(xs[~is_zero], y[~is_zero], **form, **shape, markeredgecolor="white")
    if is_zero.any():
        axes.plot(xs[:2], y[:2], color=form["color"], linewidth=1, linestyle=":")
        axes.plot(xs[:1], y[:1], **{**form, "linestyle": ""}, **shape, markeredgecolor="white")
        axes.plot([xs[0]] * 2, [lower[0], upper[0]], color=form["color"], linewidth=1)

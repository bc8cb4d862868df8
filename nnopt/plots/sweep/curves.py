"""Learning curves of the settings of a sweep: means over seeds, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING, format_mean
from nnopt.analysis.tabulate import counted, format_left_out
from nnopt.plots import style
from nnopt.plots.style import Bools, Floats
from nnopt.plots.sweep.labels import (
    count_label,
    footnote,
    key_labels,
    line_style,
    over_seeds,
    split_named,
    value_labels,
)
from nnopt.plots.sweep.layout import UNNAMED_COLOUR, Legend, SettingTable, sweep_figure
from nnopt.plots.sweep.metric import Metric, metric_of, with_margin
from nnopt.results.metrics_file import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_EPOCHS_WITH_MARKERS = 30  # longer lines have about MARKERS_PER_LINE markers
MARKERS_PER_LINE = 8
MAX_UNNAMED_POINTS = 300  # approximate number of vertices of a long grey line, for a small SVG
LOG_SCALE_DECADES = 1.3  # a loss that spans more decades has a logarithmic axis
PANEL_SIZE, PANEL_GAP = (3.95, 2.9), 0.95  # inches

History = Sequence[EpochRow]

LABELS = {
    "train_loss": "training loss (mean per sample)",
    "train_accuracy": "training accuracy (%)",
    "validation_loss": "validation loss (mean per sample)",
    "validation_accuracy": "validation accuracy (%)",
}


@dataclass(frozen=True)
class LearningCurves:
    """The epochs of the drawn runs of a setting, and whether all these runs diverged."""

    row: Row
    histories: tuple[History, ...]
    diverged: bool


@dataclass(frozen=True)
class Line:
    """Mean over seeds, and the limits of the band around this mean, as arrays (E,) over epochs.

    At an epoch where some seeds have no value, ``complete`` is False and the band is NaN. Where no
    seed has a value, ``centre`` is NaN, too.
    """

    epochs: Floats
    centre: Floats
    low: Floats
    high: Floats
    complete: Bools


@dataclass(frozen=True)
class Panel:
    """The lines of one column of ``metrics.csv``. The legend contains only those in ``named``."""

    column: str
    logarithmic: bool
    named: list[Line]
    others: list[Line]
    limits: tuple[float, float]


def plot_sweep_curves(
    comparison: Comparison, curves: Sequence[LearningCurves], paths: Sequence[Path]
) -> None:
    """Draw the training loss (left) and the validation accuracy or loss (right) of every setting.

    A line is the mean over seeds; its band is ± 1 standard deviation. On a logarithmic axis, both
    are computed from the logarithms. Where some seeds have stopped, the line is thin and shows the
    mean of the other seeds. If there are many settings, only the best are coloured.
    """
    metric = metric_of(comparison)
    named, others = split_named(curves, lambda setting: setting.row, metric)
    panels = [_panel(x, named, others) for x in _columns(comparison.metrics[0], curves)]
    title, legend = "Learning curves", None
    if comparison.keys:
        title += f": {count_label(len(named), len(others), metric)}"
        text = counted(len(others), "other setting") if others else ""
        rows = [setting.row for setting in named]
        legend = Legend(_legend_table(comparison, rows, metric), text)
    note = _note(comparison, named, others, any(panel.logarithmic for panel in panels))
    width, height = PANEL_SIZE
    size = (2 * width + PANEL_GAP, height)
    with sweep_figure(paths, title, note, size, legend=legend) as content:
        for panel, x in zip(panels, (0, width + PANEL_GAP), strict=True):
            axes = content.axes(x, 0, width, height)
            _draw(axes, panel, named)
            style.label(axes, "epoch", LABELS[panel.column], left=0.62)


def _columns(metric: str, curves: Sequence[LearningCurves]) -> tuple[str, str]:
    """Return ``train_loss`` and the validation column or, if it is empty, ``train_accuracy``."""
    kind = "loss" if metric.endswith("loss") else "accuracy"
    column = f"validation_{kind}"
    rows = (row for setting in curves for history in setting.histories for row in history)
    if any(getattr(row, column) is not None for row in rows):
        return "train_loss", column
    return "train_loss", "train_accuracy"


def _legend_table(comparison: Comparison, rows: Sequence[Row], metric: Metric) -> SettingTable:
    def mean(row: Row) -> str:
        result = metric.result(row)
        return format_mean(result) if result else format_left_out(row) or MISSING

    return SettingTable(
        (*key_labels(comparison.keys), metric.label),
        tuple((*value_labels(row, comparison.keys), mean(row)) for row in rows),
        tuple(row.outcomes[0].is_best for row in rows),
    )


def _note(
    comparison: Comparison,
    named: Sequence[LearningCurves],
    others: Sequence[LearningCurves],
    logarithmic: bool,
) -> str:
    counts = [len(setting.histories) for setting in (*named, *others)]
    text = f"{over_seeds(counts, 'mean ± 1 standard deviation (band)')} a setting"
    if logarithmic and max(counts) > 1:
        text += ", of logarithms where the axis is logarithmic"
    lengths = [{len(history) for history in setting.histories} for setting in named]
    missing = len(comparison.rows) - len(counts)
    return footnote(
        (True, text),
        (max(map(len, lengths)) > 1, "thin: the mean of the seeds that have not stopped"),
        (any(setting.diverged for setting in named), "✗ diverged"),
        (missing, f"{counted(missing, 'setting')} without epochs left out"),
    )


def _panel(column: str, named: Sequence[LearningCurves], others: Sequence[LearningCurves]) -> Panel:
    values = [values_of(setting.histories, column) for setting in named]
    # The axis need not contain the values of diverged settings, unless all settings diverged.
    indices = [k for k, setting in enumerate(named) if not setting.diverged] or range(len(named))
    shown = np.concatenate([np.ravel(values[k]) for k in indices])
    logarithmic = column.endswith("loss") and style.spans_decades(shown, LOG_SCALE_DECADES)
    lines = [line_of(x, logarithmic) for x in values]
    grey = [line_of(values_of(setting.histories, column), logarithmic) for setting in others]
    limits = _limits([lines[k] for k in indices], grey, logarithmic)
    return Panel(column, logarithmic, lines, grey, limits)


def _limits(
    named: Sequence[Line], others: Sequence[Line], logarithmic: bool
) -> tuple[float, float]:
    """Return y limits for the ``named`` lines and the central 80 % of the ``others``' means."""

    def finite(*values: Floats) -> Floats:
        x: Floats = np.concatenate([np.empty(0), *values])
        x = x[np.isfinite(x)]
        return x[x > 0] if logarithmic else x

    shown = finite(*(x for line in named for x in (line.centre, line.low, line.high)))
    if len(rest := finite(*(line.centre for line in others))):
        ends = np.quantile(np.log(rest) if logarithmic else rest, [0.1, 0.9])
        shown = np.concatenate([shown, np.exp(ends) if logarithmic else ends])
    low, high = (shown.min(), shown.max()) if len(shown) else (logarithmic, logarithmic + 1)
    return with_margin(float(low), float(high), 0.05, logarithmic and bool(low < high))


def _draw(axes: Axes, panel: Panel, named: Sequence[LearningCurves]) -> None:
    from matplotlib.collections import LineCollection

    longest = max(len(line.epochs) for line in (*panel.named, *panel.others))
    every = slice(None, None, max(1, longest // MAX_UNNAMED_POINTS))
    grey = [np.column_stack([x.epochs, x.centre])[every] for x in panel.others]
    form: dict[str, Any] = {"linewidths": 0.7, "alpha": 0.7, "zorder": 1.5}
    axes.add_collection(LineCollection(grey, colors=UNNAMED_COLOUR, **form))
    axes.set_ylim(*panel.limits)
    style.set_scale(axes, "y", panel.logarithmic, 7)
    style.epoch_axis(axes, 1, longest)
    for index, (setting, line) in enumerate(zip(named, panel.named, strict=True)):
        _draw_line(axes, line, index, longest)
        if setting.diverged:
            _mark_end(axes, line, line_style(index)["color"])


def _draw_line(axes: Axes, line: Line, index: int, longest: int) -> None:
    form = line_style(index)
    band: dict[str, Any] = {"color": form["color"], "alpha": 0.16, "linewidth": 0}
    axes.fill_between(line.epochs, line.low, line.high, **band)
    markers = 0, 1
    if longest > MAX_EPOCHS_WITH_MARKERS:  # markers are staggered, so that they do not overlap
        step = max(1, longest // MARKERS_PER_LINE)
        markers = int(step * (index % 4) / 4), step
    complete = np.where(line.complete, line.centre, np.nan)
    axes.plot(line.epochs, line.centre, **{**form, "marker": ""}, linewidth=0.9)
    axes.plot(line.epochs, complete, **form, markersize=4.5, markevery=markers, markeredgewidth=0)


def _mark_end(axes: Axes, line: Line, colour: str) -> None:
    """Mark the last finite value with a cross, at the frame if the value is out of range."""
    finite = np.flatnonzero(np.isfinite(line.centre))
    if len(finite):
        last = finite[-1]
        height = np.clip(line.centre[last], *axes.get_ylim())
        form: dict[str, Any] = {"markeredgecolor": style.INK, "clip_on": False, "zorder": 3}
        axes.plot(line.epochs[last], height, "X", color=colour, markersize=9, **form)


def values_of(histories: Sequence[History], column: str) -> Floats:
    """Return a column of S histories of up to E epochs as (S, E). Accuracies are in percent.

    The values after the end of a history, and missing and infinite values, are NaN.
    """
    values = np.full((len(histories), max(map(len, histories))), np.nan)
    for seed, history in enumerate(histories):
        values[seed, : len(history)] = style.column_of(history, column)
    return 100 * values if column.endswith("accuracy") else values


def line_of(values: Floats, logarithmic: bool) -> Line:
    """Return mean ± standard deviation (denominator S - 1) over the seeds of ``values`` (S, E).

    If ``logarithmic``, mean and limits are computed from the logarithms and converted back.
    """
    seeds, epochs = values.shape
    if logarithmic:
        values = np.log(np.where(values > 0, values, np.nan))
    present = np.isfinite(values)
    count = present.sum(axis=0)
    sums = np.where(present, values, 0).sum(axis=0)
    centre = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    complete = count == seeds
    deviation = np.full(epochs, np.nan)
    if seeds > 1:
        squares = np.where(present, values - centre, 0) ** 2
        deviation[complete] = np.sqrt(squares.sum(axis=0) / (seeds - 1))[complete]
    low, high = centre - deviation, centre + deviation
    if logarithmic:
        centre, low, high = np.exp(centre), np.exp(low), np.exp(high)
    return Line(np.arange(1.0, epochs + 1), centre, low, high, complete)

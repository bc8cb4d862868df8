"""Learning curves of settings over each other: means over seeds, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING, format_mean
from nnopt.analysis.tabulate import counted, format_left_out
from nnopt.plots import style
from nnopt.plots.sweep.labels import (
    REST,
    Metric,
    draw_footnote,
    footnote_height,
    key_words,
    look,
    metric_of,
    named_words,
    result_of,
    seeds_words,
    split_named,
    value_words,
)
from nnopt.plots.sweep.setting_table import SAMPLE, SettingTable, draw_legend, legend_height
from nnopt.results.metrics_file import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_EPOCHS = 30  # so many are drawn with a marker each
DECADES = 1.3  # of the loss: more are drawn on a logarithmic axis
MOST_POINTS = 300  # of a grey line: an SVG would hold every one
MARKERS = 8  # about so many on a line of more
WIDTH, HEIGHT = 3.95, 2.9  # inches of a panel
PANELS = 9.95  # inches of the figure that the panels take
BESIDE = 3.2  # inches: a legend that is wider stands below the panels

Floats = NDArray[np.float64]
History = Sequence[EpochRow]

LABELS = {
    "train_loss": "training loss (mean per sample)",
    "train_accuracy": "training accuracy (%)",
    "validation_loss": "validation loss (mean per sample)",
    "validation_accuracy": "validation accuracy (%)",
}


@dataclass(frozen=True)
class Courses:
    """The epochs of a setting's runs, a seed each; diverged: did all of them?"""

    row: Row
    histories: tuple[History, ...]
    diverged: bool


@dataclass(frozen=True)
class Line:
    """Mean and band over seeds, all of them (E,): NaN where there is nothing; ``whole``: do all
    seeds still train? Where not, the mean is of the others, and there is no band."""

    epochs: Floats
    centre: Floats
    low: Floats
    high: Floats
    whole: NDArray[np.bool_]


@dataclass(frozen=True)
class Panel:
    """A column of ``metrics.csv``: the lines of the settings that are named, and of the others.
    kept: does the axis have to hold the named line?"""

    column: str
    logarithmic: bool
    named: list[Line]
    kept: list[bool]
    others: list[Line]


def plot_sweep_curves(
    comparison: Comparison, courses: Sequence[Courses], paths: Sequence[Path]
) -> None:
    """Training loss (left) and validation accuracy, or loss if the metric is one (right), of every
    setting: the mean over seeds, and ± 1 standard deviation as a band.

    On a logarithmic axis both are those of the logarithm, so that the band is never below 0. After
    the first of a setting's seeds has stopped, the mean of those that still train is a thin line.
    Of many settings the best few have colours, and the others are grey. Raises OutputError.
    """
    metric = metric_of(comparison)
    by_row = {id(course.row): course for course in courses}
    rows, rest = split_named([course.row for course in courses], metric)
    named, others = [by_row[id(row)] for row in rows], [by_row[id(row)] for row in rest]
    panels = [_panel(x, named, others) for x in _columns(comparison.metrics[0], courses)]
    legend = _legend(comparison, named, metric)
    looks = [look(place) for place in range(len(named))]
    remaining = counted(len(others), "other setting") if others else ""
    note = _note(comparison, named, others, any(panel.logarithmic for panel in panels))

    taken = legend.width() + SAMPLE if comparison.keys else 0.0
    beside = taken <= BESIDE
    below = 0.0 if beside else legend_height(len(named), bool(others)) + 0.1
    width = PANELS + (taken + 0.2 if taken and beside else max(0.0, taken + 0.6 - PANELS))
    bottom = 0.6 + footnote_height(note, width) + below
    title = "Learning curves"
    if comparison.keys:
        title += f": {named_words(len(named), len(others), metric)}"
    with style.drawing(paths, width, bottom + HEIGHT + 0.6, title) as figure:
        for left, panel in zip((0.85, 5.75), panels, strict=True):
            axes = style.panel(figure, left, bottom, WIDTH, HEIGHT)
            _draw(axes, panel, named, looks)
            style.label(axes, "epoch", LABELS[panel.column], left=0.62)
        if comparison.keys:
            place = (PANELS + 0.05, bottom + HEIGHT - 0.1) if beside else (0.35, bottom - 0.7)
            draw_legend(figure, legend, looks, *place, remaining, REST)
        draw_footnote(figure, note)


def _columns(metric: str, courses: Sequence[Courses]) -> tuple[str, str]:
    """The training loss, and of the metric's kind what comes nearest to the test."""
    kind = "loss" if metric.endswith("loss") else "accuracy"
    column = f"validation_{kind}"
    rows = (row for x in courses for history in x.histories for row in history)
    if any(getattr(row, column) is not None for row in rows):
        return "train_loss", column
    return "train_loss", "train_accuracy"


def _legend(comparison: Comparison, named: Sequence[Courses], metric: Metric) -> SettingTable:
    def words(row: Row) -> tuple[str, ...]:
        found = result_of(row, metric)
        lost = format_left_out(row.setting) or MISSING
        return (*value_words(row, comparison.keys), lost if found is None else format_mean(found))

    rows = tuple(words(course.row) for course in named)
    bold = tuple(course.row.outcomes[0].is_best for course in named)
    return SettingTable((*key_words(comparison.keys), metric.label), rows, bold)


def _note(
    comparison: Comparison,
    named: Sequence[Courses],
    others: Sequence[Courses],
    logarithmic: bool,
) -> str:
    counts = [len(course.histories) for course in (*named, *others)]
    text = f"{seeds_words(counts)} a setting"
    if max(counts) > 1:
        text = f"mean ± 1 standard deviation (band) over {text}"
        if logarithmic:
            text += ", of logarithms where the axis is logarithmic"
        lengths = ({len(history) for history in course.histories} for course in named)
        if any(len(found) > 1 for found in lengths):
            text += "; thin: the mean of the seeds that have not stopped"
    if any(course.diverged for course in named):
        text += "; ✗ diverged"
    if missing := len(comparison.rows) - len(counts):
        text += f"; {counted(missing, 'setting')} without epochs left out"
    return text


def _panel(column: str, named: Sequence[Courses], others: Sequence[Courses]) -> Panel:
    values = [values_of(course.histories, column) for course in named]
    # Losses on their way to infinity would press all others together.
    kept = [not course.diverged for course in named]
    kept = kept if any(kept) else [True] * len(named)
    shown = np.concatenate(
        [np.ravel(x) for x, is_kept in zip(values, kept, strict=True) if is_kept]
    )
    logarithmic = column.endswith("loss") and style.spans_decades(shown, DECADES)
    return Panel(
        column=column,
        logarithmic=logarithmic,
        named=[line_of(x, logarithmic) for x in values],
        kept=kept,
        others=[line_of(values_of(course.histories, column), logarithmic) for course in others],
    )


def _draw(
    axes: Axes, panel: Panel, named: Sequence[Courses], looks: Sequence[dict[str, Any]]
) -> None:
    from matplotlib.collections import LineCollection

    longest = max(len(line.epochs) for line in (*panel.named, *panel.others))
    every = slice(None, None, max(1, longest // MOST_POINTS))
    grey = [np.column_stack([x.epochs, x.centre])[every] for x in panel.others]
    axes.add_collection(LineCollection(grey, colors=REST, linewidths=0.7, alpha=0.7, zorder=1.5))
    for place, (line, form) in enumerate(zip(panel.named, looks, strict=True)):
        _draw_line(axes, line, form, place, longest)
    if panel.logarithmic:
        axes.set_yscale("log")
    axes.set_ylim(*_limits(panel))
    for course, line, form in zip(named, panel.named, looks, strict=True):
        if course.diverged:
            _mark_end(axes, line, form["color"])
    if panel.logarithmic:
        style.log_scale(axes)
    else:
        style.few_ticks(axes.yaxis, 7)
    margin = max(0.5, 0.02 * longest)
    axes.set_xlim(1 - margin, longest + margin)
    style.few_ticks(axes.xaxis, 6, integer=True)


def _draw_line(axes: Axes, line: Line, form: dict[str, Any], place: int, longest: int) -> None:
    colour = form["color"]
    axes.fill_between(line.epochs, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    every: tuple[int, int] = (0, 1)
    if longest > FEW_EPOCHS:  # staggered, so that no marker hides another
        step = max(1, longest // MARKERS)
        every = (int(step * (place % 4) / 4), step)
    whole = np.where(line.whole, line.centre, np.nan)
    axes.plot(line.epochs, line.centre, **{**form, "marker": ""}, linewidth=0.9)
    axes.plot(line.epochs, whole, **form, markersize=4.5, markevery=every, markeredgewidth=0)


def _mark_end(axes: Axes, line: Line, colour: str) -> None:
    """A cross on the last epoch before the values were lost, or above it where the axis ends."""
    finite = np.flatnonzero(np.isfinite(line.centre))
    if len(finite):
        last = finite[-1]
        height = np.clip(line.centre[last], *axes.get_ylim())
        (cross,) = axes.plot(line.epochs[last], height, "X", color=colour, markersize=9)
        cross.set(markeredgecolor=style.INK, clip_on=False, zorder=3)


def values_of(histories: Sequence[History], column: str) -> Floats:
    """(S, E): a row a seed, NaN after it has stopped and where a value is missing or not finite;
    accuracies in percent."""
    values = np.full((len(histories), max(map(len, histories))), np.nan)
    for seed, history in enumerate(histories):
        found = np.array([getattr(row, column) for row in history], dtype=np.float64)
        found[~(np.abs(found) < style.LARGEST)] = np.nan
        values[seed, : len(history)] = found
    return 100 * values if column.endswith("accuracy") else values


def line_of(values: Floats, logarithmic: bool) -> Line:
    """Mean and standard deviation (divided by S - 1) of each epoch over the seeds; of the
    logarithms, and back, if ``logarithmic``. values: (S, E)."""
    seeds, epochs = values.shape
    if logarithmic:
        values = np.log(np.where(values > 0, values, np.nan))
    present = np.isfinite(values)
    count = present.sum(axis=0)
    sums = np.where(present, values, 0).sum(axis=0)
    centre = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    whole = count == seeds
    deviation = np.full(epochs, np.nan)
    if seeds > 1:
        squares = np.where(present, values - centre, 0) ** 2
        deviation[whole] = np.sqrt(squares.sum(axis=0) / (seeds - 1))[whole]
    low, high = centre - deviation, centre + deviation
    if logarithmic:
        centre, low, high = np.exp(centre), np.exp(low), np.exp(high)
    return Line(np.arange(1.0, epochs + 1), centre, low, high, whole)


def _limits(panel: Panel) -> tuple[float, float]:
    """Room for the named lines, and for most of the others."""
    kept = [line for line, is_kept in zip(panel.named, panel.kept, strict=True) if is_kept]
    values = np.concatenate([x for line in kept for x in (line.centre, line.low, line.high)])
    rest = np.concatenate([np.empty(0), *(line.centre for line in panel.others)])
    if panel.logarithmic:
        values, rest = values[values > 0], rest[rest > 0]
        values, rest = np.log(values), np.log(rest)
    values, rest = values[np.isfinite(values)], rest[np.isfinite(rest)]
    if len(rest):
        values = np.concatenate([values, np.quantile(rest, [0.1, 0.9])])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    ends = np.array([low - margin, high + margin])
    low, high = np.exp(ends) if panel.logarithmic else ends
    return float(low), float(high)

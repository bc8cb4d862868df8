"""Heat maps of the result against two numeric keys: a cell for each pair of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.settings import sort_key
from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.style import Bools, Floats, Ints
from nnopt.plots.sweep.labels import (
    footnote,
    key_labels,
    over_seeds,
    seed_counts,
    seeds_label,
    value_label,
    value_labels,
)
from nnopt.plots.sweep.layout import Margins, sweep_figure
from nnopt.plots.sweep.metric import Metric, metric_of
from nnopt.results.collect import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

MIN_FILLED_FRACTION = 0.6  # minimum fraction of cells with a setting; a random search fills fewer
LEARNING_RATE = "optimizer.lr"
MAX_VALUES = 30  # maximum number of values of a key
MAX_FACETS = 6  # maps for the values of the other keys; if more are needed, one map shows the mean

# Pairs are (horizontal, vertical) in inches.
CELL_SIZE = (0.62, 0.4)  # preferred size; its width decides how many maps are in a row
MIN_CELL_SIZE, MAX_CELL_SIZE = (0.2, 0.28), (0.95, 0.7)
MIN_WIDTH_WITH_NUMBER = 0.45

Keys = tuple[str, str]
"""The keys of the horizontal and the vertical axis."""


@dataclass(frozen=True)
class Facet:
    """One map: arrays (Y, X) with an entry for each cell."""

    title: str
    means: Floats  # NaN where no run finished
    settings: Ints  # number of settings
    done: Ints  # number of settings with a mean
    is_best: Bools  # whether the cell has the best mean


def heat_map_keys(comparison: Comparison) -> Keys | None:
    """Return the keys of the horizontal and the vertical axis; None if no pair is suitable.

    Of the pairs of numeric keys with enough filled cells, the pair with the most cells is chosen.
    Pairs with the learning rate take precedence.
    """
    ranked = []
    for keys in combinations(comparison.keys, 2):
        rows = _rows_with(comparison, keys)
        sizes = {key: len(_numeric_values(rows, key)) for key in keys}
        cells = sizes[keys[0]] * sizes[keys[1]]
        pairs = {tuple(row.setting.values[key] for key in keys) for row in rows}
        is_filled = cells and len(pairs) >= MIN_FILLED_FRACTION * cells
        if is_filled and max(sizes.values()) <= MAX_VALUES:
            across, down = sorted(keys, key=lambda key: (key != LEARNING_RATE, -sizes[key]))
            ranked.append((LEARNING_RATE in keys, cells, (across, down)))
    return max(ranked, key=lambda candidate: candidate[:2])[2] if ranked else None


def plot_heat_map(comparison: Comparison, keys: Keys, paths: Sequence[Path]) -> None:
    """Draw the mean over seeds for each pair of values of the horizontal and the vertical key.

    Each combination of values of the other keys has its own map. If more than six maps were needed,
    one map shows the mean over the combinations. A frame marks the best cell. Cells without
    runs are blank; cells in which no run finished are hatched. The colour scale ignores outliers.
    """
    metric = metric_of(comparison)
    rows = _rows_with(comparison, keys)
    others = [key for key in comparison.keys if key not in keys]
    facets = _facets(rows, keys, others, metric)
    across, down = (_value_labels(rows, key) for key in keys)
    columns = min(len(facets), max(1, int(9 / (CELL_SIZE[0] * len(across)))), 3)
    lines = -(-len(facets) // columns)
    total = (8.0 if columns > 1 else 5.0, 2.4 if lines == 1 else 4.0)  # inches for all cells
    counts = (columns * len(across), lines * len(down))
    cell = np.clip(np.divide(total, counts), MIN_CELL_SIZE, MAX_CELL_SIZE)
    map_width, map_height = cell[0] * len(across), cell[1] * len(down)
    step_right, step_up = map_width + 0.3, map_height + (0.4 if len(facets) > 1 else 0.1)
    width, height = step_right * columns - 0.3, step_up * lines
    is_rotated = style.text_width(across) > 0.9 * cell[0]
    left = 0.65 + style.text_width(down)
    below = 0.25 + (style.text_width(across) if is_rotated else 0.15)
    note = _note(facets, rows, comparison, others, metric)
    title = f"{metric.title} by {keys[0]} and {keys[1]}"
    margins = Margins(left, right=1.2, top=0.55, bottom=0.2 + below)
    with sweep_figure(paths, title, note, (width, height), margins) as content:
        norm, extend = metric.colour_scale([x for facet in facets for x in facet.means.ravel()])
        for index, facet in enumerate(facets):
            row, column = divmod(index, columns)
            x, y = column * step_right, (lines - 1 - row) * step_up
            axes = content.axes(x, y, map_width, map_height)
            _draw(axes, facet, norm, metric, show_numbers=cell[0] >= MIN_WIDTH_WITH_NUMBER)
            is_lowest = index + columns >= len(facets)
            axes.set_xticks(range(len(across)), across, rotation=90 if is_rotated else 0)
            axes.set_yticks(range(len(down)), down)
            axes.tick_params(length=0, labelbottom=is_lowest, labelleft=column == 0)
            most = int(step_right / style.text_width("x", 8))  # characters
            style.caption(axes, style.readable(facet.title, most))
        content.text(width / 2, -below, keys[0])
        content.text(0.2 - left, height / 2, keys[1], rotation=90)
        bar = content.axes(width + 0.25, 0, 0.16, min(3.2, height - 0.1))
        _draw_colour_bar(bar, norm, extend, metric)


def _rows_with(comparison: Comparison, keys: Keys) -> list[Row]:
    """Return the settings that have both keys."""
    return [row for row in comparison.rows if all(key in row.setting.values for key in keys)]


def _numeric_values(rows: Sequence[Row], key: str) -> list[Value]:
    """Return the sorted values of a key if two or more are numbers and any other is null, else [].

    All ``rows`` have the key.
    """
    ordered = sorted(rows, key=lambda row: sort_key(row.setting.values, key))
    values = list(dict.fromkeys(row.setting.values[key] for row in ordered))
    given = [x for x in values if x is not None]
    are_numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in given)
    return values if are_numbers and len(given) > 1 else []


def _value_labels(rows: Sequence[Row], key: str) -> list[str]:
    """Return the labels of the values of a key, in the order of the values."""
    labels = {row.setting.values[key]: value_label(row, key) for row in rows}
    return [labels[value] for value in _numeric_values(rows, key)]


def _facets(rows: Sequence[Row], keys: Keys, others: Sequence[str], metric: Metric) -> list[Facet]:
    """Return a map for each combination of the other keys' values, or one if they are too many."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(value_labels(row, others), []).append(row)
    if len(groups) > MAX_FACETS:
        groups = {(): list(rows)}
    values = [_numeric_values(rows, key) for key in keys]
    facets = []
    for labels, members in groups.items():
        pairs = zip(key_labels(others), labels, strict=bool(labels))
        title = ", ".join(f"{key}={value}" for key, value in pairs)
        facets.append(_facet(title, members, keys, values, metric))
    return facets


def _facet(
    title: str, rows: Sequence[Row], keys: Keys, values: Sequence[Sequence[Value]], metric: Metric
) -> Facet:
    """Return the map of some settings, with columns and rows for the ``values`` of the two keys."""
    shape = (len(values[1]), len(values[0]))
    sums, settings, done = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    is_best = np.zeros(shape, np.bool_)
    for row in rows:
        x, y = (axis.index(row.setting.values[key]) for key, axis in zip(keys, values, strict=True))
        settings[y, x] += 1
        if (result := metric.result(row)) is not None:
            sums[y, x] += result.location
            done[y, x] += 1
            is_best[y, x] |= row.outcomes[0].is_best
    means = np.where(done > 0, sums / np.maximum(done, 1), np.nan)
    if settings.max() > 1:  # the cell with the best mean need not contain the best setting
        best = {"higher": np.nanmax, "lower": np.nanmin}.get(metric.direction or "")
        is_best = means == best(means) if best and done.any() else np.zeros(shape, np.bool_)
    return Facet(title, means, settings, done, is_best)


def _draw(axes: Axes, facet: Facet, norm: Normalize, metric: Metric, show_numbers: bool) -> None:
    from matplotlib.patches import Rectangle

    means = np.ma.masked_invalid(facet.means)
    options: dict[str, Any] = {"interpolation": "nearest", "origin": "lower"}
    image = axes.imshow(means, metric.colours(), norm, **options)
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    is_dark = image.to_rgba(means)[..., :3] @ [0.299, 0.587, 0.114] < 0.5
    for y, x in np.ndindex(facet.means.shape):
        done, settings, is_best = facet.done[y, x], facet.settings[y, x], facet.is_best[y, x]
        if settings and not done:
            form: dict[str, Any] = {"facecolor": "white", "edgecolor": style.FAINT, "linewidth": 0}
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, hatch="////", **form))
        if is_best:
            form = {"edgecolor": style.ORANGE, "linewidth": 2.5}
            axes.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, **form))
        if show_numbers and done:
            value = float(facet.means[y, x])
            text = f"{value:.1f}" if metric.factor == 100 else _three_digits(value)
            text += f"\n{done} of {settings}" if done < settings else ""
            form = {"ha": "center", "va": "center", "fontsize": 8, "linespacing": 1.0}
            colour = "white" if is_dark[y, x] else style.INK
            axes.text(x, y, text, color=colour, weight="bold" if is_best else "normal", **form)


def _three_digits(value: float) -> str:
    """Format a number so that it has at least three digits, as ``0.190``, ``12.3`` or ``45678``."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:#.3g}"


def _draw_colour_bar(axes: Axes, norm: Normalize, extend: str, metric: Metric) -> None:
    """Draw the colour scale of all maps into the axes, with the metric's unit."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    shades = ScalarMappable(norm, metric.colours())
    bar = style.figure_of(axes).colorbar(shades, cax=axes, extend=extend)
    bar.outline.set_linewidth(0.5)
    bar.minorticks_off()
    if isinstance(norm, LogNorm):
        bar.locator, bar.formatter = style.log_ticks(*axes.get_ylim())
        bar.update_ticks()
    else:
        style.few_ticks(axes.yaxis)
    axes.set_ylabel(metric.label)


def _note(
    facets: Sequence[Facet],
    rows: Sequence[Row],
    comparison: Comparison,
    others: Sequence[str],
    metric: Metric,
) -> str:
    settings, done = (np.ravel([getattr(x, name) for x in facets]) for name in ("settings", "done"))
    counts, most = seed_counts(rows), settings.max()
    mean = over_seeds(counts)
    if most > 1:
        up_to = "up to " if settings[settings > 0].min() < most else ""
        mean = f"mean over {up_to}{most} settings of {', '.join(key_labels(others))}"
    left_out = len(comparison.rows) - len(rows)
    return footnote(
        (True, mean),
        (most > 1, f"{seeds_label(counts)} a setting"),
        (metric.direction is not None, "darker is better"),
        (any(facet.is_best.any() for facet in facets), "frame: best"),
        (((done > 0) & (done < settings)).any(), "1 of 2: one of two settings has a result"),
        (((settings > 0) & (done == 0)).any(), "hatched: no run finished"),
        ((settings == 0).any(), "blank: not tried"),
        (left_out, f"{counted(left_out, 'setting')} without these keys left out"),
    )

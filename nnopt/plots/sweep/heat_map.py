"""Heat maps of the result against two numeric keys: a cell for each pair of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.sweep.colours import colour_bar, colour_scale, is_dark
from nnopt.plots.sweep.facets import Facet, facets_of, numeric_values, rows_with
from nnopt.plots.sweep.labels import (
    Metric,
    capitalized,
    key_labels,
    metric_of,
    seed_counts,
    seeds_label,
    value_label,
)
from nnopt.plots.sweep.layout import Margins, sweep_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

CELL_SIZE = (0.62, 0.4)
"""Preferred cell size in inches. Its width decides how many maps fit side by side."""

MIN_CELL_SIZE, MAX_CELL_SIZE = (0.2, 0.28), (0.95, 0.7)
MIN_WIDTH_WITH_NUMBER = 0.45

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Positions and sizes of the maps. Pairs are (horizontal, vertical) in inches.

    Attributes:
        columns: Number of maps side by side.
        step: Distance from a map to the next, in both directions.
        size: Size of the area of all maps.
        left, below: Space for the labels of the axes.
        is_rotated: Whether the labels below are vertical.
    """

    columns: int
    cell: tuple[float, float]
    map_size: tuple[float, float]
    step: tuple[float, float]
    size: tuple[float, float]
    left: float
    below: float
    is_rotated: bool

    def corner(self, index: int) -> tuple[float, float]:
        """Return the lower left corner of a map, relative to that of the lowest row."""
        row, column = divmod(index, self.columns)
        rows = round(self.size[1] / self.step[1])
        return column * self.step[0], (rows - 1 - row) * self.step[1]


def _grid(facets: int, across: Sequence[str], down: Sequence[str]) -> Grid:
    columns = min(facets, max(1, int(9 / (CELL_SIZE[0] * len(across)))), 3)
    rows = -(-facets // columns)
    total = (8.0 if columns > 1 else 5.0, 2.4 if rows == 1 else 4.0)  # inches for all cells
    width = float(np.clip(total[0] / (columns * len(across)), MIN_CELL_SIZE[0], MAX_CELL_SIZE[0]))
    height = float(np.clip(total[1] / (rows * len(down)), MIN_CELL_SIZE[1], MAX_CELL_SIZE[1]))
    map_size = (width * len(across), height * len(down))
    step = (map_size[0] + 0.3, map_size[1] + (0.4 if facets > 1 else 0.1))
    is_rotated = style.text_width(across) > 0.9 * width
    return Grid(
        columns=columns,
        cell=(width, height),
        map_size=map_size,
        step=step,
        size=(step[0] * columns - 0.3, step[1] * rows),
        left=0.65 + style.text_width(down),
        below=0.25 + (style.text_width(across) if is_rotated else 0.15),
        is_rotated=is_rotated,
    )


def plot_heat_map(comparison: Comparison, keys: tuple[str, str], paths: Sequence[Path]) -> None:
    """Draw the mean over seeds for every pair of values of two keys, across and down.

    Each setting of the other keys has its own map. If there are more than six, one map shows the
    mean over them. A frame marks the best cell. Cells without a finished run are hatched, cells
    without runs are blank. The colour scale ignores outliers.
    """
    metric = metric_of(comparison)
    rows = rows_with(comparison, keys)
    others = [key for key in comparison.keys if key not in keys]
    facets = facets_of(rows, keys, others, metric)
    values = [_value_labels(rows, key) for key in keys]
    grid = _grid(len(facets), *values)
    width, height = grid.size
    note = _note(facets, rows, comparison, others, metric)
    title = f"{capitalized(metric.name)} by {keys[0]} and {keys[1]}"
    margins = Margins(grid.left, right=1.2, top=0.55, bottom=0.2 + grid.below)
    with sweep_figure(paths, title, note, grid.size, margins) as content:
        norm, extend = colour_scale([x for facet in facets for x in facet.means.ravel()], metric)
        for index, facet in enumerate(facets):
            x, y = grid.corner(index)
            axes = content.axes(x, y, *grid.map_size)
            _draw(axes, facet, norm, metric, grid.cell[0] >= MIN_WIDTH_WITH_NUMBER)
            is_lowest = index + grid.columns >= len(facets)
            across = values[0] if is_lowest else [""] * len(values[0])
            axes.set_xticks(range(len(across)), across, rotation=90 if grid.is_rotated else 0)
            down = values[1] if x == 0 else [""] * len(values[1])
            axes.set_yticks(range(len(down)), down)
            axes.tick_params(length=0)
            text = style.readable(facet.title, int(grid.step[0] / style.text_width("x", 8)))
            style.caption(axes, text)
        content.text(width / 2, -grid.below, keys[0])
        content.text(0.2 - grid.left, height / 2, keys[1], rotation=90)
        bar = content.axes(width + 0.25, 0, 0.16, min(3.2, height - 0.1))
        colour_bar(bar, norm, extend, metric)


def _value_labels(rows: Sequence[Row], key: str) -> list[str]:
    """Return the labels of the values of a key, in the order of the values."""
    labels = {row.setting.values[key]: value_label(row, key) for row in rows}
    return [labels[value] for value in numeric_values(rows, key)]


def _draw(axes: Axes, facet: Facet, norm: Normalize, metric: Metric, show_numbers: bool) -> None:
    from matplotlib.patches import Rectangle

    from nnopt.plots.sweep.colours import colours

    axes.imshow(
        np.ma.masked_invalid(facet.means),
        cmap=colours(metric),
        norm=norm,
        interpolation="nearest",
        origin="lower",
    )
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    for y, x in np.ndindex(facet.means.shape):
        value = facet.means[y, x]
        if facet.settings[y, x] and not facet.done[y, x]:
            box = Rectangle(
                (x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor=style.FAINT, hatch="////"
            )
            box.set_linewidth(0)
            axes.add_patch(box)
        if facet.is_best[y, x]:
            frame = Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False)
            frame.set(edgecolor=style.ORANGE, linewidth=2.5)
            axes.add_patch(frame)
        if not (show_numbers and facet.done[y, x]):
            continue
        text = f"{value:.1f}" if metric.factor == 100 else _three_digits(float(value))
        if facet.done[y, x] < facet.settings[y, x]:
            text += f"\n{facet.done[y, x]} of {facet.settings[y, x]}"
        weight = "bold" if facet.is_best[y, x] else "normal"
        colour = "white" if is_dark(float(norm(value)), metric) else style.INK
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=8,
            linespacing=1.0,
            color=colour,
            weight=weight,
        )


def _three_digits(value: float) -> str:
    """Return a number like 0.190, 12.3 or 45678."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:#.3g}"


def _note(
    facets: Sequence[Facet],
    rows: Sequence[Row],
    comparison: Comparison,
    others: Sequence[str],
    metric: Metric,
) -> str:
    counts = seed_counts(rows)
    tried = [int(n) for facet in facets for n in facet.settings.ravel() if n]
    most = max(tried)
    text = seeds_label(counts)
    if most > 1:
        up_to = "up to " if min(tried) < most else ""
        text = (
            f"mean over {up_to}{most} settings of {', '.join(key_labels(others))}; {text} a setting"
        )
    elif max(counts, default=0) > 1:
        text = f"mean over {text}"
    if metric.direction is not None:
        text += "; darker is better"
    if any(facet.is_best.any() for facet in facets):
        text += "; frame: best"
    if any(((facet.done > 0) & (facet.done < facet.settings)).any() for facet in facets):
        text += "; 1 of 2: settings with a result, of all"
    if any(((facet.settings > 0) & (facet.done == 0)).any() for facet in facets):
        text += "; hatched: no run finished"
    if any((facet.settings == 0).any() for facet in facets):
        text += "; blank: not tried"
    if left_out := len(comparison.rows) - len(rows):
        text += f"; {counted(left_out, 'setting')} without these keys left out"
    return text

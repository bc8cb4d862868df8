"""Statistics of many layers as maps with a row for each layer and a column for each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Inches:
NAMED_ROW_HEIGHT, MAX_ROW_HEIGHT = 0.17, 0.5
MIN_PANEL_HEIGHT, MAX_PANEL_HEIGHT = 2.5, 6.0
BAR_WIDTH, BAR_GAP, BAR_SPACE = (
    0.12,
    0.1,
    0.95,
)  # of a colour bar; gap to the map; width with numbers
MIN_BAR_HEIGHT = 1.5
LAST_COLUMN_WIDTH = 0.42  # column with the fractions in the last epoch
FRACTIONS_SPACE = BAR_SPACE + LAST_COLUMN_WIDTH

MIN_GREY = 0.12  # of the colour map "Greys" for a fraction of 0, so that a map of zeros is visible
NAME_POINTS = 8.5
MIN_MARK_DISTANCE = 6.0  # points

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]


def margins(names: Sequence[str]) -> tuple[float, float, float]:
    """Return the space left of, between and right of two maps, in inches, for names and bars."""
    return 0.3 + style.text_width(names, NAME_POINTS), BAR_SPACE, BAR_SPACE


def height_of(rows: int) -> float:
    """Return the height in inches of a panel with this number of named rows, up to a maximum."""
    return float(np.clip(NAMED_ROW_HEIGHT * rows, MIN_PANEL_HEIGHT, MAX_PANEL_HEIGHT))


def draw_deviations(
    figure: Figure,
    boxes: Sequence[Box],
    epochs: NDArray[np.int64],
    panels: Mapping[str, Floats],
    names: Sequence[str],
) -> None:
    """Draw a map with a logarithmic colour scale into each box, and layer names at the first.

    The arguments are those of ``layer_lines.draw_deviations``. A circle marks a value of 0, a cross
    an infinite value.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    for index, (box, (title, values)) in enumerate(zip(boxes, panels.items(), strict=True)):
        positive = np.ma.masked_where(~((values > 0) & np.isfinite(values)), values)
        low, high = (positive.min(), positive.max()) if positive.count() else (0.5, 2.0)
        if high < 1.5 * low:  # a scale of one value also needs ticks
            low, high = low / 1.5, high * 1.5
        norm = LogNorm(low, high)
        rows = [] if index else names
        axes, image = _draw_map(figure, box, epochs, positive, rows, colormaps["viridis"], norm)
        marks = [("o", "○ exactly 0", values == 0), ("x", "× not finite", ~np.isfinite(values))]
        for marker, text, where in marks:
            if where.any():
                _draw_marks(axes, box, epochs, where, marker)
                title += f"   {text}"
        style.caption(figure, box[0], box[1] + box[3], title)
        if positive.count():
            bar = _draw_bar(figure, box, image, "standard deviation")
            bar.locator, bar.formatter = style.log_ticks(low, high)
            bar.update_ticks()


def draw_fractions(
    figure: Figure,
    box: Box,
    epochs: NDArray[np.int64],
    title: str,
    percent: Floats,
    names: Sequence[str],
) -> None:
    """Draw percentages (L, E) in grey, on a square-root scale on which 1 % is visible.

    If there is space, the value of the last epoch is printed at the end of each row. A few rows
    fill only the upper part of the box.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm

    left, bottom, width, height = box
    used = min(height, MAX_ROW_HEIGHT * len(names))
    inner = (left, bottom + height - used, width, used)
    norm = PowerNorm(0.5, 0, 100)
    greys = ListedColormap(colormaps["Greys"](np.linspace(MIN_GREY, 1, 256)))
    axes, image = _draw_map(figure, inner, epochs, percent, names, greys, norm)
    if used / len(names) > 0.9 * NAMED_ROW_HEIGHT:
        x = epochs[-1] + 0.5 + 0.08 / width * (epochs[-1] - epochs[0] + 1)
        for row, value in enumerate(percent[:, -1]):
            axes.text(x, row, _percent(value), va="center", fontsize=NAME_POINTS)
        axes.hlines(np.arange(1, len(names)) - 0.5, *axes.get_xlim(), "white", linewidth=1.2)
        y = -0.5 - 0.06 / used * len(names)
        axes.text(x, y, "last", va="bottom", fontsize=NAME_POINTS, color=style.FAINT)
    style.caption(figure, left, bottom + height, title)
    bar_height = max(used, MIN_BAR_HEIGHT)
    bar_box = (left + LAST_COLUMN_WIDTH, bottom + height - bar_height, width, bar_height)
    bar = _draw_bar(figure, bar_box, image, "fraction of units (%)")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 100])


def _percent(value: float) -> str:
    """Return a percentage like 0 %, <0.1 %, 0.3 % or 12 %; only 0 is 0 %."""
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def _draw_map(
    figure: Figure,
    box: Box,
    epochs: NDArray[np.int64],
    values: Floats,
    names: Sequence[str],
    colours: Colormap,
    norm: Normalize,
) -> tuple[Axes, AxesImage]:
    """Draw a map with the first layer on top. Masked values are white."""
    axes = style.panel(figure, *box)
    rows = len(values)
    image = axes.imshow(
        values,
        cmap=colours.with_extremes(bad="white"),
        norm=norm,
        interpolation="nearest",
        extent=(epochs[0] - 0.5, epochs[-1] + 0.5, rows - 0.5, -0.5),
    )
    every = max(1, int(np.ceil(0.9 * NAMED_ROW_HEIGHT * rows / box[3])))
    axes.set_yticks(range(0, rows, every) if names else [], names[::every], fontsize=NAME_POINTS)
    axes.tick_params(left=False)
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    style.few_ticks(axes.xaxis, 6, integer=True)
    style.label(axes, "epoch", "")
    return axes, image


def _draw_marks(
    axes: Axes, box: Box, epochs: NDArray[np.int64], where: NDArray[np.bool_], marker: str
) -> None:
    """Draw a mark in each cell where ``where`` (L, E) is true, but fewer if cells are small."""
    rows, columns = where.shape
    cell_height, cell_width = 72 * box[3] / rows, 72 * box[2] / columns  # points
    steps = (
        int(np.ceil(MIN_MARK_DISTANCE / cell_height)),
        int(np.ceil(MIN_MARK_DISTANCE / cell_width)),
    )
    layers, marked = np.nonzero(where[:: steps[0], :: steps[1]])
    axes.plot(
        epochs[:: steps[1]][marked],
        layers * steps[0],
        marker,
        markersize=4,
        color=style.INK,
        markerfacecolor="none",
        markeredgewidth=0.9,
        clip_on=False,
    )


def _draw_bar(figure: Figure, box: Box, image: AxesImage, label: str) -> Colorbar:
    """Draw the colour bar of a map with a label."""
    left, bottom, width, height = box
    axes = style.panel(figure, left + width + BAR_GAP, bottom, BAR_WIDTH, height)
    bar = figure.colorbar(image, cax=axes)
    bar.outline.set_linewidth(0.5)
    bar.minorticks_off()
    axes.set_ylabel(label, fontsize=9)
    axes.yaxis.set_label_coords(1 + 0.55 / BAR_WIDTH, 0.5)
    return bar

"""Statistics of many layers as maps: a row for each layer, a column for each epoch."""

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

ROW, LOWEST, TALLEST = 0.17, 2.5, 6.0  # inches: a named row; a panel at least and at most
THICKEST = 0.5  # inches: a row of few
BAR, BAR_GAP, BAR_ROOM = 0.12, 0.1, 0.95  # inches: a colour bar, from the map, with its numbers
SHORTEST_BAR = 1.5  # inches
LIGHTEST = 0.12  # of Greys: a share of 0, so that a map of nothing but zeros is seen
NUMBERS = 0.42  # inches: shares in the last epoch, right of their map
SHARES_ROOM = BAR_ROOM + NUMBERS
NAME_POINTS = 8.5
MARK_STEP = 6.0  # points: marks do not stand closer

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]


def margins(names: Sequence[str]) -> tuple[float, float, float]:
    """Inches before, between and after two maps: names of rows, colour bars."""
    return 0.3 + style.text_width(names, NAME_POINTS), BAR_ROOM, BAR_ROOM


def height_of(rows: int) -> float:
    """Inches of a panel that names so many rows, as far as it may grow."""
    return float(np.clip(ROW * rows, LOWEST, TALLEST))


def draw_deviations(
    figure: Figure,
    boxes: Sequence[Box],
    epochs: NDArray[np.int64],
    panels: Mapping[str, Floats],
    names: Sequence[str],
) -> None:
    """A map in each box, the first with the layers' names: colours on a logarithmic scale; a circle
    where a value is exactly 0, a cross where it is not finite.

    boxes: left, bottom, width, height in inches; epochs: (E,); panels: title -> values (L, E).
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    for place, (box, (title, values)) in enumerate(zip(boxes, panels.items(), strict=True)):
        positive = np.ma.masked_where(~((values > 0) & np.isfinite(values)), values)
        low, high = (positive.min(), positive.max()) if positive.count() else (0.5, 2.0)
        if high < 1.5 * low:  # one value, say: still a scale with ticks
            low, high = low / 1.5, high * 1.5
        norm = LogNorm(low, high)
        rows = [] if place else names
        axes, image = _draw_map(figure, box, epochs, positive, rows, colormaps["viridis"], norm)
        marks = [("o", "○ exactly 0", values == 0), ("x", "× not finite", ~np.isfinite(values))]
        for marker, words, where in marks:
            if where.any():
                _draw_marks(axes, box, epochs, where, marker)
                title += f"   {words}"
        style.caption(figure, box[0], box[1] + box[3], title)
        if positive.count():
            bar = _draw_bar(figure, box, image, "standard deviation")
            bar.locator, bar.formatter = style.log_ticks(low, high)
            bar.update_ticks()


def draw_shares(
    figure: Figure,
    box: Box,
    epochs: NDArray[np.int64],
    title: str,
    percent: Floats,
    names: Sequence[str],
) -> None:
    """Shares in percent, light to black; the square root is drawn, so that 1 % is seen. At the end
    of each row, where there is room, its last in numbers.

    box: left, bottom, width and height in inches, of which few rows take the upper part; epochs:
    (E,); percent: (L, E).
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm

    left, bottom, width, height = box
    used = min(height, THICKEST * len(names))
    inner = (left, bottom + height - used, width, used)
    norm = PowerNorm(0.5, 0, 100)
    greys = ListedColormap(colormaps["Greys"](np.linspace(LIGHTEST, 1, 256)))
    axes, image = _draw_map(figure, inner, epochs, percent, names, greys, norm)
    if used / len(names) > 0.9 * ROW:
        x = epochs[-1] + 0.5 + 0.08 / width * (epochs[-1] - epochs[0] + 1)
        for row, value in enumerate(percent[:, -1]):
            axes.text(x, row, _percent(value), va="center", fontsize=NAME_POINTS)
        axes.hlines(np.arange(1, len(names)) - 0.5, *axes.get_xlim(), "white", linewidth=1.2)
        y = -0.5 - 0.06 / used * len(names)
        axes.text(x, y, "last", va="bottom", fontsize=NAME_POINTS, color=style.FAINT)
    style.caption(figure, left, bottom + height, title)
    tall = max(used, SHORTEST_BAR)
    bar_box = (left + NUMBERS, bottom + height - tall, width, tall)
    bar = _draw_bar(figure, bar_box, image, "share of units (%)")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 100])


def _percent(value: float) -> str:
    """0 %, <0.1 %, 0.3 %, 12 %: short, and 0 only if it is 0."""
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
    """The first layer on top; what is masked is white. Names: all, every second, ... or none."""
    axes = style.panel(figure, *box)
    rows = len(values)
    image = axes.imshow(
        values,
        cmap=colours.with_extremes(bad="white"),
        norm=norm,
        aspect="auto",
        interpolation="nearest",
        extent=(epochs[0] - 0.5, epochs[-1] + 0.5, rows - 0.5, -0.5),
    )
    every = max(1, int(np.ceil(0.9 * ROW * rows / box[3])))
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
    """A mark in each cell ``where``; in every second, third, ... where cells are small."""
    rows, columns = where.shape
    tall, wide = 72 * box[3] / rows, 72 * box[2] / columns
    steps = int(np.ceil(MARK_STEP / tall)), int(np.ceil(MARK_STEP / wide))
    layers, places = np.nonzero(where[:: steps[0], :: steps[1]])
    axes.plot(
        epochs[:: steps[1]][places],
        layers * steps[0],
        marker,
        markersize=4,
        color=style.INK,
        markerfacecolor="none",
        markeredgewidth=0.9,
        clip_on=False,
    )


def _draw_bar(figure: Figure, box: Box, image: AxesImage, words: str) -> Colorbar:
    """The colour bar right of a map, and what its colours measure."""
    left, bottom, width, height = box
    axes = style.panel(figure, left + width + BAR_GAP, bottom, BAR, height)
    bar = figure.colorbar(image, cax=axes)
    bar.outline.set_linewidth(0.5)
    bar.minorticks_off()
    axes.set_ylabel(words, fontsize=9)
    axes.yaxis.set_label_coords(1 + 0.55 / BAR, 0.5)
    return bar

"""Activations, gradients, updates and dead units of each layer against the epoch.

Statistics of a few layers are drawn as lines, statistics of many layers as maps. A map, like an
array (L, E), has a row for each layer and a column for each epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.plots import style
from nnopt.plots.style import Bools, Box, Floats, Ints
from nnopt.results.metrics_file import LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_LINES = 8  # more layers are drawn as the rows of a heat map
MAX_NAME_CHARACTERS = 28
MAX_EPOCHS_WITH_MARKERS = 30
MAX_BRIGHTNESS = 0.9  # part of viridis that is used; its yellow end is faint on white
MIN_GREY = 0.12  # position of 0 in the colour map "Greys", so that a map of zeros is visible
DEVIATION, RATIO = "standard deviation", "‖update‖ / ‖weight‖"
NAME_POINTS, MIN_MARK_DISTANCE = 8.5, 6.0  # points

# Inches:
WIDTH, LINES_HEIGHT, MIN_MAP_HEIGHT, MAX_MAP_HEIGHT = 2.9, 2.5, 2.5, 6.0  # of a panel
BOTTOM, TOP = 0.6, 0.8
PANEL_GAP = 0.95  # also the space of a colour bar with its numbers and label
STRIP_STEP, STRIP_GAP = 0.09, 0.06  # height per layer; gap to the panel
NAMED_ROW_HEIGHT, MAX_ROW_HEIGHT = 0.17, 0.5
LAST_COLUMN_WIDTH = 0.42  # column with the fractions in the last epoch
MIN_BAR_HEIGHT = 1.5


def plot_layer_statistics(
    history: Sequence[LayerRow], matrices: Collection[str], path: Path, name: str
) -> None:
    """Draw the deviations of outputs and gradients, the update ratios, and the dead ReLU units.

    Up to 8 layers are lines, from dark to bright by depth. Strips below and above the panel show
    zeros and non-finite values. More than 8 layers are rows of maps. The fraction of dead units,
    which are 0 for every sample, is always a map. If no row has an update ratio, because an earlier
    version wrote the rows, the panel is left out.

    ``matrices`` are the layers whose weight is a matrix or kernels, not the scale of a
    normalization. ``name`` is the name of the run.
    """
    by_layer: dict[str, list[LayerRow]] = {}
    for row in history:
        by_layer.setdefault(row.layer, []).append(row)
    epochs = np.unique([row.epoch for row in history])
    weighted = [layer for layer in by_layer if layer in matrices]
    relus = [layer for layer, rows in by_layer.items() if rows[0].dead_fraction is not None]

    def table(statistic: str, layers: Sequence[str]) -> Floats:
        """Return values (L, E), NaN if not finite, masked if missing."""
        missing = [[getattr(x, statistic) is None for x in by_layer[layer]] for layer in layers]
        columns = [style.column_of(by_layer[layer], statistic) for layer in layers]
        return np.ma.array(columns, np.float64, mask=missing)

    panels = [
        ("Outputs", DEVIATION, table("activation_std", weighted)),
        ("Gradient of the weights", DEVIATION, table("gradient_std", weighted)),
    ]
    if any(row.update_ratio is not None for row in history):
        panels.append(("Update of the weights", RATIO, table("update_ratio", weighted)))
    names = [style.readable(layer, MAX_NAME_CHARACTERS) for layer in weighted]
    relu_names = [style.readable(layer, MAX_NAME_CHARACTERS) for layer in relus]
    if in_lines := len(weighted) <= MAX_LINES:
        left, height, right = PANEL_GAP, LINES_HEIGHT, 0.7 + style.text_width(names)
    else:
        left, right = _names_width(names), PANEL_GAP
        rows = max(len(weighted), len(relus))
        height = float(np.clip(NAMED_ROW_HEIGHT * rows, MIN_MAP_HEIGHT, MAX_MAP_HEIGHT))
    width = dead_left = left + len(panels) * (WIDTH + PANEL_GAP) - PANEL_GAP + right
    if relus:
        dead_left += _names_width(relu_names)
        width = dead_left + WIDTH + LAST_COLUMN_WIDTH + PANEL_GAP
    draw = _draw_lines if in_lines else _draw_deviations
    title = f"{name}: layers over training"
    with style.drawing(path, width, BOTTOM + height + TOP, title) as figure:
        for number, (caption, quantity, values) in enumerate(panels):
            box = (left + number * (WIDTH + PANEL_GAP), BOTTOM, WIDTH, height)
            axes = draw(figure, box, (caption, quantity), epochs, values, names)
            if number > 0 and not in_lines:
                axes.tick_params(labelleft=False)
        if in_lines:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1.04), handletextpad=0.5)
        if relus:
            box = (dead_left, BOTTOM, WIDTH, height)
            _draw_fractions(figure, box, epochs, 100 * table("dead_fraction", relus), relu_names)


def _names_width(names: Sequence[str]) -> float:
    """Return the space in inches for the names of the rows of a map."""
    return 0.3 + style.text_width(names, NAME_POINTS)


def _draw_lines(
    figure: Figure,
    box: Box,
    titles: tuple[str, str],
    epochs: Ints,
    values: Floats,
    names: Sequence[str],
) -> Axes:
    """Draw positive values, on a logarithmic scale if they span a decade or a value is 0.

    ``titles`` are the title of the panel and the label of its values. Zeros are drawn on a strip
    below the panel, infinities and NaN on a strip above it. On a strip, each layer has its own
    height.
    """
    left, bottom, width, height = box
    missing, values = np.ma.getmaskarray(values), np.ma.getdata(values)
    zero, not_finite = values == 0, ~np.isfinite(values) & ~missing
    below, above = _strip_height(zero), _strip_height(not_finite)
    axes = style.panel(figure, left, bottom + below, width, height - below - above)
    positive = np.where(zero | not_finite | missing, np.nan, values)
    styles = [_line_style(index, len(names), len(epochs)) for index in range(len(names))]
    for line, line_style, name in zip(positive, styles, names, strict=True):
        axes.plot(epochs, line, label=name, **line_style)
    if not np.isfinite(positive).any():
        axes.set_yticks([])
        text = "nothing above 0" if below else "no finite values"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=style.FAINT)
    elif below or style.spans_decades(positive, 1):
        style.log_scale(axes)
    else:
        axes.set_ylim(bottom=0)
        style.few_ticks(axes.yaxis)
    stack = [axes]  # the strips and the panel, from the lowest to the highest
    if below:
        strip = style.panel(figure, left, bottom, width, below - STRIP_GAP)
        stack.insert(0, _draw_strip(strip, epochs, zero, styles, "0"))
    if above:
        top = bottom + height - above + STRIP_GAP
        strip = style.panel(figure, left, top, width, above - STRIP_GAP)
        stack.append(_draw_strip(strip, epochs, not_finite, styles, "not finite"))
    for part in stack:
        style.epoch_axis(part, epochs[0], epochs[-1])
        part.tick_params(bottom=part is stack[0], labelbottom=part is stack[0])
    style.label(stack[0], "epoch", "")
    style.label(axes, "epoch" if axes is stack[0] else "", titles[1], 0.68)
    style.caption(stack[-1], titles[0])
    return axes


def _line_style(index: int, count: int, epochs: int) -> dict[str, Any]:
    """Return the colour, marker and dashes of a layer; the colour represents its depth."""
    from matplotlib import colormaps

    many = epochs > MAX_EPOCHS_WITH_MARKERS
    return {
        "color": colormaps["viridis"](MAX_BRIGHTNESS * index / max(1, count - 1)),
        "marker": "" if many else style.MARKERS[index],
        "markersize": 5,
        "linestyle": ("-", "--", "-.", ":")[index % 4] if many else "-",
    }


def _strip_height(where: Bools) -> float:
    """Return the height of a strip, with its gap to the panel, in inches; 0 for an empty strip."""
    count = int(where.any(axis=1).sum())
    return STRIP_GAP + STRIP_STEP * (count + 1) if count else 0.0


def _draw_strip(
    axes: Axes, epochs: Ints, where: Bools, styles: Sequence[dict[str, Any]], text: str
) -> Axes:
    """Draw a marker for each true element of ``where`` (L, E); the first layer is on top."""
    present = np.flatnonzero(where.any(axis=1)).tolist()
    for index, layer in enumerate(present):
        form = {"markersize": 4.5, "marker": styles[layer]["marker"] or "|", "linestyle": "-"}
        axes.plot(epochs, np.where(where[layer], -float(index), np.nan), **styles[layer] | form)
    axes.set_facecolor(style.PALE)
    axes.set_ylim(-len(present), 1)
    axes.set_yticks([-(len(present) - 1) / 2], [text])
    axes.tick_params(left=False)
    axes.grid(visible=False, axis="y")
    axes.spines[:].set_visible(False)
    return axes


def _draw_deviations(
    figure: Figure,
    box: Box,
    titles: tuple[str, str],
    epochs: Ints,
    values: Floats,
    names: Sequence[str],
) -> Axes:
    """Draw a map with a log colour scale, circles for zeros, and crosses for infinities and NaN.

    ``titles`` are the title of the map and the label of its colour bar.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    missing, values = np.ma.getmaskarray(values), np.ma.getdata(values)
    positive = np.ma.masked_where(~((values > 0) & np.isfinite(values)), values)
    low, high = (positive.min(), positive.max()) if positive.count() else (0.5, 2.0)
    if high < 1.5 * low:  # the scale needs ticks even if all values are almost equal
        low, high = low / 1.5, high * 1.5
    norm = LogNorm(low, high)
    image = _draw_map(figure, box, epochs, positive, names, colormaps["viridis"], norm)
    title = titles[0]
    marks = [
        ("o", "○ exactly 0", values == 0),
        ("x", "× not finite", ~np.isfinite(values) & ~missing),
    ]
    for marker, text, where in marks:
        if where.any():
            _draw_marks(image.axes, epochs, where, marker)
            title += f"   {text}"
    style.caption(image.axes, title)
    if positive.count():
        bar = style.colour_bar(image, titles[1])
        bar.locator, bar.formatter = style.log_ticks(low, high)
        bar.update_ticks()
    return image.axes


def _draw_fractions(
    figure: Figure, box: Box, epochs: Ints, percent: Floats, names: Sequence[str]
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
    image = _draw_map(figure, inner, epochs, percent, names, greys, norm)
    axes = image.axes
    if used / len(names) > 0.9 * NAMED_ROW_HEIGHT:
        x = epochs[-1] + 0.5 + 0.08 / width * (epochs[-1] - epochs[0] + 1)
        for row, value in enumerate(percent[:, -1]):
            axes.text(x, row, _percent(value), va="center", fontsize=NAME_POINTS)
        axes.hlines(np.arange(1, len(names)) - 0.5, *axes.get_xlim(), "white", linewidth=1.2)
        y = -0.5 - 0.06 / used * len(names)
        axes.text(x, y, "last", va="bottom", fontsize=NAME_POINTS, color=style.FAINT)
    style.caption(axes, "Dead units: 0 for every sample")
    gap = style.BAR_GAP + LAST_COLUMN_WIDTH
    bar = style.colour_bar(image, "fraction of units (%)", gap, max(used, MIN_BAR_HEIGHT))
    bar.set_ticks([0, 1, 5, 10, 25, 50, 100])


def _percent(value: float) -> str:
    """Return a percentage like 0 %, <0.1 %, 0.3 % or 12 %; only 0 is 0 %."""
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def _draw_map(
    figure: Figure,
    box: Box,
    epochs: Ints,
    values: Floats,
    names: Sequence[str],
    colours: Colormap,
    norm: Normalize,
) -> AxesImage:
    """Draw a map with the first layer on top. Masked values are white."""
    axes = style.panel(figure, *box)
    rows = len(values)
    extent = (epochs[0] - 0.5, epochs[-1] + 0.5, rows - 0.5, -0.5)
    colours = colours.with_extremes(bad="white")
    image = axes.imshow(values, colours, norm, extent=extent, interpolation="nearest")
    every = max(1, int(np.ceil(0.9 * NAMED_ROW_HEIGHT * rows / box[3])))
    axes.set_yticks(range(0, rows, every), names[::every], fontsize=NAME_POINTS)
    axes.tick_params(left=False)
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    style.few_ticks(axes.xaxis, 6, integer=True)
    style.label(axes, "epoch", "")
    return image


def _draw_marks(axes: Axes, epochs: Ints, where: Bools, marker: str) -> None:
    """Mark cells where ``where`` (L, E) is true; if the cells are small, mark only some of them."""
    _, _, width, height = style.box_of(axes)
    cell = 72 * np.array([height, width]) / where.shape  # points
    down, across = np.ceil(MIN_MARK_DISTANCE / cell).astype(int)
    layers, marked = np.nonzero(where[::down, ::across])
    axes.plot(
        epochs[::across][marked],
        down * layers,
        marker,
        markersize=4,
        color=style.INK,
        markerfacecolor="none",
        markeredgewidth=0.9,
        clip_on=False,
    )

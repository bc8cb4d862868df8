"""The filters of the first convolution."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MAX_FILTERS = 64
COLUMNS = 8
MAX_DEAD_NORM = 0.01  # of a dead filter, relative to the largest norm
FILTER_SIZE, STEP_RIGHT, STEP_DOWN = 0.68, 0.78, 0.84  # inches
BAR_DISTANCE = 0.065  # inches from a filter to the bar of its norm
TOP, BOTTOM, MARGIN = 0.55, 0.72, 0.15
WIDTH = 2 * MARGIN + COLUMNS * STEP_RIGHT
# From blue over grey (0) to yellow, which colour-blind readers can distinguish. The lightness
# increases, so that the sign is visible in greyscale.
COLOURS = ("#00204D", "#2E6DB4", "#ABABAB", "#E3B93A", "#FFF3A0")


def plot_filters(weight: NDArray[np.floating], layer: str, path: Path) -> None:
    """Draw the first 64 filters of a convolution, ``weight`` (O, C, kh, kw), as a grid of images.

    Each filter is scaled by its largest absolute weight. The bar below it is its norm relative to
    the largest norm. Filters of three channels are drawn in colour, where grey is 0. Others are the
    mean over their channels, from blue (negative) over grey (0) to yellow. A filter whose norm is
    less than 1 % of the largest is dead: it is pale and crossed out.
    """
    images, norms = _images(weight[:MAX_FILTERS]), _relative_norms(weight)
    count, total, channels = len(images), len(weight), weight.shape[1]
    rows = -(-count // COLUMNS)
    height = TOP + BOTTOM + rows * STEP_DOWN
    shape = "×".join(map(str, weight.shape[1:]))
    which = f"{total} filters" if count == total else f"the first {count} of {total} filters"
    dead = int((norms < MAX_DEAD_NORM).sum())
    with style.drawing(path, WIDTH, height, f"{layer}: {which} of {shape}") as figure:
        axes = style.canvas(figure)
        row, column = np.divmod(np.arange(count), COLUMNS)
        left, top = MARGIN + STEP_RIGHT * column, TOP + STEP_DOWN * row
        for x, y, image, norm in zip(left, top, images, norms, strict=False):
            _draw_filter(axes, x, y, image, norm < MAX_DEAD_NORM)
        bar = top + FILTER_SIZE + BAR_DISTANCE
        axes.hlines(bar, left, left + FILTER_SIZE, style.GRID, linewidth=3)
        axes.hlines(bar, left, left + FILTER_SIZE * norms[:count], style.INK, linewidth=3)
        note = "bar: norm of the filter relative to the largest"
        if dead:
            note += f"   ⊠ {dead} of {total} dead: norm under 1 % of it"
        axes.text(MARGIN, height - BOTTOM + 0.08, note, va="top", fontsize=8.5, color=style.INK)
        text = "red, green, blue: weights of the 3 input channels; mid-grey is 0"
        if channels == 3:
            below = height - BOTTOM + 0.3
            axes.text(MARGIN, below, text, va="top", fontsize=8.5, color=style.INK)
        else:
            _draw_scale(figure, channels)


@cache
def colour_map() -> Colormap:
    """Return the colours of weights in [0, 1], where 1/2 is a weight of 0."""
    style.load_matplotlib()
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", COLOURS)


def _draw_filter(
    axes: Axes, left: float, top: float, image: NDArray[np.float64], dead: bool
) -> None:
    """Draw a filter. Its upper left corner is at (left, top) in inches."""
    right, bottom = left + FILTER_SIZE, top + FILTER_SIZE
    axes.imshow(
        image,
        cmap=colour_map(),
        vmin=0,
        vmax=1,
        extent=(left, right, bottom, top),
        interpolation="nearest",
        alpha=0.25 if dead else 1,
    )
    frame = [left, right, right, left, left], [top, top, bottom, bottom, top]
    axes.plot(*frame, color=style.FAINT, linewidth=0.6)
    if dead:
        axes.plot(
            [left, right, np.nan, left, right],
            [top, bottom, np.nan, bottom, top],
            color=style.INK,
            linewidth=1.1,
            label="dead",
        )


def _draw_scale(figure: Figure, channels: int) -> None:
    """Draw the colour bar of filters with one value per pixel."""
    value = "weight" if channels == 1 else f"mean weight over {channels} input channels"
    axes = style.panel(figure, MARGIN + 0.05, 0.22, 1.6, 0.12)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=colour_map(), extent=(-1, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1], ["−1", "0", "1"], fontsize=8)
    axes.tick_params(length=2, pad=1)
    axes.grid(visible=False)
    label = f"{value} / the filter's largest |weight|"
    axes.text(1.12, 0.5, label, va="center", fontsize=8.5)


def _images(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return images with values in [0, 1], shape (O, kh, kw, 3) if C = 3, else (O, kh, kw)."""
    filters = np.asarray(weight, dtype=np.float64)
    filters = filters.transpose(0, 2, 3, 1) if filters.shape[1] == 3 else filters.mean(axis=1)
    filters = np.nan_to_num(filters, posinf=0, neginf=0)
    largest = np.abs(filters).max(axis=tuple(range(1, filters.ndim)), keepdims=True)
    return 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)


def _relative_norms(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the L2 norm of each filter relative to the largest; infinite weights count as 0."""
    flat = np.asarray(weight, dtype=np.float64).reshape(len(weight), -1)
    flat = np.nan_to_num(flat, posinf=0, neginf=0)
    norms: NDArray[np.float64] = np.sqrt((flat**2).sum(axis=1))
    return norms / (norms.max() or 1.0)

"""What the first convolution looks for."""

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

MOST_FILTERS = 64
COLUMNS = 8
DEAD = 0.01  # of the largest norm: filters below are crossed out
FILTER, ACROSS, DOWN = 0.68, 0.78, 0.84  # inches: a filter's side, from one to the next
BAR_DROP = 0.065  # inches: from a filter to the bar of its norm
TOP, BOTTOM, MARGIN = 0.55, 0.72, 0.15
WIDTH = 2 * MARGIN + COLUMNS * ACROSS
# From blue over neutral grey at 0 to yellow: told apart by colour-blind readers, and ever brighter,
# so that signs are told apart in grey, too.
COLOURS = ("#00204D", "#2E6DB4", "#ABABAB", "#E3B93A", "#FFF3A0")


def plot_filters(weight: NDArray[np.floating], layer: str, path: Path) -> None:
    """The filters of a convolution as a grid of images, in their order, each scaled to its largest
    |weight|; a bar below each is as long as its norm, beside the largest norm of the layer.

    weight: (O, C, kh, kw), named ``layer``. Of three channels each filter is drawn in colour, 0
    being mid-grey; of one, or of any other number by their mean, from blue (negative) over grey (0)
    to yellow. A filter whose norm is under 1 % of the largest is dead: pale, and crossed out. The
    first 64 filters. Raises OutputError.
    """
    pictures, shares = _pictures(weight[:MOST_FILTERS]), _norm_shares(weight)
    count, total, channels = len(pictures), len(weight), weight.shape[1]
    rows = -(-count // COLUMNS)
    height = TOP + BOTTOM + rows * DOWN
    shape = "×".join(map(str, weight.shape[1:]))
    which = f"{total} filters" if count == total else f"the first {count} of {total} filters"
    dead = int((shares < DEAD).sum())
    with style.drawing(path, WIDTH, height, f"{layer}: {which} of {shape}") as figure:
        # One coordinate system for all, in inches from the upper left corner: axes are slow.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        row, column = np.divmod(np.arange(count), COLUMNS)
        left, top = MARGIN + ACROSS * column, TOP + DOWN * row
        for x, y, picture, share in zip(left, top, pictures, shares, strict=False):
            _draw_filter(axes, x, y, picture, share < DEAD)
        under = top + FILTER + BAR_DROP
        axes.hlines(under, left, left + FILTER, style.GRID, linewidth=3)
        axes.hlines(under, left, left + FILTER * shares[:count], style.INK, linewidth=3)
        note = "bar: norm of the filter beside the largest"
        if dead:
            note += f"   ⊠ {dead} of {total} dead: norm under 1 % of it"
        axes.text(MARGIN, height - BOTTOM + 0.08, note, va="top", fontsize=8.5, color=style.INK)
        words = "red, green, blue: weights of the 3 input channels; mid-grey is 0"
        if channels == 3:
            below = height - BOTTOM + 0.3
            axes.text(MARGIN, below, words, va="top", fontsize=8.5, color=style.INK)
        else:
            _draw_scale(figure, channels)
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.set_aspect("auto")


@cache
def colour_map() -> Colormap:
    """Of weights in 0..1, where 1/2 is a weight of 0."""
    style.load_matplotlib()
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", COLOURS)


def _draw_filter(
    axes: Axes, left: float, top: float, picture: NDArray[np.float64], dead: bool
) -> None:
    """A filter whose upper left corner is so many inches from the figure's."""
    right, bottom = left + FILTER, top + FILTER
    axes.imshow(
        picture,
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
    """The colour bar of filters drawn in one number a pixel."""
    what = "weight" if channels == 1 else f"mean weight over {channels} input channels"
    axes = style.panel(figure, MARGIN + 0.05, 0.22, 1.6, 0.12)
    axes.imshow(
        np.linspace(0, 1, 256)[None], cmap=colour_map(), aspect="auto", extent=(-1, 1, 0, 1)
    )
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1], ["−1", "0", "1"], fontsize=8)
    axes.tick_params(length=2, pad=1)
    axes.grid(visible=False)
    words = f"{what} / the filter's largest |weight|"
    axes.text(1.12, 0.5, words, va="center", fontsize=8.5)


def _pictures(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """(O, C, kh, kw) -> (O, kh, kw, 3), or (O, kh, kw) of one number a pixel, in 0..1 about 1/2."""
    filters = np.asarray(weight, dtype=np.float64)
    filters = filters.transpose(0, 2, 3, 1) if filters.shape[1] == 3 else filters.mean(axis=1)
    filters = np.nan_to_num(filters, posinf=0, neginf=0)
    largest = np.abs(filters).max(axis=tuple(range(1, filters.ndim)), keepdims=True)
    return 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)


def _norm_shares(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Each filter's L2 norm over the largest; 0 for all if all are 0. Not finite counts as 0."""
    flat = np.asarray(weight, dtype=np.float64).reshape(len(weight), -1)
    flat = np.nan_to_num(flat, posinf=0, neginf=0)
    norms: NDArray[np.float64] = np.sqrt((flat**2).sum(axis=1))
    return norms / (norms.max() or 1.0)

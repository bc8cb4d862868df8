"""What the first convolution looks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

MOST_FILTERS = 64
COLUMNS = 8
FILTER, STEP = 0.68, 0.76  # inches: a filter's side, and from one to the next
TOP, BOTTOM, MARGIN = 0.55, 0.42, 0.15
SCALE = "mid-grey is 0, brighter above, darker below; each scaled to its largest |weight|"
WIDTH = 2 * MARGIN + COLUMNS * STEP


def plot_filters(weight: NDArray[np.floating], layer: str, path: Path) -> None:
    """The filters of a convolution as a grid of images, in their order, each on a scale of its own.

    weight: (O, C, kh, kw), named ``layer``. Of three channels each filter is drawn in colour; of
    one, or of any other number by their mean, in grey. A weight of 0 is mid-grey, the filter's
    largest |weight| black or white (full or no colour). The first 64 filters. Raises OutputError.
    """
    pictures = _pictures(weight[:MOST_FILTERS])
    count, total = len(pictures), len(weight)
    rows = -(-count // COLUMNS)
    height = TOP + BOTTOM + rows * STEP
    shape = "×".join(map(str, weight.shape[1:]))
    which = f"{total} filters" if count == total else f"the first {count} of {total} filters"
    with style.drawing(path, WIDTH, height, f"{layer}: {which} of {shape}") as figure:
        # One coordinate system for all, in inches from the upper left corner: axes are slow.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place, picture in enumerate(pictures):
            row, column = divmod(place, COLUMNS)
            left, top = MARGIN + STEP * column, TOP + STEP * row
            right, bottom = left + FILTER, top + FILTER
            extent = (left, right, bottom, top)
            axes.imshow(
                picture, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest"
            )
            frame = [left, right, right, left, left], [top, top, bottom, bottom, top]
            axes.plot(*frame, color=style.FAINT, linewidth=0.6)
        for above, note in ((0.36, SCALE), (0.2, _colours(weight.shape[1]))):
            axes.text(MARGIN, height - above, note, va="top", fontsize=8.5, color=style.FAINT)
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.set_aspect("auto")


def _pictures(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """(O, C, kh, kw) -> (O, kh, kw, 3), or (O, kh, kw) of one number a pixel, in 0..1 about 1/2."""
    filters = np.asarray(weight, dtype=np.float64)
    filters = filters.transpose(0, 2, 3, 1) if filters.shape[1] == 3 else filters.mean(axis=1)
    filters = np.nan_to_num(filters, posinf=0, neginf=0)
    largest = np.abs(filters).max(axis=tuple(range(1, filters.ndim)), keepdims=True)
    return 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)


def _colours(channels: int) -> str:
    """What the colours are, in words."""
    if channels == 3:
        return "red, green and blue are the weights of the three input channels"
    return "" if channels == 1 else f"mean over {channels} input channels"

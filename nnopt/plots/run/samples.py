"""A few images with what they are and what the network takes them for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
MOST_SAMPLES = 16
PICTURE = 1.05  # inches, the longer side of one image
STEP = (1.5, 1.62)  # from one image to the next
TOP = 0.55
NAME_LENGTH = 18


def plot_samples(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    classes: Sequence[str],
    path: Path,
) -> None:
    """A 4x4 grid: below each image its true class and, where it is wrong, the predicted one.

    images: (N, C, H, W); one channel is shown in grey, three as colours, the first 16 images only.
    labels, predictions: (N,). Raises OutputError.
    """
    count = min(len(images), MOST_SAMPLES)
    correct = int(np.sum(labels[:count] == predictions[:count]))
    rows = max(1, -(-count // COLUMNS))
    width, height = 0.1 + STEP[0] * COLUMNS, TOP + STEP[1] * rows
    title = f"{correct} of {count} test samples are right"
    with style.drawing(path, width, height, title) as figure:
        # One coordinate system for all, in inches from the upper left corner: axes are slow.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for place in range(count):
            row, column = divmod(place, COLUMNS)
            true, predicted = classes[labels[place]], classes[predictions[place]]
            middle, top = 0.05 + STEP[0] * (column + 0.5), TOP + STEP[1] * row
            _draw(axes, images[place], true, predicted, middle, top)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)


def _draw(
    axes: Axes, image: NDArray[Any], true: str, predicted: str, middle: float, top: float
) -> None:
    """One image and its names; wrong ones have a thick frame, a cross and a second line."""
    channels, high, wide = image.shape
    width, height = PICTURE * wide / max(high, wide), PICTURE * high / max(high, wide)
    left, right, bottom = middle - width / 2, middle + width / 2, top + height
    pixels = image.transpose(1, 2, 0) if channels == 3 else image[0]
    enlarged = max(high, wide) < PICTURE * style.DPI
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, right, bottom, top),
        interpolation="nearest" if enlarged else "antialiased",
        aspect="auto",
    )
    wrong = true != predicted
    colour = style.VERMILLION if wrong else style.FAINT
    axes.plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color=colour,
        linewidth=2.4 if wrong else 0.8,
        solid_joinstyle="miter",
    )
    below = top + PICTURE + 0.07
    name = style.readable(true, NAME_LENGTH)
    axes.text(middle, below, name, ha="center", va="top", fontsize=9)
    if wrong:
        guess = "✗ " + style.readable(predicted, NAME_LENGTH - 3)
        axes.text(
            middle,
            below + 0.18,
            guess,
            ha="center",
            va="top",
            fontsize=9,
            color=colour,
            weight="bold",
        )

"""Test images with their true and predicted classes."""

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
MAX_SAMPLES = 16
IMAGE_SIZE = 1.05  # longer side of an image, in inches
STEP = (1.5, 1.62)  # inches from one image to the next
TOP = 0.55
MAX_NAME_CHARACTERS = 18


def plot_samples(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    classes: Sequence[str],
    path: Path,
) -> None:
    """Draw a 4x4 grid of images with the true class and, if it is wrong, the predicted one.

    ``images`` (N, C, H, W) are grey (C = 1) or coloured (C = 3). The first 16 are drawn.
    """
    count = min(len(images), MAX_SAMPLES)
    correct = int(np.sum(labels[:count] == predictions[:count]))
    rows = max(1, -(-count // COLUMNS))
    width, height = 0.1 + STEP[0] * COLUMNS, TOP + STEP[1] * rows
    title = f"{correct} of {count} test samples are right"
    with style.drawing(path, width, height, title) as figure:
        axes = style.canvas(figure)
        for index in range(count):
            row, column = divmod(index, COLUMNS)
            true, predicted = classes[labels[index]], classes[predictions[index]]
            middle, top = 0.05 + STEP[0] * (column + 0.5), TOP + STEP[1] * row
            _draw(axes, images[index], true, predicted, middle, top)


def _draw(
    axes: Axes, image: NDArray[Any], true: str, predicted: str, middle: float, top: float
) -> None:
    """Draw an image and its class. A misclassified image has a thick frame and a second line."""
    channels, high, wide = image.shape
    width, height = IMAGE_SIZE * wide / max(high, wide), IMAGE_SIZE * high / max(high, wide)
    left, right, bottom = middle - width / 2, middle + width / 2, top + height
    pixels = image.transpose(1, 2, 0) if channels == 3 else image[0]
    enlarged = max(high, wide) < IMAGE_SIZE * style.DPI
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(left, right, bottom, top),
        interpolation="nearest" if enlarged else "antialiased",
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
    below = top + IMAGE_SIZE + 0.07
    name = style.readable(true, MAX_NAME_CHARACTERS)
    axes.text(middle, below, name, ha="center", va="top", fontsize=9)
    if wrong:
        text = "✗ " + style.readable(predicted, MAX_NAME_CHARACTERS - 3)
        axes.text(
            middle,
            below + 0.18,
            text,
            ha="center",
            va="top",
            fontsize=9,
            color=colour,
            weight="bold",
        )

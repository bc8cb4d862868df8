"""Plots of many small images: test samples, and the filters of the first convolution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.style import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MARGIN, TOP = 0.15, 0.55  # inches

SAMPLE_COLUMNS = 4
MAX_SAMPLES = 16
SAMPLE_SIZE, SAMPLE_STEP = 1.05, (1.5, 1.62)  # inches; the step is from sample to sample
MAX_NAME_CHARACTERS = 18

FILTER_COLUMNS = 8
MAX_FILTERS = 64
MAX_DEAD_NORM = 0.01  # norm of a dead filter, relative to the largest norm
FILTER_SIZE, FILTER_STEP = 0.68, (0.78, 0.84)  # inches
BAR_DISTANCE = 0.065  # inches from a filter to the bar of its norm
NOTE_HEIGHT = 0.72  # inches
# From blue over grey (0) to yellow, which colour-blind readers can distinguish. The lightness
# increases, so that the sign is visible in greyscale.
SIGNED_COLOURS = ("#00204D", "#2E6DB4", "#ABABAB", "#E3B93A", "#FFF3A0")

Extent = tuple[float, float, float, float]  # left, right, bottom and top, in inches on a canvas


def canvas(figure: Figure) -> Axes:
    """Return axes over the whole figure, with coordinates in inches from the upper left corner.

    Many small images share these axes, because creating axes is slow.
    """
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def draw_image(
    axes: Axes, image: NDArray[Any], left: float, top: float, size: float, **options: Any
) -> Extent:
    """Draw an image (H, W) or (H, W, 3) in the middle of a square cell of a canvas.

    Return the extent of the image. ``size`` is the side of the cell in inches.
    """
    rows, columns = image.shape[:2]
    inch = size / max(rows, columns)  # size of a pixel
    x, y = left + (size - columns * inch) / 2, top + (size - rows * inch) / 2
    extent = (x, x + columns * inch, y + rows * inch, y)
    interpolation = "nearest" if inch * style.DPI > 1 else "antialiased"
    axes.imshow(image, extent=extent, interpolation=interpolation, **options)
    return extent


def _draw_frame(axes: Axes, extent: Extent, **options: Any) -> None:
    left, right, bottom, top = extent
    corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
    axes.plot(*corners, solid_joinstyle="miter", **options)


def to_pixels(images: NDArray[Any]) -> NDArray[Any]:
    """Convert images (N, C, H, W) to (N, H, W, 3) if C = 3, else to the first channel (N, H, W)."""
    return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images[:, 0]


def plot_samples(
    images: NDArray[np.uint8], labels: Ints, predictions: Ints, classes: Sequence[str], path: Path
) -> None:
    """Draw a 4x4 grid of images with the true class and, if it differs, the predicted class.

    ``images`` (N, C, H, W) are grey (C = 1) or coloured (C = 3). The first 16 are drawn. A
    misclassified image has a thick frame.
    """
    count = min(len(images), MAX_SAMPLES)
    rows = max(1, -(-count // SAMPLE_COLUMNS))
    width, height = 0.1 + SAMPLE_STEP[0] * SAMPLE_COLUMNS, TOP + SAMPLE_STEP[1] * rows
    is_wrong = labels[:count] != predictions[:count]
    title = f"{count - is_wrong.sum()} of {count} test samples are right"
    with style.drawing(path, width, height, title) as figure:
        axes = canvas(figure)
        for index, image in enumerate(to_pixels(images[:count])):
            row, column = divmod(index, SAMPLE_COLUMNS)
            middle, top = 0.05 + SAMPLE_STEP[0] * (column + 0.5), TOP + SAMPLE_STEP[1] * row
            left = middle - SAMPLE_SIZE / 2
            extent = draw_image(axes, image, left, top, SAMPLE_SIZE, cmap="gray", vmin=0, vmax=255)
            colour, line = (style.VERMILLION, 2.4) if is_wrong[index] else (style.FAINT, 0.8)
            _draw_frame(axes, extent, color=colour, linewidth=line)
            below = top + SAMPLE_SIZE + 0.07
            form: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 9}
            name = style.readable(classes[labels[index]], MAX_NAME_CHARACTERS)
            axes.text(middle, below, name, **form)
            if is_wrong[index]:
                name = style.readable(classes[predictions[index]], MAX_NAME_CHARACTERS - 3)
                axes.text(middle, below + 0.18, f"✗ {name}", color=colour, weight="bold", **form)


def plot_filters(weight: NDArray[np.floating], layer: str, path: Path) -> None:
    """Draw the first 64 filters of a convolution, ``weight`` (O, C, kh, kw), as a grid of images.

    Each filter is scaled by its largest absolute weight. The bar below a filter shows its norm
    relative to the largest norm. Filters with three channels are drawn in colour, where grey is 0.
    For other filters, the mean over the channels is drawn: blue is negative, grey 0, and yellow
    positive. A filter whose norm is less than 1 % of the largest is dead: pale and crossed out.
    """
    images, norms = _filter_images(weight[:MAX_FILTERS]), _relative_norms(weight)
    count, (total, channels) = len(images), weight.shape[:2]
    rows = -(-count // FILTER_COLUMNS)
    width = 2 * MARGIN + FILTER_COLUMNS * FILTER_STEP[0]
    height = TOP + NOTE_HEIGHT + rows * FILTER_STEP[1]
    shape = style.shape_text(weight.shape[1:])
    which = f"{total} filters" if count == total else f"the first {count} of {total} filters"
    is_dead = norms < MAX_DEAD_NORM
    note = "bar: norm of the filter relative to the largest"
    if is_dead.any():
        note += f"   ⊠ {is_dead.sum()} of {total} dead: norm below 1 % of the largest"
    with style.drawing(path, width, height, f"{layer}: {which} of {shape}") as figure:
        axes = canvas(figure)
        row, column = np.divmod(np.arange(count), FILTER_COLUMNS)
        left, top = MARGIN + FILTER_STEP[0] * column, TOP + FILTER_STEP[1] * row
        for x, y, image, dead in zip(left, top, images, is_dead, strict=False):
            _draw_filter(axes, image, x, y, dead)
        bar = top + FILTER_SIZE + BAR_DISTANCE
        axes.hlines(bar, left, left + FILTER_SIZE, style.GRID, linewidth=3)
        axes.hlines(bar, left, left + FILTER_SIZE * norms[:count], style.INK, linewidth=3)
        below = height - NOTE_HEIGHT + 0.08
        axes.text(MARGIN, below, note, va="top", fontsize=8.5)
        if channels == 3:
            note = "red, green, blue: weights of the 3 input channels; mid-grey is 0"
            axes.text(MARGIN, below + 0.22, note, va="top", fontsize=8.5)
        else:
            _draw_scale(figure, channels)


@cache
def signed_colours() -> Colormap:
    """Return a colour map of [0, 1] in which 1/2 represents a weight of 0."""
    style.load_matplotlib()
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", SIGNED_COLOURS)


def _draw_filter(axes: Axes, image: Floats, left: float, top: float, is_dead: bool) -> None:
    options: dict[str, Any] = {"cmap": signed_colours(), "vmin": 0, "vmax": 1}
    alpha = 0.25 if is_dead else 1
    extent = draw_image(axes, image, left, top, FILTER_SIZE, alpha=alpha, **options)
    _draw_frame(axes, extent, color=style.FAINT, linewidth=0.6)
    if is_dead:
        left, right, bottom, top = extent
        cross = [left, right, np.nan, left, right], [top, bottom, np.nan, bottom, top]
        axes.plot(*cross, color=style.INK, linewidth=1.1, label="dead")


def _draw_scale(figure: Figure, channels: int) -> None:
    """Draw the colour scale of filters with one value per pixel."""
    axes = style.panel(figure, MARGIN + 0.05, 0.22, 1.6, 0.12)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=signed_colours(), extent=(-1, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-1, 0, 1], ["−1", "0", "1"], fontsize=8)
    axes.tick_params(length=2, pad=1)
    axes.grid(visible=False)
    value = "weight" if channels == 1 else f"mean weight over {channels} input channels"
    label = f"{value} / the filter's largest |weight|"
    axes.text(1.12, 0.5, label, va="center", fontsize=8.5)


def _filter_images(weight: NDArray[np.floating]) -> Floats:
    """Convert (O, C, kh, kw) to images in [0, 1]: (O, kh, kw, 3) if C = 3, else (O, kh, kw)."""
    filters = np.asarray(weight, dtype=np.float64)
    if filters.shape[1] != 3:
        filters = filters.mean(axis=1, keepdims=True)
    filters = np.nan_to_num(to_pixels(filters), posinf=0, neginf=0)
    largest = np.abs(filters).max(axis=tuple(range(1, filters.ndim)), keepdims=True)
    scaled: Floats = 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)
    return scaled


def _relative_norms(weight: NDArray[np.floating]) -> Floats:
    """Return the L2 norm of each filter relative to the largest; infinite weights count as 0."""
    flat = np.asarray(weight, dtype=np.float64).reshape(len(weight), -1)
    flat = np.nan_to_num(flat, posinf=0, neginf=0)
    norms: Floats = np.linalg.norm(flat, axis=1)
    return norms / (norms.max() or 1.0)

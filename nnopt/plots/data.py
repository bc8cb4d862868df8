"""Pictures of training samples: images, points in the plane, and histograms of features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.run.images import canvas, draw_image, to_pixels
from nnopt.plots.style import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, MAX_IMAGES = 4, 16
IMAGE_SIZE, IMAGE_STEP = 1.15, (1.5, 1.5)  # inches; the step is from image to image
GRID_GAP, TOP, CAPTION = 0.4, 0.5, 0.3  # inches
MAX_NAME_CHARACTERS = 20

MAX_POINTS = 4000  # drawn points of a scatter plot
MAX_COLOURED = 7  # more classes are drawn with one colour, and without a legend
MAX_FEATURES = 16
BINS = 30
FEATURE_SIZE, FEATURE_STEP = (1.9, 1.15), (2.25, 1.75)  # inches

NamedImages = tuple[str, NDArray[np.uint8], Sequence[Sequence[str]]]
"""A caption, images (N, C, H, W) and the lines of text below each image, at most two."""

Samples = tuple[Floats, Ints]
"""Features (N, D) and labels (N,)."""


def plot_images(grids: Sequence[NamedImages], title: str, path: Path) -> None:
    """Draw a 4x4 grid of images for each of ``grids``, side by side, with names below the images.

    Images with three channels are in colour. Of others, the first channel is grey.
    """
    rows = -(-max(len(images) for _, images, _ in grids) // COLUMNS)
    grid_width = COLUMNS * IMAGE_STEP[0]
    width = 0.1 + len(grids) * grid_width + (len(grids) - 1) * GRID_GAP
    has_captions = len(grids) > 1
    top = TOP + CAPTION * has_captions
    with style.drawing(path, width, top + rows * IMAGE_STEP[1] + 0.05, title) as figure:
        axes = canvas(figure)
        for number, (caption, images, names) in enumerate(grids):
            left = 0.05 + number * (grid_width + GRID_GAP)
            if has_captions:
                axes.text(left + 0.17, TOP + 0.05, caption, va="center", fontsize=10)
            for index, image in enumerate(to_pixels(images[:MAX_IMAGES])):
                row, column = divmod(index, COLUMNS)
                middle = left + IMAGE_STEP[0] * (column + 0.5)
                above = top + IMAGE_STEP[1] * row
                form: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}
                draw_image(axes, image, middle - IMAGE_SIZE / 2, above, IMAGE_SIZE, **form)
                name = "\n".join(style.readable(x, MAX_NAME_CHARACTERS) for x in names[index])
                below = above + IMAGE_SIZE + 0.05
                form = {"fontsize": 9 if len(names[index]) == 1 else 8, "linespacing": 1.05}
                axes.text(middle, below, name, ha="center", va="top", **form)


def plot_points(
    samples: Samples, classes: Sequence[str], names: Sequence[str], dataset: str, path: Path
) -> None:
    """Draw points in the plane, coloured by class if there are at most 7 classes.

    ``names`` are the two features. If there are many points, evenly spaced rows are drawn.
    """
    points, labels = samples
    shown = style.evenly_spaced(len(points), MAX_POINTS)
    part = f"{len(shown):,} of " if len(shown) < len(points) else ""
    title = f"{dataset}: {part}{len(points):,} training samples"
    is_coloured = len(classes) <= MAX_COLOURED
    with style.drawing(path, 6.9 if is_coloured else 5.4, 5.2, title) as figure:
        axes = style.panel(figure, 0.85, 0.65, 4.3, 3.95)
        size = 5 if len(shown) <= 1000 else 3
        for number, form in _class_forms(classes):
            rows = shown if number is None else shown[labels[shown] == number]
            x, y = points[rows].T
            axes.plot(x, y, linestyle="", markersize=size, alpha=0.75, markeredgewidth=0, **form)
        style.few_ticks(axes.xaxis)
        style.few_ticks(axes.yaxis)
        across, up = (style.readable(name, 40) for name in names)
        style.label(axes, across, up, left=0.62)
        if is_coloured:
            form = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "borderaxespad": 0}
            axes.legend(markerscale=7 / size, handletextpad=0.3, **form)


def plot_features(
    samples: Samples, classes: Sequence[str], names: Sequence[str], dataset: str, path: Path
) -> None:
    """Draw a histogram of each of the first 16 features, with a line for each class.

    With more than 7 classes, the line is for all samples. The area below each line is equal.
    """
    features, labels = samples
    count = min(features.shape[1], MAX_FEATURES)
    rows, columns = -(-count // COLUMNS), min(count, COLUMNS)
    width = max(0.5 + columns * FEATURE_STEP[0], 4.7)
    part = f"first {count} of " if count < features.shape[1] else ""
    title = f"{dataset}: {part}{counted(features.shape[1], 'feature')} of training samples"
    above = 0.55 + 0.3 * (len(classes) <= MAX_COLOURED)  # inches; the second term is the legend
    height = above + rows * FEATURE_STEP[1] + 0.15
    with style.drawing(path, width, height, title) as figure:
        for index in range(count):
            row, column = divmod(index, COLUMNS)
            left = 0.3 + column * FEATURE_STEP[0]
            bottom = height - above - row * FEATURE_STEP[1] - 0.3 - FEATURE_SIZE[1]
            axes = style.panel(figure, left, bottom, *FEATURE_SIZE)
            _draw_histogram(axes, features[:, index], labels, classes)
            style.caption(axes, style.readable(names[index], 26))
        if len(classes) <= MAX_COLOURED:
            lines = axes.get_lines()
            form: dict[str, Any] = {"loc": "upper left", "ncols": 7, "columnspacing": 1.2}
            corner = (0.25 / width, 1 - 0.5 / height)
            figure.legend(handles=lines, bbox_to_anchor=corner, borderaxespad=0, **form)


def _draw_histogram(axes: Axes, values: Floats, labels: Ints, classes: Sequence[str]) -> None:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    for number, form in _class_forms(classes):
        chosen = values if number is None else values[labels == number]
        heights = np.histogram(chosen, edges)[0] / max(len(chosen), 1)
        outline = np.concatenate([[0], heights, [0]])
        form = {**form, "marker": "", "linewidth": 1.2, "drawstyle": "steps-post"}
        axes.plot(np.concatenate([[edges[0]], edges]), outline, **form)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    style.few_ticks(axes.xaxis, 3)


def _class_forms(classes: Sequence[str]) -> list[tuple[int | None, dict[str, Any]]]:
    """Return the number and the style of each class, or one style for all if they are many."""
    if len(classes) > MAX_COLOURED:
        return [(None, {"color": style.BLUE, "marker": "o"})]
    colours = [colour for colour in style.PALETTE if colour != style.YELLOW]
    return [
        (n, {"color": colours[n], "marker": style.MARKERS[n], "label": style.readable(name, 14)})
        for n, name in enumerate(classes)
    ]

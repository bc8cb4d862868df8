"""Feature maps of the layers of a convolutional network for a few images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import ForeignLayer, InferredLayer
from nnopt.architecture.layers import AvgPool2d, Dropout, GlobalAvgPool, MaxPool2d, SpatialDropout
from nnopt.architecture.network import Architecture
from nnopt.plots import style
from nnopt.plots.run.images import canvas, draw_image, to_pixels
from nnopt.plots.style import Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_STAGES = 4
MAX_COLUMNS = 18  # maps in a row, over all stages; a stage is a drawn layer
MAX_CHANNELS = 8  # maps of one stage in a row
MIN_UNEXPLAINED_FRACTION = 0.1  # minimum unexplained part of a chosen channel's variance
MIN_VARIANCE_FRACTION = 0.01  # minimum unexplained variance of a chosen channel / largest variance
MAX_PERCENTILE = 99  # percentile drawn brightest, so that a single peak does not darken the image
CELL, STEP, STAGE_GAP = 0.62, 0.67, 0.2  # inches: side of a map, step from map to map, stage gap
MIN_STAGE_WIDTH = 1.15  # inches
TOP, BOTTOM = 1.15, 0.62
MAX_NAME_CHARACTERS = 14
NOTE = (
    "below: the channel's number; each explains the most of the variance left by the previous ones",
    "dark: the channel's minimum in these images; bright: its 99th percentile",
)
# The outputs of these layers resemble those of the previous layer, or cannot be drawn.
IGNORED_LAYERS = (AvgPool2d, GlobalAvgPool, MaxPool2d, Dropout, SpatialDropout)


def stages_of(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of the layers to draw: the last layer before each change of the image shape.

    Such a layer is often the activation before a pooling layer. Pooling, dropout and the layers
    inside residual blocks are ignored. Of more than 4 layers, 4 evenly spaced ones are returned.
    """
    last: dict[int, str] = {}
    shape, stage = architecture.input_shape, 0
    for layer in _chain(architecture.layers):
        # After a permutation, as in Swin transformers, the channels are the last axis.
        if len(layer.output_shape) != 3 or layer.record == ForeignLayer("Permute"):
            break
        if layer.output_shape != shape:
            shape, stage = layer.output_shape, stage + 1
        if not isinstance(layer.record, IGNORED_LAYERS):
            last[stage] = layer.name
    names = list(last.values())
    return tuple(names[index] for index in style.evenly_spaced(len(names), MAX_STAGES))


def _chain(layers: Iterable[InferredLayer]) -> Iterator[InferredLayer]:
    """Yield the layers in their order, including those inside a Sequential of torchvision."""
    for layer in layers:
        is_sequence = layer.record == ForeignLayer("Sequential")
        yield from _chain(layer.inner) if is_sequence else (layer,)


def plot_feature_maps(
    images: NDArray[np.uint8],
    names: Sequence[str],
    outputs: Mapping[str, NDArray[np.floating]],
    path: Path,
) -> None:
    """Draw a row for each image: the image, and the most informative channels of each layer.

    ``images`` and the ``outputs`` of each layer are (N, C, H, W). At most 8 channels of a layer and
    18 of all layers are drawn, chosen by ``select_channels``. A channel has the same colour scale
    in all rows.
    """
    labels = [style.readable(name, MAX_NAME_CHARACTERS) for name in names]
    left = 0.25 + style.text_width(labels)
    height = TOP + (len(images) - 1) * STEP + CELL + BOTTOM
    most = min(MAX_CHANNELS, MAX_COLUMNS // max(1, len(outputs)))
    chosen = [select_channels(maps, most) for maps in outputs.values()]
    widths = [max(MIN_STAGE_WIDTH, len(channels) * STEP) + STAGE_GAP for channels, _ in chosen]
    width = max(6.8, left + STEP + sum(widths) + 0.1)
    with style.drawing(path, width, height, "Feature maps of test images") as figure:
        axes = canvas(figure)
        for row, label in enumerate(labels):
            middle = TOP + row * STEP + CELL / 2
            axes.text(left - 0.1, middle, label, ha="right", va="center", fontsize=9)
        _head(axes, left, "input", images)
        _draw_column(axes, left, to_pixels(images), "gray", 0, 255)
        left += STEP + STAGE_GAP
        for (layer, maps), (channels, explained), stage_width in zip(
            outputs.items(), chosen, widths, strict=True
        ):
            which = f"{len(channels)} of {maps.shape[1]} channels"
            variance = f"{100 * explained:.0f} % of variance" if explained >= 0 else "no variance"
            _head(axes, left, layer, maps, which, variance)
            for x, channel in zip(left + STEP * np.arange(len(channels)), channels, strict=True):
                shown = np.nan_to_num(np.asarray(maps[:, channel], np.float64))
                low, high = shown.min(), np.percentile(shown, MAX_PERCENTILE)
                _draw_column(axes, x, shown, "viridis", low, high if high > low else shown.max())
                below = height - BOTTOM + 0.04
                axes.text(x + CELL / 2, below, f"{channel}", ha="center", va="top", fontsize=7.5)
            left += stage_width
        for above, note in zip((0.25, 0.1), NOTE, strict=True):
            axes.text(0.15, height - above, note, va="bottom", fontsize=8, color=style.FAINT)


def select_channels(maps: NDArray[np.floating], most: int) -> tuple[Ints, float]:
    """Choose at most ``most`` channels of ``maps`` (N, C, H, W) that differ from each other.

    The first channel has the largest variance over images and positions. Each next channel has the
    largest variance that a linear regression on the previous ones does not explain. This is
    Gram-Schmidt orthogonalization with pivoting (Businger and Golub, 1965) on the covariances.
    A channel is not chosen if its unexplained variance is at most 10 % of its own variance or 1 %
    of the first channel's variance. Infinite values and NaN count as 0.

    Returns:
        The indices of the chosen channels, at least one; and the fraction of the variance of all
        channels that they explain, NaN if this variance is 0.
    """
    flat = np.asarray(maps, np.float64).transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
    flat = np.nan_to_num(flat, posinf=0, neginf=0)
    flat = flat / (np.abs(flat).max() or 1.0)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unexplained = flat @ flat.T  # covariances, times the number of values
    total = np.trace(unexplained)
    minimum = np.maximum(
        MIN_UNEXPLAINED_FRACTION * unexplained.diagonal(),
        MIN_VARIANCE_FRACTION * unexplained.diagonal().max(),
    )
    chosen: list[int] = []
    while len(chosen) < most:
        new = np.where(unexplained.diagonal() > minimum, unexplained.diagonal(), 0)
        channel = int(new.argmax())
        variance = new[channel]
        if chosen and variance == 0:
            break
        chosen.append(channel)
        if variance > 0:
            row = unexplained[channel]
            unexplained = unexplained - np.outer(row, row) / variance
            unexplained[channel] = unexplained[:, channel] = 0  # exactly, without rounding errors
    explained = 1 - float(np.trace(unexplained) / total) if total > 0 else float("nan")
    return np.array(chosen, dtype=np.int64), explained


def _head(axes: Axes, left: float, layer: str, maps: NDArray[Any], *lines: str) -> None:
    """Draw a layer's name, its shape and ``lines`` below each other, above its first column."""
    axes.text(left, TOP - 0.48, style.readable(layer, 24), va="bottom", fontsize=9)
    shape = style.shape_text(maps.shape[1:])
    for index, line in enumerate((shape, *lines)):
        y = TOP - 0.33 + 0.14 * index
        axes.text(left, y, line, va="bottom", fontsize=7.5, color=style.FAINT)


def _draw_column(
    axes: Axes, left: float, images: NDArray[Any], colours: str, low: float, high: float
) -> None:
    """Draw images (N, H, W) or (N, H, W, 3) below each other."""
    high = high if high > low else low + 1
    for row, image in enumerate(images):
        draw_image(axes, image, left, TOP + row * STEP, CELL, cmap=colours, vmin=low, vmax=high)

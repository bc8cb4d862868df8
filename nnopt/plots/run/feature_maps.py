"""What the layers of a convolutional network make of a few images."""

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STAGES = 4
MOST_COLUMNS = 18  # of all stages together
MOST_CHANNELS = 8  # of a stage
LEAST_NEW = 0.1  # of a channel's variance that those shown do not explain: else it looks like them
WEAKEST = 0.01  # of the strongest channel's variance: one that adds less is not shown
BRIGHT = 99  # percentile of a channel's values that is drawn brightest: one peak dims no picture
CELL, GAP, STAGE_GAP = 0.62, 0.05, 0.2  # inches
NARROWEST = 1.15  # inches: a stage's heading
TOP, BOTTOM = 1.15, 0.62
NAME_LENGTH = 14
NOTE = (
    "below: the channel, in the order of choice: most variance that those before do not explain",
    "dark: its least value in these images; bright: its 99th percentile",
)
# They show the channels of the layer before once more, or what no picture shows.
PASSED_OVER = (AvgPool2d, GlobalAvgPool, MaxPool2d, Dropout, SpatialDropout)


def stages_of(architecture: Architecture) -> tuple[str, ...]:
    """The layers worth a look: each that is the last before the shape of the images changes, such
    as the activation before a pool; of more than 4 some are left out evenly.

    Pools, which show the same channels smaller, are passed over, and so are dropout, which does
    nothing in evaluation, and layers inside residual ones.
    """
    last: dict[int, str] = {}
    shape, stage = architecture.input_shape, 0
    for layer in _chain(architecture.layers):
        # Behind a permutation, as in Swin transformers, the channels are the last axis.
        if len(layer.output_shape) != 3 or layer.record == ForeignLayer("Permute"):
            break
        if layer.output_shape != shape:
            shape, stage = layer.output_shape, stage + 1
        if not isinstance(layer.record, PASSED_OVER):
            last[stage] = layer.name
    names = list(last.values())
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_STAGES)).astype(np.int64))
    return tuple(names[index] for index in shown)


def _chain(layers: Iterable[InferredLayer]) -> Iterator[InferredLayer]:
    """The layers one after another, those in a torchvision model's sequences too."""
    for layer in layers:
        is_sequence = layer.record == ForeignLayer("Sequential")
        yield from _chain(layer.inner) if is_sequence else (layer,)


def plot_feature_maps(
    images: NDArray[np.uint8],
    names: Sequence[str],
    outputs: Mapping[str, NDArray[np.floating]],
    path: Path,
) -> None:
    """A row for each image: itself, then of each layer the channels that tell most.

    images: (N, C, H, W), called ``names``; outputs: layer -> (N, C, H, W), in the order of columns.
    The channels of a layer are chosen by ``telling_channels``, up to 8 of a layer and 18 in all;
    a channel has one scale in all rows. Raises OutputError.
    """
    labels = [style.readable(name, NAME_LENGTH) for name in names]
    left = 0.25 + style.text_width(labels)
    height = TOP + BOTTOM + len(images) * (CELL + GAP) - GAP
    most = min(MOST_CHANNELS, MOST_COLUMNS // max(1, len(outputs)))
    chosen = {layer: telling_channels(maps, most) for layer, maps in outputs.items()}
    widths = [max(NARROWEST, len(channels) * (CELL + GAP)) for channels, _ in chosen.values()]
    width = max(6.8, left + CELL + GAP + sum(widths) + len(widths) * STAGE_GAP + 0.1)
    with style.drawing(path, width, height, "What each layer makes of test images") as figure:
        # One coordinate system for all, in inches from the upper left corner: axes are slow.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for row, label in enumerate(labels):
            middle = TOP + row * (CELL + GAP) + CELL / 2
            axes.text(left - 0.1, middle, label, ha="right", va="center", fontsize=9)
        _head(axes, left, "input", _shape(images))
        _draw_column(axes, left, _pixels(images), "gray", 0, 255)
        left += CELL + GAP + STAGE_GAP
        for (layer, maps), taken in zip(outputs.items(), widths, strict=True):
            channels, explained = chosen[layer]
            which = f"{len(channels)} of {maps.shape[1]} channels"
            share = f"{100 * explained:.0f} % of variance" if explained >= 0 else "none varies"
            _head(axes, left, layer, _shape(maps), which, share)
            for place, channel in enumerate(channels):
                x = left + place * (CELL + GAP)
                shown = np.nan_to_num(np.asarray(maps[:, channel], np.float64))
                low, high = shown.min(), np.percentile(shown, BRIGHT)
                _draw_column(axes, x, shown, "viridis", low, high if high > low else shown.max())
                below = height - BOTTOM + 0.04
                axes.text(x + CELL / 2, below, f"{channel}", ha="center", va="top", fontsize=7.5)
            left += taken + STAGE_GAP
        for above, note in zip((0.25, 0.1), NOTE, strict=True):
            axes.text(0.15, height - above, note, va="bottom", fontsize=8, color=style.FAINT)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_aspect("auto")


def telling_channels(maps: NDArray[np.floating], most: int) -> tuple[NDArray[np.int64], float]:
    """Channels of (N, C, H, W), at most so many, no two of which show the same; and the share of
    the variance of all channels that these explain, NaN if none varies.

    The first is the one that varies most over images and positions; each next one that of whose
    variance the linear regression on those before it leaves most: Gram-Schmidt with pivoting
    (Businger and Golub, 1965), here on the covariances. Near-copies, of which less than 10 % is
    left, are passed over, and so is what is under 1 % of the variance of the first. One channel at
    least; values that are not finite count as 0.
    """
    flat = np.asarray(maps, np.float64).transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
    flat = np.nan_to_num(flat, posinf=0, neginf=0)
    flat = flat / (np.abs(flat).max() or 1.0)
    flat = flat - flat.mean(axis=1, keepdims=True)
    left = flat @ flat.T  # what is not explained yet: covariances, times the number of values
    total = np.trace(left)
    least = np.maximum(LEAST_NEW * left.diagonal(), WEAKEST * left.diagonal().max())
    chosen: list[int] = []
    while len(chosen) < most:
        new = np.where(left.diagonal() > least, left.diagonal(), 0)
        channel = int(new.argmax())
        variance = new[channel]
        if chosen and variance == 0:
            break
        chosen.append(channel)
        if variance > 0:
            left = left - np.outer(left[channel], left[channel]) / variance
            left[channel] = left[:, channel] = 0  # exactly
    explained = 1 - float(np.trace(left) / total) if total > 0 else float("nan")
    return np.array(chosen, dtype=np.int64), explained


def _head(axes: Axes, left: float, layer: str, *lines: str) -> None:
    """The layer's name above its first column, and below it what there is to say."""
    axes.text(left, TOP - 0.48, style.readable(layer, 24), va="bottom", fontsize=9)
    for place, line in enumerate(lines):
        y = TOP - 0.33 + 0.14 * place
        axes.text(left, y, line, va="bottom", fontsize=7.5, color=style.FAINT)


def _draw_column(
    axes: Axes, left: float, pictures: NDArray[Any], colours: str, low: float, high: float
) -> None:
    """Pictures (N, H, W) or (N, H, W, 3) one below the other, fitted into square cells."""
    for row, picture in enumerate(pictures):
        rows, columns = picture.shape[:2]
        high_side, wide_side = CELL * rows / max(rows, columns), CELL * columns / max(rows, columns)
        x, y = left + (CELL - wide_side) / 2, TOP + row * (CELL + GAP) + (CELL - high_side) / 2
        axes.imshow(
            picture,
            cmap=colours,
            vmin=low,
            vmax=high if high > low else low + 1,
            extent=(x, x + wide_side, y + high_side, y),
            interpolation="nearest" if max(rows, columns) < CELL * style.DPI else "antialiased",
        )


def _shape(maps: NDArray[Any]) -> str:
    """32×14×14 of (N, 32, 14, 14)."""
    return "×".join(map(str, maps.shape[1:]))


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images[:, 0]

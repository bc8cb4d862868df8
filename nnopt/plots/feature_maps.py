"""What the layers of a convolutional network make of a few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.layers import Dropout, SpatialDropout
from nnopt.architecture.network import Architecture
from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STAGES = 6
CHANNELS = 3  # shown of each stage
CELL, GAP, STAGE_GAP = 0.62, 0.05, 0.2  # inches
TOP, BOTTOM = 0.98, 0.42
CHARACTER = 0.077  # inches, on average, at 9 points
NAME_LENGTH = 14


def stages_of(architecture: Architecture) -> tuple[str, ...]:
    """The layers worth a look: each that is the last before the shape of the images changes, such
    as the activation before a pool and the pool itself; of more than 6 some are left out evenly.

    Dropout, which does nothing in evaluation, is passed over, and so are layers inside residual
    ones.
    """
    last: dict[int, str] = {}
    shape, stage = architecture.input_shape, 0
    for layer in architecture.layers:
        if len(layer.output_shape) != 3:
            break
        if layer.output_shape != shape:
            shape, stage = layer.output_shape, stage + 1
        if not isinstance(layer.record, Dropout | SpatialDropout):
            last[stage] = layer.name
    names = list(last.values())
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_STAGES)).astype(np.int64))
    return tuple(names[index] for index in shown)


def plot_feature_maps(
    images: NDArray[np.uint8],
    names: Sequence[str],
    outputs: Mapping[str, NDArray[np.floating]],
    path: Path,
) -> None:
    """A row for each image: itself, then of each layer the channels that answer strongest.

    images: (N, C, H, W), called ``names``; outputs: layer -> (N, C, H, W), in the order of columns.
    The channels of a layer are the three whose values vary most over the images and their
    positions, in their order; a channel has one scale in all rows. Raises OutputError.
    """
    labels = [style.readable(name, NAME_LENGTH) for name in names]
    left = 0.25 + CHARACTER * max(map(len, labels))
    height = TOP + BOTTOM + len(images) * (CELL + GAP) - GAP
    strongest = {layer: _strongest(maps) for layer, maps in outputs.items()}
    columns = 1 + sum(map(len, strongest.values()))
    width = max(5.0, left + columns * (CELL + GAP) + len(outputs) * STAGE_GAP + 0.1)
    with style.drawing(path, width, height, "What each layer makes of test images") as figure:
        # One coordinate system for all, in inches from the upper left corner: axes are slow.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for row, label in enumerate(labels):
            middle = TOP + row * (CELL + GAP) + CELL / 2
            axes.text(left - 0.1, middle, label, ha="right", va="center", fontsize=9)
        _head(axes, left, "input", images.shape[1:])
        _draw_column(axes, left, _pixels(images), "gray", 0, 255)
        for layer, maps in outputs.items():
            left += STAGE_GAP + CELL + GAP
            _head(axes, left, layer, maps.shape[1:])
            for place, channel in enumerate(strongest[layer]):
                left += (CELL + GAP) if place else 0
                shown = np.nan_to_num(np.asarray(maps[:, channel], np.float64))
                _draw_column(axes, left, shown, "viridis", shown.min(), shown.max())
                below = height - BOTTOM + 0.04
                number = f"{channel}"
                axes.text(left + CELL / 2, below, number, ha="center", va="top", fontsize=7.5)
        note = "below: the channel; dark is its least value in these images, bright its largest"
        axes.text(0.15, height - 0.1, note, va="bottom", fontsize=8, color=style.FAINT)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_aspect("auto")


def _head(axes: Axes, left: float, layer: str, shape: Sequence[int]) -> None:
    """The layer's name above its first column, and the shape of what it gives."""
    axes.text(left, TOP - 0.24, style.readable(layer, 24), va="bottom", fontsize=9)
    shown = "×".join(map(str, shape))
    axes.text(left, TOP - 0.07, shown, va="bottom", fontsize=7.5, color=style.FAINT)


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


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images[:, 0]


def _strongest(maps: NDArray[np.floating]) -> NDArray[np.int64]:
    """The channels of (N, C, H, W) with the largest standard deviations, at most 3, ascending."""
    spread = np.nan_to_num(maps.std(axis=(0, 2, 3), dtype=np.float64))
    return np.sort(np.argsort(-spread, kind="stable")[:CHANNELS])

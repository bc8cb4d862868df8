"""Plots of pruning: the kept fraction of each layer, and the mask of the first layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.run.images import canvas, draw_image
from nnopt.plots.style import Bools, Floats

ROW_HEIGHT, BAR_LENGTH, COUNT_WIDTH = 0.27, 3.4, 1.9  # inches

MARGIN, TOP, NOTE_HEIGHT = 0.15, 0.55, 0.45  # inches
MAP_SIZE, MAP_GAP = 2.6, 1.15  # inches; the gap contains the colour scale
UNIT_SIZE, UNIT_STEP, UNIT_COLUMNS, MAX_UNITS = 0.56, 0.65, 8, 32
MAX_CELLS = 256  # along each side of the mask of a layer whose inputs are not images


def plot_kept(masks: Mapping[str, Bools], kind: str, path: Path) -> None:
    """Draw the fraction of the weights or units of each layer that is kept, as a bar.

    Args:
        masks: The masks by the name of the layer, True where an element is kept.
        kind: The elements of the masks: ``weights`` or ``units``.
        path: The file to write.
    """
    names = [style.readable(name, 30) for name in masks]
    kept = [int(np.count_nonzero(mask)) for mask in masks.values()]
    sizes = [mask.size for mask in masks.values()]
    left = 0.3 + style.text_width(names)
    width, height = left + BAR_LENGTH + COUNT_WIDTH, TOP + ROW_HEIGHT * len(names) + 0.6
    total = f"{sum(kept):,} of {sum(sizes):,} prunable {kind} kept"
    with style.drawing(path, width, height, total) as figure:
        axes = style.panel(figure, left, 0.55, BAR_LENGTH, ROW_HEIGHT * len(names))
        y = -np.arange(len(names))
        fractions = 100 * np.array(kept) / np.array(sizes)
        axes.barh(y, np.full(len(y), 100.0), 0.62, color=style.PALE)
        axes.barh(y, fractions, 0.62, color=style.BLUE)
        for index, (count, size, fraction) in enumerate(zip(kept, sizes, fractions, strict=True)):
            text = f"{fraction:.3g} %   {count:,} of {size:,}"
            axes.text(103, -index, text, va="center", fontsize=9)
        axes.set_xlim(0, 100)
        axes.set_ylim(-len(names) + 0.5, 0.5)
        axes.set_yticks(y, names)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        style.few_ticks(axes.xaxis, 4)
        style.label(axes, f"kept {kind} (%)", "")


def plot_mask(mask: Bools, input_shape: tuple[int, ...], layer: str, path: Path) -> None:
    """Draw the mask of the first layer: which inputs of each unit or filter are kept.

    For a dense layer on images, a map shows the fraction of the units that use each pixel, followed
    by the masks of the first 32 units. For a convolution, the kernels of the first 32 filters are
    drawn. For other inputs, the mask is one image with a row for each unit.

    Args:
        mask: The mask of the weight, (units, inputs) or (O, C, kh, kw).
        input_shape: The shape of a sample, (C, H, W) or (D,).
        layer: The name of the layer.
        path: The file to write.
    """
    title = f"{layer}: {100 * np.mean(mask):.3g} % of {mask.size:,} weights kept"
    if mask.ndim == 2 and len(input_shape) == 3:
        images = mask.reshape(len(mask), *input_shape).mean(axis=1)
        _plot_units(images, input_shape[0], title, path, with_map=True)
    elif mask.ndim == 4:
        _plot_units(mask.mean(axis=1), mask.shape[1], title, path, with_map=False)
    else:
        _plot_matrix(mask.reshape(len(mask), -1), title, path)


def _plot_units(images: Floats, channels: int, title: str, path: Path, with_map: bool) -> None:
    """Draw ``images`` (units, H, W): the masks of the units, averaged over the input channels."""
    shown = images[:MAX_UNITS]
    rows = math.ceil(len(shown) / UNIT_COLUMNS)
    start = MARGIN + (MAP_SIZE + MAP_GAP if with_map else 0.0)
    tall = max(rows * UNIT_STEP, MAP_SIZE if with_map else 0.0)
    width = max(start + UNIT_COLUMNS * UNIT_STEP + MARGIN, 5.6)
    height = TOP + tall + NOTE_HEIGHT
    with style.drawing(path, width, height, title) as figure:
        axes = canvas(figure)
        if with_map:
            usage = images.mean(axis=0)
            panel = style.panel(figure, MARGIN, NOTE_HEIGHT + tall - MAP_SIZE, MAP_SIZE, MAP_SIZE)
            image = panel.imshow(usage, cmap="cividis", aspect="equal", interpolation="nearest")
            panel.set_axis_off()
            style.colour_bar(image, "fraction of the units that use the pixel")
        for index, unit in enumerate(shown):
            row, column = divmod(index, UNIT_COLUMNS)
            left, top = start + column * UNIT_STEP, TOP + row * UNIT_STEP
            draw_image(axes, unit, left, top, UNIT_SIZE, cmap="Greys", vmin=-0.06, vmax=1)
        which = "all" if len(shown) == len(images) else f"the first {len(shown)} of"
        grey = "" if channels == 1 else f", grey: kept for some of the {channels} input channels"
        kind = "units" if with_map else "filters"
        note = f"masks of {which} {len(images)} {kind}; black: kept{grey}"
        style.write(figure, start, 0.15, note, fontsize=8.5, color=style.FAINT)


def _plot_matrix(mask: Bools, title: str, path: Path) -> None:
    """Draw a mask (units, inputs) as an image. A cell is the mean of its mask entries."""
    cells = _averaged(_averaged(mask.astype(np.float64)).T).T
    width, high = 4.6, float(np.clip(4.6 * len(mask) / mask.shape[1], 1.2, 4.6))
    with style.drawing(path, width + 1.0, high + TOP + 0.7, title) as figure:
        axes = style.panel(figure, 0.75, 0.6, width, high)
        extent = (0, mask.shape[1], len(mask), 0)
        axes.imshow(cells, cmap="Greys", vmin=-0.06, vmax=1, interpolation="nearest", extent=extent)
        axes.grid(visible=False)
        style.few_ticks(axes.xaxis, 5, integer=True)
        style.few_ticks(axes.yaxis, 4, integer=True)
        style.label(axes, "input (black: kept)", "unit", left=0.5)


def _averaged(rows: Floats) -> Floats:
    """Return at most 256 rows: the means of groups of consecutive rows."""
    groups: list[NDArray[np.float64]] = np.array_split(rows, min(len(rows), MAX_CELLS))
    return np.array([group.mean(axis=0) for group in groups])

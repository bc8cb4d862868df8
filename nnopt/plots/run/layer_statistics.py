"""Activations, gradients and dead units of each layer against the epoch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.run import layer_lines, layer_maps
from nnopt.results.layers_file import LayerRow

MOST_LINES = 8  # layers drawn as lines; more become the rows of a map
PANEL = (2.9, 2.5)  # inches: width, height
BOTTOM, TOP = 0.6, 0.8
NAME_LENGTH = 28

Floats = NDArray[np.float64]


def plot_layer_statistics(
    history: Sequence[LayerRow], matrices: Collection[str], path: Path, name: str
) -> None:
    """For each dense or convolutional layer the standard deviations of what it gives and of its
    weight's gradient; for each ReLU layer the share of units that are 0 for every sample.

    Up to 8 layers are lines, dark to bright with their depth; what is exactly 0, or not finite,
    stands on a rail of its own below or above the panel. The deviations of more layers are maps, a
    row for each layer, as shares of dead units always are.
    matrices: the layers whose weight is a matrix, or kernels, rather than the scale of a
    normalization; name: the run's, for the title. Raises OutputError.
    """
    layers = list(dict.fromkeys(row.layer for row in history))
    first = history[: len(layers)]
    multiplying = [row.layer for row in first if row.layer in matrices]
    rectifying = [row.layer for row in first if row.dead_fraction is not None]
    epochs = np.unique([row.epoch for row in history])
    outputs = _table(history, multiplying, lambda row: row.activation_std)
    gradients = _table(history, multiplying, lambda row: row.gradient_std)
    dead = 100 * _table(history, rectifying, lambda row: row.dead_fraction)

    names = [style.readable(layer, NAME_LENGTH) for layer in multiplying]
    relus = [style.readable(layer, NAME_LENGTH) for layer in rectifying]
    in_lines = len(names) <= MOST_LINES
    kind = layer_lines if in_lines else layer_maps
    before, between, after = kind.margins(names)
    height = PANEL[1] if in_lines else layer_maps.height_of(max(len(names), len(relus)))
    width = dead_left = before + PANEL[0] + between + PANEL[0] + after
    if relus:
        dead_left += layer_maps.margins(relus)[0]
        width = dead_left + PANEL[0] + layer_maps.SHARES_ROOM
    title = f"{name}: layers over training"
    with style.drawing(path, width, BOTTOM + height + TOP, title) as figure:
        lefts = (before, before + PANEL[0] + between)
        boxes = [(left, BOTTOM, PANEL[0], height) for left in lefts]
        panels = {"Outputs": outputs, "Gradient of the weights": gradients}
        kind.draw_deviations(figure, boxes, epochs, panels, names)
        if relus:
            box = (dead_left, BOTTOM, PANEL[0], height)
            caption = "Dead units: 0 for every sample"
            layer_maps.draw_shares(figure, box, epochs, caption, dead, relus)


def _table(
    history: Sequence[LayerRow], layers: Sequence[str], get: Callable[[LayerRow], float | None]
) -> Floats:
    """(L, E): a row for each layer, a column for each epoch; NaN for what is not finite."""
    rows: dict[str, list[float]] = {layer: [] for layer in layers}
    for row in history:
        if row.layer in rows:
            value = get(row)
            rows[row.layer].append(np.nan if value is None else value)
    values = np.array(list(rows.values()), dtype=np.float64)
    values[~(np.abs(values) < style.LARGEST)] = np.nan
    return values

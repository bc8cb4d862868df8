"""Activations, gradients and dead units of each layer against the epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.run import layer_lines, layer_maps
from nnopt.results.metrics_file import LayerRow

MAX_LINES = 8  # more layers are rows of a map
PANEL_SIZE = (2.9, 2.5)  # inches
BOTTOM, TOP = 0.6, 0.8
MAX_NAME_CHARACTERS = 28

Floats = NDArray[np.float64]


def plot_layer_statistics(
    history: Sequence[LayerRow], matrices: Collection[str], path: Path, name: str
) -> None:
    """Draw the standard deviations of outputs and weight gradients, and the dead ReLU units.

    Up to 8 layers are lines, from dark to bright by depth, with zeros and infinite values on rails
    below and above the panel. More layers are rows of maps. The fraction of dead units, which are 0
    for every sample, is always a map.

    Args:
        history: Statistics of all layers after each epoch.
        matrices: Layers whose weight is a matrix or kernels, not the scale of a normalization.
        path: The file.
        name: Name of the run, for the title.
    """
    layers = list(dict.fromkeys(row.layer for row in history))
    first = history[: len(layers)]
    with_weights = [row.layer for row in first if row.layer in matrices]
    relu_layers = [row.layer for row in first if row.dead_fraction is not None]
    epochs = np.unique([row.epoch for row in history])
    outputs = _table(history, with_weights, "activation_std")
    gradients = _table(history, with_weights, "gradient_std")
    dead = 100 * _table(history, relu_layers, "dead_fraction")

    names = [style.readable(layer, MAX_NAME_CHARACTERS) for layer in with_weights]
    relus = [style.readable(layer, MAX_NAME_CHARACTERS) for layer in relu_layers]
    in_lines = len(names) <= MAX_LINES
    module = layer_lines if in_lines else layer_maps
    before, between, after = module.margins(names)
    height = PANEL_SIZE[1] if in_lines else layer_maps.height_of(max(len(names), len(relus)))
    width = dead_left = before + PANEL_SIZE[0] + between + PANEL_SIZE[0] + after
    if relus:
        dead_left += layer_maps.margins(relus)[0]
        width = dead_left + PANEL_SIZE[0] + layer_maps.FRACTIONS_SPACE
    title = f"{name}: layers over training"
    with style.drawing(path, width, BOTTOM + height + TOP, title) as figure:
        lefts = (before, before + PANEL_SIZE[0] + between)
        boxes = [(left, BOTTOM, PANEL_SIZE[0], height) for left in lefts]
        panels = {"Outputs": outputs, "Gradient of the weights": gradients}
        module.draw_deviations(figure, boxes, epochs, panels, names)
        if relus:
            box = (dead_left, BOTTOM, PANEL_SIZE[0], height)
            caption = "Dead units: 0 for every sample"
            layer_maps.draw_fractions(figure, box, epochs, caption, dead, relus)


def _table(history: Sequence[LayerRow], layers: Sequence[str], name: str) -> Floats:
    """Return a statistic (L, E), with NaN for values that are not finite."""
    rows: dict[str, list[LayerRow]] = {layer: [] for layer in layers}
    for row in history:
        if row.layer in rows:
            rows[row.layer].append(row)
    return np.array([style.column_of(x, name) for x in rows.values()], dtype=np.float64)

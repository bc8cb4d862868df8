"""Activations, gradients and dead units of each layer against the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.results.layers import LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LAYERS = 8  # lines of a panel
FEW_EPOCHS = 30  # so many are drawn with a marker each
PANEL = (2.9, 2.4)  # inches: width, height
LEFT, BETWEEN, BOTTOM = 0.85, 0.95, 0.6
CHARACTER = 0.077  # inches, on average, at 9 points
NAME_LENGTH = 22

Floats = NDArray[np.float64]


def plot_layer_statistics(history: Sequence[LayerRow], path: Path) -> None:
    """For each dense or convolutional layer the standard deviations of what it gives and of its
    weight's gradient; for each ReLU layer the share of units that are 0 for every sample.

    The layers go from dark to bright with their depth, and have markers of their own. Without
    ReLU layers their panel is left out; of more than 8 layers some are, evenly. Standard deviations
    are drawn on a logarithmic scale if they span more than two decades. Raises OutputError.
    """
    layers = list(dict.fromkeys(row.layer for row in history))
    first = history[: len(layers)]
    multiplying = _some([x.layer for x in first if _is_matrix(x)])
    rectifying = _some([x.layer for x in first if x.dead_share is not None])
    width = LEFT + 2 * PANEL[0] + BETWEEN + _room(multiplying)
    if rectifying:
        width += LEFT + PANEL[0] + _room(rectifying)
    with style.drawing(path, width, BOTTOM + PANEL[1] + 0.75, "Layers over training") as figure:
        left = LEFT
        for what, get in (("Outputs", _activation), ("Gradient of the weights", _gradient)):
            axes = style.panel(figure, left, BOTTOM, *PANEL)
            values = _draw(axes, history, multiplying, get)
            axes.set_title(what)
            style.label(axes, "epoch", "standard deviation", left=0.65)
            if style.spans_decades(values):
                style.log_scale(axes)
            else:
                style.few_ticks(axes.yaxis)
                axes.set_ylim(bottom=0)
            left += PANEL[0] + BETWEEN
        _legend(axes)
        if rectifying:
            left += _room(multiplying) + LEFT - BETWEEN
            axes = style.panel(figure, left, BOTTOM, *PANEL)
            values = _draw(axes, history, rectifying, _dead)
            axes.set_title("Dead units: 0 for every sample")
            style.label(axes, "epoch", "share of the layer's units (%)")
            top = max(5.0, float(values.max()))
            axes.set_ylim(-0.03 * top, 1.08 * top)
            style.few_ticks(axes.yaxis)
            _legend(axes)


def _draw(
    axes: Axes, history: Sequence[LayerRow], layers: Sequence[str], get: Callable[[LayerRow], float]
) -> Floats:
    """A line for each layer, the first the darkest. Returns all the values drawn."""
    from matplotlib import colormaps

    drawn: list[float] = []
    for place, layer in enumerate(layers):
        rows = [row for row in history if row.layer == layer]
        depth = place / max(1, len(layers) - 1)
        values = [get(row) for row in rows]
        drawn += values
        axes.plot(
            [row.epoch for row in rows],
            values,
            marker=style.MARKERS[place] if len(rows) <= FEW_EPOCHS else "",
            markersize=5,
            linestyle=("-", "--", "-.", ":")[place % 4] if len(rows) > FEW_EPOCHS else "-",
            color=colormaps["viridis"](0.85 * depth),
            label=style.readable(layer, NAME_LENGTH),
        )
    epochs = max(row.epoch for row in history)
    margin = max(0.5, 0.03 * epochs)
    axes.set_xlim(1 - margin, epochs + margin)
    style.few_ticks(axes.xaxis, 6, integer=True)
    return np.array(drawn)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.04), handletextpad=0.5)


def _room(layers: Sequence[str]) -> float:
    """Inches that a legend of these takes."""
    return 0.75 + CHARACTER * max([len(style.readable(x, NAME_LENGTH)) for x in layers], default=0)


def _some(layers: Sequence[str]) -> list[str]:
    """At most 8 of them, evenly chosen, the first and the last among them."""
    places = np.linspace(0, len(layers) - 1, min(len(layers), MOST_LAYERS)).astype(np.int64)
    return [layers[place] for place in places]


def _is_matrix(row: LayerRow) -> bool:
    """Does the layer have a matrix or kernels, rather than the scale of a normalization?"""
    return row.gradient_std is not None and "_norm" not in row.layer.rpartition(".")[2]


def _activation(row: LayerRow) -> float:
    return _finite(row.activation_std)


def _gradient(row: LayerRow) -> float:
    return _finite(row.gradient_std)


def _dead(row: LayerRow) -> float:
    return 100 * _finite(row.dead_share)


def _finite(value: float | None) -> float:
    """NaN, which leaves a gap in a line, for what is missing or not finite."""
    return value if value is not None and np.isfinite(value) else float("nan")

"""The decision boundary of a network whose inputs are points in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.style import Bools, Ints
from nnopt.results.metrics import softmax

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID_SIZE = 140  # the network is evaluated at 140 x 140 points
MAX_SAMPLES = 1500
MAX_NAMES = 12  # classes in the legend
MAX_OPACITY = 0.5  # opacity of the colour where the network is certain

Predict = Callable[[NDArray[Any]], NDArray[np.floating]]


def plot_decision_boundary(
    predict: Predict,
    points: NDArray[Any],
    labels: Ints,
    classes: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw regions in the colours of the predicted classes, and the samples ``points`` (N, 2).

    ``predict`` maps points (M, 2) to logits (M, K). Regions are paler where the prediction is less
    certain. Misclassified samples have a ring.
    """
    shown = style.evenly_spaced(len(points), MAX_SAMPLES)
    points, labels = np.asarray(points)[shown], np.asarray(labels)[shown]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1)
    low, high = low - margin, high + margin
    regions = _regions(predict, low, high, points.dtype)
    wrong = predict(points).argmax(axis=1) != labels

    with style.drawing(path, 6.9, 5.2, title) as figure:
        axes = style.panel(figure, 0.85, 0.6, 4.1, 4.05)
        extent = (low[0], high[0], low[1], high[1])
        axes.imshow(regions, extent=extent, origin="lower", interpolation="bilinear")
        _draw_points(axes, points, labels, classes, wrong)
        axes.set(xlim=extent[:2], ylim=extent[2:])
        axes.grid(visible=False)
        style.few_ticks(axes.xaxis)
        style.few_ticks(axes.yaxis)
        style.label(axes, "feature 1", "feature 2")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), handletextpad=0.2)


def _regions(
    predict: Predict, low: NDArray[Any], high: NDArray[Any], kind: np.dtype[Any]
) -> NDArray[np.uint8]:
    """Return an image of the predicted classes, shape (GRID_SIZE, GRID_SIZE, 3)."""
    x, y = np.meshgrid(*(np.linspace(low[i], high[i], GRID_SIZE, dtype=kind) for i in (0, 1)))
    probabilities = softmax(predict(np.column_stack([x.ravel(), y.ravel()])))
    chance = 1 / probabilities.shape[1]
    certainty = (probabilities.max(axis=1) - chance) / (1 - chance)  # 0 at chance level
    opacity = MAX_OPACITY * np.nan_to_num(certainty)[:, None]
    palette = np.array([style.rgb(colour) for colour in style.PALETTE])
    colours = palette[probabilities.argmax(axis=1) % len(palette)]
    blend = np.round(255 * (1 - opacity * (1 - colours)))
    return np.asarray(blend, dtype=np.uint8).reshape(GRID_SIZE, GRID_SIZE, 3)


def _draw_points(
    axes: Axes, points: NDArray[Any], labels: Ints, classes: Sequence[str], wrong: Bools
) -> None:
    """Draw the samples, and a ring around each misclassified sample."""
    size = 5.5 if len(points) <= 500 else 4
    for k, name in enumerate(classes):
        marker = style.MARKERS[k % len(style.MARKERS)]
        colour = style.PALETTE[k % len(style.PALETTE)]
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
        text = style.readable(name, 16) if k < MAX_NAMES else None
        axes.plot(*points[labels == k].T, marker, color=colour, ms=size, label=text, **edge)
    ring: dict[str, Any] = {"markeredgecolor": style.BLACK, "markeredgewidth": 1.4}
    text = f"wrong: {wrong.sum()} of {len(points)}"
    axes.plot(*points[wrong].T, "o", color="none", ms=size + 5, label=text, **ring)

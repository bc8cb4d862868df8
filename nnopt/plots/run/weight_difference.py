"""Histograms of the weights of two runs, and their differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.run.filters import colour_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAYERS = 6
BINS = 50
MAX_CELLS = 200  # along each side of a heat map
PANEL_HEIGHT, STEP, BOTTOM, TOP = 1.2, 2.0, 0.6, 0.85  # inches
WIDTH, HISTOGRAM_LEFT, HISTOGRAM_WIDTH, MAP_LEFT, MAP_WIDTH = 8.2, 0.35, 3.2, 4.15, 2.9

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


def plot_weight_difference(a: Arrays, b: Arrays, names: tuple[str, str], path: Path) -> None:
    """Draw histograms of the weights of both runs, and b - a as a heat map of outputs and inputs.

    Only tensors of rank 2 or more with the same shape in both runs are drawn. If there are more
    than 6, evenly spaced ones are drawn, and the title contains the number of the others.
    """
    matrices = [name for name, x in a.items() if name.endswith(".weight") and np.ndim(x) >= 2]
    both = [name for name in matrices if name in b and np.shape(b[name]) == np.shape(a[name])]
    chosen = [both[index] for index in style.evenly_spaced(len(both), MAX_LAYERS)]
    title = "Weights of two runs"
    if len(chosen) < len(both):
        title += f", {len(both) - len(chosen)} of {len(both)} layers left out"
    height = TOP + STEP * max(1, len(chosen)) - (STEP - PANEL_HEIGHT) + BOTTOM
    with style.drawing(path, WIDTH, height, title) as figure:
        for row, name in enumerate(chosen):
            bottom = height - TOP - PANEL_HEIGHT - STEP * row
            x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
            axes = style.panel(figure, HISTOGRAM_LEFT, bottom, HISTOGRAM_WIDTH, PANEL_HEIGHT)
            _draw_histograms(axes, x, y, names)
            shape = "×".join(map(str, x.shape))
            style.caption(
                figure,
                HISTOGRAM_LEFT,
                bottom + PANEL_HEIGHT,
                f"{style.readable(name, 26)}   {shape}",
            )
            style.label(axes, "weight" if row == len(chosen) - 1 else "", "fraction", 0.15)
            if row == 0:
                figure.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=2)
            _draw_map(figure, bottom, (y - x).reshape(len(x), -1))


def _draw_histograms(axes: Axes, x: Floats, y: Floats, names: tuple[str, str]) -> None:
    finite = [w[np.isfinite(w)] for w in (x, y)]
    values = np.concatenate(finite)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    fractions = [np.histogram(w, edges)[0] / max(1, w.size) for w in finite]
    labels = [f"{which}: {style.readable(x, 26)}" for which, x in zip("AB", names, strict=True)]
    # Filled and outlined histograms are distinct without colours.
    axes.stairs(fractions[0], edges, fill=True, color=style.SKY, label=labels[0])
    axes.stairs(fractions[1], edges, color=style.INK, linewidth=1.2, label=labels[1])
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.1 * (max(heights.max() for heights in fractions) or 1.0))
    style.few_ticks(axes.xaxis, 4)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _draw_map(figure: Figure, bottom: float, difference: Floats) -> None:
    """Draw b - a with colours that are symmetric about 0."""
    shown = strongest(np.nan_to_num(difference, posinf=0, neginf=0), MAX_CELLS)
    limit = float(np.abs(shown).max(initial=0)) or 1.0
    axes = style.panel(figure, MAP_LEFT, bottom, MAP_WIDTH, PANEL_HEIGHT)
    image = axes.imshow(
        shown,
        cmap=colour_map(),
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    style.label(axes, "inputs", "outputs", 0.12, 0.15)
    style.caption(figure, MAP_LEFT, bottom + PANEL_HEIGHT, "B − A")
    bar = style.panel(figure, MAP_LEFT + MAP_WIDTH + 0.1, bottom, 0.12, PANEL_HEIGHT)
    figure.colorbar(image, cax=bar).outline.set_linewidth(0.5)
    bar.grid(visible=False)
    bar.set_yticks([-limit, 0, limit], [f"−{limit:.2g}", "0", f"+{limit:.2g}"])


def strongest(matrix: Floats, most: int) -> Floats:
    """Reduce a matrix (O, I) to the entry of largest magnitude in each rectangle of entries.

    The result has at most ``most`` rows and columns. In contrast to a mean, the largest entry shows
    a single changed weight.
    """
    high, low = matrix, matrix
    for axis, size in enumerate(matrix.shape):
        starts = np.unique(np.linspace(0, size, min(size, most), endpoint=False).astype(np.int64))
        high = np.maximum.reduceat(high, starts, axis=axis)
        low = np.minimum.reduceat(low, starts, axis=axis)
    return np.where(high >= -low, high, low)

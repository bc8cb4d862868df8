"""Histograms of the weights of each layer before and after training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 12
COLUMNS = 4
BINS = 40
MAX_WEIGHTS = 200_000  # of one tensor; of larger ones, evenly spaced weights are drawn
PANEL_SIZE = (2.2, 1.15)  # inches
STEP = (2.55, 2.0)  # inches from one panel to the next


def plot_weight_histograms(
    initial: Mapping[str, NDArray[Any]], final: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """Draw histograms of each weight tensor of rank 2 or more: initial (outline), trained (filled).

    If there are more than 12 tensors, evenly spaced ones are drawn, and the title contains the
    number of the others.
    """
    names = [name for name, w in final.items() if name.endswith(".weight") and np.ndim(w) >= 2]
    shown = style.evenly_spaced(len(names), MAX_PANELS)
    columns = max(1, min(len(shown), COLUMNS))
    rows = max(1, -(-len(shown) // columns))
    width, height = max(6.4, 0.6 + STEP[0] * columns), 0.85 + STEP[1] * rows
    title = "Weights by layer"
    if len(shown) < len(names):
        title += f", {len(names) - len(shown)} of {len(names)} left out"

    with style.drawing(path, width, height, title) as figure:
        for number, index in enumerate(shown):
            row, column = divmod(number, columns)
            left, bottom = 0.5 + STEP[0] * column, height - 2.1 - STEP[1] * row
            axes = style.panel(figure, left, bottom, *PANEL_SIZE)
            _draw(axes, names[index], initial.get(names[index]), final[names[index]])
            in_last_row = number + columns >= len(shown)
            style.label(axes, "weight" if in_last_row else "", "" if column else "fraction", 0.15)
            if number == 0:
                figure.legend(loc="upper right", ncols=2, bbox_to_anchor=(0.995, 1))


def _draw(axes: Axes, name: str, before: NDArray[Any] | None, after: NDArray[Any]) -> None:
    """Draw both histograms over the same bins, as fractions of the weights."""
    tensors = {"trained": after} if before is None else {"trained": after, "initial": before}
    finite = {which: w[np.isfinite(w)] for which, w in tensors.items()}  # one-dimensional
    extremes = [limit for w in finite.values() if w.size for limit in (w.min(), w.max())]
    low, high = (float(min(extremes)), float(max(extremes))) if extremes else (0.0, 0.0)
    size = max(abs(low), abs(high)) or 1.0
    if high - low <= 1e-6 * size:  # such as for all zeros
        low, high = low - size / 2, high + size / 2
    edges = np.linspace(low, high, BINS + 1)
    fractions = {which: _fractions(w, edges) for which, w in finite.items()}

    axes.stairs(fractions["trained"], edges, fill=True, color=style.SKY, label="trained")
    if "initial" in fractions:
        axes.stairs(fractions["initial"], edges, color=style.INK, linewidth=1.2, label="initial")
    # Constant initial weights are one tall bar. It must not flatten the other histogram.
    peak = fractions["trained"].max() or 1.0
    axes.set_ylim(
        0, 1.1 * min(3 * peak, max(heights.max() for heights in fractions.values()) or 1.0)
    )
    axes.set_xlim(low, high)
    style.few_ticks(axes.xaxis, 3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    spreads = " → ".join(_spread(w) for w in reversed(finite.values()))
    shape = "×".join(map(str, after.shape))
    axes.set_title(f"{style.readable(name, 26)}\n{shape}   std {spreads}", linespacing=1.35)


def _spread(weights: NDArray[Any]) -> str:
    return f"{weights.std(dtype=np.float64):.3g}" if weights.size else "n/a"


def _fractions(weights: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    sample = weights[:: len(weights) // MAX_WEIGHTS + 1]
    return np.histogram(sample, edges)[0] / max(1, len(sample))

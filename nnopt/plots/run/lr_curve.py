"""The loss against the learning rate in a learning-rate range test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.plots import style
from nnopt.training.lr_finder import LrSuggestion, measure_loss_drop

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_lr_find(suggestion: LrSuggestion, path: Path, title: str) -> None:
    """Draw the losses of the batches, the smoothed loss, and the suggestion if there is one.

    The horizontal axis ends where the smoothed loss exceeds the limit of the vertical axis.
    """
    curve = suggestion.curve
    if suggestion.lr is None:
        title = f"{style.readable(title, 40)}: no suggestion"
    with style.drawing(path, 6.4, 4.0, title) as figure:
        axes = style.panel(figure, 0.85, 0.65, 5.25, 2.6)
        axes.plot(curve.rates, curve.losses, color=style.SKY, linewidth=0.8, label="batch")
        axes.plot(curve.rates, curve.smoothed, color=style.BLUE, linewidth=2.2, label="smoothed")
        if suggestion.lr is not None and suggestion.edge_step is not None:
            edge = suggestion.edge_step
            _mark(axes, curve.rates[edge], curve.smoothed[edge], "largest usable", "o")
            axes.axvline(suggestion.lr, color=style.INK, linewidth=1, linestyle=":")
            _mark(axes, suggestion.lr, suggestion.loss_at_suggestion, "suggestion", "*")
        low, high = _limits(suggestion)
        axes.set_ylim(low, high)
        above = np.flatnonzero(~(curve.smoothed <= high))
        first, last = curve.rates[0], curve.rates[above[0] if len(above) else -1]
        axes.set_xlim(first, max(last * (last / first) ** 0.03, 2 * first))
        style.log_scale(axes, "x")
        style.few_ticks(axes.yaxis)
        style.label(axes, "learning rate", "loss (mean per sample)")
        form = {"columnspacing": 1.4, "handletextpad": 0.5, "handlelength": 1.4}
        corner = (0.85 / 6.4, 3.27 / 4.0)
        figure.legend(loc="lower left", bbox_to_anchor=corner, ncols=4, borderaxespad=0, **form)


def _mark(axes: Axes, rate: float, loss: float, name: str, marker: str) -> None:
    colour, size = (style.INK, 13) if marker == "*" else (style.VERMILLION, 7)
    form: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 3}
    text = f"{name} {rate:.2g}"
    axes.plot([rate], [loss], marker, color=colour, markersize=size, label=text, **form)


def _limits(suggestion: LrSuggestion) -> tuple[float, float]:
    """Return the limits of the loss axis: from below the minimum to above the initial loss.

    Without a suggestion, the axis reaches the maximum, but at most three times the initial loss.
    """
    smoothed = suggestion.curve.smoothed[np.isfinite(suggestion.curve.smoothed)]
    if not len(smoothed):
        return 0.0, 1.0
    drop = measure_loss_drop(suggestion.curve)
    depth = max(drop.depth, drop.noise, 0.05 * abs(drop.start), 1e-12)
    high = drop.start + 0.35 * depth
    if suggestion.lr is None:
        high = max(high, min(float(smoothed.max()), 3 * drop.start))
    return float(smoothed.min()) - 0.25 * depth, high

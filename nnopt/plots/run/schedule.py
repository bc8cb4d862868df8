"""The learning rate against the epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

MAX_POINTS = 2000  # more than the plot has columns of pixels


def plot_schedule(
    learning_rates: NDArray[np.float64], steps_per_epoch: int, path: Path, title: str
) -> None:
    """Draw the learning rate of every optimizer step.

    The scale is logarithmic if most rates span more than two decades; rates of 0 are then omitted.
    """
    rates = np.asarray(learning_rates, dtype=np.float64)
    shown = style.evenly_spaced(len(rates), MAX_POINTS)
    with style.drawing(path, 6.4, 3.6, title) as figure:
        axes = style.panel(figure, 0.95, 0.6, 5.15, 2.45)
        marker = "o" if len(shown) == 1 else ""
        axes.plot(shown / steps_per_epoch, rates[shown], marker=marker, color=style.BLUE)
        style.few_ticks(axes.xaxis, 6)
        style.few_ticks(axes.yaxis)
        # The last few rates of a cosine schedule are many decades below the others. Therefore
        # the lowest tenth is ignored.
        positive = np.sort(rates[rates > 0])
        if style.spans_decades(positive[len(positive) // 10 :]):
            style.log_scale(axes)
        else:
            axes.set_ylim(bottom=0)
        style.label(axes, "epoch", "learning rate", left=0.75)

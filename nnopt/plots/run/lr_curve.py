"""The loss against the learning rate, as a sweep of the rate saw it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnopt.plots import style
from nnopt.training.lr_finder import LrSuggestion, measure_loss_drop

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_lr_find(found: LrSuggestion, path: Path, title: str) -> None:
    """Losses of the batches, their smoothed course, and the suggestion where there is one.

    The picture ends where the smoothed loss leaves it upwards: beyond, it shows nothing but
    divergence. Raises OutputError.
    """
    curve = found.curve
    if found.lr is None:
        title = f"{style.readable(title, 40)}: no suggestion"
    with style.drawing(path, 6.4, 4.0, title) as figure:
        axes = style.panel(figure, 0.85, 0.65, 5.25, 2.6)
        axes.plot(curve.rates, curve.losses, color=style.SKY, linewidth=0.8, label="batch")
        axes.plot(curve.rates, curve.smoothed, color=style.BLUE, linewidth=2.2, label="smoothed")
        if found.lr is not None and found.edge_step is not None:
            _mark(
                axes,
                curve.rates[found.edge_step],
                curve.smoothed[found.edge_step],
                "largest usable",
                "o",
            )
            axes.axvline(found.lr, color=style.INK, linewidth=1, linestyle=":")
            _mark(axes, found.lr, found.loss_at_suggestion, "suggestion", "*")
        low, high = _limits(found)
        axes.set_ylim(low, high)
        above = np.flatnonzero(~(curve.smoothed <= high))
        last = curve.rates[above[0]] if len(above) else curve.rates[-1]
        axes.set_xlim(
            curve.rates[0], max(last * (last / curve.rates[0]) ** 0.03, 2 * curve.rates[0])
        )
        style.log_scale(axes, "x")
        style.few_ticks(axes.yaxis)
        style.label(axes, "learning rate", "loss (mean per sample)")
        place = (0.85 / 6.4, 3.27 / 4.0)
        handles = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=place,
            ncols=4,
            borderaxespad=0,
            columnspacing=1.4,
            handletextpad=0.5,
            handlelength=1.4,
        )


def _mark(axes: Axes, rate: float, loss: float, name: str, marker: Literal["o", "*"]) -> None:
    colour, size = (style.INK, 13) if marker == "*" else (style.VERMILLION, 7)
    axes.plot(
        [rate],
        [loss],
        marker,
        color=colour,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=3,
        label=f"{name} {rate:.2g}",
    )


def _limits(found: LrSuggestion) -> tuple[float, float]:
    """The loss axis: from below the smallest loss to above the start, the fall filling most of it.
    Without a suggestion, to where the loss rose, or three times its start.
    """
    smoothed = found.curve.smoothed[np.isfinite(found.curve.smoothed)]
    if not len(smoothed):
        return 0.0, 1.0
    fall = measure_loss_drop(found.curve)
    depth = max(fall.depth, fall.noise, 0.05 * abs(fall.start), 1e-12)
    high = fall.start + 0.35 * depth
    if found.lr is None:
        high = max(high, min(float(smoothed.max()), 3 * fall.start))
    return float(smoothed.min()) - 0.25 * depth, high

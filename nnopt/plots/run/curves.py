"""Loss, accuracy and learning rate against the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnopt.plots import style
from nnopt.plots.style import Floats, Ints
from nnopt.results.metrics_file import EpochRow
from nnopt.training.planned_rates import needs_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("train", "validation")
MAX_EPOCHS_WITH_MARKERS = 30
MAX_EPOCHS_WITH_BROAD_LINES = 200
MAX_RATES = 2000  # drawn learning rates; more than the plot has columns of pixels


def plot_curves(
    history: Sequence[EpochRow], path: Path, title: str, best_epoch: int | None = None
) -> None:
    """Draw training and validation loss (left) and accuracy (right), and mark the best epoch.

    The loss has a logarithmic scale if it spans more than two decades. Missing and infinite values
    are gaps.
    """
    epochs = np.array([row.epoch for row in history], dtype=np.int64)
    losses = [style.column_of(history, f"{part}_loss") for part in PARTS]
    percent = [100 * style.column_of(history, f"{part}_accuracy") for part in PARTS]
    with style.drawing(path, 9.6, 3.8, style.readable(title, 62)) as figure:
        loss = style.panel(figure, 0.85, 0.6, 3.7, 2.4)
        accuracy = style.panel(figure, 5.6, 0.6, 3.7, 2.4)
        _draw(loss, epochs, *losses)
        _draw(accuracy, epochs, *percent)
        if style.spans_decades(np.concatenate(losses)):
            style.log_scale(loss)
        low, high = accuracy.get_ylim()
        accuracy.set_ylim(max(low, -2), min(high, 102))
        style.label(loss, "epoch", "loss (mean per sample)")
        style.label(accuracy, "epoch", "accuracy (%)")
        figure.legend(handles=loss.lines, loc="upper right", ncols=2, bbox_to_anchor=(0.98, 1))
        if best_epoch in epochs:
            best = epochs.tolist().index(best_epoch)
            _mark(loss, epochs[best], losses[1][best], "{:.4g}")
            _mark(accuracy, epochs[best], percent[1][best], "{:.2f} %")


def _draw(axes: Axes, epochs: Ints, train: Floats, validation: Floats) -> None:
    size = 4.5 if len(epochs) <= MAX_EPOCHS_WITH_MARKERS else 0
    width = 1.8 if len(epochs) <= MAX_EPOCHS_WITH_BROAD_LINES else 1.1
    lines = [(train, "-o", style.BLUE, "training")]
    if np.isfinite(validation).any():
        lines.append((validation, "--s", style.VERMILLION, "validation"))
    for values, form, colour, name in lines:
        axes.plot(epochs, values, form, color=colour, markersize=size, linewidth=width, label=name)
    if len(epochs):
        style.epoch_axis(axes, epochs[0], epochs[-1])
    if not np.isfinite([train, validation]).any():
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center")
    style.few_ticks(axes.yaxis)


def _mark(axes: Axes, epoch: int, value: float, form: str) -> None:
    """Mark the best epoch with a vertical line, a star at the validation value, and a title."""
    axes.axvline(epoch, color=style.INK, linewidth=1, linestyle=":")
    text = f"best: epoch {epoch}"
    if np.isfinite(value):
        axes.plot([epoch], [value], "*", color=style.INK, markersize=11, zorder=3)
        text += f", validation {form.format(value)}"
    axes.set_title(text)


def plot_schedule(
    learning_rates: Floats,
    steps_per_epoch: float,
    path: Path,
    title: str,
    label: str = "learning rate",
) -> None:
    """Draw the learning rate of every optimizer step.

    If the highest 90 % of the positive rates span more than two decades, the scale is logarithmic
    and rates of 0 are omitted.
    """
    rates = np.asarray(learning_rates, dtype=np.float64)
    shown = style.evenly_spaced(len(rates), MAX_RATES)
    with style.drawing(path, 6.4, 3.6, title) as figure:
        axes = style.panel(figure, 0.95, 0.6, 5.15, 2.45)
        marker = "o" if len(shown) == 1 else ""
        axes.plot(shown / steps_per_epoch, rates[shown], marker=marker, color=style.BLUE)
        style.few_ticks(axes.xaxis, 6)
        style.few_ticks(axes.yaxis)
        if needs_log_axis(rates):
            style.log_scale(axes)
        else:
            axes.set_ylim(bottom=0)
        style.label(axes, "epoch", label, left=0.75)

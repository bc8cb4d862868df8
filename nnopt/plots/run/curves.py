"""Loss and accuracy against the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.results.metrics_file import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

MAX_EPOCHS_WITH_MARKERS = 30
MAX_EPOCHS_WITH_BROAD_LINES = 200


def plot_curves(
    history: Sequence[EpochRow], path: Path, title: str, best_epoch: int | None = None
) -> None:
    """Draw training and validation loss (left) and accuracy (right), and mark the best epoch.

    The loss has a logarithmic scale if it spans more than two decades. Missing and infinite values
    are gaps.
    """
    epochs = np.array([row.epoch for row in history], dtype=np.int64)
    train_loss = style.column_of(history, "train_loss")
    validation_loss = style.column_of(history, "validation_loss")
    train_percent = 100 * style.column_of(history, "train_accuracy")
    validation_percent = 100 * style.column_of(history, "validation_accuracy")

    with style.drawing(path, 9.6, 3.8, style.readable(title, 62)) as figure:
        loss = style.panel(figure, 0.85, 0.6, 3.7, 2.4)
        accuracy = style.panel(figure, 5.6, 0.6, 3.7, 2.4)
        _draw(loss, epochs, train_loss, validation_loss)
        _draw(accuracy, epochs, train_percent, validation_percent)

        losses = np.concatenate([train_loss, validation_loss])
        if style.spans_decades(losses):
            style.log_scale(loss)
        low, high = accuracy.get_ylim()
        accuracy.set_ylim(max(low, -2), min(high, 102))
        style.label(loss, "epoch", "loss (mean per sample)")
        style.label(accuracy, "epoch", "accuracy (%)")
        figure.legend(handles=loss.lines, loc="upper right", ncols=2, bbox_to_anchor=(0.98, 1))

        if best_epoch in epochs:
            best = np.flatnonzero(epochs == best_epoch)[0]
            _mark(loss, epochs[best], validation_loss[best], "{:.4g}")
            _mark(accuracy, epochs[best], validation_percent[best], "{:.2f} %")


def _draw(axes: Axes, epochs: NDArray[np.int64], train: Floats, validation: Floats) -> None:
    size = 4.5 if len(epochs) <= MAX_EPOCHS_WITH_MARKERS else 0
    width = 1.8 if len(epochs) <= MAX_EPOCHS_WITH_BROAD_LINES else 1.1
    lines = [(train, "-o", style.BLUE, "training")]
    if np.isfinite(validation).any():
        lines.append((validation, "--s", style.VERMILLION, "validation"))
    for values, form, colour, name in lines:
        axes.plot(epochs, values, form, color=colour, markersize=size, linewidth=width, label=name)
    if len(epochs):
        margin = max(0.5, 0.03 * len(epochs))
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    if not np.isfinite([train, validation]).any():
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center")
    style.few_ticks(axes.xaxis, 6, integer=True)
    style.few_ticks(axes.yaxis)


def _mark(axes: Axes, epoch: int, value: float, form: str) -> None:
    """Mark an epoch with a vertical line, a star at its validation value, and a title."""
    axes.axvline(epoch, color=style.INK, linewidth=1, linestyle=":")
    text = f"best: epoch {epoch}"
    if np.isfinite(value):
        axes.plot([epoch], [value], "*", color=style.INK, markersize=11, zorder=3)
        text += f", validation {form.format(value)}"
    axes.set_title(text)

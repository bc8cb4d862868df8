"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NUMBERS = 20  # classes whose cells hold numbers
MOST_NAMES = 34  # classes that are all named; of more, every second, third, ... is
NAME_LENGTH = 18
CHARACTER = 0.088  # inches, on average, at 9 points


def plot_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], path: Path, title: str
) -> None:
    """Rows are true classes, columns predicted ones; at the right the accuracy of each class.

    counts: (K, K). A cell's colour is its share of the row; its number the count of samples or,
    where counts reach 10,000, the percentage of the row. Raises OutputError.
    """
    size = len(classes)
    every = -(-size // MOST_NAMES)
    names = [style.readable(name, NAME_LENGTH) for name in classes]
    cell = float(np.clip(5.0 / size, 0.055, 0.75))  # inches
    side = cell * size
    longest = CHARACTER * max(map(len, names))
    upright = longest < 0.9 * cell * every  # do names fit side by side below the matrix?
    left, bottom = 0.6 + longest, 0.55 + (0.15 if upright else longest)
    width, height = left + side + 1.3, bottom + side + 0.9
    width = max(width, 5.0)

    with style.drawing(path, width, height, title) as figure:
        axes = style.panel(figure, left, bottom, side, side)
        totals = counts.sum(axis=1)
        shares = counts / np.maximum(totals, 1)[:, None]
        # The darkest blues are left out, so that the order of colours is plain in grey as well.
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, interpolation="nearest")
        axes.set_axis_off()
        _draw_names(axes, names, every, gap=0.08 / cell, upright=upright)
        if size <= MOST_NUMBERS:
            _draw_numbers(axes, counts, shares, fontsize=min(9.0, 21 * cell))
        _draw_accuracies(axes, shares, totals, every, inch=1 / cell)
        middle = left + side / 2
        figure.text(middle / width, 0.12 / height, "predicted class", ha="center", va="bottom")
        middle = bottom + side / 2
        figure.text(0.12 / width, middle / height, "true class", rotation=90, va="center")


def _draw_names(axes: Axes, names: list[str], every: int, gap: float, upright: bool) -> None:
    """Beside each row and below each column; gap: between names and matrix, in cells."""
    below = len(names) - 0.5 + gap
    for k in range(0, len(names), every):
        axes.text(-0.5 - gap, k, names[k], ha="right", va="center", fontsize=9)
        if upright:
            axes.text(k, below, names[k], ha="center", va="top", fontsize=9)
        else:
            axes.text(k, below, names[k], ha="center", va="top", fontsize=9, rotation=90)


def _draw_numbers(
    axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], fontsize: float
) -> None:
    """Empty cells stay empty."""
    in_percent = counts.max() >= 10_000
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        number = f"{100 * share:.3g}" if in_percent else f"{counts[row, column]}"
        colour = "white" if share > 0.6 else style.INK
        axes.text(column, row, number, ha="center", va="center", fontsize=fontsize, color=colour)


def _draw_accuracies(
    axes: Axes,
    shares: NDArray[np.float64],
    totals: NDArray[np.int64],
    every: int,
    inch: float,
) -> None:
    """A bar and a number at the end of each row; "n/a" for a class without samples."""
    size = len(totals)
    start = size - 0.5 + 0.12 * inch
    accuracies = shares.diagonal()
    rows = np.arange(size)
    axes.barh(rows, 0.55 * inch * accuracies, 0.62, left=start, color=style.GREEN, clip_on=False)
    for k in range(0, size, every):
        text = f"{100 * accuracies[k]:.1f}" if totals[k] else "n/a"
        axes.text(start + 0.62 * inch, k, text, va="center", fontsize=9)
    top = -0.5 - 0.08 * inch
    axes.text(start, top, "accuracy (%)", fontsize=9)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)

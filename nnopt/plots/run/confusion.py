"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.style import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES_WITH_NUMBERS = 20
MAX_NAMES = 25  # with more classes, only every second is named, or every third, ...
MAX_NAME_CHARACTERS = 18
BAR_WIDTH = 0.5  # length of a bar for an accuracy of 100 %, in inches


def plot_confusion(counts: Ints, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw true classes as rows, predicted classes as columns, and the accuracy of each class.

    The colour of a cell shows its fraction of the row, on a square-root scale that makes rare
    confusions visible. With up to 20 classes, the number in a cell is the entry of ``counts``
    (K, K) or, if any count reaches 10,000, the percentage of the row; empty cells have no number.
    """
    size = len(classes)
    every = -(-size // MAX_NAMES)
    names = [style.readable(name, MAX_NAME_CHARACTERS) for name in classes]
    cell = float(np.clip(5.0 / size, 0.055, 0.75))  # inches
    side = cell * size
    longest = style.text_width(names)
    is_horizontal = longest < 0.9 * cell * every  # the names fit side by side below the matrix
    left, bottom = 0.55 + longest, 0.5 + (0.15 if is_horizontal else longest)
    width, height = max(left + side + 1.4, 5.0), bottom + side + 0.85

    totals = counts.sum(axis=1)
    fractions = counts / np.maximum(totals, 1)[:, None]
    in_percent = bool(counts.max() >= 10_000)
    with style.drawing(path, width, height, title) as figure:
        axes = style.panel(figure, left, bottom, side, side)
        # Without the darkest blues, numbers are readable on all cells in greyscale, too.
        axes.imshow(np.sqrt(fractions), cmap="Blues", vmin=0, vmax=1.2, interpolation="nearest")
        axes.set_axis_off()
        left_of, below = -0.5 - 0.08 / cell, size - 0.5 + 0.08 / cell
        rotation = 0 if is_horizontal else 90
        for k in range(0, size, every):
            axes.text(left_of, k, names[k], ha="right", va="center", fontsize=9)
            axes.text(k, below, names[k], ha="center", va="top", fontsize=9, rotation=rotation)
        if size <= MAX_CLASSES_WITH_NUMBERS:
            _draw_numbers(axes, 100 * fractions if in_percent else counts, fractions, cell)
        _draw_accuracies(axes, counts, every, 1 / cell)
        label = "predicted class" + (" (numbers: % of the true class)" if in_percent else "")
        style.write(figure, left + side / 2, 0.12, label, ha="center", va="bottom")
        style.write(figure, 0.12, bottom + side / 2, "true class", rotation=90, va="center")


def _draw_numbers(axes: Axes, numbers: NDArray[np.number], fractions: Floats, cell: float) -> None:
    """Draw the numbers of the cells, except zeros. Numbers on dark cells are white.

    matplotlib takes half a second for 400 texts. Therefore the outline of each digit is created
    once and drawn as the marker of a scatter plot.
    """
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    points = min(9.0, 21 * cell)  # font size; four digits fit into a cell
    advance, height = 0.636, 0.73  # of a DejaVu Sans digit, relative to the font size
    positions: dict[str, list[tuple[float, int, str]]] = {}
    for row, column in zip(*np.nonzero(numbers), strict=True):
        text = f"{numbers[row, column]:.0f}"
        colour = "white" if fractions[row, column] > 0.35 else style.INK
        for k, character in enumerate(text):
            x = column + (k - (len(text) - 1) / 2) * advance * points / 72 / cell
            positions.setdefault(character, []).append((x, row, colour))
    for character, points_of in positions.items():
        outline = TextPath((0, 0), character, size=1)
        vertices = outline.vertices - (advance / 2, height / 2)
        x, y, colours = zip(*points_of, strict=True)
        area = (2 * np.abs(vertices).max() * points) ** 2
        glyph = Outline(vertices, outline.codes)
        axes.scatter(x, y, area, colours, marker=glyph, linewidths=0, label=character)


def _draw_accuracies(axes: Axes, counts: Ints, every: int, inch: float) -> None:
    """Draw the accuracy of each class as a bar and text, and that of all samples as text."""
    totals = counts.sum(axis=1)
    accuracies = counts.diagonal() / np.maximum(totals, 1)
    size, rows = len(totals), np.arange(len(totals))
    start = size - 0.5 + 0.15 * inch
    thickness = 72 * min(0.7 / inch, 0.2)
    for ends, colour in ((np.ones(size), style.GRID), (accuracies, style.GREEN)):
        stop = start + BAR_WIDTH * inch * ends
        axes.hlines(rows, start, stop, colour, linewidth=thickness, clip_on=False)
    after = start + (BAR_WIDTH + 0.08) * inch
    for k in range(0, size, every):
        text = f"{100 * accuracies[k]:.1f}" if totals[k] else "n/a"
        axes.text(after, k, text, va="center", fontsize=9)
    axes.text(start, -0.5 - 0.1 * inch, "accuracy (%)", fontsize=9)
    if total := totals.sum():
        overall = f"{100 * counts.trace() / total:.1f}"
        below = size - 0.5 + 0.1 * inch
        axes.text(start, below, "all", va="top", fontsize=9)
        axes.text(after, below, overall, va="top", fontsize=9)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)

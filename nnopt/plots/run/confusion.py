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
MOST_NAMES = 25  # classes that are all named; of more, every second, third, ... is
NAME_LENGTH = 18
CHARACTER = 0.077  # inches, on average, at 9 points
BAR = 0.5  # inches: an accuracy of 100 %


def plot_confusion(
    counts: NDArray[np.int64], classes: Sequence[str], path: Path, title: str
) -> None:
    """Rows are true classes, columns predicted ones; at the right the accuracy of each class.

    counts: (K, K). A cell's colour is its share of the row, on a square-root scale, so that rare
    confusions are seen; its number the count of samples or, where counts reach 10,000, the share in
    percent. No number: no sample. Raises OutputError.
    """
    size = len(classes)
    every = -(-size // MOST_NAMES)
    names = [style.readable(name, NAME_LENGTH) for name in classes]
    cell = float(np.clip(5.0 / size, 0.055, 0.75))  # inches
    side = cell * size
    longest = CHARACTER * max(map(len, names))
    level = longest < 0.9 * cell * every  # do names fit side by side below the matrix?
    left, bottom = 0.55 + longest, 0.5 + (0.15 if level else longest)
    width, height = max(left + side + 1.4, 5.0), bottom + side + 0.85

    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    in_percent = bool(counts.max() >= 10_000)
    with style.drawing(path, width, height, title) as figure:
        axes = style.panel(figure, left, bottom, side, side)
        # The darkest blues are left out: numbers and neighbours stay distinct in grey, too.
        axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.2, interpolation="nearest")
        axes.set_axis_off()
        _draw_names(axes, names[::every], every, 0.08 / cell, rotation=0 if level else 90)
        if size <= MOST_NUMBERS:
            _draw_numbers(axes, 100 * shares if in_percent else counts, shares, cell)
        _draw_accuracies(axes, counts, every, 1 / cell)

        what = "predicted class" + (" (numbers: % of the true class)" if in_percent else "")
        figure.text((left + side / 2) / width, 0.12 / height, what, ha="center", va="bottom")
        middle = (bottom + side / 2) / height
        figure.text(0.12 / width, middle, "true class", rotation=90, va="center")


def _draw_names(axes: Axes, names: list[str], every: int, gap: float, rotation: int) -> None:
    """Left of the rows and below the columns, one name ``every`` so many; gap: in cells."""
    low, high = axes.get_xlim()
    for k, name in enumerate(names):
        axes.text(low - gap, every * k, name, ha="right", va="center", fontsize=9)
        axes.text(every * k, high + gap, name, ha="center", va="top", fontsize=9, rotation=rotation)


def _draw_numbers(
    axes: Axes, numbers: NDArray[np.number], shares: NDArray[np.float64], cell: float
) -> None:
    """The numbers that are not zero, in white on dark cells.

    A text in each of 400 cells takes matplotlib half a second. So each digit's outline is made once
    and drawn as the marker of a scatter plot, wherever that digit stands.
    """
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    points = min(9.0, 21 * cell)  # font size, for four digits a cell
    advance, height = 0.636, 0.73  # of a digit of DejaVu Sans, in font sizes
    places: dict[str, list[tuple[float, int, str]]] = {}
    for row, column in zip(*np.nonzero(numbers), strict=True):
        text = f"{numbers[row, column]:.0f}"
        colour = "white" if shares[row, column] > 0.35 else style.INK
        for k, character in enumerate(text):
            x = column + (k - (len(text) - 1) / 2) * advance * points / 72 / cell
            places.setdefault(character, []).append((x, row, colour))
    for character, where in places.items():
        outline = TextPath((0, 0), character, size=1)
        vertices = outline.vertices - (advance / 2, height / 2)
        x, y, colours = zip(*where, strict=True)
        area = (2 * np.abs(vertices).max() * points) ** 2
        glyph = Outline(vertices, outline.codes)
        axes.scatter(x, y, area, colours, marker=glyph, linewidths=0, label=character)


def _draw_accuracies(axes: Axes, counts: NDArray[np.int64], every: int, inch: float) -> None:
    """A bar and a number at the end of each row, and of all; "n/a" for a class without samples."""
    totals = counts.sum(axis=1)
    accuracies = counts.diagonal() / np.maximum(totals, 1)
    size = len(totals)
    start = size - 0.5 + 0.15 * inch
    rows = np.arange(size)
    thickness = 72 * min(0.7 / inch, 0.2)
    for ends, colour in ((np.ones(size), style.GRID), (accuracies, style.GREEN)):
        stop = start + BAR * inch * ends
        axes.hlines(rows, start, stop, colour, linewidth=thickness, clip_on=False)
    after = start + (BAR + 0.08) * inch
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

"""Layout of the figures of a sweep: title, content, legend table and footnote, all in inches.

matplotlib's legends have one text per line. The legends here are tables with a column for each key,
so that the values of many keys can be compared.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT, COLUMN_GAP, SAMPLE_WIDTH = 0.215, 0.2, 0.5
"""Sizes of tables in inches. A sample is the short piece of a line in a legend."""

TABLE_POINTS, NOTE_POINTS = 9.0, 8.5
BOLD_WIDTH = 1.1
"""Width of bold letters relative to regular ones."""

MAX_LEGEND_WIDTH = 3.4
"""In inches. A wider legend is drawn below the panels instead of to their right."""

NOTE_LINE_HEIGHT = 0.17
UNNAMED_COLOUR = "#B0B0B0"
"""Colour of lines without a row in the legend."""


@dataclass(frozen=True)
class SettingTable:
    """A table of texts under a header, in which the best rows are bold."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[bool, ...]

    def widths(self) -> list[float]:
        """Return the width of each column in inches."""
        points = TABLE_POINTS * (BOLD_WIDTH if any(self.bold) else 1)
        columns = zip(self.header, *self.rows, strict=True)
        return [style.text_width(column, points) + COLUMN_GAP for column in columns]

    def width(self) -> float:
        """Return the width of all columns in inches."""
        return sum(self.widths()) - COLUMN_GAP if self.header else 0.0

    def draw(self, figure: Figure, left: float, top: float, row_height: float = ROW_HEIGHT) -> None:
        """Draw the table. ``top`` is the middle of the header; all sizes are in inches."""
        starts = [left + sum(self.widths()[:k]) for k in range(len(self.header))]
        for x, text in zip(starts, self.header, strict=True):
            _draw_text(figure, x, top, text, color=style.FAINT)
        for number, (cells, is_bold) in enumerate(zip(self.rows, self.bold, strict=True), start=1):
            for x, text in zip(starts, cells, strict=True):
                weight = "bold" if is_bold else "normal"
                _draw_text(figure, x, top - number * row_height, text, weight=weight)


@dataclass(frozen=True)
class Legend:
    """A table with a short sample of the line before each row.

    Attributes:
        table: A row for each line.
        line_styles: Keyword arguments of matplotlib's Line2D for each line.
        unnamed: Text of the last row, for all lines without their own row; empty for none.
    """

    table: SettingTable
    line_styles: Sequence[Mapping[str, Any]]
    unnamed: str = ""

    @property
    def width(self) -> float:
        """Width of the samples and the table, in inches."""
        return self.table.width() + SAMPLE_WIDTH

    @property
    def height(self) -> float:
        """Distance from the middle of the header to below the last row, in inches."""
        return ROW_HEIGHT * (len(self.table.rows) + bool(self.unnamed) + 0.7)

    def draw(self, figure: Figure, left: float, top: float) -> None:
        """Draw the legend. ``top`` is the middle of the header; both are in inches."""
        from matplotlib.lines import Line2D

        across, up = figure.get_size_inches()
        self.table.draw(figure, left + SAMPLE_WIDTH, top)
        samples = [dict(line_style) for line_style in self.line_styles]
        if self.unnamed:
            samples.append({"color": UNNAMED_COLOUR, "linewidth": 1.0})
            y = top - len(samples) * ROW_HEIGHT
            _draw_text(figure, left + SAMPLE_WIDTH, y, self.unnamed, color=style.FAINT)
        for number, sample in enumerate(samples, start=1):
            y = (top - number * ROW_HEIGHT) / up
            ends = [(left + x) / across for x in (0.0, 0.2, 0.4)]
            figure.add_artist(Line2D(ends, [y] * 3, markersize=5, markevery=[1], **sample))


@dataclass(frozen=True)
class Margins:
    """Inches between the content and the title, the footnote, the legend or the edge."""

    left: float = 0.88
    right: float = 0.25
    top: float = 0.6
    bottom: float = 0.6


@dataclass(frozen=True)
class Content:
    """The part of a figure between title, legend and footnote. Positions are relative to it."""

    figure: Figure
    left: float
    bottom: float

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return new axes. Arguments are in inches, from the lower left corner of the content."""
        return style.panel(self.figure, self.left + x, self.bottom + y, width, height)

    def text(self, x: float, y: float, text: str, rotation: int = 0) -> None:
        """Draw a centred text. The position is in inches."""
        form = {"ha": "center", "color": style.INK, "rotation": rotation}
        _draw_text(self.figure, self.left + x, self.bottom + y, text, 10, **form)


@contextmanager
def sweep_figure(
    paths: Sequence[Path],
    title: str,
    note: str,
    size: tuple[float, float],
    margins: Margins = Margins(),  # immutable, so that it can be a default
    legend: Legend | None = None,
) -> Iterator[Content]:
    """Create a figure, let the caller draw its content, and write it to files.

    Args:
        paths: The files, .png or .svg.
        title: Text above the content.
        note: Footnote; wrapped at the width of the figure.
        size: Width and height of the content in inches.
        margins: Space around the content.
        legend: Drawn to the right of the content, or below it if it is wide.
    """
    width, below = margins.left + size[0] + margins.right, 0.0
    is_beside = legend is not None and legend.width <= MAX_LEGEND_WIDTH
    if legend is not None and is_beside:
        width += legend.width + 0.15
    elif legend is not None:
        width, below = max(width, legend.width + 0.7), legend.height + 0.1
    width = max(width, style.title_width(title))
    lines = _wrapped(note, width)
    bottom = 0.18 + NOTE_LINE_HEIGHT * len(lines) + below + margins.bottom
    with style.drawing(paths, width, bottom + size[1] + margins.top, title) as figure:
        yield Content(figure, margins.left, bottom)
        if legend is not None and is_beside:
            right = margins.left + size[0] + margins.right
            legend.draw(figure, right - 0.05, bottom + size[1] - 0.1)
        elif legend is not None:
            legend.draw(figure, 0.35, bottom - margins.bottom - 0.1)
        for number, line in enumerate(reversed(lines)):
            y = 0.12 + NOTE_LINE_HEIGHT * number
            _draw_text(figure, 0.15, y, line, NOTE_POINTS, color=style.FAINT, va="baseline")


def _wrapped(note: str, width: float) -> list[str]:
    """Return the lines of a footnote in a figure of this width in inches."""
    letter = style.text_width("x", 0.9 * NOTE_POINTS)
    return textwrap.wrap(note, max(30, int((width - 0.3) / letter)))


def _draw_text(
    figure: Figure, x: float, y: float, text: str, points: float = TABLE_POINTS, **options: Any
) -> None:
    across, up = figure.get_size_inches()
    figure.text(x / across, y / up, text, fontsize=points, **{"va": "center", **options})

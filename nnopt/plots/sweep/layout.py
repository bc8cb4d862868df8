"""Layout of the figures of a sweep: title, content, legend table and footnote, all in inches.

matplotlib's legends have one text per line. The legends here are tables with a column for each key,
so that the values of many keys can be compared.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt.plots import style
from nnopt.plots.sweep.labels import line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches:
ROW_HEIGHT, COLUMN_GAP, SAMPLE_WIDTH = 0.215, 0.2, 0.5  # a sample is a piece of a line in a legend
MAX_LEGEND_WIDTH = 3.4  # a wider legend is drawn below the panels instead of to their right
NOTE_LINE_HEIGHT = 0.17

TABLE_POINTS, NOTE_POINTS = 9.0, 8.5
BOLD_WIDTH = 1.1  # width of bold letters relative to regular letters
UNNAMED_COLOUR = "#B0B0B0"  # colour of lines without a row in the legend


@dataclass(frozen=True)
class SettingTable:
    """A table of texts under a header, in which the best rows are bold."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[bool, ...]

    def widths(self) -> list[float]:
        """Return the width of each column in inches, with the gap to the next."""
        points = TABLE_POINTS * (BOLD_WIDTH if any(self.bold) else 1)
        columns = zip(self.header, *self.rows, strict=True)
        return [style.text_width(column, points) + COLUMN_GAP for column in columns]

    def width(self) -> float:
        """Return the width of all columns in inches."""
        return sum(self.widths()) - COLUMN_GAP if self.header else 0.0

    def draw(self, figure: Figure, left: float, top: float, row_height: float = ROW_HEIGHT) -> None:
        """Draw the table. ``top`` is the y coordinate of the header's middle, in inches."""
        for k, (header, width) in enumerate(zip(self.header, self.widths(), strict=True)):
            _draw_text(figure, left, top, header, color=style.FAINT)
            for number, (cells, is_bold) in enumerate(zip(self.rows, self.bold, strict=True), 1):
                weight = "bold" if is_bold else "normal"
                _draw_text(figure, left, top - number * row_height, cells[k], weight=weight)
            left += width


@dataclass(frozen=True)
class Legend:
    """A table with a short sample of a line before each row.

    ``unnamed`` is the text of a last row for all lines without their own row. It may be empty.
    """

    table: SettingTable
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
        """Draw the legend. ``top`` is the y coordinate of the header's middle, in inches."""
        from matplotlib.lines import Line2D

        self.table.draw(figure, left + SAMPLE_WIDTH, top)
        samples = [line_style(index) for index in range(len(self.table.rows))]
        if self.unnamed:
            samples.append({"color": UNNAMED_COLOUR, "linewidth": 1.0})
            y = top - len(samples) * ROW_HEIGHT
            _draw_text(figure, left + SAMPLE_WIDTH, y, self.unnamed, color=style.FAINT)
        for number, sample in enumerate(samples, start=1):
            heights = [top - number * ROW_HEIGHT] * 3
            ends = [left, left + 0.2, left + 0.4]  # the marker is at the middle
            line = Line2D(ends, heights, markersize=5, markevery=[1], **sample)
            line.set_transform(figure.dpi_scale_trans)
            figure.add_artist(line)


@dataclass(frozen=True)
class Margins:
    """Inches between the content and the title, the footnote, the legend or the edge."""

    left: float = 0.88
    right: float = 0.25
    top: float = 0.6
    bottom: float = 0.6


@dataclass(frozen=True)
class Content:
    """The space between title, legend and footnote. Its lower left corner is the origin."""

    figure: Figure
    left: float
    bottom: float

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return new axes. The arguments are the position and size of their frame, in inches."""
        return style.panel(self.figure, self.left + x, self.bottom + y, width, height)

    def text(self, x: float, y: float, text: str, rotation: int = 0) -> None:
        """Draw a centred text. The position is in inches."""
        form = {"fontsize": 10, "ha": "center", "rotation": rotation}
        _draw_text(self.figure, self.left + x, self.bottom + y, text, **form)


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

    ``size`` is the width and height of the content in inches. The footnote is wrapped at the width
    of the figure. The legend is to the right of the content. A wide legend is below the content.
    """
    right, below = margins.left + size[0] + margins.right, 0.0
    width = right
    is_beside = legend is not None and legend.width <= MAX_LEGEND_WIDTH
    if legend is not None:
        width = right + legend.width + 0.15 if is_beside else max(right, legend.width + 0.7)
        below = 0.0 if is_beside else legend.height + 0.1
    width = max(width, (len(title) + 1) / style.CHARACTERS_PER_INCH)  # wide enough for the title
    letter = style.text_width("x", 0.9 * NOTE_POINTS)
    lines = textwrap.wrap(note, max(30, int((width - 0.3) / letter)))
    bottom = 0.18 + NOTE_LINE_HEIGHT * len(lines) + below + margins.bottom
    with style.drawing(paths, width, bottom + size[1] + margins.top, title) as figure:
        yield Content(figure, margins.left, bottom)
        if legend is not None and is_beside:
            legend.draw(figure, right - 0.05, bottom + size[1] - 0.1)
        elif legend is not None:
            legend.draw(figure, 0.35, bottom - margins.bottom - 0.1)
        for number, line in enumerate(reversed(lines)):
            y = 0.12 + NOTE_LINE_HEIGHT * number
            form = {"fontsize": NOTE_POINTS, "color": style.FAINT, "va": "baseline"}
            _draw_text(figure, 0.15, y, line, **form)


def _draw_text(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    style.write(figure, x, y, text, **{"va": "center", "fontsize": TABLE_POINTS, **options})

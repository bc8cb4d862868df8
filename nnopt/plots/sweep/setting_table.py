"""A table of settings beside or below a picture: its legend, or the words of its rows.

matplotlib's legends have one text a line. Here each key has a column of its own, so that the values
of many keys can be read down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP, GAP, SAMPLE = 0.215, 0.2, 0.5  # inches: from row to row; between columns; a line's sample
POINTS = 9.0
BOLD = 1.1  # of bold letters: their width over that of others


@dataclass(frozen=True)
class SettingTable:
    """Texts in rows under a header; bold rows stand out."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[bool, ...] = ()

    def widths(self) -> list[float]:
        """Inches of each column."""
        points = BOLD * POINTS if any(self.bold) else POINTS
        columns = zip(self.header, *self.rows, strict=True)
        return [style.text_width(column, points) + GAP for column in columns]

    def width(self) -> float:
        """Inches of all columns, without samples of lines."""
        return sum(self.widths()) - GAP if self.header else 0.0


def draw_table(
    figure: Figure, table: SettingTable, left: float, top: float, step: float = STEP
) -> None:
    """The header's middle lies at ``top`` inches, each row so many inches (``step``) lower."""
    across, up = figure.get_size_inches()
    starts = [left + sum(table.widths()[:k]) for k in range(len(table.header))]
    bold = table.bold or (False,) * len(table.rows)
    for x, text in zip(starts, table.header, strict=True):
        figure.text(x / across, top / up, text, fontsize=POINTS, color=style.FAINT, va="center")
    for number, (cells, stands_out) in enumerate(zip(table.rows, bold, strict=True), start=1):
        weight = "bold" if stands_out else "normal"
        y = (top - number * step) / up
        for x, text in zip(starts, cells, strict=True):
            figure.text(x / across, y, text, fontsize=POINTS, weight=weight, va="center")


def draw_legend(
    figure: Figure,
    table: SettingTable,
    looks: Sequence[Mapping[str, Any]],
    left: float,
    top: float,
    rest: str = "",
    rest_colour: str = style.GRID,
) -> None:
    """The table with a sample of each row's line before it, and one more for the ``rest``."""
    from matplotlib.lines import Line2D

    across, up = figure.get_size_inches()
    draw_table(figure, table, left + SAMPLE, top)
    samples = [dict(style_of_line) for style_of_line in looks]
    if rest:
        samples.append({"color": rest_colour, "linewidth": 1.0})
        y = (top - len(samples) * STEP) / up
        x = (left + SAMPLE) / across
        figure.text(x, y, rest, fontsize=POINTS, color=style.FAINT, va="center")
    for number, sample in enumerate(samples, start=1):
        y = (top - number * STEP) / up
        ends = [(left + x) / across for x in (0.0, 0.2, 0.4)]
        figure.add_artist(Line2D(ends, [y] * 3, markersize=5, markevery=[1], **sample))


def legend_height(rows: int, rest: bool) -> float:
    """Inches from the middle of the header to below the last row."""
    return STEP * (rows + rest + 0.7)

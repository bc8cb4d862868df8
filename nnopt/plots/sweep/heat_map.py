"""Two numeric keys against the result: a cell for each pair of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.tabulate import counted
from nnopt.plots import style
from nnopt.plots.sweep.colours import colour_bar, colour_scale, is_dark
from nnopt.plots.sweep.facets import Facet, facets_of, numeric_values, rows_with
from nnopt.plots.sweep.labels import (
    Metric,
    capital,
    draw_footnote,
    footnote_height,
    key_words,
    metric_of,
    seeds_words,
    value_word,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

CELL = (0.62, 0.4)  # inches, of several maps side by side
SMALLEST, LARGEST = (0.2, 0.28), (0.95, 0.7)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Where the maps lie, in inches. columns, lines: of maps; side: of one; step: from one to the
    next; left, under: room for the names of the values."""

    columns: int
    lines: int
    cell: tuple[float, float]
    side: tuple[float, float]
    step: tuple[float, float]
    left: float
    under: float
    is_turned: bool

    @property
    def panels(self) -> tuple[float, float]:
        """Width and height of all maps."""
        return self.step[0] * self.columns - 0.3, self.step[1] * self.lines

    def corner(self, number: int) -> tuple[float, float]:
        """The lower left corner of a map, from that of them all."""
        line, column = divmod(number, self.columns)
        return column * self.step[0], (self.lines - 1 - line) * self.step[1]


def _layout(facets: int, across: Sequence[str], down: Sequence[str]) -> Layout:
    columns = min(facets, max(1, int(9 / (CELL[0] * len(across)))), 3)
    lines = -(-facets // columns)
    room = (8.0 if columns > 1 else 5.0, 2.4 if lines == 1 else 4.0)  # inches for all maps
    wide = float(np.clip(room[0] / (columns * len(across)), SMALLEST[0], LARGEST[0]))
    high = float(np.clip(room[1] / (lines * len(down)), SMALLEST[1], LARGEST[1]))
    side = (wide * len(across), high * len(down))
    is_turned = style.text_width(across) > 0.9 * wide
    return Layout(
        columns=columns,
        lines=lines,
        cell=(wide, high),
        side=side,
        step=(side[0] + 0.3, side[1] + (0.4 if facets > 1 else 0.1)),
        left=0.65 + style.text_width(down),
        under=0.25 + (style.text_width(across) if is_turned else 0.15),
        is_turned=is_turned,
    )


def plot_heat_map(comparison: Comparison, keys: tuple[str, str], paths: Sequence[Path]) -> None:
    """The mean of every pair of values, over seeds; a map for each setting of the other keys, or,
    where there are more than six of these, the mean over them. A frame marks the best cell, hatches
    those of which no run finished; what was not tried is blank.

    keys: across and down, as of ``heat_map_keys``. The colours' ends leave out values far worse
    than the others. Raises OutputError.
    """
    metric = metric_of(comparison)
    rows = rows_with(comparison, keys)
    others = [key for key in comparison.keys if key not in keys]
    facets = facets_of(rows, keys, others, metric)
    names = [_names(rows, key) for key in keys]
    layout = _layout(len(facets), *names)
    wide, high = layout.panels
    note = _note(facets, rows, comparison, others, metric)
    title = f"{capital(metric.words)} by {keys[0]} and {keys[1]}"
    width = max(layout.left + wide + 1.2, style.title_width(title))
    left, bottom = layout.left, 0.2 + layout.under + footnote_height(note, width)
    with style.drawing(paths, width, bottom + high + 0.55, title) as figure:
        norm, clipped = colour_scale([x for facet in facets for x in facet.means.ravel()], metric)
        for number, facet in enumerate(facets):
            x, y = layout.corner(number)
            axes = style.panel(figure, left + x, bottom + y, *layout.side)
            _draw(axes, facet, norm, metric, show_numbers=layout.cell[0] >= 0.45)
            is_lowest = number + layout.columns >= len(facets)
            rotation = 90 if layout.is_turned else 0
            axes.set_xticks(range(len(names[0])), names[0] if is_lowest else [""] * len(names[0]))
            axes.set_yticks(range(len(names[1])), names[1] if x == 0 else [""] * len(names[1]))
            axes.tick_params("x", rotation=rotation)
            axes.tick_params(length=0)
            caption = style.readable(facet.title, int(layout.step[0] / style.text_width("x", 8)))
            style.caption(figure, left + x, bottom + y + layout.side[1] - 0.02, caption)
        _label(figure, keys[0], (left + wide / 2, bottom - layout.under), rotation=0)
        _label(figure, keys[1], (0.2, bottom + high / 2), rotation=90)
        bar = (left + wide + 0.25, bottom, 0.16, min(3.2, high - 0.1))
        colour_bar(figure, bar, norm, clipped, metric)
        draw_footnote(figure, note)


def _names(rows: Sequence[Row], key: str) -> list[str]:
    """The words of the values of a key, in their order."""
    words = {row.setting.values[key]: value_word(row, key) for row in rows}
    return [words[value] for value in numeric_values(rows, key)]


def _label(figure: Figure, text: str, place: tuple[float, float], rotation: int) -> None:
    across, up = figure.get_size_inches()
    figure.text(place[0] / across, place[1] / up, text, ha="center", va="center", rotation=rotation)


def _draw(axes: Axes, facet: Facet, norm: Normalize, metric: Metric, show_numbers: bool) -> None:
    from matplotlib.patches import Rectangle

    from nnopt.plots.sweep.colours import colours

    axes.imshow(
        np.ma.masked_invalid(facet.means),
        cmap=colours(metric),
        norm=norm,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
    )
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    for y, x in np.ndindex(facet.means.shape):
        value = facet.means[y, x]
        if facet.settings[y, x] and not facet.done[y, x]:
            box = Rectangle(
                (x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor=style.FAINT, hatch="////"
            )
            box.set_linewidth(0)
            axes.add_patch(box)
        if facet.is_best[y, x]:
            frame = Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False)
            frame.set(edgecolor=style.ORANGE, linewidth=2.5)
            axes.add_patch(frame)
        if not (show_numbers and facet.done[y, x]):
            continue
        text = f"{value:.1f}" if metric.factor == 100 else _three_digits(float(value))
        if facet.done[y, x] < facet.settings[y, x]:
            text += f"\n{facet.done[y, x]} of {facet.settings[y, x]}"
        weight = "bold" if facet.is_best[y, x] else "normal"
        colour = "white" if is_dark(float(norm(value)), metric) else style.INK
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=8,
            linespacing=1.0,
            color=colour,
            weight=weight,
        )


def _three_digits(value: float) -> str:
    """0.190, 12.3, 45678."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:#.3g}"


def _note(
    facets: Sequence[Facet],
    rows: Sequence[Row],
    comparison: Comparison,
    others: Sequence[str],
    metric: Metric,
) -> str:
    counts = [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]
    tried = [int(n) for facet in facets for n in facet.settings.ravel() if n]
    most = max(tried)
    text = seeds_words(counts)
    if most > 1:
        up_to = "up to " if min(tried) < most else ""
        text = (
            f"mean over {up_to}{most} settings of {', '.join(key_words(others))}; {text} a setting"
        )
    elif max(counts, default=0) > 1:
        text = f"mean over {text}"
    if metric.wanted is not None:
        text += "; darker is better"
    if any(facet.is_best.any() for facet in facets):
        text += "; frame: best"
    if any(((facet.done > 0) & (facet.done < facet.settings)).any() for facet in facets):
        text += "; 1 of 2: of so many settings those with a result"
    if any(((facet.settings > 0) & (facet.done == 0)).any() for facet in facets):
        text += "; hatched: no run finished"
    if any((facet.settings == 0).any() for facet in facets):
        text += "; blank: not tried"
    if left_out := len(comparison.rows) - len(rows):
        text += f"; {counted(left_out, 'setting')} without these keys left out"
    return text

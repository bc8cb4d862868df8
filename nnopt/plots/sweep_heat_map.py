"""Two numeric keys against the result: a cell for each pair of values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.sweep_colours import colour_bar, colour_scale, is_dark
from nnopt.plots.sweep_words import (
    Metric,
    capital,
    draw_footnote,
    footnote_height,
    key_words,
    metric_of,
    result_of,
    seeds_words,
    value_word,
    value_words,
)
from nnopt.results.collect import Value
from nnopt.sweep.comparison import Comparison, Row
from nnopt.sweep.settings import sort_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

FILLED = 0.6  # of the cells: with fewer, as in a random search, there is no map
MOST_VALUES = 30  # of each key
MOST_FACETS = 6  # maps for the values of the other keys; of more the mean is shown
CELL = (0.62, 0.4)  # inches, of several maps side by side
SMALLEST, LARGEST = (0.2, 0.28), (0.95, 0.7)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Facet:
    """A map. means (Y, X): NaN where no run finished; settings, done (Y, X): how many settings
    there are, and how many of them have a mean; is_best (Y, X)."""

    title: str
    means: Floats
    settings: NDArray[np.int64]
    done: NDArray[np.int64]
    is_best: NDArray[np.bool_]


def numeric_values(rows: Sequence[Row], key: str) -> list[Value]:
    """The values of a key in their order if they are numbers, at least two, or null; else none."""
    ordered = sorted(
        (row for row in rows if key in row.setting.values),
        key=lambda row: sort_key(row.setting, key),
    )
    values = list(dict.fromkeys(row.setting.values[key] for row in ordered))
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    known = all(x in numbers or x is None for x in values)
    return values if known and len(numbers) > 1 else []


def heat_map_keys(comparison: Comparison) -> tuple[str, str] | None:
    """The keys across and down: the pair of numeric keys with the most cells of those that are
    filled well enough; the learning rate first. None if there is no such pair."""
    values = {key: numeric_values(comparison.rows, key) for key in comparison.keys}
    numeric = [key for key, found in values.items() if 2 <= len(found) <= MOST_VALUES]
    best: tuple[tuple[bool, int], tuple[str, str]] | None = None
    for one, other in combinations(numeric, 2):
        pairs = {
            (row.setting.values[one], row.setting.values[other])
            for row in comparison.rows
            if one in row.setting.values and other in row.setting.values
        }
        cells = len(values[one]) * len(values[other])
        if len(pairs) < FILLED * cells:
            continue
        across, down = one, other
        if other == "optimizer.lr" or (
            one != "optimizer.lr" and len(values[other]) > len(values[one])
        ):
            across, down = other, one
        rank = ("optimizer.lr" in (one, other), cells)
        if best is None or rank > best[0]:
            best = rank, (across, down)
    return best[1] if best else None


def plot_heat_map(comparison: Comparison, keys: tuple[str, str], paths: Sequence[Path]) -> None:
    """The mean of every pair of values, over seeds; a map for each setting of the other keys, or,
    where there are more than six of these, the mean over them. A frame marks the best cell, hatches
    those of which no run finished; what was not tried is blank.

    keys: across and down. The colours' ends leave out values far worse than the others.
    Raises OutputError.
    """
    metric = metric_of(comparison)
    across, down = keys
    rows = [
        row
        for row in comparison.rows
        if across in row.setting.values and down in row.setting.values
    ]
    x, y = numeric_values(rows, across), numeric_values(rows, down)
    others = [key for key in comparison.keys if key not in keys]
    facets = _facets(rows, keys, others, metric)
    names = [_names(rows, key, values) for key, values in ((across, x), (down, y))]
    columns = min(len(facets), max(1, int(9 / (CELL[0] * len(x)))), 3)
    lines = -(-len(facets) // columns)
    room = (8.0 if columns > 1 else 5.0, 2.4 if lines == 1 else 4.0)  # inches for all maps
    cell = tuple(
        float(np.clip(inches / (count * len(found)), least, most))
        for inches, count, found, least, most in zip(
            room, (columns, lines), (x, y), SMALLEST, LARGEST, strict=True
        )
    )
    side = (cell[0] * len(x), cell[1] * len(y))
    left = 0.65 + style.text_width(names[1])
    turned = style.text_width(names[0]) > 0.9 * cell[0]
    under = 0.25 + (style.text_width(names[0]) if turned else 0.15)
    step = (side[0] + 0.3, side[1] + (0.4 if len(facets) > 1 else 0.1))
    panels = (step[0] * columns - 0.3, step[1] * lines)  # inches
    note = _note(facets, rows, comparison, others, metric)
    title = f"{capital(metric.words)} by {across} and {down}"
    width = max(left + panels[0] + 1.2, 0.3 + len(title) / style.CHARACTERS_PER_INCH)
    bottom = 0.2 + under + footnote_height(note, width)
    with style.drawing(paths, width, bottom + panels[1] + 0.55, title) as figure:
        norm, clipped = colour_scale([x for facet in facets for x in facet.means.ravel()], metric)
        for number, facet in enumerate(facets):
            row, column = divmod(number, columns)
            corner = (left + column * step[0], bottom + (lines - 1 - row) * step[1])
            axes = style.panel(figure, *corner, *side)
            _draw(axes, facet, norm, metric, show_numbers=cell[0] >= 0.45)
            is_lowest = number + columns >= len(facets)
            _name_axes(axes, names[0] if is_lowest else [], names[1] if column == 0 else [], turned)
            if facet.title:
                style.caption(figure, corner[0], corner[1] + side[1] - 0.02, facet.title)
        _label(figure, across, (left + panels[0] / 2, bottom - under), rotation=0)
        _label(figure, down, (0.2, bottom + panels[1] / 2), rotation=90)
        bar = (left + panels[0] + 0.25, bottom, 0.16, min(3.2, panels[1] - 0.1))
        colour_bar(figure, bar, norm, clipped, metric)
        draw_footnote(figure, note)


def _names(rows: Sequence[Row], key: str, values: Sequence[Value]) -> list[str]:
    """The words of the values of a key, in their order."""
    words = {row.setting.values[key]: value_word(row, key) for row in rows}
    return [words[value] for value in values]


def _label(figure: Figure, text: str, place: tuple[float, float], rotation: int) -> None:
    across, up = figure.get_size_inches()
    figure.text(place[0] / across, place[1] / up, text, ha="center", va="center", rotation=rotation)


def _facets(
    rows: Sequence[Row], keys: tuple[str, str], others: Sequence[str], metric: Metric
) -> list[Facet]:
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(value_words(row, others), []).append(row)
    if len(groups) > MOST_FACETS:
        groups = {(): list(rows)}
    values = [numeric_values(rows, key) for key in keys]
    places = [{value: place for place, value in enumerate(found)} for found in values]
    names = key_words(others)
    facets = []
    for words, members in groups.items():
        title = ", ".join(f"{key}={value}" for key, value in zip(names, words, strict=bool(words)))
        facets.append(_facet(title, members, keys, places, metric))
    return facets


def _facet(
    title: str,
    rows: Sequence[Row],
    keys: tuple[str, str],
    places: Sequence[Mapping[Value, int]],
    metric: Metric,
) -> Facet:
    shape = (len(places[1]), len(places[0]))
    sums, settings, done = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    is_best = np.zeros(shape, np.bool_)
    for row in rows:
        cell = tuple(places[k][row.setting.values[keys[k]]] for k in (1, 0))
        settings[cell] += 1
        if (found := result_of(row, metric)) is not None:
            sums[cell] += found.mean
            done[cell] += 1
            is_best[cell] |= row.outcomes[0].is_best
    means = np.where(done > 0, sums / np.maximum(done, 1), np.nan)
    if settings.max() > 1:  # the best of the means is not the mean of the best
        record = {"higher": np.nanmax, "lower": np.nanmin}.get(metric.wanted or "")
        is_best = means == record(means) if record and done.any() else np.zeros(shape, np.bool_)
    return Facet(title, means, settings, done, is_best)


def _draw(axes: Axes, facet: Facet, norm: Normalize, metric: Metric, show_numbers: bool) -> None:
    from matplotlib.patches import Rectangle

    from nnopt.plots.sweep_colours import colours

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
        text = f"{value:.1f}" if metric.factor == 100 else f"{value:.3g}"
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


def _name_axes(axes: Axes, across: Sequence[str], down: Sequence[str], turned: bool) -> None:
    axes.set_xticks(range(len(across)), across, rotation=90 if turned else 0)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)


def _note(
    facets: Sequence[Facet],
    rows: Sequence[Row],
    comparison: Comparison,
    others: Sequence[str],
    metric: Metric,
) -> str:
    counts = [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]
    most = max(int(facet.settings.max()) for facet in facets)
    text = seeds_words(counts)
    if most > 1:
        text = f"mean over {most} settings of {', '.join(key_words(others))}; {text} a setting"
    elif max(counts, default=0) > 1:
        text = f"mean over {text}"
    if metric.wanted is not None:
        text += "; darker is better"
    if any(facet.is_best.any() for facet in facets):
        text += "; frame: best"
    if any(((facet.settings > 0) & (facet.done == 0)).any() for facet in facets):
        text += "; hatched: no run finished"
    if any((facet.settings == 0).any() for facet in facets):
        text += "; blank: not tried"
    if left_out := len(comparison.rows) - len(rows):
        text += f"; {left_out} settings without these keys left out"
    return text

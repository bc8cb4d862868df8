"""Many keys at once: an axis for each, a line for each setting, coloured by its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.sweep_colours import colour_scale, colours
from nnopt.plots.sweep_words import (
    Metric,
    best_first,
    metric_of,
    result_of,
    seeds_words,
)
from nnopt.results.collect import Value
from nnopt.sweep.comparison import Comparison, Row
from nnopt.sweep.settings import sort_key
from nnopt.sweep.tabulate import short_text, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST_KEYS, FEWEST_SETTINGS = 3, 5  # for fewer the other pictures tell all
MOST_KEYS = 9
MOST_STEPS = 8  # values that have a place each; more numbers share a scale
LONGEST = 14  # characters of a value
STRONG = 3  # of the best settings are drawn strongly
BOTTOM, HEIGHT = 0.95, 3.3  # inches
STEP = 1.35  # inches from axis to axis
LOST = -0.16  # where the lines of settings without a result end

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """An axis: the height of every row from 0 to 1, and what stands beside some heights. steps:
    does every value have a place of its own?"""

    name: str
    heights: Floats
    ticks: tuple[tuple[float, str], ...]
    steps: bool


def plot_parallel(comparison: Comparison, paths: Sequence[Path]) -> None:
    """An axis for each key and one for the result at the right; each setting is a line through its
    values, the darker the better, the best three of them broad. Lines that share a value fan out a
    little, the better ones above. Settings without a result are dotted and end below the last axis.

    Of more than nine keys, those are drawn of which the values tell most about the result.
    Raises OutputError.
    """
    metric = metric_of(comparison)
    rows = list(reversed(best_first(comparison.rows, metric)))  # the best are drawn last
    keys = _telling_keys(comparison, rows, metric)
    scales = [key_scale(rows, key) for key in keys]
    results = [result_of(row, metric) for row in rows]
    means = np.array([np.nan if found is None else found.mean for found in results])
    width = 0.9 + STEP * len(keys) + 0.9
    height = BOTTOM + HEIGHT + 0.95
    title = f"{metric.words[:1].upper()}{metric.words[1:]} of {len(rows)} settings"
    with style.drawing(paths, width, height, title) as figure:
        axes = style.panel(figure, 0.9, BOTTOM, STEP * len(keys), HEIGHT)
        axes.set_xlim(0, len(keys))
        axes.set_ylim(0, 1)
        axes.axis("off")
        last = _metric_scale(means, metric)
        _draw_lines(axes, scales, last, means, metric)
        for place, scale in enumerate([*scales, last]):
            _draw_axis(axes, place, scale, is_metric=scale is last)
        if np.isnan(means).any():
            axes.text(len(keys) + 0.06, LOST, "no result", va="center", fontsize=8.5)
        _note(figure, comparison, rows, keys, metric)


def _telling_keys(comparison: Comparison, rows: Sequence[Row], metric: Metric) -> list[str]:
    """All keys in their order; of too many those that tell most: the share of the variance of the
    results that lies between the means of a key's values, for its many values fairly reduced."""
    keys = list(comparison.keys)
    if len(keys) <= MOST_KEYS:
        return keys
    done = [row for row in rows if result_of(row, metric) is not None]
    results = np.array([row.outcomes[0].estimate.mean for row in done if row.outcomes[0].estimate])

    def told(key: str) -> float:
        groups: dict[str | None, list[float]] = {}
        for row, result in zip(done, results, strict=True):
            groups.setdefault(value_of(row.setting, key), []).append(float(result))
        if len(groups) < 2 or len(groups) >= len(done):
            return 0.0
        within = sum(len(x) * np.var(x) for x in groups.values()) / (len(done) - len(groups))
        return float(results.var() * len(done) / max(1, len(done) - 1) - within)

    chosen = set(sorted(keys, key=told, reverse=True)[:MOST_KEYS])
    return [key for key in keys if key in chosen]


def key_scale(rows: Sequence[Row], key: str) -> Scale:
    """The places of a key's values: evenly spaced in their order, or, for many numbers, to scale,
    logarithmic if they are positive and span two decades."""
    ordered = sorted(rows, key=lambda row: sort_key(row.setting, key))
    texts = list(dict.fromkeys(value_of(row.setting, key) for row in ordered))
    values: list[Value] = [row.setting.values.get(key) for row in rows]
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(texts) > MOST_STEPS and len(numbers) == len(rows):
        return _number_scale(key, np.array(numbers, dtype=np.float64))
    place = {text: (k + 0.5) / len(texts) for k, text in enumerate(texts)}
    every = -(-len(texts) // 20)  # of very many only some are named
    return Scale(
        name=key,
        heights=np.array([place[value_of(row.setting, key)] for row in rows]),
        ticks=tuple((place[text], short_text(text, LONGEST)) for text in texts[::every]),
        steps=True,
    )


def _number_scale(
    name: str,
    numbers: Floats,
    low: float | None = None,
    high: float | None = None,
    logarithmic: bool | None = None,
) -> Scale:
    from matplotlib.ticker import MaxNLocator

    finite = numbers[np.isfinite(numbers)]
    low = float(finite.min()) if low is None else low
    high = float(finite.max()) if high is None else high
    if logarithmic is None:
        logarithmic = bool((finite > 0).all()) and style.spans_decades(finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if logarithmic:
        locator, formatter = style.log_ticks(low, high)
        found = locator.tick_values(low, high)
        texts = [formatter(x) for x in found]
    else:
        found = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        texts = [f"{x:.10g}".replace("-", "−") for x in found]
    place = (
        (lambda x: np.log(x / low) / np.log(high / low))
        if logarithmic
        else (lambda x: (x - low) / (high - low))
    )
    ticks = [(float(place(x)), text) for x, text in zip(found, texts, strict=True)]
    inside = tuple((y, text) for y, text in ticks if -0.001 <= y <= 1.001)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Scale(name, np.clip(place(numbers), 0, 1), inside, steps=False)


def _metric_scale(means: Floats, metric: Metric) -> Scale:
    """As ``colour_scale``; the better end is above."""
    from matplotlib.colors import LogNorm

    norm, _ = colour_scale(means.tolist(), metric)
    scale = _number_scale(metric.label, means, norm.vmin, norm.vmax, isinstance(norm, LogNorm))
    if metric.wanted != "lower":
        return scale
    ticks = tuple((1 - y, text) for y, text in scale.ticks)
    return Scale(scale.name, 1 - scale.heights, ticks, scale.steps)


def _fanned(scale: Scale) -> Floats:
    """The heights, those of one value spread a little in the order of the rows."""
    if not scale.steps:
        return scale.heights
    heights = scale.heights.copy()
    room = 0.55 / max(1, len(set(scale.heights.tolist())))
    for value in np.unique(heights):
        same = np.flatnonzero(scale.heights == value)
        if len(same) > 1:
            heights[same] += min(room, 0.012 * len(same)) * np.linspace(-0.5, 0.5, len(same))
    return heights


def _draw_lines(
    axes: Axes, scales: Sequence[Scale], last: Scale, means: Floats, metric: Metric
) -> None:
    from matplotlib.collections import LineCollection

    norm, _ = colour_scale(means.tolist(), metric)
    heights = np.column_stack(
        [*map(_fanned, scales), np.where(np.isnan(means), LOST, last.heights)]
    )
    # From axis to axis a smooth step, so that the eye can follow a line through a crowded place.
    part = np.linspace(0, 1, 16)
    ease = part**2 * (3 - 2 * part)
    steps = [
        a[:, None] + (b - a)[:, None] * ease for a, b in zip(heights.T, heights.T[1:], strict=False)
    ]
    x = np.concatenate([k + part for k in range(len(steps))])
    paths = [np.column_stack([x, y]) for y in np.concatenate(steps, axis=1)]
    done = ~np.isnan(means)
    lost = [path for path, is_done in zip(paths, done, strict=True) if not is_done]
    axes.add_collection(
        LineCollection(lost, colors=style.FAINT, linewidths=0.9, linestyles=":", clip_on=False)
    )
    shades = colours(metric)(norm(np.where(done, means, 0)))
    ranked = [k for k in range(len(paths)) if done[k]]  # from the worst to the best
    strong = ranked[-STRONG:] if metric.wanted else []
    weak = [k for k in ranked if k not in strong]
    thin = 1.3 if len(weak) <= 60 else 0.9
    axes.add_collection(
        LineCollection([paths[k] for k in weak], colors=shades[weak], linewidths=thin, alpha=0.85)
    )
    for k in strong:
        axes.plot(*paths[k].T, color="white", linewidth=5.0, solid_capstyle="butt", zorder=3)
        axes.plot(*paths[k].T, color=shades[k], linewidth=2.8, zorder=3, clip_on=False)


def _draw_axis(axes: Axes, place: int, scale: Scale, is_metric: bool) -> None:
    """A vertical line, its values with a white ground left of it, of the metric right of it."""
    axes.plot([place, place], [0, 1], color=style.INK, linewidth=1.2, zorder=4, clip_on=False)
    side, gap = ("left", 0.06) if is_metric else ("right", -0.06)
    for height, text in scale.ticks:
        axes.plot(
            [place, place + gap * 0.6],
            [height] * 2,
            color=style.INK,
            linewidth=1,
            zorder=4,
            clip_on=False,
        )
        axes.text(
            place + gap,
            height,
            style.readable(text),
            ha=side,
            va="center",
            fontsize=8.5,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )
    group, _, key = scale.name.rpartition(".")
    axes.text(
        place, 1.05, style.readable(key), ha="center", va="bottom", fontsize=9.5, weight="bold"
    )
    if group:
        axes.text(
            place,
            1.115,
            style.readable(group),
            ha="center",
            va="bottom",
            fontsize=8,
            color=style.FAINT,
        )


def _note(
    figure: Figure, comparison: Comparison, rows: Sequence[Row], keys: Sequence[str], metric: Metric
) -> None:
    counts = [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]
    text = f"mean over {seeds_words(counts)}" if max(counts, default=0) > 1 else seeds_words(counts)
    if metric.wanted:
        text += f"; darker is better; broad: the best {STRONG}"
    if left_out := [key for key in comparison.keys if key not in keys]:
        text += f"; left out: {', '.join(left_out)}"
    across, up = figure.get_size_inches()
    figure.text(0.15 / across, 0.15 / up, text, fontsize=8.5, color=style.FAINT)

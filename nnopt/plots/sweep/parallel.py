"""Many keys at once: an axis for each, a line for each setting, coloured by its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.settings import sort_key
from nnopt.analysis.tabulate import short_text, value_of
from nnopt.plots import style
from nnopt.plots.sweep.colours import colour_scale, colours
from nnopt.plots.sweep.labels import (
    Metric,
    best_first,
    capitalized,
    metric_of,
    result_of,
    seed_counts,
    seeds_label,
)
from nnopt.plots.sweep.layout import Margins, sweep_figure
from nnopt.results.collect import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_KEYS, MIN_SETTINGS = 3, 5  # fewer are clear from the other plots
MAX_KEYS = 12
MAX_EVEN_VALUES = 8  # that are evenly spaced; more numbers are drawn to scale
MAX_TICKS = 20  # of evenly spaced values
MAX_TICK_CHARACTERS = 14
BROAD_LINES = 3  # number of the best settings
HEIGHT, AXIS_DISTANCE = 3.3, 1.35  # inches
MISSING_HEIGHT = -0.16  # end of the lines of settings without a result

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """An axis: the height of every row from 0 to 1, and what stands beside some heights. over:
    what stands above the name; steps: does every value have a place of its own?"""

    over: str
    name: str
    heights: Floats
    ticks: tuple[tuple[float, str], ...]
    steps: bool


def plot_parallel(comparison: Comparison, paths: Sequence[Path]) -> None:
    """An axis for each key and one for the result at the right; each setting is a line through its
    values, the darker the better, the best three of them broad. Lines that share a value fan out a
    little, the better ones above. Settings without a result are dotted and end below the last axis.

    Of more than twelve keys the first are drawn. Raises OutputError.
    """
    metric = metric_of(comparison)
    rows = list(reversed(best_first(comparison.rows, metric)))  # the best are drawn last
    keys = comparison.keys[:MAX_KEYS]
    scales = [key_scale(rows, key) for key in keys]
    results = [result_of(row, metric) for row in rows]
    means = np.array([np.nan if found is None else found.mean for found in results])
    note = _note(comparison, rows, keys, metric)
    title = f"{capitalized(metric.name)} of {len(rows)} settings"
    size = (AXIS_DISTANCE * len(keys), HEIGHT)
    margins = Margins(0.9, right=1.0, top=0.95, bottom=0.7 if np.isnan(means).any() else 0.2)
    with sweep_figure(paths, title, note, size, margins) as content:
        axes = content.axes(0, 0, *size)
        axes.set_xlim(0, len(keys))
        axes.set_ylim(0, 1)
        axes.axis("off")
        last = _metric_scale(means, metric)
        _draw_lines(axes, scales, last, means, metric)
        for place, scale in enumerate(scales):
            _draw_axis(axes, place, scale)
        upwards = np.linspace(0, 1, 64) if metric.direction != "lower" else np.linspace(1, 0, 64)
        _draw_axis(axes, len(scales), last, colours(metric)(upwards))
        if np.isnan(means).any():
            axes.text(len(keys) + 0.06, MISSING_HEIGHT, "no result", va="center", fontsize=8.5)


def key_scale(rows: Sequence[Row], key: str) -> Scale:
    """The places of a key's values: evenly spaced in their order; of many numbers, to scale."""
    group, _, name = key.rpartition(".")
    ordered = sorted(rows, key=lambda row: sort_key(row.setting, key))
    texts = list(dict.fromkeys(value_of(row.setting, key) for row in ordered))
    values: list[Value] = [row.setting.values.get(key) for row in rows]
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(texts) > MAX_EVEN_VALUES and len(numbers) == len(rows):
        x = np.array(numbers, dtype=np.float64)
        ends = (float(x.min()), float(x.max()))
        return _number_scale((group, name), x, ends, _is_even_on_logarithms(x))
    place = {text: (k + 0.5) / len(texts) for k, text in enumerate(texts)}
    every = -(-len(texts) // MAX_TICKS)
    return Scale(
        over=group,
        name=name,
        heights=np.array([place[value_of(row.setting, key)] for row in rows]),
        ticks=tuple(
            (place[text], short_text(text, MAX_TICK_CHARACTERS)) for text in texts[::every]
        ),
        steps=True,
    )


def _number_scale(
    names: tuple[str, str], numbers: Floats, ends: tuple[float, float], logarithmic: bool
) -> Scale:
    """An axis to scale, between these ends; numbers beyond them stand there.

    names: what stands over the axis' name, and that."""
    from matplotlib.ticker import MaxNLocator

    def place(x: Floats) -> Floats:
        if logarithmic:
            return np.asarray(np.log(x / low) / np.log(high / low))
        return (x - low) / (high - low)

    low, high = ends
    if logarithmic:
        locator, formatter = style.log_ticks(low, high)
        found = np.asarray(locator.tick_values(low, high))
        texts = [formatter(x) for x in found]
    else:
        found = np.asarray(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        texts = [f"{x:.10g}".replace("-", "−") for x in found]
    ticks = zip(place(found).tolist(), texts, strict=True)
    inside = tuple((y, text) for y, text in ticks if -0.001 <= y <= 1.001)
    return Scale(*names, np.clip(place(numbers), 0, 1), inside, steps=False)


def _is_even_on_logarithms(numbers: Floats) -> bool:
    """Do the numbers, all positive and over a decade, lie more evenly on a logarithmic scale, as
    those of a search over magnitudes do? Their median says so: it is nearer to the middle there."""
    if numbers.min() <= 0 or not style.spans_decades(numbers, 1):
        return False

    def off_centre(x: Floats) -> float:
        return float(abs((np.median(x) - x.min()) / (x.max() - x.min()) - 0.5))

    return off_centre(np.log(numbers)) < off_centre(numbers)


def _metric_scale(means: Floats, metric: Metric) -> Scale:
    """As ``colour_scale``; the better end is above."""
    from matplotlib.colors import LogNorm

    norm, _ = colour_scale(means.tolist(), metric)
    ends = (float(norm.vmin or 0), float(norm.vmax or 0))
    names = (metric.unit, metric.name)
    scale = _number_scale(names, means, ends, isinstance(norm, LogNorm))
    if metric.direction != "lower":
        return scale
    ticks = tuple((1 - y, text) for y, text in scale.ticks)
    return replace(scale, heights=1 - scale.heights, ticks=ticks)


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
        [*map(_fanned, scales), np.where(np.isnan(means), MISSING_HEIGHT, last.heights)]
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
    strong = ranked[-BROAD_LINES:] if metric.direction else []
    weak = [k for k in ranked if k not in strong]
    thin = 1.3 if len(weak) <= 60 else 0.9
    axes.add_collection(
        LineCollection([paths[k] for k in weak], colors=shades[weak], linewidths=thin, alpha=0.85)
    )
    for k in strong:
        axes.plot(*paths[k].T, color="white", linewidth=5.0, solid_capstyle="butt", zorder=3)
        axes.plot(*paths[k].T, color=shades[k], linewidth=2.8, zorder=3, clip_on=False)


def _draw_axis(axes: Axes, place: int, scale: Scale, shades: Floats | None = None) -> None:
    """A vertical line, and its values on a white ground left of it. shades: of the axis of the
    metric, its colours (64, 4) from below, whose values stand right of it."""
    if shades is not None:
        from matplotlib.collections import LineCollection

        starts = np.linspace(0, 1, len(shades), endpoint=False)
        ends = np.minimum(starts + 2 / len(shades), 1)  # overlapping, so that no seam is seen
        parts = [((place, a), (place, b)) for a, b in zip(starts, ends, strict=True)]
        strip = LineCollection(parts, colors=shades, linewidths=7, capstyle="butt", zorder=4)
        axes.add_collection(strip)
        strip.set_clip_on(False)
    else:
        axes.plot([place, place], [0, 1], color=style.INK, linewidth=1.2, zorder=4, clip_on=False)
    side, gap = ("right", -0.06) if shades is None else ("left", 0.07)
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    for height, text in scale.ticks:
        tick = [place, place + 0.6 * gap]
        axes.plot(tick, [height] * 2, color=style.INK, linewidth=1, zorder=4, clip_on=False)
        axes.text(
            place + gap,
            height,
            style.readable(text),
            ha=side,
            va="center",
            fontsize=8.5,
            zorder=5,
            bbox=ground,
        )
    heading: dict[str, Any] = {"ha": "center", "va": "bottom"}
    axes.text(place, 1.05, style.readable(scale.name), fontsize=9.5, weight="bold", **heading)
    axes.text(place, 1.115, style.readable(scale.over), fontsize=8, color=style.FAINT, **heading)


def _note(comparison: Comparison, rows: Sequence[Row], keys: Sequence[str], metric: Metric) -> str:
    counts = seed_counts(rows)
    text = f"mean over {seeds_label(counts)}" if max(counts, default=0) > 1 else seeds_label(counts)
    if metric.direction:
        text += f"; darker is better; broad: the best {BROAD_LINES}"
    if left_out := [key for key in comparison.keys if key not in keys]:
        text += f"; left out: {', '.join(left_out)}"
    return text

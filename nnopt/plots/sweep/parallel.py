"""Parallel coordinates: an axis for each key, a line for each setting, coloured by its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.settings import sort_key
from nnopt.analysis.tabulate import short_text, value_of
from nnopt.plots import style
from nnopt.plots.style import Floats
from nnopt.plots.sweep.labels import footnote, over_seeds, seed_counts
from nnopt.plots.sweep.layout import Margins, sweep_figure
from nnopt.plots.sweep.metric import Metric, metric_of
from nnopt.results.collect import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_KEYS, MIN_SETTINGS = 3, 5  # with fewer keys or settings, the other plots suffice
MAX_KEYS = 12
MAX_EVEN_VALUES = 8  # up to 8 numbers are evenly spaced; more numbers are drawn to scale
MAX_TICKS = 20  # number of ticks of an axis with evenly spaced values
MAX_TICK_CHARACTERS = 14
BROAD_LINES = 3  # the number of best settings that have broad lines
HEIGHT, AXIS_DISTANCE = 3.3, 1.35  # inches
MISSING_HEIGHT = -0.16  # where lines of settings without a result end


@dataclass(frozen=True)
class Scale:
    """A vertical axis."""

    group: str  # small text above the name
    name: str
    heights: Floats  # (R,), height of each row's value, between 0 and 1
    ticks: list[tuple[float, str]]  # positions and texts
    is_even: bool  # whether the values are evenly spaced rather than to scale


def plot_parallel(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Draw an axis for each of the first 12 keys, an axis for the result, and a line per setting.

    Better settings have darker lines, and the best three have broad lines. Lines through the same
    value are spread a little, with better settings above. Lines of settings without a result are
    dotted and end below the last axis.
    """
    metric = metric_of(comparison)
    rows = sorted(comparison.rows, key=metric.rank)[::-1]  # the best are drawn last
    keys = comparison.keys[:MAX_KEYS]
    scales = [_key_scale(rows, key) for key in keys]
    results = [metric.result(row) for row in rows]
    means = np.array([np.nan if result is None else result.location for result in results])
    note = _note(comparison, rows, keys, metric)
    title = f"{metric.title} of {len(rows)} settings"
    size = (AXIS_DISTANCE * len(keys), HEIGHT)
    margins = Margins(0.9, right=1.0, top=0.95, bottom=0.7 if np.isnan(means).any() else 0.2)
    with sweep_figure(paths, title, note, size, margins) as content:
        axes = content.axes(0, 0, *size)
        axes.set(xlim=(0, len(keys)), ylim=(0, 1))
        axes.set_axis_off()
        last = _metric_scale(means, metric)
        _draw_lines(axes, scales, last, means, metric)
        for index, scale in enumerate(scales):
            _draw_axis(axes, index, scale)
        upwards = np.linspace(1, 0, 64) if metric.direction == "lower" else np.linspace(0, 1, 64)
        _draw_axis(axes, len(scales), last, metric.colours()(upwards))
        if np.isnan(means).any():
            axes.text(len(keys) + 0.06, MISSING_HEIGHT, "no result", va="center", fontsize=8.5)


def _key_scale(rows: Sequence[Row], key: str) -> Scale:
    """Return the axis of a key. More than 8 numbers are to scale, other values evenly spaced."""
    group, _, name = key.rpartition(".")
    ordered = sorted(rows, key=lambda row: sort_key(row.setting.values, key))
    texts = list(dict.fromkeys(value_of(row.setting, key) for row in ordered))
    values: list[Value] = [row.setting.values.get(key) for row in rows]
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(texts) > MAX_EVEN_VALUES and len(numbers) == len(rows):
        x = np.array(numbers, dtype=np.float64)
        ends = (float(x.min()), float(x.max()))
        return _number_scale((group, name), x, ends, _is_even_on_logarithms(x))
    height = {text: (k + 0.5) / len(texts) for k, text in enumerate(texts)}
    every = -(-len(texts) // MAX_TICKS)
    heights = np.array([height[value_of(row.setting, key)] for row in rows])
    ticks = [(height[text], short_text(text, MAX_TICK_CHARACTERS)) for text in texts[::every]]
    return Scale(group, name, heights, ticks, is_even=True)


def _number_scale(
    names: tuple[str, str], numbers: Floats, ends: tuple[float, float], logarithmic: bool
) -> Scale:
    """Return a linear or logarithmic axis. Numbers beyond its ``ends`` are moved to the ends."""
    low, high = ends

    def height(x: Floats) -> Floats:
        return np.log(x / low) / np.log(high / low) if logarithmic else (x - low) / (high - low)

    locator, formatter = style.log_ticks(low, high) if logarithmic else style.round_ticks()
    values = np.asarray(locator.tick_values(low, high))
    ticks = zip(height(values).tolist(), map(formatter, values), strict=True)
    inside = [(y, text) for y, text in ticks if -0.001 <= y <= 1.001]
    return Scale(*names, np.clip(height(numbers), 0, 1), inside, is_even=False)


def _is_even_on_logarithms(numbers: Floats) -> bool:
    """Return whether numbers are more evenly spaced on a logarithmic scale.

    All numbers must be positive and span a decade, and the median must be closer to the middle on
    the logarithmic scale than on the linear scale.
    """
    if numbers.min() <= 0 or not style.spans_decades(numbers, 1):
        return False

    def off_centre(x: Floats) -> float:
        return float(abs((np.median(x) - x.min()) / (x.max() - x.min()) - 0.5))

    return off_centre(np.log(numbers)) < off_centre(numbers)


def _metric_scale(means: Floats, metric: Metric) -> Scale:
    """Return the axis of the metric, with the limits of ``colour_scale`` and the best on top."""
    from matplotlib.colors import LogNorm

    norm, _ = metric.colour_scale(means.tolist())
    ends = (float(norm.vmin or 0), float(norm.vmax or 0))
    names = (metric.unit, metric.name)
    scale = _number_scale(names, means, ends, isinstance(norm, LogNorm))
    if metric.direction != "lower":
        return scale
    ticks = [(1 - y, text) for y, text in scale.ticks]
    return replace(scale, heights=1 - scale.heights, ticks=ticks)


def _spread_out(scale: Scale) -> Floats:
    """Return the heights on an axis. If ``scale.is_even``, spread equal heights in row order."""
    if not scale.is_even:
        return scale.heights
    heights = scale.heights.copy()
    max_spread = 0.55 / max(1, len(set(scale.heights.tolist())))
    for value in np.unique(heights):
        same = np.flatnonzero(scale.heights == value)
        if len(same) > 1:
            heights[same] += min(max_spread, 0.012 * len(same)) * np.linspace(-0.5, 0.5, len(same))
    return heights


def _draw_lines(
    axes: Axes, scales: Sequence[Scale], last: Scale, means: Floats, metric: Metric
) -> None:
    from matplotlib.collections import LineCollection

    norm, _ = metric.colour_scale(means.tolist())
    done = ~np.isnan(means)
    ends = np.where(done, last.heights, MISSING_HEIGHT)
    heights = np.stack([*map(_spread_out, scales), ends])
    # Smooth curves are easier to follow through crowded regions than straight lines.
    fraction = np.linspace(0, 1, 16)
    ease = fraction**2 * (3 - 2 * fraction)
    steps = [a[:, None] + (b - a)[:, None] * ease for a, b in pairwise(heights)]
    x = np.concatenate([k + fraction for k in range(len(steps))])
    paths = [np.column_stack([x, y]) for y in np.concatenate(steps, axis=1)]
    missing = [paths[k] for k in np.flatnonzero(~done)]
    form: dict[str, Any] = {"linewidths": 0.9, "linestyles": ":", "clip_on": False}
    axes.add_collection(LineCollection(missing, colors=style.FAINT, **form))
    shades = metric.colours()(norm(np.where(done, means, 0)))
    ranked = np.flatnonzero(done).tolist()  # from the worst to the best
    broad = ranked[-BROAD_LINES:] if metric.direction else []
    thin = [k for k in ranked if k not in broad]
    form = {"linewidths": 1.3 if len(thin) <= 60 else 0.9, "alpha": 0.85}
    axes.add_collection(LineCollection([paths[k] for k in thin], colors=shades[thin], **form))
    for k in broad:
        axes.plot(*paths[k].T, color="white", linewidth=5.0, solid_capstyle="butt", zorder=3)
        axes.plot(*paths[k].T, color=shades[k], linewidth=2.8, zorder=3, clip_on=False)


def _draw_axis(axes: Axes, x: int, scale: Scale, shades: Floats | None = None) -> None:
    """Draw a vertical axis at ``x``, with ticks on the left, or on the right if it has ``shades``.

    ``shades`` (64, 4) are the colours of the axis of the metric. Other axes have none.
    """
    if shades is not None:
        from matplotlib.collections import LineCollection

        starts = np.linspace(0, 1, len(shades), endpoint=False)
        # The coloured segments overlap, so that no seams are visible.
        parts = [((x, y), (x, min(y + 2 / len(shades), 1))) for y in starts]
        form: dict[str, Any] = {"linewidths": 7, "capstyle": "butt", "zorder": 4}
        strip = LineCollection(parts, colors=shades, **form)
        axes.add_collection(strip)
        strip.set_clip_on(False)
    else:
        axes.plot([x, x], [0, 1], color=style.INK, linewidth=1.2, zorder=4, clip_on=False)
    side, gap = ("right", -0.06) if shades is None else ("left", 0.07)
    background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    form = {"ha": side, "va": "center", "fontsize": 8.5, "zorder": 5, "bbox": background}
    for height, text in scale.ticks:
        tick = [x, x + 0.6 * gap]
        axes.plot(tick, [height] * 2, color=style.INK, linewidth=1, zorder=4, clip_on=False)
        axes.text(x + gap, height, style.readable(text), **form)
    form = {"ha": "center", "va": "bottom"}
    axes.text(x, 1.05, style.readable(scale.name), fontsize=9.5, weight="bold", **form)
    axes.text(x, 1.115, style.readable(scale.group), fontsize=8, color=style.FAINT, **form)


def _note(comparison: Comparison, rows: Sequence[Row], keys: Sequence[str], metric: Metric) -> str:
    left_out = [key for key in comparison.keys if key not in keys]
    return footnote(
        (True, over_seeds(seed_counts(rows))),
        (metric.direction, f"darker is better; broad: the best {BROAD_LINES}"),
        (left_out, f"left out: {', '.join(left_out)}"),
    )

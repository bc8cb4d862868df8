"""Colours for a metric: cividis, which grows lighter evenly, in grey and for colour-blind readers
too. The better a value, the darker; where none is better, the higher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from nnopt.plots import style
from nnopt.plots.sweep.labels import Metric, is_logarithmic, window

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

LIGHTEST = 0.93  # of cividis


def colours(metric: Metric) -> Colormap:
    """From the lowest value to the highest."""
    return _map(metric.wanted == "lower")


@cache
def _map(dark_is_low: bool) -> Colormap:
    style.load_matplotlib()
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    shades = colormaps["cividis"](np.linspace(0, LIGHTEST, 256))
    return ListedColormap(shades if dark_is_low else shades[::-1])


def is_dark(place: float, metric: Metric) -> bool:
    """Is the colour at this place, from 0 to 1, one on which white is read?"""
    red, green, blue, _ = colours(metric)(float(np.clip(place, 0, 1)))
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def colour_scale(values: Sequence[float], metric: Metric) -> tuple[Normalize, str]:
    """From values to 0..1, logarithmic if they are costs that span decades; and at which ends
    values lie beyond it: neither, min, max, as ``colorbar`` calls them."""
    from matplotlib.colors import LogNorm, Normalize

    finite = [value for value in values if np.isfinite(value)]
    if is_logarithmic(finite, metric):
        return LogNorm(min(x for x in finite if x > 0), max(finite), clip=True), "neither"
    low, high = window(finite, metric.wanted)
    if low == high:
        low, high = low - 0.5, high + 0.5
    beyond = "min" if min(finite, default=low) < low else "neither"
    beyond = "max" if max(finite, default=high) > high else beyond
    return Normalize(low, high, clip=True), beyond


def colour_bar(
    figure: Figure,
    box: tuple[float, float, float, float],
    norm: Normalize,
    beyond: str,
    metric: Metric,
) -> None:
    """The scale with its unit. box: left, bottom, width, height in inches."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullLocator

    bar = style.panel(figure, *box)
    shades = ScalarMappable(norm, colours(metric))
    figure.colorbar(shades, cax=bar, extend=beyond).outline.set_linewidth(0.5)
    bar.grid(visible=False)
    if isinstance(norm, LogNorm):
        locator, formatter = style.log_ticks(*bar.get_ylim())
        bar.yaxis.set_major_locator(locator)
        bar.yaxis.set_minor_locator(NullLocator())
        bar.yaxis.set_major_formatter(formatter)
    else:
        style.few_ticks(bar.yaxis)
    bar.set_ylabel(metric.label)

"""Colours of a metric: cividis, whose lightness increases evenly, also in greyscale.

Better values are darker. If the metric has no better direction, higher values are darker.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from nnopt.plots import style
from nnopt.plots.sweep.labels import Metric, axis_limits, is_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

MAX_LIGHTNESS = 0.93  # fraction of cividis that is used


def colours(metric: Metric) -> Colormap:
    """Return the colour map from the lowest value to the highest."""
    return _map(metric.direction == "lower")


@cache
def _map(dark_is_low: bool) -> Colormap:
    style.load_matplotlib()
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    shades = colormaps["cividis"](np.linspace(0, MAX_LIGHTNESS, 256))
    return ListedColormap(shades if dark_is_low else shades[::-1])


def is_dark(fraction: float, metric: Metric) -> bool:
    """Return whether text must be white on the colour at this fraction in [0, 1] of the scale."""
    red, green, blue, _ = colours(metric)(float(np.clip(fraction, 0, 1)))
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def colour_scale(values: Sequence[float], metric: Metric) -> tuple[Normalize, str]:
    """Return the colour scale of values, and its ends that some values exceed.

    Returns:
        The mapping to [0, 1], logarithmic as in ``is_logarithmic``; and "neither", "min" or "max",
        the ``extend`` of matplotlib's ``colorbar``.
    """
    from matplotlib.colors import LogNorm, Normalize

    finite = [value for value in values if np.isfinite(value)]
    if is_logarithmic(finite, metric):
        return LogNorm(min(x for x in finite if x > 0), max(finite), clip=True), "neither"
    low, high = axis_limits(finite, metric.direction)
    if low == high:
        low, high = low - 0.5, high + 0.5
    extend = "min" if min(finite, default=low) < low else "neither"
    extend = "max" if max(finite, default=high) > high else extend
    return Normalize(low, high, clip=True), extend


def colour_bar(axes: Axes, norm: Normalize, extend: str, metric: Metric) -> None:
    """Draw a colour scale with its unit into the axes. ``extend`` as in ``colour_scale``."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullLocator

    figure = axes.get_figure(root=True)
    assert figure is not None
    shades = ScalarMappable(norm, colours(metric))
    figure.colorbar(shades, cax=axes, extend=extend).outline.set_linewidth(0.5)
    axes.grid(visible=False)
    if isinstance(norm, LogNorm):
        locator, formatter = style.log_ticks(*axes.get_ylim())
        axes.yaxis.set_major_locator(locator)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(formatter)
    else:
        style.few_ticks(axes.yaxis)
    axes.set_ylabel(metric.label)

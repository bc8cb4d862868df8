"""Histograms of the weights of each layer: before and after training, and of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style
from nnopt.plots.run.images import signed_colours
from nnopt.plots.style import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS, COLUMNS = 12, 4
PANEL_SIZE, STEP = (2.2, 1.15), (2.55, 2.0)  # inches; the step is from panel to panel
BINS = 40
MAX_WEIGHTS = 200_000  # weights in a histogram; a larger tensor is sampled at even distances

# For the plot of two runs; sizes are in inches:
MAX_ROWS = 6
ROW_HEIGHT, ROW_STEP, BOTTOM, TOP = 1.2, 2.0, 0.6, 0.85
WIDTH, HISTOGRAM_LEFT, HISTOGRAM_WIDTH, MAP_LEFT, MAP_WIDTH = 8.2, 0.35, 3.2, 4.15, 2.9
MAX_CELLS = 200  # along each side of a heat map

Arrays = Mapping[str, NDArray[Any]]


def plot_weight_histograms(initial: Arrays, final: Arrays, path: Path) -> None:
    """Draw histograms of each weight tensor of rank 2 or more: initial (outline), trained (filled).

    If there are more than 12 tensors, 12 evenly spaced ones are drawn, and the title contains the
    number of the others.
    """
    names, left_out = _thinned(_matrices(final), MAX_PANELS)
    columns = max(1, min(len(names), COLUMNS))
    rows = max(1, -(-len(names) // columns))
    width, height = max(6.4, 0.6 + STEP[0] * columns), 0.85 + STEP[1] * rows
    title = "Weights by layer" + (f", {left_out} left out" if left_out else "")
    with style.drawing(path, width, height, title) as figure:
        for number, name in enumerate(names):
            row, column = divmod(number, columns)
            left, bottom = 0.5 + STEP[0] * column, height - 2.1 - STEP[1] * row
            axes = style.panel(figure, left, bottom, *PANEL_SIZE)
            _draw(axes, name, initial.get(name), final[name])
            in_last_row = number + columns >= len(names)
            style.label(axes, "weight" if in_last_row else "", "" if column else "fraction", 0.15)
            if number == 0:
                figure.legend(loc="upper right", ncols=2, bbox_to_anchor=(0.995, 1))


def plot_weight_difference(a: Arrays, b: Arrays, names: tuple[str, str], path: Path) -> None:
    """Draw histograms of both runs' weights, and heat maps of ``b`` - ``a`` with a row per output.

    Only tensors of rank 2 or more with the same shape in both runs are drawn. If there are more
    than 6, 6 evenly spaced ones are drawn, and the title contains the number of the others.
    """
    both = [name for name in _matrices(a) if name in b and np.shape(b[name]) == np.shape(a[name])]
    layers, left_out = _thinned(both, MAX_ROWS)
    title = "Weights of two runs" + (f", {left_out} layers left out" if left_out else "")
    labels = [f"{which}: {style.readable(x, 26)}" for which, x in zip("AB", names, strict=True)]
    height = TOP + ROW_STEP * max(1, len(layers)) - (ROW_STEP - ROW_HEIGHT) + BOTTOM
    with style.drawing(path, WIDTH, height, title) as figure:
        for row, name in enumerate(layers):
            bottom = height - TOP - ROW_HEIGHT - ROW_STEP * row
            x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
            axes = style.panel(figure, HISTOGRAM_LEFT, bottom, HISTOGRAM_WIDTH, ROW_HEIGHT)
            peaks = _draw_histograms(axes, dict(zip(labels, (x, y), strict=True)))
            axes.set_ylim(0, 1.1 * (max(peaks) or 1.0))
            style.few_ticks(axes.xaxis, 4)
            style.caption(axes, f"{style.readable(name, 26)}   {style.shape_text(x.shape)}")
            style.label(axes, "weight" if row == len(layers) - 1 else "", "fraction", 0.15)
            if row == 0:
                figure.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=2)
            axes = style.panel(figure, MAP_LEFT, bottom, MAP_WIDTH, ROW_HEIGHT)
            _draw_difference(axes, (y - x).reshape(len(x), -1))


def _matrices(arrays: Arrays) -> list[str]:
    """Return the names of the weight tensors of rank 2 or more."""
    return [name for name, x in arrays.items() if name.endswith(".weight") and np.ndim(x) >= 2]


def _thinned(names: list[str], most: int) -> tuple[list[str], str]:
    """Return at most ``most`` evenly spaced names, and how many are left out, as ``5 of 17``."""
    chosen = [names[index] for index in style.evenly_spaced(len(names), most)]
    left_out = len(names) - len(chosen)
    return chosen, f"{left_out} of {len(names)}" if left_out else ""


def _draw(axes: Axes, name: str, before: NDArray[Any] | None, after: NDArray[Any]) -> None:
    tensors = {"trained": after} if before is None else {"trained": after, "initial": before}
    peaks = _draw_histograms(axes, tensors)
    # Constant initial weights are one tall bar, which must not flatten the other histogram.
    axes.set_ylim(0, 1.1 * min(3 * (peaks[0] or 1.0), max(peaks) or 1.0))
    style.few_ticks(axes.xaxis, 3)
    spreads = " → ".join(_spread(_finite(w)) for w in reversed(tensors.values()))
    shape = style.shape_text(after.shape)
    axes.set_title(f"{style.readable(name, 26)}\n{shape}   std {spreads}", linespacing=1.35)


def _draw_histograms(axes: Axes, tensors: Arrays) -> list[float]:
    """Draw the fraction of weights in each bin; return the largest fraction of each tensor.

    The bins are the same for all tensors. The first histogram is filled and the others are
    outlines, so that they differ without colours.
    """
    finite = {label: _finite(w) for label, w in tensors.items()}
    extremes = [limit for w in finite.values() if w.size for limit in (w.min(), w.max())]
    low, high = (float(min(extremes)), float(max(extremes))) if extremes else (0.0, 0.0)
    size = max(abs(low), abs(high)) or 1.0
    if high - low <= 1e-6 * size:  # for example, if all weights are 0
        low, high = low - size / 2, high + size / 2
    edges = np.linspace(low, high, BINS + 1)
    form: dict[str, Any] = {"fill": True, "color": style.SKY}
    peaks = []
    for label, weights in finite.items():
        sample = weights[:: len(weights) // MAX_WEIGHTS + 1]
        fractions = np.histogram(sample, edges)[0] / max(1, len(sample))
        axes.stairs(fractions, edges, label=label, **form)
        peaks.append(float(fractions.max()))
        form = {"color": style.INK, "linewidth": 1.2}
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return peaks


def _finite(weights: NDArray[Any]) -> NDArray[Any]:
    """Return the finite weights as a vector."""
    return np.extract(np.isfinite(weights), weights)


def _spread(weights: NDArray[Any]) -> str:
    return f"{weights.std(dtype=np.float64):.3g}" if weights.size else "n/a"


def _draw_difference(axes: Axes, difference: Floats) -> None:
    """Draw ``difference`` (outputs, inputs), with a colour scale that is symmetric about 0."""
    shown = strongest(np.nan_to_num(difference, posinf=0, neginf=0), MAX_CELLS)
    limit = float(np.abs(shown).max(initial=0)) or 1.0
    colours = signed_colours()
    image = axes.imshow(shown, colours, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    style.label(axes, "inputs", "outputs", 0.12, 0.15)
    style.caption(axes, "B − A")
    bar = style.colour_bar(image)
    bar.set_ticks([-limit, 0, limit], labels=[f"−{limit:.2g}", "0", f"+{limit:.2g}"])


def strongest(matrix: Floats, most: int) -> Floats:
    """Divide a matrix into rectangles, and return the entry of largest magnitude in each of them.

    The result has at most ``most`` rows and columns. In contrast to a mean, the largest entry shows
    a single changed weight.
    """
    high, low = matrix, matrix
    for axis, size in enumerate(matrix.shape):
        starts = np.unique(np.linspace(0, size, min(size, most), endpoint=False).astype(np.int64))
        high = np.maximum.reduceat(high, starts, axis=axis)
        low = np.minimum.reduceat(low, starts, axis=axis)
    return np.where(high >= -low, high, low)

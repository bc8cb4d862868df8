"""Statistics of a few layers as lines against the epoch, zeros and lost values included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_EPOCHS = 30  # so many are drawn with a marker each
SLOT, RAIL_GAP = 0.09, 0.06  # inches: a layer's height on a rail; between a rail and the panel
BRIGHTEST = 0.9  # of viridis: the yellow end is lost on white

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]


def margins(names: Sequence[str]) -> tuple[float, float, float]:
    """Inches before, between and after two panels, the legend at the end included."""
    return 0.95, 0.95, 0.7 + style.text_width(names)


def draw_deviations(
    figure: Figure,
    boxes: Sequence[Box],
    epochs: NDArray[np.int64],
    panels: Mapping[str, Floats],
    names: Sequence[str],
) -> None:
    """A panel in each box with a line for each layer, and after the last their legend.

    boxes: left, bottom, width, height in inches; epochs: (E,); panels: title -> values (L, E).
    """
    for box, (title, values) in zip(boxes, panels.items(), strict=True):
        axes = _draw_panel(figure, box, title, epochs, values, names)
    left, bottom, width, height = boxes[-1]
    across, up = figure.get_size_inches()
    corner = ((left + width + 0.05) / across, (bottom + height + 0.1) / up)
    figure.legend(handles=axes.lines, loc="upper left", bbox_to_anchor=corner, handletextpad=0.5)


def _draw_panel(
    figure: Figure,
    box: Box,
    title: str,
    epochs: NDArray[np.int64],
    values: Floats,
    names: Sequence[str],
) -> Axes:
    """Positive numbers, on a logarithmic scale if they span more than a decade or one is 0.

    Zeros stand on a rail below the panel and what is not finite on one above it, each layer at a
    height of its own there, so that none hides another.
    """
    left, bottom, width, height = box
    zero, lost = values == 0, ~np.isfinite(values)
    below, above = _rail_height(zero), _rail_height(lost)
    inner = (bottom + below, height - below - above)
    axes = style.panel(figure, left, inner[0], width, inner[1])
    positive = np.where(zero | lost, np.nan, values)
    looks = [_look(place, len(names), len(epochs)) for place in range(len(names))]
    for line, look, name in zip(positive, looks, names, strict=True):
        axes.plot(epochs, line, label=name, **look)
    if np.isfinite(positive).any():
        if below or style.spans_decades(positive, 1):
            style.log_scale(axes)
        else:
            axes.set_ylim(bottom=0)
            style.few_ticks(axes.yaxis)
    else:
        axes.set_yticks([])
        text = "no finite values" if not zero.any() else "nothing above 0"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=style.FAINT)
    stack = [axes]
    if below:
        rail = style.panel(figure, left, bottom, width, below - RAIL_GAP)
        stack.insert(0, _draw_rail(rail, epochs, zero, looks, "0"))
    if above:
        top = bottom + height - above + RAIL_GAP
        rail = style.panel(figure, left, top, width, above - RAIL_GAP)
        stack.append(_draw_rail(rail, epochs, lost, looks, "not finite"))
    margin = max(0.5, 0.03 * len(epochs))
    for part in stack:
        part.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        style.few_ticks(part.xaxis, 6, integer=True)
        part.tick_params(bottom=part is stack[0], labelbottom=part is stack[0])
    style.label(stack[0], "epoch", "")
    style.label(axes, "epoch" if axes is stack[0] else "", "standard deviation", left=0.68)
    style.caption(figure, left, bottom + height, title)
    return axes


def _look(place: int, count: int, epochs: int) -> dict[str, Any]:
    """Colour, marker and dashes of a layer: its place in depth, in colour and in grey."""
    from matplotlib import colormaps

    many = epochs > FEW_EPOCHS
    return {
        "color": colormaps["viridis"](BRIGHTEST * place / max(1, count - 1)),
        "marker": "" if many else style.MARKERS[place],
        "markersize": 5,
        "linestyle": ("-", "--", "-.", ":")[place % 4] if many else "-",
    }


def _rail_height(where: NDArray[np.bool_]) -> float:
    """Inches of a rail and the gap to the panel; none if no layer is ever on it."""
    count = int(where.any(axis=1).sum())
    return RAIL_GAP + SLOT * (count + 1) if count else 0.0


def _draw_rail(
    axes: Axes,
    epochs: NDArray[np.int64],
    where: NDArray[np.bool_],
    looks: Sequence[dict[str, Any]],
    text: str,
) -> Axes:
    """A dot for each epoch at which a layer is ``where``; the first layer on top."""
    present = np.flatnonzero(where.any(axis=1)).tolist()
    for place, layer in enumerate(present):
        heights = np.where(where[layer], -float(place), np.nan)
        look = {**looks[layer], "markersize": 4.5}
        axes.plot(epochs, heights, **{**look, "marker": look["marker"] or "|", "linestyle": "-"})
    axes.set_facecolor(style.PALE)
    axes.set_ylim(-len(present), 1)
    axes.set_yticks([-(len(present) - 1) / 2], [text])
    axes.tick_params(left=False)
    axes.grid(visible=False, axis="y")
    for side in axes.spines.values():
        side.set_visible(False)
    return axes

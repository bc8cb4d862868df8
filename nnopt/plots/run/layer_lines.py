"""Statistics of a few layers as lines against the epoch, with zeros and infinite values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_EPOCHS_WITH_MARKERS = 30
RAIL_STEP, RAIL_GAP = 0.09, 0.06  # inches per layer on a rail; between a rail and the panel
MAX_BRIGHTNESS = 0.9  # of viridis, whose yellow end is faint on white

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]


def margins(names: Sequence[str]) -> tuple[float, float, float]:
    """Return the space left of, between and right of two panels, in inches, with the legend."""
    return 0.95, 0.95, 0.7 + style.text_width(names)


def draw_deviations(
    figure: Figure,
    boxes: Sequence[Box],
    epochs: NDArray[np.int64],
    panels: Mapping[str, Floats],
    names: Sequence[str],
) -> None:
    """Draw a panel with a line for each layer into each box, and a legend right of the last box.

    A box is (left, bottom, width, height) in inches. panels: title of a panel -> its values (L, E)
    of L layers at E epochs.
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
    """Draw positive values, on a logarithmic scale if they span a decade or a value is 0.

    Zeros are drawn on a rail below the panel, infinite values on a rail above it. On a rail, each
    layer has its own height.
    """
    left, bottom, width, height = box
    zero, not_finite = values == 0, ~np.isfinite(values)
    below, above = _rail_height(zero), _rail_height(not_finite)
    inner = (bottom + below, height - below - above)
    axes = style.panel(figure, left, inner[0], width, inner[1])
    positive = np.where(zero | not_finite, np.nan, values)
    styles = [_line_style(index, len(names), len(epochs)) for index in range(len(names))]
    for line, line_style, name in zip(positive, styles, names, strict=True):
        axes.plot(epochs, line, label=name, **line_style)
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
        stack.insert(0, _draw_rail(rail, epochs, zero, styles, "0"))
    if above:
        top = bottom + height - above + RAIL_GAP
        rail = style.panel(figure, left, top, width, above - RAIL_GAP)
        stack.append(_draw_rail(rail, epochs, not_finite, styles, "not finite"))
    margin = max(0.5, 0.03 * len(epochs))
    for part in stack:
        part.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        style.few_ticks(part.xaxis, 6, integer=True)
        part.tick_params(bottom=part is stack[0], labelbottom=part is stack[0])
    style.label(stack[0], "epoch", "")
    style.label(axes, "epoch" if axes is stack[0] else "", "standard deviation", left=0.68)
    style.caption(figure, left, bottom + height, title)
    return axes


def _line_style(index: int, count: int, epochs: int) -> dict[str, Any]:
    """Return the colour, marker and dashes of a layer; the colour represents its depth."""
    from matplotlib import colormaps

    many = epochs > MAX_EPOCHS_WITH_MARKERS
    return {
        "color": colormaps["viridis"](MAX_BRIGHTNESS * index / max(1, count - 1)),
        "marker": "" if many else style.MARKERS[index],
        "markersize": 5,
        "linestyle": ("-", "--", "-.", ":")[index % 4] if many else "-",
    }


def _rail_height(where: NDArray[np.bool_]) -> float:
    """Return the height of a rail and its gap to the panel, in inches; 0 for an empty rail."""
    count = int(where.any(axis=1).sum())
    return RAIL_GAP + RAIL_STEP * (count + 1) if count else 0.0


def _draw_rail(
    axes: Axes,
    epochs: NDArray[np.int64],
    where: NDArray[np.bool_],
    styles: Sequence[dict[str, Any]],
    text: str,
) -> Axes:
    """Draw a dot at each epoch where ``where`` (L, E) is true; the first layer is on top."""
    present = np.flatnonzero(where.any(axis=1)).tolist()
    for index, layer in enumerate(present):
        heights = np.where(where[layer], -float(index), np.nan)
        marker = styles[layer]["marker"] or "|"
        form = {"markersize": 4.5, "marker": marker, "linestyle": "-"}
        axes.plot(epochs, heights, **{**styles[layer], **form})
    axes.set_facecolor(style.PALE)
    axes.set_ylim(-len(present), 1)
    axes.set_yticks([-(len(present) - 1) / 2], [text])
    axes.tick_params(left=False)
    axes.grid(visible=False, axis="y")
    for side in axes.spines.values():
        side.set_visible(False)
    return axes

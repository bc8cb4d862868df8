"""The importance of each key of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnopt.plots import style
from nnopt.plots.sweep.labels import footnote
from nnopt.plots.sweep.layout import Margins, sweep_figure
from nnopt.plots.sweep.metric import METRIC_NAMES

MANY_TRIALS = 40
"""With fewer finished trials, a note states that the order of the keys is uncertain."""

MAX_KEYS = 20  # the plot shows the most important keys
BAR_WIDTH, ROW_HEIGHT = 4.4, 0.32  # inches
POINTS = 9.5


@dataclass(frozen=True)
class Importance:
    """The importance of a key, from 0 to 1, and its 90 % bootstrap interval, if it is known."""

    key: str
    weight: float
    interval: tuple[float, float] | None = None


def plot_importances(
    importances: Sequence[Importance], trials: int, metric: str, paths: Sequence[Path]
) -> None:
    """Draw a bar for each key, the most important first, with its interval.

    Args:
        importances: The importances, in descending order.
        trials: The number of finished trials from which they were computed.
        metric: The metric of the search.
        paths: The files to write.
    """
    shown = importances[:MAX_KEYS]
    name = METRIC_NAMES.get(metric, metric.replace("_", " "))
    meaning = (
        f"PED-ANOVA from {trials:,} finished trials: how much the key determines whether a trial "
        "is among the best 10 %; the sum over all keys is 1"
    )
    few = "with so few trials, the order of the keys is uncertain"
    note = footnote(
        (True, meaning),
        (any(x.interval for x in shown), "lines: 90 % bootstrap intervals over the trials"),
        (trials < MANY_TRIALS, few),
        (len(importances) > len(shown), f"{len(importances) - len(shown)} more keys omitted"),
    )
    labels = [style.readable(x.key, 40) for x in shown]
    left = style.text_width(labels, POINTS) + 0.35
    size = (BAR_WIDTH, ROW_HEIGHT * len(shown))
    margins = Margins(left=left, right=0.6, bottom=0.65)
    with sweep_figure(paths, f"Importance of keys for {name}", note, size, margins) as content:
        axes = content.axes(0, 0, *size)
        places = -np.arange(len(shown))
        axes.barh(places, [x.weight for x in shown], height=0.62, color=style.BLUE)
        end = max([x.weight for x in shown] + [x.interval[1] for x in shown if x.interval])
        axes.set_xlim(0, min(1.0, 1.08 * end))
        for place, one in zip(places, shown, strict=True):
            if one.interval is not None:
                axes.plot(one.interval, [place, place], color=style.INK, linewidth=1.3)
                axes.plot(one.interval, [place, place], "|", color=style.INK, markersize=7)
            y = content.bottom + size[1] + ROW_HEIGHT * (place - 0.5)
            form = {"va": "center", "fontsize": POINTS}
            style.write(content.figure, 0.2, y, style.readable(one.key, 40), **form)
            right = content.left + BAR_WIDTH + 0.12
            style.write(content.figure, right, y, f"{one.weight:.2f}", **form)
        axes.set_ylim(-len(shown) + 0.5, 0.5)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        style.few_ticks(axes.xaxis)
        style.label(axes, "importance", "")

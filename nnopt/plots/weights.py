"""How training moved the weights of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 12
COLUMNS = 4
BINS = 40
MOST_WEIGHTS = 200_000  # of one tensor go into its histogram, evenly chosen


def plot_weight_histograms(
    initial: Mapping[str, np.ndarray], final: Mapping[str, np.ndarray], path: Path
) -> None:
    """One histogram per weight tensor: as initialized (outline) and as trained (filled).

    Tensors are those of ``final`` named ``*.weight`` of rank 2 or more; of more than 12 some are
    left out evenly, and the title says how many. Raises OutputError.
    """
    names = [name for name, w in final.items() if name.endswith(".weight") and np.ndim(w) >= 2]
    kept = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_PANELS)).astype(np.int64))
    columns = max(1, min(len(kept), COLUMNS))
    rows = max(1, -(-len(kept) // columns))
    width, height = 0.35 + 2.35 * columns, 0.95 + 1.95 * rows
    width = max(width, 6.0)
    title = "Weights before and after training"
    if len(kept) < len(names):
        title += f" ({len(names) - len(kept)} of {len(names)} tensors left out)"

    with style.drawing(path, width, height, title) as figure:
        for place, index in enumerate(kept):
            row, column = divmod(place, columns)
            bottom = height - 0.95 - 1.95 * row - 1.1
            axes = style.panel(figure, 0.3 + 2.35 * column, bottom, 2.05, 1.1)
            name = names[index]
            _draw(axes, name, initial.get(name), final[name])

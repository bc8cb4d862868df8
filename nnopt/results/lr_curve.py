"""``lr_find.csv``: the losses of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.io.atomic_files import write_text

Floats = NDArray[np.float64]


def write_curve(path: Path, rates: Floats, losses: Floats, smoothed: Floats) -> None:
    """Write the columns step, lr, loss and smoothed_loss. Raises OutputError."""
    columns = (rates.tolist(), losses.tolist(), smoothed.tolist())
    rows = [
        f"{step},{lr!r},{loss!r},{smoothed!r}\n"
        for step, (lr, loss, smoothed) in enumerate(zip(*columns, strict=True), start=1)
    ]
    write_text(path, "step,lr,loss,smoothed_loss\n" + "".join(rows))

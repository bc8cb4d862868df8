"""``lr_find.csv``: what a sweep of the learning rate saw."""

from __future__ import annotations

from pathlib import Path

from nnopt.results.files import write_text
from nnopt.training.lr_finder import RateCurve


def write_curve(curve: RateCurve, path: Path) -> None:
    """One row a step: step, lr, loss, smoothed_loss, in full precision. Raises OutputError."""
    columns = (curve.rates.tolist(), curve.losses.tolist(), curve.smoothed.tolist())
    rows = [
        f"{step},{lr!r},{loss!r},{smoothed!r}\n"
        for step, (lr, loss, smoothed) in enumerate(zip(*columns, strict=True), start=1)
    ]
    write_text(path, "step,lr,loss,smoothed_loss\n" + "".join(rows))

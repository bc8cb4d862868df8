"""A warning for a training that has learned nothing.

Always answering the most frequent class is right for a share p of the N training samples. An
accuracy of at most p + 2 √(p (1 - p) / N), two standard errors above p, is not distinguishable from
that. Trainings of less than one epoch or ``FEWEST_STEPS`` steps are not judged: they had no chance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config, learning_rate

FEWEST_STEPS = 100
STANDARD_ERRORS = 2.0


def near_chance(
    config: Config, labels: NDArray[np.int64], last: EpochRow, steps_per_epoch: int
) -> str | None:
    """Return a warning if the accuracy of the last epoch is not above chance, else None.

    labels: (N,) those of all training samples.
    """
    share = float(np.bincount(labels).max() / len(labels))
    error = math.sqrt(share * (1 - share) / len(labels))
    is_short = last.step < max(FEWEST_STEPS, steps_per_epoch)
    if is_short or share == 1 or not last.train_accuracy <= share + STANDARD_ERRORS * error:
        return None
    advice = [f"another optimizer.lr than {learning_rate(config):g}"]
    if config.dataset.normalization == "none":
        advice.append("dataset.normalization=standard")
    return (
        f"the training accuracy of the last epoch, {last.train_accuracy:.4f}, is not above chance: "
        f"always answering the most frequent class gives {share:.4f} (standard error {error:.4f}, "
        f"{len(labels):,} samples); try {', or '.join(advice)}, and check that inputs and labels "
        "are in the same order"
    )

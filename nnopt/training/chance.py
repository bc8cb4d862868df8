"""A warning for a training whose accuracy is not above chance.

A network that always predicts the most frequent class has the accuracy p on the N training samples.
An accuracy of at most p + 2 √(p (1 - p) / N), two standard errors above p, counts as chance. A
training of less than one epoch or fewer than ``MIN_STEPS`` steps gets no warning.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config, learning_rate

MIN_STEPS = 100
STANDARD_ERRORS = 2.0


def chance_level_warning(
    config: Config, labels: NDArray[np.int64], last: EpochRow, steps_per_epoch: int
) -> str | None:
    """Return a warning if the training accuracy of the last epoch is not above chance, else None.

    labels: (N,), the classes of all training samples.
    """
    chance = float(np.bincount(labels).max() / len(labels))
    error = math.sqrt(chance * (1 - chance) / len(labels))
    is_short = last.step < max(MIN_STEPS, steps_per_epoch)
    if is_short or chance == 1 or not last.train_accuracy <= chance + STANDARD_ERRORS * error:
        return None
    advice = [f"another optimizer.lr than {learning_rate(config):g}"]
    if config.dataset.normalization == "none":
        advice.append("dataset.normalization=standard")
    return (
        f"the training accuracy of the last epoch, {last.train_accuracy:.4f}, is not above chance: "
        f"always answering the most frequent class gives {chance:.4f} (standard error {error:.4f}, "
        f"{len(labels):,} samples); try {', or '.join(advice)}, and check that inputs and labels "
        "are in the same order"
    )

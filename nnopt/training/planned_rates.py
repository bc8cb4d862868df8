"""The learning rate of every step, without the changes that depend on results of the training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnopt.pruning.schedule import ScheduleClock
from nnopt.schema import Config, learning_rate
from nnopt.training.length import Length
from nnopt.training.schedules import Schedule, build_schedule


def planned_rates(config: Config, length: Length) -> Schedule:
    """Return the learning rate as a function of the step, including restarts after prunings.

    A plateau schedule is constant here; the training multiplies the rate by ``Plateau.factor``.
    """
    clock = ScheduleClock(config.pruning, length.epochs, length.steps_per_epoch)
    steps = clock.length(length.steps)
    schedule = build_schedule(config.schedule, learning_rate(config), length.steps_per_epoch, steps)
    return (lambda step: schedule(clock.position(step))) if clock.restarts else schedule


def needs_log_axis(rates: NDArray[np.float64]) -> bool:
    """Return whether learning rates are drawn on a logarithmic axis.

    The last few rates of a cosine schedule are many decades below the others. Therefore the lowest
    tenth of the positive rates does not count. The others must span more than two decades.
    """
    positive = np.sort(rates[rates > 0])
    counted = positive[len(positive) // 10 :]
    return bool(len(counted) and counted[-1] > 100 * counted[0])

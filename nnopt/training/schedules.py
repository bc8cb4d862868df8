"""Learning rates: one pure function of the step, shared by both backends.

Time is counted in epochs, t = step / steps per epoch, and starts after the warm-up; T is what then
remains of the training. Every schedule multiplies ``optimizer.lr``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nnopt.schema import (
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    InverseTimeConfig,
    OneCycleConfig,
    PlateauConfig,
    ScheduleVariant,
    StepConfig,
)

Schedule = Callable[[int], float]
"""Step, from 0 -> learning rate of that step's update."""


def build_schedule(
    config: ScheduleVariant, lr: float, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """The learning rate as a function of the step.

    During warm-up it rises linearly, reaching ``lr`` with the warm-up's last step (Goyal et al.
    2017, section 2.2). A plateau schedule is constant here: what it does depends on the validation
    data, see ``Plateau``.
    """
    warmup = round(config.warmup * steps_per_epoch)
    rest = max(total_steps - warmup, 1)

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        return lr * _factor(config, step - warmup, rest, steps_per_epoch)

    return schedule


def _factor(config: ScheduleVariant, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate over its base; ``step`` of ``steps`` counts from the end of the warm-up."""
    t = step / steps_per_epoch
    match config:
        case ConstantConfig() | PlateauConfig():
            return 1.0
        case StepConfig(every=every, factor=factor):
            passed = math.floor(t / every + 1e-9)  # 0.3 / 0.1 is a little below 3
            return float(factor**passed)
        case ExponentialConfig(factor=factor):
            return float(factor**t)
        case InverseTimeConfig(rate=rate):
            return 1 / (1 + rate * t)
        case CosineConfig(final=final):
            return _cosine(1.0, final, step / steps)
        case OneCycleConfig(rise=rise, start=start, final=final):
            peak = rise * steps - 1  # the last step of the rise, as PyTorch counts
            if step <= peak:
                return _cosine(start, 1.0, step / peak if peak else 1.0)
            return _cosine(1.0, final, min((step - peak) / max(steps - 1 - peak, 1e-9), 1.0))


def _cosine(first: float, last: float, share: float) -> float:
    """From first to last along half a period of a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


class Plateau:
    """Multiplies the learning rate by ``factor`` after more than ``patience`` looks at the
    validation data without improvement, then starts counting anew."""

    def __init__(self, config: ScheduleVariant) -> None:
        self._config = config if isinstance(config, PlateauConfig) else None
        self._best = math.inf
        self._waited = 0
        self.factor = 1.0

    def look(self, badness: float) -> None:
        """Take in the monitored value, smaller being better; NaN is no improvement."""
        if self._config is None:
            return
        if badness < self._best - self._config.min_improvement:
            self._best, self._waited = badness, 0
            return
        self._waited += 1
        if self._waited > self._config.patience:
            self.factor *= self._config.factor
            self._waited = 0

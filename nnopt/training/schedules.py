"""Learning-rate schedules: one function of the step, shared by both backends.

The learning rate is ``optimizer.lr`` times a factor that depends on the time t. This time is
counted in epochs, t = step / steps per epoch, and starts at the end of the warm-up.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from nnopt.results.checkpoint_file import typed
from nnopt.schema import (
    CosineRestartsConfig,
    ExponentialConfig,
    InverseTimeConfig,
    MultistepConfig,
    OneCycleConfig,
    PlateauConfig,
    PolynomialConfig,
    ScheduleVariant,
    StepConfig,
)
from nnopt.schema.tables import filled
from nnopt.schema.values import format_value
from nnopt.training.improvement import is_improvement

TOLERANCE = 1e-9
"""Tolerance of comparisons of times, because 0.3 / 0.1 is slightly below 3."""

Schedule = Callable[[int], float]
"""Step, counted from 0 -> learning rate of its update."""


def build_schedule(
    config: ScheduleVariant, lr: float, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Return the learning rate as a function of the step.

    The rate rises linearly during the warm-up and reaches ``lr`` at its last step (Goyal et al.
    2017, section 2.2). A plateau schedule is constant here, because it depends on the
    validation metric; see ``Plateau``.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    remaining = max(total_steps - warmup, 1)
    factor = FACTORS[config.name]

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        return lr * factor(config, step - warmup, remaining, steps_per_epoch)

    return schedule


def _cosine(first: float, last: float, fraction: float) -> float:
    """Interpolate along half a period of a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


def _fraction_of_period(t: float, first: float, factor: float) -> float:
    """Return the fraction of the current period that has passed at time t.

    Period n = 0, 1, ... lasts ``first * factor**n``. So it starts at the time
    ``first * (factor**n - 1) / (factor - 1)``, or ``first * n`` if the factor is 1.
    """
    periods = t / first
    if factor == 1:
        return max(periods - math.floor(periods + TOLERANCE), 0.0)
    log = math.log1p(factor - 1)
    number = math.floor(math.log1p(periods * (factor - 1)) / log + TOLERANCE)
    start = math.expm1(number * log) / (factor - 1)
    return min(max((periods - start) / math.exp(number * log), 0.0), 1.0)


def _exponential(config: ExponentialConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    return float(config.gamma ** (step / steps_per_epoch))


def _inverse_time(config: InverseTimeConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    return 1 / (1 + config.decay_rate * (step / steps_per_epoch))


def _step(config: StepConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    t = step / steps_per_epoch
    return float(config.gamma ** math.floor(t / config.step_size + TOLERANCE))


def _multistep(config: MultistepConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    t = step / steps_per_epoch
    return float(config.gamma ** bisect_right(config.milestones, t + TOLERANCE))


def _polynomial(config: PolynomialConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    final = config.final_factor
    return float(final + (1 - final) * (1 - step / steps) ** config.power)


def _cosine_restarts(
    config: CosineRestartsConfig, step: int, steps: int, steps_per_epoch: int
) -> float:
    t = step / steps_per_epoch
    passed = _fraction_of_period(t, config.first_period, config.period_factor)
    return _cosine(1.0, config.final_factor, passed)


def _one_cycle(config: OneCycleConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    peak = config.pct_start * steps - 1  # the last step of the rise, as PyTorch counts
    if step <= peak:
        return _cosine(config.initial_factor, 1.0, step / peak if peak else 1.0)
    fraction = min((step - peak) / max(steps - 1 - peak, 1e-9), 1.0)
    return _cosine(1.0, config.final_factor, fraction)


FACTORS: dict[str, Callable[[Any, int, int, int], float]] = filled(
    "schedule/factor",
    {
        "constant": lambda config, step, steps, steps_per_epoch: 1.0,
        "step": _step,
        "multistep": _multistep,
        "exponential": _exponential,
        "inverse_time": _inverse_time,
        "polynomial": _polynomial,
        "cosine": lambda config, step, steps, _: _cosine(1.0, config.final_factor, step / steps),
        "cosine_restarts": _cosine_restarts,
        "one_cycle": _one_cycle,
        "plateau": lambda config, step, steps, steps_per_epoch: 1.0,
    },
)
"""Name of a schedule -> function that returns the factor for ``optimizer.lr``.

The arguments are the configuration of the schedule, a step after the warm-up, counted from 0, the
number of steps after the warm-up, and the number of steps per epoch.
"""


def schedule_problems(config: ScheduleVariant, steps_per_epoch: int, steps: int) -> Iterator[str]:
    """Yield a line for each key that does not fit a schedule of ``steps`` steps with a warm-up.

    A training of at most one epoch accepts milestones and periods that exceed it.
    """
    remaining = steps - round(config.warmup_epochs * steps_per_epoch)
    fits_no_epochs = steps <= steps_per_epoch  # a short test, such as debug=tiny
    length = _length_text(remaining, steps_per_epoch)
    if config.warmup_epochs:
        length += " after the warm-up"
    if isinstance(config, MultistepConfig):
        last = (remaining - 1) / steps_per_epoch + TOLERANCE
        if config.milestones[0] > last and not fits_no_epochs:
            milestones = format_value(config.milestones, "{:g}".format)
            yield (
                f"schedule.milestones = {milestones}: none has an effect, because the schedule "
                f"lasts {length}; set smaller milestones, or more epochs"
            )
    if isinstance(config, CosineRestartsConfig):
        first = config.first_period * steps_per_epoch
        if first <= 1 + TOLERANCE and config.period_factor == 1:
            yield (
                "schedule.first_period with schedule.period_factor = 1 makes every period a single "
                "step, so the learning rate is constant; set more epochs per period"
            )
        elif first < 1 - TOLERANCE:
            yield (
                f"schedule.first_period = {config.first_period:g} epochs is shorter than a step; "
                f"set at least {math.ceil(1e6 / steps_per_epoch) / 1e6:g}"
            )
        if first > remaining + TOLERANCE and not fits_no_epochs:
            yield (
                f"schedule.first_period = {config.first_period:g} epochs is longer than the "
                f"schedule, which lasts {length}; set a smaller value, or more epochs"
            )


def schedule_notes(config: ScheduleVariant, steps_per_epoch: int, steps: int) -> Iterator[str]:
    """Yield a note for milestones after a schedule of ``steps`` steps and an incomplete period."""
    remaining = steps - round(config.warmup_epochs * steps_per_epoch)
    length = _length_text(remaining, steps_per_epoch)
    if isinstance(config, MultistepConfig):
        last = (remaining - 1) / steps_per_epoch + TOLERANCE
        if late := [x for x in config.milestones if x > last]:
            yield (
                f"the milestone {late[0]:g} in schedule.milestones has no effect, because the "
                f"schedule lasts {length}"
            )
    if isinstance(config, CosineRestartsConfig):
        first, factor = config.first_period, config.period_factor
        passed = _fraction_of_period(remaining / steps_per_epoch, first, factor)
        short = _fraction_of_period((remaining - 1) / steps_per_epoch, first, factor)
        if passed > max(short, TOLERANCE) and passed < 1 - TOLERANCE:
            yield (
                f"the last period of schedule.name = 'cosine_restarts' is incomplete: {passed:.0%} "
                f"of it has passed when the schedule ends after {length}, so the learning rate is "
                "not at its lowest; other epochs or schedule.first_period would complete it"
            )


def _length_text(steps: int, steps_per_epoch: int) -> str:
    """Return a number of steps as text: in epochs, or in steps if it is less than an epoch."""
    if steps < steps_per_epoch:
        return f"{steps} step{'s' * (steps != 1)}"
    epochs = f"{steps / steps_per_epoch:g}"
    return f"{epochs} epoch{'s' * (epochs != '1')}"


class Plateau:
    """Reduces the learning rate when the validation metric stops improving.

    After more than ``patience`` evaluations without improvement, the learning rate is multiplied by
    ``gamma``, and counting restarts.

    Attributes:
        factor: Product of all reductions so far; constant 1 for other schedules.
    """

    def __init__(self, config: ScheduleVariant) -> None:
        self._config = config if isinstance(config, PlateauConfig) else None
        self._best = math.inf
        self._waited = 0
        self.factor = 1.0

    def update(self, value: float) -> None:
        """Record a monitored value, where lower is better; NaN is no improvement."""
        if self._config is None:
            return
        if is_improvement(value, self._best, self._config):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self._config.patience:
            self.factor *= self._config.gamma
            self._waited = 0

    def forget(self) -> None:
        """Forget the best loss and the epochs without improvement, but keep the factor."""
        self._best, self._waited = math.inf, 0

    def state(self) -> dict[str, float]:
        """Return the numbers that later updates depend on."""
        return {"best": self._best, "waited": self._waited, "factor": self.factor}

    def load_state(self, state: object) -> None:
        """Restore the numbers. Raises ValueError if they are not valid."""
        values = typed(state, {"best": float, "waited": int, "factor": float})
        self._best, self._waited, self.factor = values.values()

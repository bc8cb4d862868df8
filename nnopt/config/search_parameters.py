"""What a search draws a key from: the words of Hydra's grammar as choices and ranges of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override

from nnopt.config.grammar import NumberSweep
from nnopt.errors import ConfigError

Drawn = str | int | float
"""A value: of a choice its text, as on the command line."""


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order: ``a,b``, ``choice([64],[128,64])``."""

    key: str
    texts: tuple[str, ...]

    def samples(self) -> Sequence[Drawn]:
        """Values to try before a search: all."""
        return self.texts


@dataclass(frozen=True)
class Numbers:
    """A number from ``low`` to ``high``, both included: ``interval(low, high)``, ``range(...)``.

    step: between two values that can be drawn; None: all numbers between the ends can. low and high
    are whole if only whole numbers can be drawn. log: drawn evenly in its logarithm. high is low
    plus a whole number of steps, counted in decimals.
    """

    key: str
    low: float
    high: float
    step: float | None
    log: bool

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    def nearest(self, value: float) -> float:
        """Return the value that can be drawn next to ``value``: 0.3, where steps of 0.1 that are
        added up in floating point make 0.30000000000000004."""
        if self.step is None or self.is_whole:
            return value
        low, step = Fraction(repr(self.low)), Fraction(repr(self.step))
        return float(low + step * round((Fraction(value) - low) / step))

    def samples(self) -> Sequence[Drawn]:
        """Values to try before a search: the ends."""
        return [self.low, self.high]


Parameter = Choice | Numbers


def word(parameter: Parameter, value: Drawn) -> str:
    """The word of a command line that sets the key. Numbers have all their digits."""
    if isinstance(parameter, Numbers) and not isinstance(value, str):
        value = parameter.nearest(value)
    return f"{parameter.key}={value}"


def read_parameter(override: Override, whole: bool) -> Parameter:
    """What an override with several values lets a search draw.

    whole: the key takes nothing but whole numbers, so an interval of it has no others.
    Raises ConfigError.
    """
    key, told = override.key_or_group, override.input_line
    sweep = override.value()
    unknown = sorted(getattr(sweep, "tags", set()) - {"log"})
    if unknown:
        raise ConfigError(f"{told!r}: unknown tag {unknown[0]!r}; a search knows tag(log, ...)")
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        return _interval(key, told, sweep, log, whole)
    if isinstance(sweep, NumberSweep):
        steps = _steps_of(sweep)
        if len(steps) == 1:
            return _range(key, told, sweep, steps.pop(), log)
    if log:
        raise ConfigError(f"{told!r}: tag(log, ...) needs an interval or a range of numbers")
    texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not texts:
        raise ConfigError(f"{told!r}: has 0 values; give it at least one")
    return Choice(key, texts)


def _interval(key: str, told: str | None, sweep: IntervalSweep, log: bool, whole: bool) -> Numbers:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{told!r}: needs two finite ends: interval(low, high)")
    if whole:
        if low != int(low) or high != int(high):
            raise ConfigError(f"{told!r}: {key} takes whole numbers; give the ends as such")
        low, high = int(low), int(high)
    _check_ends(told, low, high, log)
    return Numbers(key, low, high, 1 if isinstance(low, int) else None, log)


def _steps_of(sweep: NumberSweep) -> set[Fraction]:
    """Return the distances between neighbouring values; none if these are not all numbers."""
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in sweep.list):
        return set()
    exact = sorted({Fraction(repr(value)) for value in sweep.list})
    return {after - before for before, after in pairwise(exact)}


def _range(key: str, told: str | None, sweep: NumberSweep, step: Fraction, log: bool) -> Numbers:
    """Return the numbers of a range, whose stop is not one of them."""
    numbers: list[Any] = sorted(sweep.list)
    low, high = numbers[0], numbers[-1]
    whole = isinstance(low, int)
    if log and not (whole and step == 1):
        raise ConfigError(f"{told!r}: tag(log, range(...)) needs whole numbers in steps of 1")
    _check_ends(told, low, high, log)
    return Numbers(key, low, high, int(step) if whole else float(step), log)


def _check_ends(told: str | None, low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ConfigError(f"{told!r}: needs its first end below its second")
    if log and low <= 0:
        raise ConfigError(f"{told!r}: tag(log, ...) needs ends above 0; 0 has no logarithm")

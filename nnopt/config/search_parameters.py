"""The parameters of a search: choices and ranges of numbers, from Hydra's grammar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override

from nnopt.config.grammar import NumberSweep
from nnopt.errors import ConfigError
from nnopt.schema import first_override

Drawn = str | int | float
"""A sampled value. For a choice, it is the text of the value on the command line."""


@dataclass(frozen=True)
class Choice:
    """A key with several unordered values, such as ``a,b`` or ``choice([64],[128,64])``."""

    key: str
    texts: tuple[str, ...]

    def samples(self) -> Sequence[Drawn]:
        """Return the values to check before a search: every value of the choice."""
        return self.texts

    def with_first_names(self) -> Choice:
        """Return the choice with the first names of key and values, before any renaming."""
        overrides = [first_override(f"{self.key}={text}") for text in self.texts]
        texts = tuple(override.partition("=")[2] for override in overrides)
        return Choice(first_override(self.key), texts)


@dataclass(frozen=True)
class Numbers:
    """A key with numbers from ``low`` to ``high``, both included: ``interval(low, high)``."""

    key: str
    low: float  # an int if all values are whole numbers
    high: float  # low plus a multiple of step, if there is a step
    step: float | None  # the distance between adjacent values, or None for all real numbers
    log: bool  # whether the logarithm of the number is sampled uniformly

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int)

    def nearest(self, value: float) -> float:
        """Return the nearest value of the range: 0.3 for 0.30000000000000004 if the step is 0.1."""
        if self.step is None or self.is_whole:
            return value
        low, step = Fraction(repr(self.low)), Fraction(repr(self.step))
        return float(low + step * round((Fraction(value) - low) / step))

    def samples(self) -> Sequence[Drawn]:
        """Return the values to check before a search: both ends of the range."""
        return [self.low, self.high]

    def with_first_names(self) -> Numbers:
        """Return the range with the first name of the key, before any renaming."""
        return replace(self, key=first_override(self.key))


Parameter = Choice | Numbers


def to_override(parameter: Parameter, value: Drawn) -> str:
    """Return the override that sets a parameter to a value, with all digits of a number."""
    if isinstance(parameter, Numbers) and not isinstance(value, str):
        value = parameter.nearest(value)
    return f"{parameter.key}={value}"


def read_parameter(override: Override, whole: bool) -> Parameter:
    """Return the parameter of an override. ``whole`` means that the key needs whole numbers.

    Raises ConfigError if the values cannot be searched.
    """
    key, text = override.key_or_group, override.input_line
    sweep = override.value()
    unknown = sorted(getattr(sweep, "tags", set()) - {"log"})
    if unknown:
        raise ConfigError(f"{text!r}: unknown tag {unknown[0]!r}; a search supports tag(log, ...)")
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        return _interval(key, text, sweep, log, whole)
    if isinstance(sweep, NumberSweep):
        steps = _steps_of(sweep)
        if len(steps) == 1:
            return _range(key, text, sweep, steps.pop(), log)
    if log:
        raise ConfigError(f"{text!r}: tag(log, ...) needs an interval or a range of numbers")
    texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not texts:
        raise ConfigError(f"{text!r}: has 0 values; give it at least one")
    return Choice(key, texts)


def _interval(key: str, text: str | None, sweep: IntervalSweep, log: bool, whole: bool) -> Numbers:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{text!r}: needs two finite ends: interval(low, high)")
    if whole:
        if low != int(low) or high != int(high):
            raise ConfigError(f"{text!r}: {key} needs whole numbers as ends")
        low, high = int(low), int(high)
    _check_ends(text, low, high, log)
    return Numbers(key, low, high, 1 if isinstance(low, int) else None, log)


def _steps_of(sweep: NumberSweep) -> set[Fraction]:
    """Return the distances between adjacent values, or an empty set if a value is not a number."""
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in sweep.list):
        return set()
    exact = sorted({Fraction(repr(value)) for value in sweep.list})
    return {after - before for before, after in pairwise(exact)}


def _range(key: str, text: str | None, sweep: NumberSweep, step: Fraction, log: bool) -> Numbers:
    """Return the parameter of a range. ``sweep`` already excludes the stop value."""
    numbers: list[Any] = sorted(sweep.list)
    low, high = numbers[0], numbers[-1]
    whole = isinstance(low, int)
    if log and not (whole and step == 1):
        raise ConfigError(f"{text!r}: tag(log, range(...)) needs whole numbers in steps of 1")
    _check_ends(text, low, high, log)
    return Numbers(key, low, high, int(step) if whole else float(step), log)


def _check_ends(text: str | None, low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ConfigError(f"{text!r}: needs its first end below its second")
    if log and low <= 0:
        raise ConfigError(f"{text!r}: tag(log, ...) needs ends above 0; 0 has no logarithm")

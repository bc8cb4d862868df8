"""What a search draws a key from: the words of Hydra's grammar as choices and ranges of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

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
    are whole if only whole numbers can be drawn. log: drawn evenly in its logarithm.
    """

    key: str
    low: float
    high: float
    step: float | None
    log: bool

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    def samples(self) -> Sequence[Drawn]:
        """Values to try before a search: the ends."""
        return [self.low, self.high]


Parameter = Choice | Numbers


def word(parameter: Parameter, value: Drawn) -> str:
    """The word of a command line that sets the key. Numbers have all their digits."""
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
    if isinstance(sweep, RangeSweep):
        values = sorted({x for x in override.sweep_iterator() if isinstance(x, int | float)})
        if len(values) > 1:
            return _range(key, told, values, log)
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


def _range(key: str, told: str | None, values: Sequence[float], log: bool) -> Numbers:
    """values: sorted, at least two. Hydra's ranges end before their stop, and so do these."""
    low, high = values[0], values[-1]
    step = values[1] - low
    if log and not (isinstance(low, int) and step == 1):
        raise ConfigError(f"{told!r}: tag(log, range(...)) needs whole numbers in steps of 1")
    _check_ends(told, low, high, log)
    if isinstance(low, float):  # 0.1, 0.2, 0.30000000000000004: of which the last is past 0.3
        step = (high - low) / (len(values) - 1)
    return Numbers(key, low, high, step, log)


def _check_ends(told: str | None, low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ConfigError(f"{told!r}: needs its first end below its second")
    if log and low <= 0:
        raise ConfigError(f"{told!r}: tag(log, ...) needs ends above 0; 0 has no logarithm")

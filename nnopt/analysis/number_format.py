"""Numbers with the digits that their uncertainty supports, two of its own."""

from __future__ import annotations

import math
from decimal import Decimal

from nnopt.analysis.statistics import ROUNDING, SIGNIFICANCE, Difference, Estimate

MISSING = "–"

PLAIN_EXPONENTS = range(-4, 7)
"""Powers of ten of numbers that are written out; the others as multiples of theirs."""


def format_mean(found: Estimate | None) -> str:
    """``0.9917 ± 0.0032``: mean ± standard deviation. ``(2.3 ± 1.1)e-07`` where it has to be."""
    if found is None:
        return MISSING
    if found.std is None:
        return format_value(found.mean)
    if found.std <= ROUNDING * abs(found.mean):
        return f"{format_value(found.mean)} ± 0"
    numbers, power = _to_digits_of(found.std, found.mean, found.std)
    text = " ± ".join(numbers)
    return f"({text}){power}" if power else text


def format_interval(found: Estimate | None) -> str:
    """``[0.9877, 0.9957]``: the ends of the confidence interval."""
    if found is None or found.interval is None:
        return MISSING
    low, high = found.interval
    numbers, power = _to_digits_of((high - low) / 2, low, high)
    return f"[{', '.join(numbers)}]{power}"


def format_difference(difference: Difference | None) -> str:
    """``+0.012 [0.003, 0.021]``: the mean difference, and the ends of its interval."""
    if difference is None or difference.change is None:
        return MISSING
    change = difference.change
    sign = "+" if change.mean > 0 else ""
    if change.interval is None:
        return f"{sign}{format_value(change.mean)}"
    low, high = change.interval
    (mean, *ends), power = _to_digits_of((high - low) / 2, change.mean, low, high)
    text = f"{sign}{mean} [{', '.join(ends)}]"
    return f"({text}){power}" if power else text


def format_p(p: float | None) -> str:
    """Three decimals, or that it is less; more of them where rounding would hide that it is below
    the level of significance."""
    if p is None:
        return MISSING
    if p < 0.001:
        return "<0.001"
    texts = (f"{p:.{decimals}f}" for decimals in range(3, 20))
    return next(text for text in texts if (float(text) < SIGNIFICANCE) == (p < SIGNIFICANCE))


def format_value(value: float) -> str:
    """A number of unknown uncertainty: a whole one as it is, others to four digits."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{max(4, min(_exponent(value) + 1, 15))}g}"


def _to_digits_of(uncertainty: float, *values: float) -> tuple[list[str], str]:
    """The values, rounded where the second digit of the uncertainty stands, and the power of ten
    they are to be multiplied by, such as ``e-07``, mostly none."""
    if not all(map(math.isfinite, (uncertainty, *values))):  # the ends of an interval may overflow
        return [f"{value:.3g}" for value in values], ""
    exponent = max(map(_exponent, values))
    if exponent in PLAIN_EXPONENTS:
        exponent = 0
    scaled = [Decimal(value).scaleb(-exponent) for value in values]  # a float would overflow
    place = 1 - _exponent(float(f"{Decimal(uncertainty).scaleb(-exponent):.1e}"))
    rounded = [round(value, place) + 0 for value in scaled]  # + 0: no minus zero
    numbers = [f"{value:.{max(place, 0)}f}" for value in rounded]
    return numbers, f"e{exponent:+03d}" if exponent else ""


def _exponent(value: float) -> int:
    """Of the power of ten that the value is a multiple of: -2 of 0.05; 0 of 0."""
    return int(f"{value:e}".partition("e")[2])

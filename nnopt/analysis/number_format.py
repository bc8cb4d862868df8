"""Formatting of durations, and of numbers with the digits that their uncertainty allows."""

from __future__ import annotations

import math
from decimal import Decimal

from nnopt.analysis.statistics import ROUNDING, SIGNIFICANCE, Difference, Estimate

MISSING = "–"
NOT_REACHED = "not reached"
PLAIN_EXPONENTS = range(-4, 7)  # decimal exponents of numbers written without e


def format_mean(found: Estimate | None) -> str:
    """Format mean ± standard deviation, as ``0.9917 ± 0.0032`` or ``(2.3 ± 1.1)e-07``."""
    if found is None:
        return MISSING
    if found.std is None:
        return format_value(found.location)
    if found.std <= ROUNDING * abs(found.location):
        return f"{format_value(found.location)} ± 0"
    numbers, power = _round_to_uncertainty(found.std, found.location, found.std)
    text = " ± ".join(numbers)
    return f"({text}){power}" if power else text


def format_location(found: Estimate | None) -> str:
    """Format an interquartile mean or a median without its spread, or ``not reached``."""
    if found is None:
        return MISSING
    if math.isinf(found.location) and found.kind == "median":
        return NOT_REACHED
    if found.interval is None or found.kind == "median":
        return format_value(found.location)
    low, high = found.interval
    (number,), power = _round_to_uncertainty((high - low) / 2, found.location)
    return f"{number}{power}"


def format_interval(found: Estimate | None) -> str:
    """Format a confidence interval, as ``[0.9877, 0.9957]`` or ``[320, not reached]``."""
    if found is None or found.interval is None:
        return MISSING
    low, high = found.interval
    if found.kind == "median":
        if math.isinf(low):
            return NOT_REACHED
        ends = [NOT_REACHED if math.isinf(x) else format_value(x) for x in (low, high)]
        return f"[{', '.join(ends)}]"
    numbers, power = _round_to_uncertainty((high - low) / 2, low, high)
    return f"[{', '.join(numbers)}]{power}"


def format_difference(difference: Difference | None) -> str:
    """Format a mean difference with its interval, as ``+0.012 [0.003, 0.021]``."""
    if difference is None or difference.change is None:
        return MISSING
    change = difference.change
    sign = "+" if change.location > 0 else ""
    if change.interval is None:
        return f"{sign}{format_value(change.location)}"
    low, high = change.interval
    (mean, *ends), power = _round_to_uncertainty((high - low) / 2, change.location, low, high)
    text = f"{sign}{mean} [{', '.join(ends)}]"
    return f"({text}){power}" if power else text


def format_p(p: float | None) -> str:
    """Format a p value with three decimals, or as ``<0.001``.

    The text has more decimals if rounding would cross the level of significance.
    """
    if p is None:
        return MISSING
    if p < 0.001:
        return "<0.001"
    texts = (f"{p:.{decimals}f}" for decimals in range(3, 20))
    return next(text for text in texts if (float(text) < SIGNIFICANCE) == (p < SIGNIFICANCE))


def format_value(value: float) -> str:
    """Format a number of unknown uncertainty: exactly if it is whole, else with four digits."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{max(4, min(_exponent(value) + 1, 15))}g}"


def format_duration(seconds: float) -> str:
    """Format a duration, as ``4.2 s``, ``40 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 99.5:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_rough_duration(seconds: float) -> str:
    """Format an estimated duration with few digits, as ``40 s``, ``12 min`` or ``3 h 20 min``."""
    minutes = round(seconds / 60)
    if seconds < 89.5:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _round_to_uncertainty(uncertainty: float, *values: float) -> tuple[list[str], str]:
    """Round the values to the second significant digit of the uncertainty.

    Return the rounded values as texts, and their common power of ten, such as ``e-07`` or empty.
    """
    # The limits of an interval may be infinite.
    if not all(map(math.isfinite, (uncertainty, *values))):
        return [f"{value:.3g}" for value in values], ""
    if not uncertainty:
        return [format_value(value) for value in values], ""
    exponent = max(map(_exponent, values))
    if exponent in PLAIN_EXPONENTS:
        exponent = 0
    scaled = [Decimal(value).scaleb(-exponent) for value in values]  # exact, and without overflow
    decimals = 1 - _exponent(float(f"{Decimal(uncertainty).scaleb(-exponent):.1e}"))
    rounded = [round(value, decimals) + 0 for value in scaled]  # + 0: -0 becomes 0
    numbers = [f"{value:.{max(decimals, 0)}f}" for value in rounded]
    return numbers, f"e{exponent:+03d}" if exponent else ""


def _exponent(value: float) -> int:
    """Return the decimal exponent of a value: -2 for 0.05, and 0 for 0."""
    return int(f"{value:e}".partition("e")[2])

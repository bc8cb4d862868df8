"""Finds numbers in a CSV file that differ as text but become equal in float64."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

import numpy as np

from nnopt.io.safe_text import quoted, shortened

MIN_ROUNDED_DIGITS = 15  # a number with fewer digits is assumed to be exact, not rounded
SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)
UNLIMITED = Context(Emin=MIN_EMIN, Emax=MAX_EMAX)


def merged_note(name: str, pair: tuple[str, str]) -> str:
    """Return the note on a column with two different numbers that are equal in float64."""
    drop = f"dataset.drop_columns=[{quoted(name)}]"
    ignore = "or ignore this if the difference does not matter"
    above = ""
    if all(number == number.to_integral_value() for number in map(_exact, pair)):
        above = " above 2^53"  # float64 represents all smaller whole numbers exactly
        remedy = (
            f"subtract a constant from the column in all files, or leave the column out with {drop}"
        )
    elif abs(float(pair[0])) < SMALLEST_NORMAL:
        remedy = (
            "float64 keeps fewer digits below 2.2e-308 and nothing below 5e-324; scale the column "
            f"in all files, leave it out with {drop}, {ignore}"
        )
    else:
        remedy = f"float64 keeps about 17 digits; leave the column out with {drop}, {ignore}"
    return (
        f"column {quoted(name)} has different numbers{above} that are equal in float64, such as "
        f"{' and '.join(shortened(text, 40) for text in pair)}; {remedy}"
    )


def equal_pair(texts: Iterable[str]) -> tuple[str, str] | None:
    """Return two texts that are equal in float64 but represent different numbers, or None."""
    groups: dict[float, list[str]] = {}
    for text in sorted(texts):
        groups.setdefault(float(text), []).append(text)
    for group in groups.values():
        if len(group) > 1:
            finest = min(group, key=lambda text: _last_place(_exact(text)))
            for text in group:
                if not _may_be_one_number(text, finest):
                    return min(text, finest), max(text, finest)
    return None


def _may_be_one_number(one: str, other: str) -> bool:
    """Return whether two texts, equal in float64, may represent the same number.

    Either each text is the float64 number, rounded to some digits (0.1 and 0.10000000000000001), or
    the texts agree in all digits of the shorter one (0.3333333333333333 and
    0.33333333333333333333).
    """
    a, b = _exact(one), _exact(other)
    if a == b or (_is_float64(one) and _is_float64(other)):
        return True
    shorter = max(a, b, key=_last_place)
    unit = Decimal((0, (1,), _last_place(shorter)))
    return (
        len(shorter.as_tuple().digits) >= MIN_ROUNDED_DIGITS
        and abs(UNLIMITED.subtract(a, b)) < unit
    )


def _last_place(number: Decimal) -> int:
    """Return the exponent of ten of the last digit: -2 for 1.25."""
    return number.adjusted() - len(number.as_tuple().digits) + 1


def _exact(text: str) -> Decimal:
    """Return the number in a cell, rounded to float64 if its exponent is too large for Decimal."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(float(text))


def _is_float64(text: str) -> bool:
    """Return whether a text's float64 value, rounded to the digits of the text, equals the text."""
    number = _exact(text)
    digits = len(bytes(number.as_tuple().digits).rstrip(b"\0"))
    return Context(prec=max(digits, 1)).create_decimal(Decimal(float(text))) == number

"""The format of numbers in tables."""

from __future__ import annotations

import math

import pytest

from nnopt.analysis.number_format import (
    format_difference,
    format_duration,
    format_interval,
    format_location,
    format_mean,
    format_p,
    format_rough_duration,
    format_value,
)
from nnopt.analysis.statistics import Difference, Estimate


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (0.991666, 0.003234, "0.9917 ± 0.0032"),
        (0.991666, 0.0996, "0.99 ± 0.10"),  # the deviation is rounded up to 0.10
        (0.5, 0.36, "0.50 ± 0.36"),
        (12.3456, 1.26, "12.3 ± 1.3"),
        (56789.4, 1234.0, "56800 ± 1200"),
        (99.96, 0.13, "99.96 ± 0.13"),
        (2.31e-7, 1.12e-7, "(2.3 ± 1.1)e-07"),
        (4.2e30, 1e28, "(4.200 ± 0.010)e+30"),
        (0.0, 0.25, "0.00 ± 0.25"),
        (-0.0004, 0.12, "0.00 ± 0.12"),
        (0.75, 0.0, "0.75 ± 0"),
        (387.0, 0.0, "387 ± 0"),
        (0.75, 1e-16, "0.75 ± 0"),
        (0.123456789, None, "0.1235"),
    ],
)
def test_formatted_deviation_has_two_digits(mean: float, std: float | None, text: str) -> None:
    assert format_mean(Estimate(5, mean, std, None)) == text


def test_width_of_an_interval_determines_its_digits() -> None:
    assert format_interval(Estimate(5, 0.99166, 0.0032, (0.98769, 0.99563))) == "[0.9877, 0.9956]"
    assert format_interval(Estimate(2, 0.9, 0.1, (0.0011, 1.7989))) == "[0.00, 1.80]"
    assert format_interval(Estimate(2, 3e-8, 1e-8, (2e-8, 4e-8))) == "[2.0, 4.0]e-08"
    assert format_interval(None) == format_interval(Estimate(1, 0.9, None, None)) == "–"


@pytest.mark.parametrize(
    ("found", "location", "interval"),
    [
        (Estimate(5, 0.98766, 0.01, (0.9812, 0.9932)), "0.9877", "[0.9812, 0.9932]"),
        (Estimate(5, 2.3e-8, 1e-8, (2e-8, 4e-8)), "2.3e-08", "[2.0, 4.0]e-08"),
        (Estimate(9, 0.98766, 0.01, (0.98766, 0.98766)), "0.9877", "[0.9877, 0.9877]"),
        (Estimate(3, 0.98766, 0.01, None), "0.9877", "–"),
        (Estimate(6, 320.0, None, (280.0, 500.5), "median", 6), "320", "[280, 500.5]"),
        (Estimate(6, 320.5, None, (280.0, math.inf), "median", 5), "320.5", "[280, not reached]"),
        (Estimate(5, math.inf, None, None, "median", 2), "not reached", "–"),
        (
            Estimate(9, math.inf, None, (math.inf, math.inf), "median", 1),
            "not reached",
            "not reached",
        ),
        (None, "–", "–"),
    ],
)
def test_location_without_spread_has_the_digits_of_its_interval(
    found: Estimate | None, location: str, interval: str
) -> None:
    assert format_location(found) == location
    assert format_interval(found) == interval


def test_largest_numbers_are_formatted_without_overflow() -> None:
    huge = Estimate(2, 1e308, 5e307, (-math.inf, math.inf))
    assert format_interval(huge) == "[-inf, inf]"
    assert format_mean(huge) == "(1.00 ± 0.50)e+308"
    assert format_interval(Estimate(2, 1.2e308, 1e307, (1.1e308, 1.3e308))) == "[1.10, 1.30]e+308"
    assert format_difference(Difference(2, huge, 0.5)) == "+1e+308 [-inf, inf]"


def test_formatted_difference_has_a_sign() -> None:
    def text(mean: float, interval: tuple[float, float] | None) -> str:
        return format_difference(Difference(3, Estimate(3, mean, 0.1, interval), 0.5))

    assert text(0.0123, (0.0031, 0.0215)) == "+0.0123 [0.0031, 0.0215]"
    assert text(-0.012, (-0.22, 0.196)) == "-0.01 [-0.22, 0.20]"
    assert text(1 / 120, None) == "+0.008333"
    assert text(0.0, None) == "0"
    assert format_difference(Difference(0, None, None)) == format_difference(None) == "–"


def test_p_value_is_never_rounded_across_the_significance_level() -> None:
    shown = {None: "–", 1.0: "1.000", 0.001: "0.001", 0.00099: "<0.001", 0.0494: "0.049"}
    shown |= {0.0496: "0.0496", 0.04999: "0.04999", 0.05: "0.050", 0.0502: "0.050"}
    shown |= {math.nextafter(0.05, 0): "0.049999999999999996"}
    assert {p: format_p(p) for p in shown} == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(387.0, "387"), (235_530.0, "235530"), (0.0, "0"), (12.3456, "12.35"), (123456.7, "123457")],
)
def test_formatted_value_has_four_digits_or_is_a_whole_number(value: float, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (40.4, "40 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_formatted_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (40.4, "40 s"),
        (89.4, "89 s"),
        (89.6, "1 min"),
        (720, "12 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_rough_duration_is_rounded_to_seconds_or_minutes(seconds: float, text: str) -> None:
    assert format_rough_duration(seconds) == text

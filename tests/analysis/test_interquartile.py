"""The interquartile mean and its bootstrap interval, compared with SciPy and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.analysis.interquartile import (
    MIN_VALUES,
    RESAMPLES,
    _expanded_levels,
    interquartile_estimate,
    interquartile_mean,
)
from nnopt.analysis.statistics import estimate

numbers = st.integers(-(10**6), 10**6).map(lambda x: x / 8)


@settings(max_examples=25)
@given(st.lists(numbers, min_size=1, max_size=30))
def test_interquartile_mean_equals_trimmed_mean_of_scipy(values: list[float]) -> None:
    from scipy.stats import trim_mean

    expected = trim_mean(values, 0.25)
    assert interquartile_mean(values) == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_interquartile_mean_of_five_values_ignores_the_extremes() -> None:
    assert interquartile_mean([1000, 2, 1, 3, -1000]) == 2
    assert interquartile_mean([1, 2, 6]) == 3  # nothing is cut off from fewer than four values


@given(st.lists(numbers, min_size=1, max_size=12), numbers)
def test_interquartile_estimate_follows_shift_and_scale(values: list[float], shift: float) -> None:
    one = interquartile_estimate(values)
    other = interquartile_estimate([shift - 2 * x for x in values])
    tolerance = 1e-9 * (1 + abs(shift) + max(map(abs, values)))
    assert other.location == pytest.approx(shift - 2 * one.location, abs=tolerance)
    if one.interval is None:
        middle = sorted(values)[len(values) // 4 : len(values) - len(values) // 4]
        assert len(values) < MIN_VALUES or len({*middle}) == 1
        return
    low, high = one.interval
    assert min(values) <= low <= one.location <= high <= max(values)
    shifted = interquartile_estimate([shift + x for x in values]).interval
    assert shifted == pytest.approx((low + shift, high + shift), abs=tolerance)


def test_interquartile_estimate_is_reproducible_and_ignores_the_order() -> None:
    values = [0.91, 0.95, 0.90, 0.99, 0.93, 0.94]
    found = interquartile_estimate(values)
    assert found == interquartile_estimate(values[::-1])
    assert found.std == estimate(values).std
    assert found.n == 6


@pytest.mark.parametrize("n", [6, 7])
def test_interquartile_interval_equals_exact_percentiles_of_all_resamples(n: int) -> None:
    """All nⁿ equally likely resamples give the exact distribution of the bootstrap."""
    from scipy.stats import norm, t

    values = 2.0 ** np.arange(n)
    grid = np.stack(np.meshgrid(*[values] * n), axis=-1).reshape(-1, n)
    means = np.sort(np.sort(grid, axis=1)[:, 1 : n - 1].mean(axis=1))
    level = norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    found = interquartile_estimate(list(values)).interval
    assert found is not None
    assert 1 < found[0] < found[1] < values[-1]  # not always the smallest and the largest value
    error = 4 * math.sqrt(level / RESAMPLES)  # standard error of the level, four times
    ends = [np.quantile(means, [max(level - error, 0), level + error])]
    ends.append(np.quantile(means, [1 - level - error, min(1 - level + error, 1)]))
    for end, (low, high) in zip(found, ends, strict=True):
        assert low <= end <= high


@pytest.mark.parametrize("n", [2, 6, 30])
def test_levels_of_expanded_percentiles_are_those_of_hesterberg(n: int) -> None:
    from scipy.stats import norm, t

    level = norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    assert _expanded_levels(n) == pytest.approx((level, 1 - level), rel=1e-9)


def test_interquartile_interval_of_largest_numbers_does_not_overflow() -> None:
    values = [1.0e308, 1.5e308, 1.7e308, 1.6e308, 1.1e308, 1.3e308]
    low, high = interquartile_estimate(values).interval or (0.0, 0.0)
    assert 1e308 <= low < 1.4e308 < high <= 1.7e308


@pytest.mark.parametrize("values", [[0.5], [1, 2, 3, 4, 5], [0.7] * 6])
def test_few_or_equal_values_have_no_interquartile_interval(values: list[float]) -> None:
    assert interquartile_estimate(values).interval is None


def test_interquartile_interval_of_mostly_equal_values_is_not_a_point() -> None:
    """All percentiles of the resamples are 0.9, although the values differ."""
    found = interquartile_estimate([0.9] * 19 + [0.5])
    assert (found.location, found.interval) == (0.9, None)
    assert found.std


def test_interquartile_interval_of_many_values_needs_little_memory() -> None:
    """2,000 values have 40 million resampled values, 320 MB as float64."""
    import tracemalloc

    values = [float(x) for x in np.random.default_rng(0).normal(0, 1, 2000)]
    tracemalloc.start()
    found = interquartile_estimate(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    assert found.interval is not None
    # The IQM of many normal values has the standard error 1.09 / √n (trimmed mean, 25 %).
    width = found.interval[1] - found.interval[0]
    assert width == pytest.approx(2 * 1.96 * 1.09 / math.sqrt(2000), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("kind", ["normal", "outliers", "skewed"])
def test_interquartile_interval_covers_the_true_value(n: int, kind: str) -> None:
    """The coverage is at least 93 %; 95 % is the aim."""
    draw = np.random.default_rng(n)

    def sample(cases: int) -> np.ndarray:
        x = draw.normal(0, 1, (cases, n))
        if kind == "outliers":
            x *= np.where(draw.random((cases, n)) < 0.1, 8, 1)
        return np.exp(x / 2) if kind == "skewed" else x

    cut = n // 4
    true = np.sort(sample(200_000), axis=1)[:, cut : n - cut].mean()
    cases = 500
    intervals = [interquartile_estimate(list(row)).interval for row in sample(cases)]
    covered = np.mean([found is not None and found[0] <= true <= found[1] for found in intervals])
    expected = 0.93
    assert covered >= expected - 2.5 * math.sqrt(expected * (1 - expected) / cases)

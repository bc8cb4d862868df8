"""Intervals, paired tests and corrections, compared with SciPy, tables and simulations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.analysis.statistics import (
    SIGNIFICANCE,
    Difference,
    corrected,
    estimate,
    holm,
    paired_difference,
)

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


def test_estimate_of_five_values_equals_hand_calculation() -> None:
    """The mean is 3, s = √2.5, and the 97.5 % quantile of t with 4 degrees of freedom is 2.776."""
    found = estimate([1, 2, 3, 4, 5])
    assert (found.n, found.location) == (5, 3)
    assert found.std == pytest.approx(math.sqrt(2.5), rel=1e-15)
    assert found.interval is not None
    half = 2.776445105 * math.sqrt(2.5) / math.sqrt(5)
    assert found.interval == pytest.approx((3 - half, 3 + half), rel=1e-9)


@settings(max_examples=25)
@given(st.lists(numbers, min_size=2, max_size=12))
def test_estimate_interval_equals_scipy(values: list[float]) -> None:
    from scipy import stats

    actual = estimate(values)
    if actual.interval is None:
        assert max(values) == min(values)
        assert actual.std == 0
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    scale = max(map(abs, values))
    assert actual.interval == pytest.approx(tuple(expected), rel=1e-7, abs=1e-9 * scale)


def test_estimate_of_extreme_samples_is_correct() -> None:
    one = estimate([0.5])
    assert (one.n, one.location, one.std, one.interval) == (1, 0.5, None, None)
    assert estimate([1.5e308, 1.7e308]).location == pytest.approx(1.6e308)
    assert estimate([0.1 + 0.2, 0.3, 0.3]).std == 0  # the values differ only by rounding


@settings(max_examples=25)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=10))
def test_paired_difference_equals_scipy(pairs: list[tuple[float, float]]) -> None:
    from scipy import stats

    ours, theirs = zip(*pairs, strict=True)
    actual = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert actual.pairs == len(pairs)
    if actual.p is None:
        spread = np.ptp(np.subtract(ours, theirs))
        assert spread <= 1e-9 * max(map(abs, (*ours, *theirs, 1)))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy warns of nearly equal differences
        expected = stats.ttest_rel(ours, theirs)
    assert actual.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


def test_paired_difference_uses_common_seeds() -> None:
    found = paired_difference({1: 3.0, 2: 5.0, 9: 100.0}, {2: 4.0, 1: 1.0, 7: -100.0})
    assert found.pairs == 2
    assert found.change is not None
    assert found.change.location == 1.5  # (3 - 1 + 5 - 4) / 2
    # s = 1/√2, t = 1.5 / (s / √2) = 3; for one degree of freedom, p = 1 - 2/π atan 3.
    assert found.p == pytest.approx(1 - 2 / math.pi * math.atan(3), rel=1e-12)


def test_paired_difference_removes_the_effect_of_the_seed() -> None:
    """Welch's unpaired test of the same numbers finds no difference."""
    from scipy import stats

    seeds = {0: 0.80, 1: 0.90, 2: 0.70, 3: 0.85, 4: 0.95}
    wiggles = (0.001, -0.001, 0.002, 0.0, -0.002)
    other = {s: x + 0.01 + w for (s, x), w in zip(seeds.items(), wiggles, strict=True)}
    found = paired_difference(other, seeds)
    assert found.p is not None
    assert found.p < 0.001
    assert stats.ttest_ind(list(other.values()), list(seeds.values()), equal_var=False).pvalue > 0.8


def test_paired_difference_without_variance_has_no_p() -> None:
    """All differences are 1/120 except for rounding errors of 1e-17, with which t would be 1e14."""
    accuracies = {seed: k / 120 for seed, k in enumerate((101, 113, 97))}
    higher = {seed: k / 120 for seed, k in enumerate((102, 114, 98))}
    found = paired_difference(higher, accuracies)
    assert found.p is None
    assert found.change is not None
    assert found.change.location == pytest.approx(1 / 120)
    assert found.change.interval is None
    same = paired_difference({0: 0.1 + 0.2, 1: 0.7}, {0: 0.3, 1: 0.7})
    assert same.p is None
    assert same.change is not None
    assert same.change.location == 0


def test_paired_difference_of_one_or_no_seed_has_no_p() -> None:
    one = paired_difference({0: 1.0, 1: 2.0}, {1: 1.5, 2: 7.0})
    assert (one.pairs, one.p) == (1, None)
    assert paired_difference({0: 1.0}, {1: 1.0}) == Difference(0, None, None)


def test_holm_correction_equals_hand_calculation() -> None:
    """0.005 x 4 = 0.02, 0.01 x 3 = 0.03 and 0.03 x 2 = 0.06; 0.04 x 1 is raised to 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_correction_equals_the_stepwise_rule(p_values: list[float]) -> None:
    """Of m sorted p-values, reject p₁, p₂, ... until one is above α / (m - i + 1) (Holm 1979)."""
    alpha = 0.05
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - rank) * p_values[index] > alpha:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_differences_without_p_are_not_corrected() -> None:
    tested = Difference(5, estimate([1, 2, 4]), 0.02)
    untested = Difference(1, estimate([1]), None)
    found = corrected([tested, None, untested, tested])
    assert [x and x.p_holm for x in found] == [0.04, None, None, 0.04]


# False positives ----------------------------------------------------------------------------------

COMPARISONS = 200
LIMIT = 18
"""If each of 200 comparisons errs with probability 5 %, P(more than 18 errors) is below 1 %."""


def test_simulation_limit_equals_scipy() -> None:
    from scipy.stats import binom

    assert (
        binom.sf(LIMIT, COMPARISONS, SIGNIFICANCE)
        < 0.01
        < binom.sf(LIMIT - 1, COMPARISONS, SIGNIFICANCE)
    )


def accuracies(rows: int, seeds: int, samples: int, draw: np.random.Generator) -> np.ndarray:
    """Return test accuracies (rows, seeds) of equally good settings.

    Each seed shifts the accuracies of all settings by the same amount. ``samples`` is the size of
    the test set; if it is small, some accuracies are equal.
    """
    seed_effect = draw.normal(0, 0.02, seeds)
    skill = 0.9 + seed_effect + draw.normal(0, 0.01, (rows, seeds))
    return draw.binomial(samples, np.clip(skill, 0, 1)) / samples


@pytest.mark.parametrize("samples", [120, 10_000])
@pytest.mark.parametrize(("rows", "seeds"), [(2, 2), (2, 5), (5, 3), (6, 5)])
def test_equal_settings_rarely_differ_with_correction(rows: int, seeds: int, samples: int) -> None:
    """At most 18 of 200 comparisons contain a significant difference; 5 % would be 10."""
    draw = np.random.default_rng(rows * 100 + seeds)
    errors = 0
    for _ in range(COMPARISONS):
        table = accuracies(rows, seeds, samples, draw)
        baseline, *others = [dict(enumerate(row)) for row in table]
        found = corrected([paired_difference(values, baseline) for values in others])
        errors += any(x is not None and x.is_significant for x in found)
    assert errors <= LIMIT


def test_equal_settings_often_differ_without_correction() -> None:
    """Without the correction, more than 18 of 200 comparisons contain a significant difference."""
    draw = np.random.default_rng(605)
    errors = 0
    for _ in range(COMPARISONS):
        baseline, *others = [dict(enumerate(row)) for row in accuracies(6, 5, 10_000, draw)]
        p_values = [paired_difference(values, baseline).p for values in others]
        errors += any(p is not None and p < SIGNIFICANCE for p in p_values)
    assert errors > LIMIT


def test_real_difference_is_usually_found_with_correction() -> None:
    """The difference is 4 percentage points; the noise of each accuracy is about 1 point."""
    draw = np.random.default_rng(1)
    found = 0
    for _ in range(50):
        table = accuracies(3, 5, 10_000, draw)
        baseline, same, higher = [dict(enumerate(row)) for row in table]
        higher = {seed: value + 0.04 for seed, value in higher.items()}
        tested = corrected([paired_difference(x, baseline) for x in (same, higher)])
        found += tested[1] is not None and tested[1].is_significant
    assert found > 40

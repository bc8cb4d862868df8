"""The Mann-Whitney test with ties, compared with SciPy and enumerations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.analysis.rank_test import PERMUTATIONS, mann_whitney_p

INF = math.inf
few_times = st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, INF]), min_size=1, max_size=5)


def test_fully_separated_times_have_the_smallest_possible_p() -> None:
    """One of C(10, 5) = 252 choices of ranks is as low, and one is as high."""
    assert mann_whitney_p([1, 2, 3, 4, 5], [6, 7, 8, 9, INF]) == pytest.approx(2 / 252, rel=1e-12)
    assert mann_whitney_p([1, 2, 3], [INF, INF, INF]) == pytest.approx(2 / 20, rel=1e-12)


@given(few_times, few_times)
def test_p_equals_enumeration_of_gehans_statistic(x: list[float], y: list[float]) -> None:
    """Gehan's statistic is the number of wins minus losses; two unreached targets are undecided."""

    def statistic(chosen: tuple[int, ...]) -> int:
        one = [pooled[i] for i in chosen]
        other = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        return sum((a < b) - (a > b) for a in one for b in other)

    pooled = x + y
    observed = abs(statistic(tuple(range(len(x)))))
    choices = list(combinations(range(len(pooled)), len(x)))
    expected = np.mean([abs(statistic(chosen)) >= observed for chosen in choices])
    assert mann_whitney_p(x, y) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=20)
@given(st.permutations(range(17)), st.integers(1, 16))
def test_p_without_ties_equals_exact_test_of_scipy(order: list[int], size: int) -> None:
    from scipy.stats import mannwhitneyu

    x, y = order[:size], order[size:]
    expected = mannwhitneyu(x, y, method="exact").pvalue
    assert mann_whitney_p(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("sizes", "reached"),
    [((3, 100), (1, 0)), ((60, 60), (9, 2)), ((30, 270), (5, 20)), ((500, 500), (60, 40))],
)
def test_p_of_one_reached_time_equals_fishers_exact_test(
    sizes: tuple[int, int], reached: tuple[int, int]
) -> None:
    """If all reached times are equal, only the counts matter: 90 % of the times are tied."""
    from scipy.stats import hypergeom

    x, y = ([1.0] * k + [INF] * (n - k) for k, n in zip(reached, sizes, strict=True))
    counts = np.arange(sum(reached) + 1)
    mean = sizes[0] * sum(reached) / sum(sizes)
    far = np.abs(counts - mean) >= abs(reached[0] - mean) - 1e-9
    expected = hypergeom.pmf(counts, sum(sizes), sum(reached), sizes[0])[far].sum()
    assert mann_whitney_p(x, y) == pytest.approx(expected, rel=1e-9)


def test_p_with_90_percent_ties_equals_enumeration() -> None:
    """Four different times among 43 are in any of C(43, 3) choices of three."""
    x, y = [1.0, 3.0, INF], [2.0, 4.0, *[INF] * 38]
    ranks = np.array([1, 3, 2, 4, *[(5 + 43) / 2] * 39])
    sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(43), 3)])
    observed, mean = ranks[0] + ranks[1] + ranks[4], 3 * 44 / 2
    expected = np.mean(np.abs(sums - mean) >= abs(observed - mean) - 1e-9)
    assert mann_whitney_p(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "shift"), [(60, 0.3), (400, 0.2)])
def test_p_of_many_different_times_is_near_the_normal_approximation(n: int, shift: float) -> None:
    """60 times each have an exact p value; for 400 times, random permutations estimate it."""
    from scipy.stats import mannwhitneyu

    draw = np.random.default_rng(n)
    x, y = draw.normal(0, 1, n), draw.normal(shift, 1, n + 1)
    expected = mannwhitneyu(x, y, method="asymptotic").pvalue
    error = 5 * math.sqrt(expected / PERMUTATIONS) + 0.02 * expected
    assert mann_whitney_p(list(x), list(y)) == pytest.approx(expected, abs=error)
    assert mann_whitney_p(list(x), list(y)) == mann_whitney_p(list(y), list(x))
    assert mann_whitney_p(list(x), list(x + 100)) == pytest.approx(0, abs=2 / PERMUTATIONS)


def test_p_from_permutations_is_never_zero() -> None:
    """The observed choice of ranks counts as a permutation (Phipson and Smyth 2010)."""
    x = [float(n) for n in range(400)]
    assert mann_whitney_p(x, [n + 1000 for n in x]) == 1 / (1 + PERMUTATIONS)

"""Tests of equivalence and numbers of seeds, compared with SciPy, tables and simulations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.analysis.equivalence import (
    MAX_SEEDS,
    POWER,
    equivalence_p,
    margin_text,
    noncentral_t_cdf,
    power_of_difference,
    power_of_equivalence,
    read_margins,
    seeds_to_decide,
    with_equivalence_test,
    with_seeds,
)
from nnopt.analysis.statistics import (
    SIGNIFICANCE,
    Difference,
    Estimate,
    corrected,
    estimate,
    paired_difference,
)
from nnopt.errors import ConfigError
from nnopt.plots.sweep.metric import UNITS

CASES, INF = 2000, math.inf
samples = st.lists(st.integers(-1000, 1000).map(lambda x: x / 8), min_size=2, max_size=10).filter(
    lambda values: len({*values}) > 1
)
margins = st.integers(1, 800).map(lambda x: x / 8)


def most_errors(cases: int, probability: float) -> int:
    """Return the largest number of errors that does not show a higher probability (at 0.1 %)."""
    from scipy.stats import binom

    return int(binom.ppf(0.999, cases, probability))


def change_of(values: Sequence[float], margin: float) -> Difference:
    """Return the difference of values from 0 with both tests."""
    zeros = dict.fromkeys(range(len(values)), 0.0)
    return with_equivalence_test(paired_difference(dict(enumerate(values)), zeros), margin)


def test_equivalence_p_equals_hand_calculation() -> None:
    """Mean 3, s = √2.5 and margin 5 give t = -2 / √0.5 = -√8.

    With 4 degrees of freedom, F(t) = 1/2 + 3/8 · t / √(1 + t²/4) · (1 - t² / (12 (1 + t²/4))).
    """
    expected = 1 / 2 - 3 / 8 * math.sqrt(8 / 3) * (1 - 8 / 36)
    assert equivalence_p(estimate([1, 2, 3, 4, 5]), 5) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25)
@given(samples, margins)
def test_equivalence_p_is_larger_p_of_two_one_sided_tests_of_scipy(
    values: list[float], margin: float
) -> None:
    from scipy.stats import ttest_1samp

    above = ttest_1samp(values, -margin, alternative="greater").pvalue
    below = ttest_1samp(values, margin, alternative="less").pvalue
    actual = equivalence_p(estimate(values), margin)
    assert actual == pytest.approx(max(above, below), rel=1e-9, abs=1e-14)


@settings(max_examples=25)
@given(samples, margins)
def test_differences_are_equivalent_if_the_90_percent_interval_is_within_the_margin(
    values: list[float], margin: float
) -> None:
    from scipy.stats import ttest_1samp

    low, high = ttest_1samp(values, 0).confidence_interval(0.90)
    distance = min(low + margin, margin - high)
    if abs(distance) > 1e-9 * margin:
        assert (equivalence_p(estimate(values), margin) < SIGNIFICANCE) == (distance > 0)


@given(samples, margins)
def test_equivalence_p_depends_neither_on_sign_nor_on_unit(
    values: list[float], margin: float
) -> None:
    p = equivalence_p(estimate(values), margin)
    assert equivalence_p(estimate([-x for x in values]), margin) == p
    scaled = equivalence_p(estimate([100 * x for x in values]), 100 * margin)
    assert scaled == pytest.approx(p, rel=1e-9, abs=1e-14)


@given(samples, margins)
def test_equivalence_p_decreases_with_the_margin(values: list[float], margin: float) -> None:
    change = estimate(values)
    assert equivalence_p(change, 2 * margin) <= equivalence_p(change, margin)


@given(samples)
def test_shift_by_the_margin_exchanges_the_tests(values: list[float]) -> None:
    """If the mean is on the margin, t is 0. Below it by d, t is that of the mean d from zero."""
    change = estimate(values)
    d = abs(change.location)
    if d:
        assert equivalence_p(change, d) == pytest.approx(0.5, abs=1e-9)
        p_of_zero = change_of(values, d).p
        assert p_of_zero is not None
        assert equivalence_p(change, 2 * d) == pytest.approx(p_of_zero / 2, rel=1e-9, abs=1e-14)


def test_differences_without_spread_have_no_equivalence_test() -> None:
    found = change_of([1.0, 1.0, 1.0], 2.0)
    assert (found.p, found.p_equivalence, found.margin) == (None, None, 2.0)
    assert change_of([1.0], 2.0).p_equivalence is None
    assert with_equivalence_test(change_of([1.0, 2.0], 2.0), None).p_equivalence is not None
    assert with_equivalence_test(paired_difference({0: 1.0}, {1: 1.0}), 1.0).p_equivalence is None


def test_tests_of_difference_and_of_equivalence_are_corrected_separately() -> None:
    change = estimate([1, 2, 4])
    both = [Difference(3, change, p, None, 0.1, q) for p, q in ((0.01, 0.3), (0.04, 0.02))]
    alone = Difference(3, change, 0.02)
    found = corrected([*both, None, alone])
    values = [(x.p_holm, getattr(x, "p_equivalence_holm", None)) for x in found if x]
    assert values == [(0.03, 0.3), (0.04, 0.04), (0.04, None)]
    # Adding a margin changes no p value of a difference.
    plain = corrected([replace(x, p_equivalence=None) for x in both] + [alone])
    assert [x.p_holm for x in plain if x] == [p for p, _ in values]


# False positives ----------------------------------------------------------------------------------


def decisions(
    true: Sequence[float], seeds: int, margin: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate ``CASES`` comparisons of settings with the ``true`` differences from a baseline.

    Returns:
        Whether each setting is significantly different, and whether it is significantly
        equivalent, both of the shape (CASES, settings).
    """
    draw = np.random.default_rng(seed)
    different, equivalent = np.zeros((2, CASES, len(true)), dtype=bool)
    shared = draw.normal(0, 1, (CASES, 1, seeds))  # of the seed; it has no effect on differences
    scores = shared + draw.normal(0, 1, (CASES, len(true) + 1, seeds))
    scores[:, 1:] += np.asarray(true)[:, None]
    for case, table in enumerate(scores):
        baseline, *others = [dict(enumerate(row)) for row in table]
        pairs = [with_equivalence_test(paired_difference(x, baseline), margin) for x in others]
        for i, x in enumerate(corrected(pairs)):
            assert isinstance(x, Difference)
            different[case, i], equivalent[case, i] = x.is_significant, x.is_equivalent
    return different, equivalent


@pytest.mark.slow
@pytest.mark.parametrize(("others", "seeds"), [(1, 3), (1, 5), (3, 5), (5, 10)])
def test_settings_at_the_margin_are_rarely_called_equivalent(others: int, seeds: int) -> None:
    """Differences of exactly the margin give the highest rate of errors, at most 5 % per table."""
    margin = 2.0
    signs = [1 if i % 2 else -1 for i in range(others)]
    _, equivalent = decisions([sign * margin for sign in signs], seeds, margin, others + seeds)
    assert equivalent.any(axis=1).sum() <= most_errors(CASES, SIGNIFICANCE)


@pytest.mark.slow
@pytest.mark.parametrize(("others", "seeds"), [(1, 3), (3, 5), (5, 10)])
def test_equal_settings_are_rarely_called_better_or_worse(others: int, seeds: int) -> None:
    different, _ = decisions([0.0] * others, seeds, 2.0, others + seeds)
    assert different.any(axis=1).sum() <= most_errors(CASES, SIGNIFICANCE)


@pytest.mark.slow
def test_each_kind_of_error_is_rare_if_some_settings_are_equal_and_some_differ() -> None:
    """The first two settings are equal to the baseline; two others differ by the margin."""
    different, equivalent = decisions([0, 0, 2, -2], 8, 2.0, 7)
    limit = most_errors(CASES, SIGNIFICANCE)
    assert different[:, :2].any(axis=1).sum() <= limit
    assert equivalent[:, 2:].any(axis=1).sum() <= limit


def test_single_comparison_of_equal_settings_at_the_margin_has_power() -> None:
    """With 30 seeds and a margin of two standard deviations, equivalence is nearly certain."""
    _, equivalent = decisions([0.0], 30, 2.0, 1)
    assert equivalent.mean() > 0.99


# Power --------------------------------------------------------------------------------------------


def simulated_t(n: int, mean: float, std: float, offset: float, draw: int) -> np.ndarray:
    """Return t statistics of n differences with the given mean, tested against ``offset``."""
    values = np.random.default_rng(draw).normal(mean, std, (20_000, n))
    return np.asarray((values.mean(axis=1) - offset) / (values.std(axis=1, ddof=1) / math.sqrt(n)))


@pytest.mark.parametrize(("n", "effect"), [(3, 1.5), (5, 0.8), (12, 1.0), (40, 0.4)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_power_of_difference_equals_simulation(n: int, effect: float, level: float) -> None:
    from scipy.stats import t

    power = power_of_difference(n, -2 * effect, 2, level)
    share = np.mean(simulated_t(n, effect, 1, 0, n) > t.isf(level / 2, n - 1))
    assert power == pytest.approx(share, abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize(("n", "mean"), [(10, 0.0), (20, 0.0), (20, 0.3), (40, 0.5)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_power_of_equivalence_is_a_close_lower_bound_of_simulation(
    n: int, mean: float, level: float
) -> None:
    from scipy.stats import t

    bound, quantile = power_of_equivalence(n, -mean, 1, 1.0, level), t.isf(level, n - 1)
    below = simulated_t(n, mean, 1, 1.0, n) < -quantile
    share = np.mean(below & (simulated_t(n, mean, 1, -1.0, n) > quantile))
    error = 4 * math.sqrt(0.25 / 20_000)
    assert bound <= share + error
    if share > 0.5:
        assert bound == pytest.approx(share, abs=error)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_number_of_seeds_for_a_difference_equals_published_tables(effect: float, n: int) -> None:
    """G*Power 3.1, paired t test, two-sided α = 0.05, power 0.8: 199, 34, 15 and 10 pairs."""
    assert seeds_to_decide(Estimate(3, effect, 1.0, None), 1e-6) == n


@given(
    st.integers(2, 12),
    st.integers(-300, 300).map(lambda x: x / 100),
    st.integers(1, 300).map(lambda x: x / 100),
    st.integers(1, 6),
)
def test_number_of_seeds_is_the_smallest_with_power(
    n: int, mean: float, margin: float, tests: int
) -> None:
    def power(seeds: int) -> float:
        level = SIGNIFICANCE / tests
        one = power_of_difference(seeds, mean, 1.0, level)
        return max(one, power_of_equivalence(seeds, mean, 1.0, margin, level))

    found = seeds_to_decide(Estimate(n, mean, 1.0, None), margin, tests, tests)
    if found is None:
        assert power(MAX_SEEDS) < POWER
        return
    assert n < found <= MAX_SEEDS
    assert power(found) >= POWER
    if found - 1 > n:
        assert power(found - 1) < POWER


def test_number_of_seeds_is_none_above_the_limit() -> None:
    assert seeds_to_decide(Estimate(5, 1e-3, 1.0, None), 1e-3) is None
    assert seeds_to_decide(Estimate(MAX_SEEDS, 1.0, 1.0, None), 1.0) is None
    assert seeds_to_decide(Estimate(5, 0.0, 0.0, None), 1.0) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "margin"), [(0.8, 0.9), (0.0, 1.0), (0.2, 1.4)], ids=["different", "equal", "similar"]
)
def test_computed_number_of_seeds_decides_with_power_of_80_percent(
    mean: float, margin: float
) -> None:
    """The standard deviation of a difference is √2. One of both results has most of the power."""
    n = seeds_to_decide(Estimate(3, mean, math.sqrt(2), None), margin)
    assert n is not None
    different, equivalent = decisions([mean], n, margin, 3)
    share = max(different.mean(), equivalent.mean())
    error = 4 * math.sqrt(POWER * (1 - POWER) / CASES)
    assert POWER - error <= share <= POWER + 0.05 + error  # 0.05: the number is rounded up


def test_only_undecided_differences_have_a_number_of_seeds() -> None:
    unclear, equal, better = [0.5, -0.4, 0.1, 0.3], [0.01, -0.01, 0.02, 0.0], [5.0, 5.1, 5.2, 4.9]
    found = with_seeds(corrected([change_of(x, 0.2) for x in (unclear, equal, better)]))
    seeds = [x.seeds for x in found if isinstance(x, Difference)]
    assert seeds[0] is not None
    assert seeds[0] > 4
    assert seeds[1:] == [None, None]


def test_number_of_seeds_has_two_significant_digits_and_is_rounded_up() -> None:
    change = estimate([0.2 + 0.1 * x for x in (-1, 1, -1, 1, -1)])
    exact = seeds_to_decide(replace(change, location=0.015), 0.001)
    assert exact is not None
    assert exact > 100
    one = Difference(5, replace(change, location=0.015), 0.5, 0.5, 0.001, 0.5, 0.5)
    (found,) = with_seeds([one])
    assert isinstance(found, Difference)
    assert found.is_decided is False
    assert found.seeds == math.ceil(exact / 10) * 10


# The option ---------------------------------------------------------------------------------------


def read(texts: Sequence[str], *metrics: str) -> dict[str, float]:
    return read_margins(texts, {metric: metric for metric in metrics})


def test_margins_are_read_with_and_without_metric() -> None:
    assert read([], *["test_loss"]) == {}
    assert read(["0.002"], *["test_accuracy"]) == {"test_accuracy": 0.002}
    both = read(["test_loss=1e-2", "test_accuracy = .5"], *["test_accuracy", "test_loss"])
    assert both == {"test_loss": 0.01, "test_accuracy": 0.5}


@pytest.mark.parametrize("number", ["0", "-0.1", "nan", "inf", "2 %", "", "1", "1_0e-3", "٠.١"])
def test_margin_of_accuracy_outside_0_to_1_is_refused(number: str) -> None:
    message = f"--margin {number}: the margin of test_accuracy must be a number above 0 and below 1"
    with pytest.raises(ConfigError, match=message):
        read([number], *["test_accuracy"])


@pytest.mark.parametrize(
    "metric", ["test_macro_f1", "test_calibration_error", "generalization_gap", "sparsity"]
)
def test_margin_of_other_fractions_above_1_is_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a number above 0 and below 1, such as 0\.002"):
        read(["2"], metric)
    assert read(["0.5"], metric) == {metric: 0.5}


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "-inf", "large"])
def test_margin_of_loss_that_is_not_positive_and_finite_is_refused(number: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a finite number above 0$"):
        read([number], *["test_loss"])


def test_all_wrong_margins_are_reported() -> None:
    metrics = ["test_accuracy", "test_loss", "steps_to_target"]
    given = ["0.1", "loss=1", "test_loss=0", "test_accuracy=.1", "test_accuracy=.2"]
    given.append("steps_to_target=5")
    with pytest.raises(ConfigError) as caught:
        read(given, *metrics)
    found = caught.value.problems
    assert [problem.partition(":")[0] for problem in found] == [
        f"--margin {text}" for text in given if text != "test_accuracy=.1"
    ]
    assert "name the metric of the margin, as in --margin test_accuracy=0.1" in found[0]
    assert "'loss' is not compared; compared metrics: test_accuracy, test_loss" in found[1]
    assert "test_accuracy has two margins; give one" in found[3]
    assert "steps_to_target is compared by ranks" in found[4]


def test_margin_is_shown_with_its_unit() -> None:
    assert margin_text("test_accuracy", 0.002) == "0.002"
    assert margin_text("train_seconds", 1.5) == "1.5 s"
    assert margin_text("peak_memory_mb", 20.0) == "20 MiB"
    assert margin_text("test_loss", 0.123456789) == "0.123456789"
    assert margin_text("parameters", 1234567.0) == "1234567"


def test_units_of_margins_are_those_of_plots() -> None:
    for metric in ("train_seconds", "peak_memory_mb", "total_seconds"):
        unit = UNITS[metric.rpartition("_")[2]]
        assert margin_text(metric, 2.0) == f"2 {unit}"


def test_margin_of_metric_with_the_name_of_a_key_accepts_both_names() -> None:
    labels = {"epochs": "epochs_done", "test_loss": "test_loss"}
    assert read_margins(["epochs_done=2"], labels) == {"epochs": 2}
    assert read_margins(["epochs=2"], labels) == {"epochs": 2}
    with pytest.raises(ConfigError, match=r"epochs has two margins"):
        read_margins(["epochs=2", "epochs_done=3"], labels)
    with pytest.raises(ConfigError, match=r"compared metrics: epochs_done, test_loss$"):
        read_margins(["test_loss_done=2"], labels)


# Extreme numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "mean", "level"),
    [
        (8, 60.805609856661135 / math.sqrt(8), 0.05 / 6),
        (8, 21.2, 0.05),
        (5, 1e300, 0.01),
    ],
)
def test_power_of_large_difference_is_one(n: int, mean: float, level: float) -> None:
    """SciPy's nctdtr returns NaN for the first of these noncentralities."""
    assert power_of_difference(n, mean, 1, level) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("df", [1, 4, 7, 50, 999])
@pytest.mark.parametrize("t", [-3.6, 3.6])
def test_noncentral_distribution_has_limits_for_all_noncentralities(df: int, t: float) -> None:
    points = [*np.linspace(20, 200, 2000), 1e9, 1e300, INF]
    assert max(noncentral_t_cdf(df, x, t) for x in points) < 1e-6
    assert min(noncentral_t_cdf(df, -x, t) for x in points) > 1 - 1e-6


def test_noncentral_distribution_without_scipy_is_nearly_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without SciPy's value, the normal approximation is used. Its error is about 0.003 here."""
    from scipy import special

    cases = [(5, 2.0, 3.0), (4, 1.0, 2.0), (10, 3.0, 4.0), (8, 2.0, 2.0)]
    expected = [float(special.nctdtr(*case)) for case in cases]
    monkeypatch.setattr(special, "nctdtr", lambda *_: math.nan)
    assert [noncentral_t_cdf(*case) for case in cases] == pytest.approx(expected, abs=0.004)


def test_smallest_differences_of_float64_have_p_values() -> None:
    """The standard error of these differences is rounded to 0."""
    tiny = 5e-324
    values = {seed: tiny * (3 + 2 * (seed % 2)) for seed in range(16)}
    found = with_equivalence_test(paired_difference(values, dict.fromkeys(values, 0.0)), tiny)
    assert found.p is not None
    assert 0 <= found.p < 0.05
    assert found.p_equivalence is not None
    assert change_of([tiny, 0.0, tiny, 0.0, tiny], 0.01).p_equivalence == 0

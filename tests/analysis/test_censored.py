"""Times to a target: medians, budgets and rank tests, compared with SciPy and enumerations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.analysis.censored import (
    MAX_EXACT,
    Times,
    mann_whitney_p,
    median_estimate,
    rank_difference,
    times_of,
)
from nnopt.analysis.comparison import Comparison, compare_runs
from nnopt.analysis.settings import read_condition
from nnopt.analysis.statistics import SIGNIFICANCE, RankDifference, corrected
from nnopt.analysis.verdict import verdict
from nnopt.errors import ConfigError
from nnopt.results.collect import Run, Value
from nnopt.results.metrics import CENSORED, better_direction

STEPS, INF = "steps_to_target", math.inf
few_times = st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, INF]), min_size=1, max_size=5)


def times(*values: float, budget: float = 10.0, target: Value = 0.9) -> Times:
    return Times(dict(enumerate(values)), budget, ("accuracy", target))


def runs_of(
    values: Sequence[float | None], status: str = "done", metric: str = STEPS, **settings: Value
) -> list[Run]:
    """Return runs of 60 epochs and 1,200 steps. None stands for a run without a time."""
    known = {"dataset": "spiral", "epochs": 60, "max_steps": None}
    known |= {"target.metric": "validation_accuracy", "target.value": 0.9}
    known |= {key.replace("__", "."): value for key, value in settings.items()}
    length = {"epochs": 60.0, "steps": 1200.0, "train_seconds": 6.0}
    return [
        Run(
            Path(f"run{seed}"),
            seed,
            status,
            None,
            known,
            length | ({} if x is None else {metric: float(x)}),
            frozenset(),
            0.0,
        )
        for seed, x in enumerate(values)
    ]


def compared(runs: Sequence[Run], *baseline: str, metric: str = STEPS) -> Comparison:
    known = [key for run in runs for key in run.settings]
    return compare_runs(runs, [metric], [read_condition(word, known) for word in baseline])


def verdicts(comparison: Comparison) -> list[str]:
    (metric,) = comparison.metrics
    return [verdict(row, row.outcomes[0], metric) for row in comparison.rows]


# The rank test ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("size", [40, 60])
def test_p_of_many_times_with_ties_equals_asymptotic_test_of_scipy(size: int) -> None:
    from scipy.stats import mannwhitneyu

    draw = np.random.default_rng(size)
    x, y = draw.integers(0, 9, size), draw.integers(1, 10, size + 5)
    expected = mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue
    is_exact = 2 * size + 5 <= MAX_EXACT
    assert mann_whitney_p(x, y) == pytest.approx(expected, rel=0.1 if is_exact else 1e-9)


@given(few_times, few_times)
def test_rank_difference_is_symmetric_and_depends_only_on_ranks(
    x: list[float], y: list[float]
) -> None:
    one = rank_difference(times(*x), times(*y))
    other = rank_difference(times(*y), times(*x))
    assert one.earlier is not None
    assert other.earlier == pytest.approx(1 - one.earlier)
    assert other.p == (None if one.p is None else pytest.approx(one.p, rel=1e-12))
    assert (one.p is None) == (len({*x, *y}) == 1)
    cubed = [times(*(value**3 for value in values), budget=1000.0) for values in (x, y)]
    found = rank_difference(*cubed)
    assert (found.earlier, found.p) == (one.earlier, one.p)


def test_probability_to_be_earlier_counts_ties_as_half() -> None:
    """Of 6 pairs, 3 are won, 2 are tied and 1 is lost."""
    found = rank_difference(times(1, 3, INF), times(3, INF))
    assert found.earlier == pytest.approx(4 / 6)
    assert (found.runs, found.reached) == ((3, 2), 3)


def test_times_after_the_smaller_budget_count_as_not_reached() -> None:
    long = times(4, 8, 15, 19, budget=20.0)
    short = times(7, 9, INF, INF, budget=10.0)
    found = rank_difference(long, short)
    assert (found.budget, found.later, found.reached) == (10.0, 2, 4)
    same = rank_difference(times(4, 8, INF, INF), times(7, 9, INF, INF))
    assert (found.p, found.earlier) == (same.p, same.earlier)
    back = rank_difference(short, long)
    assert (back.p, back.later) == (pytest.approx(found.p), 2)


def test_different_targets_are_not_compared() -> None:
    found = rank_difference(times(1, 2, 3), times(4, 5, 6, target=0.95))
    assert (found.p, found.earlier) == (None, None)


# False positives ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("budgets", [(2.0, 2.0), (0.7, 0.7), (2.0, 0.7)])
@pytest.mark.parametrize(("others", "seeds"), [(1, 5), (3, 5), (2, 8)])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_equal_settings_rarely_differ_in_their_times(
    budgets: tuple[float, float], others: int, seeds: int, correlation: float
) -> None:
    """At most 5 % of 2,000 tables have an error, also if seeds make the settings alike."""
    from scipy.stats import binom

    cases, draw = 2000, np.random.default_rng(round(10 * sum(budgets)) + others + seeds)
    own = draw.normal(0, 1, (cases, others + 1, seeds))
    shared = draw.normal(0, 1, (cases, 1, seeds))
    reached = np.exp(math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
    reached = np.round(reached, 1) + 0.1  # there are ties
    errors = 0
    for table in reached:
        limits = [budgets[0], *[budgets[1]] * others]
        rows = [
            times(*(x if x <= limit else INF for x in row), budget=limit)
            for row, limit in zip(table, limits, strict=True)
        ]
        found = corrected([rank_difference(row, rows[0]) for row in rows[1:]])
        errors += any(x is not None and x.is_significant for x in found)
    assert errors <= binom.ppf(0.999, cases, SIGNIFICANCE)


def test_faster_setting_is_usually_found_although_times_are_censored() -> None:
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        x, y = np.exp(draw.normal([[0.0], [2.5]], 1, (2, 8)))
        one, other = (times(*np.where(z < 5, z, INF), budget=5.0) for z in (x, y))
        result = rank_difference(one, other)
        found += result.p is not None and result.p < SIGNIFICANCE
    assert found > 160


# The median ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "median"),
    [([3, INF, 1], 3), ([3, INF, INF], INF), ([1, 3, 5, INF], 4), ([1, 3, INF, INF], INF)],
)
def test_median_ranks_unreached_targets_last(values: list[float], median: float) -> None:
    found = median_estimate(values)
    assert found.mean == median
    assert (found.n, found.reached) == (len(values), sum(map(math.isfinite, values)))


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (30, 10)])
def test_interval_of_median_has_the_published_order_statistics(n: int, k: int) -> None:
    """The values of k are those of tables of the sign test, such as Conover 1999, table A3."""
    assert median_estimate([*range(n, 0, -1)]).interval == (k, n + 1 - k)


def test_interval_of_median_may_have_no_upper_end() -> None:
    assert median_estimate([1, 2, 3, 4, 5]).interval is None
    assert median_estimate([1, 2, 3, 4, 5, INF]).interval == (1, INF)


@pytest.mark.parametrize("n", [6, 9, 15])
def test_interval_of_median_covers_the_true_median(n: int) -> None:
    """Discrete values and censoring above 2.5 do not reduce the coverage of 95 %."""
    draw = np.random.default_rng(n)
    for size in (10.0, 0.5):
        x = np.ceil(draw.exponential(1, (2000, n)) * size) / size
        true = np.ceil(math.log(2) * size) / size
        x[x > 2.5] = INF
        ends = [median_estimate(list(row)).interval for row in x]
        covered = np.mean([end is not None and end[0] <= true <= end[1] for end in ends])
        assert covered >= 0.95 - 3.1 * math.sqrt(0.95 * 0.05 / 2000)


# Runs ---------------------------------------------------------------------------------------------


def test_lower_times_are_better() -> None:
    assert {better_direction(name) for name in CENSORED} == {"lower"}
    runs = [*runs_of([100, 200, None], lr=1), *runs_of([50, None, None], lr=2)]
    comparison = compared(runs)
    assert [row.outcomes[0].is_best for row in comparison.rows] == [True, False]


def test_comparison_of_times_has_rank_tests_with_holm_correction() -> None:
    runs = [
        *runs_of([900, None, None, 1100, None], lr=1),
        *runs_of([300, 350, 280, 500, 310], lr=2),
        *runs_of([None, None, None, 1000, 1150], lr=3),
    ]
    comparison = compared(runs, "lr=1")
    assert verdicts(comparison) == ["baseline", "better", "not distinguishable"]
    first = comparison.rows[1].outcomes[0]
    assert isinstance(first.difference, RankDifference)
    assert first.difference.p == pytest.approx(2 / 252)
    assert first.difference.p_holm == pytest.approx(4 / 252)
    assert first.difference.budget == 1200
    assert first.estimate is not None
    assert (first.estimate.mean, first.estimate.reached) == (310, 5)
    assert comparison.notes == ()


def test_runs_without_common_seeds_are_compared() -> None:
    runs = runs_of([1, 2, 3, 4], lr=1)
    others = [*runs_of([None] * 4, lr=1), *runs_of([5, 6, 7, None], lr=2)][-4:]
    apart = [Run(**{**vars(x), "seed": x.seed + 10}) for x in others]
    assert verdicts(compared([*runs, *apart], "lr=2")) == ["better", "baseline"]


def test_diverged_run_counts_as_not_reached() -> None:
    runs = [*runs_of([100, 200], lr=1), *runs_of([None, None, None], "diverged", lr=1)[2:]]
    runs += runs_of([None], "failed", lr=1)
    comparison = compared(runs)
    (row,) = comparison.rows
    found = row.outcomes[0].estimate
    assert found is not None
    assert (found.n, found.reached) == (3, 2)
    assert "steps_to_target: 1 diverged run counts as not having reached the target" in (
        comparison.notes
    )


def test_repeated_run_replaces_diverged_run_with_the_same_seed() -> None:
    runs = [*runs_of([100, 200], lr=1), *runs_of([None], "diverged", lr=1)]
    comparison = compared(runs)
    found = comparison.rows[0].outcomes[0].estimate
    assert found is not None
    assert (found.n, found.reached) == (2, 2)
    assert comparison.notes == ("left out of every mean: 1 diverged",)


def test_run_without_target_has_no_time() -> None:
    without = runs_of([None, None], lr=2, target__metric=None, target__value=None)
    comparison = compared([*runs_of([100, None], lr=1), *without], "lr=1", "target.value=0.9")
    found = {row.setting.values["lr"]: row.outcomes[0] for row in comparison.rows}
    assert found[2].estimate is None
    assert verdicts(comparison) == ["no run with a target", "baseline"]
    with pytest.raises(ConfigError, match="no finished run has a steps_to_target"):
        compared(without)


def test_metric_is_known_if_no_run_reached_the_target() -> None:
    runs = [*runs_of([None, None], lr=1), *runs_of([None, None], lr=2)]
    assert verdicts(compared(runs, "lr=1")) == ["baseline", "no run reached the target"]


def test_best_time_is_marked_for_each_target() -> None:
    runs = [*runs_of([300], lr=1), *runs_of([200], lr=2)]
    runs += [*runs_of([700], lr=1, target__value=0.95), *runs_of([900], lr=2, target__value=0.95)]
    comparison = compared(runs, "lr=1", "target.value=0.9")
    best = [row.outcomes[0].estimate for row in comparison.rows if row.outcomes[0].is_best]
    assert sorted(x.mean for x in best if x) == [200, 700]
    assert verdicts(comparison).count("another target") == 2


@pytest.mark.parametrize(
    ("metric", "settings", "metrics", "budget"),
    [
        ("epochs_to_target", {}, {}, 60),
        ("epochs_to_target", {"max_steps": 500}, {"steps": 500, "epochs": 25}, 25),
        ("epochs_to_target", {}, {"epochs": 12, "steps": 240}, 60),  # stopped early
        (STEPS, {}, {}, 1200),
        (STEPS, {}, {"epochs": 12, "steps": 240}, 1200),
        (STEPS, {"max_steps": 500}, {"steps": 500, "epochs": 25}, 500),
        ("seconds_to_target", {}, {}, 6),
        ("seconds_to_target", {}, {"epochs": 12, "steps": 240}, INF),
    ],
)
def test_budget_is_the_length_of_a_complete_training(
    metric: str, settings: dict[str, Value], metrics: dict[str, float], budget: float
) -> None:
    (run,) = runs_of([None], metric=metric, **settings)
    changed = Run(**{**vars(run), "metrics": {**run.metrics, **metrics}})
    (row,) = compared([changed], metric=metric).rows
    found = times_of(row.setting, metric)
    assert found is not None
    assert found.budget == pytest.approx(budget)


def test_comparison_of_different_budgets_is_noted() -> None:
    runs = [
        *runs_of([100, 700, 1100, 1200], epochs=60),
        *runs_of([300, 500, None, None], epochs=30),
    ]
    short = [
        Run(**{**vars(x), "metrics": {**x.metrics, "epochs": 30.0, "steps": 600.0}})
        if x.settings["epochs"] == 30
        else x
        for x in runs
    ]
    comparison = compared(short, "epochs=30")
    assert any("tested within the smaller budget" in note for note in comparison.notes)
    found = comparison.rows[1].outcomes[0].difference
    assert isinstance(found, RankDifference)
    assert (found.budget, found.later, found.reached) == (600, 3, 3)

"""Times to a target: medians, budgets and rank tests, compared with SciPy and enumerations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt.analysis import rank_test
from nnopt.analysis.censored import Times, median_estimate, rank_difference, times_of
from nnopt.analysis.comparison import Comparison, compare_runs, sort_rows
from nnopt.analysis.records import document
from nnopt.analysis.settings import read_condition
from nnopt.analysis.statistics import SIGNIFICANCE, RankDifference, corrected
from nnopt.analysis.tabulate import tabulate
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
    """Return runs of 60 epochs and 1,200 steps. None means a run without a time."""
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


@pytest.mark.parametrize("time", [10.0, 10.000000001])
def test_time_equal_to_the_budget_is_reached_in_spite_of_rounding(time: float) -> None:
    found = rank_difference(times(time, budget=20.0), times(INF, budget=10.0))
    assert (found.reached, found.later, found.earlier) == (1, 0, 1.0)


def test_different_targets_are_not_compared() -> None:
    found = rank_difference(times(1, 2, 3), times(4, 5, 6, target=0.95))
    assert (found.p, found.earlier) == (None, None)


# False positives ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("correlation", "budgets", "others", "seeds"),
    [
        (0.0, (2.0, 2.0), 1, 5),
        (0.0, (0.7, 0.7), 3, 5),
        (0.0, (2.0, 0.7), 2, 8),
        (0.7, (2.0, 2.0), 2, 8),
        (0.7, (0.7, 0.7), 1, 5),
        (0.7, (2.0, 0.7), 3, 5),
    ],
)
def test_equal_settings_rarely_differ_in_their_times(
    budgets: tuple[float, float],
    others: int,
    seeds: int,
    correlation: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most 5 % of 2,000 tables have an error, also if seeds make the settings alike."""
    from scipy.stats import binom

    # Many of the tables have the same ties, and therefore the same distribution.
    monkeypatch.setattr(rank_test, "_distribution", cache(rank_test._distribution))
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
    assert found.location == median
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
    assert (first.estimate.location, first.estimate.reached) == (310, 5)
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
    assert comparison.notes == (
        "left out: 1 failed",
        "steps_to_target: counted as not having reached the target: 1 diverged",
    )
    assert row.left_out == {"failed": 1}
    assert len(row.counted) == 3
    assert tabulate(comparison).title.endswith("over seeds: 3 runs, 1 setting")
    found_json = document(comparison)["settings"][0]
    assert (found_json["runs"], found_json["left_out"]) == (3, {"failed": 1})


def test_newest_of_diverged_runs_with_the_same_seed_counts() -> None:
    old, new = (
        replace(run, metrics={"steps": steps, STEPS: steps}, ended=ended)
        for run, steps, ended in zip(
            runs_of([None, None], "diverged"), (10.0, 20.0), (2, 1), strict=True
        )
    )
    done = runs_of([5], lr=1)
    both = [replace(x, seed=7, settings=done[0].settings) for x in (old, new)]
    for order in (both, both[::-1]):
        comparison = compared([*done, *order])
        (row,) = comparison.rows
        assert row.outcomes[0].times is not None
        assert row.outcomes[0].times.by_seed == {0: 5, 7: 10}
        assert comparison.notes == (
            "runs left out because a newer run has the same setting and seed: 1",
        )


def test_diverged_run_is_left_out_of_means_next_to_times() -> None:
    runs = [*runs_of([100, 200], lr=1), *runs_of([None] * 3, "diverged", lr=1)[2:]]
    with_loss = [replace(x, metrics={**x.metrics, "test_loss": 1.0}) for x in runs]
    comparison = compare_runs(with_loss, ["test_loss", STEPS])
    (row,) = comparison.rows
    assert [x.estimate and x.estimate.n for x in row.outcomes] == [2, 3]
    assert comparison.notes == (
        "steps_to_target: counted as not having reached the target: 1 diverged; "
        "left out of the means",
    )


def shortened(runs: Sequence[Run], steps: float) -> list[Run]:
    """Return the runs with another length. 20 steps are an epoch."""
    return [replace(x, metrics={**x.metrics, "steps": steps, "epochs": steps / 20}) for x in runs]


@pytest.mark.parametrize("status", ["pruned", "timeout"])
def test_setting_with_runs_ended_before_the_target_is_not_tested(status: str) -> None:
    """Without them, five runs of each setting would be clearly different."""
    good, bad = runs_of([100, 110, 120, 130, 140], lr=1), runs_of([400, 410, 420, 430, 440], lr=2)
    ended = shortened(runs_of([None] * 6, status, lr=2), 60)[5:]
    comparison = compared([*good, *bad, *ended], "lr=1")
    assert verdicts(comparison) == ["baseline", f"not tested: 1 {status}"]
    found = comparison.rows[1].outcomes[0].estimate
    assert found is not None
    assert (found.n, found.reached) == (6, 5)
    assert comparison.rows[1].left_out == {}
    assert any("are not tested; these runs might" in note for note in comparison.notes)
    assert comparison.rows[0].outcomes[0].is_best  # one run more does not change this


@pytest.mark.parametrize("steps", [600, 700])
def test_run_ended_after_the_common_budget_counts_as_not_reached(steps: int) -> None:
    short = shortened(runs_of([100, 110, 120, 130], epochs=30), 600)
    ended = shortened(runs_of([None] * 5, "pruned", epochs=60), steps)[4:]
    comparison = compared([*short, *runs_of([400, 410, 420, 430], epochs=60), *ended], "epochs=30")
    assert verdicts(comparison)[1] == "worse"


def test_no_median_is_marked_if_an_ended_run_might_have_a_better_one() -> None:
    ended = shortened(runs_of([None] * 2, "pruned", lr=2), 60)
    comparison = compared([*runs_of([100, 110], lr=1), *ended])
    assert [row.outcomes[0].is_best for row in comparison.rows] == [False, False]
    assert any("no median is marked" in note for note in comparison.notes)
    later = compared([*runs_of([100, 110], lr=1), *shortened(ended, 300)])
    assert [row.outcomes[0].is_best for row in later.rows] == [True, False]


def test_length_of_ended_run_in_epochs_is_a_lower_limit() -> None:
    """An epoch has 20 to 1200 / 59 steps: the last of 60 epochs may be incomplete."""
    name = "epochs_to_target"
    (ended,) = runs_of([None], "pruned", lr=2)
    ended = replace(ended, metrics={"epochs": 5.0, "steps": 100.0})
    done = replace(runs_of([2.0], lr=2, metric=name)[0], seed=1)
    (row,) = compared([ended, done], metric=name).rows
    assert row.outcomes[0].times is not None
    assert row.outcomes[0].times.unknown == {0: pytest.approx(100 / (1200 / 59))}


def test_run_with_another_time_but_without_the_metric_is_left_out() -> None:
    """It reached the target, but its seconds are unknown."""
    old = runs_of([100, 200], lr=1)
    new = [replace(x, seed=5, metrics={**x.metrics, "seconds_to_target": 2.0}) for x in old[:1]]
    (row,) = compared([*old, *new], metric="seconds_to_target").rows
    assert row.outcomes[0].times is not None
    assert row.outcomes[0].times.by_seed == {5: 2.0}
    with pytest.raises(ConfigError, match="no finished run has a seconds_to_target"):
        compared(old, metric="seconds_to_target")


def test_best_median_and_order_use_the_common_budget() -> None:
    """Within 600 steps, the first setting reached the target once, the second one three times."""
    long = runs_of([590, 610, 620, 630], lr=1, epochs=60)
    short = shortened(runs_of([500, 550, 560, None], lr=2, epochs=30), 600)
    also_long = runs_of([300, 640, 650, 660], lr=3, epochs=60)
    comparison = compared([*long, *short, *also_long])
    assert [row.outcomes[0].is_best for row in comparison.rows] == [True, False, False]
    assert comparison.rows[0].setting.values["epochs"] == 30
    order = sort_rows(comparison, STEPS)
    assert order[0].setting.values["epochs"] == 30
    assert any(note.startswith("steps_to_target: budgets differ") for note in comparison.notes)
    slower = shortened(runs_of([None, None, 560, 570], lr=2, epochs=30), 600)
    none = compared([*long, *slower])
    assert not any(row.outcomes[0].is_best for row in none.rows)


def test_repeated_run_replaces_diverged_run_with_the_same_seed() -> None:
    runs = [*runs_of([100, 200], lr=1), *runs_of([None], "diverged", lr=1)]
    comparison = compared(runs)
    found = comparison.rows[0].outcomes[0].estimate
    assert found is not None
    assert (found.n, found.reached) == (2, 2)
    assert comparison.notes == ("left out: 1 diverged",)


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
    assert sorted(x.location for x in best if x) == [200, 700]
    assert verdicts(comparison).count("another target") == 2


@pytest.mark.parametrize(
    ("metric", "settings", "metrics", "budget"),
    [
        ("epochs_to_target", {}, {}, 60),
        ("epochs_to_target", {"max_steps": 500}, {"steps": 500, "epochs": 25}, 24),  # or more
        ("epochs_to_target", {"max_steps": 50}, {"steps": 50, "epochs": 1}, 0),  # or more
        (
            "epochs_to_target",
            {"max_steps": 50},
            {"steps": 50, "epochs": 1, "steps_per_epoch": 1000},
            0.05,
        ),
        ("epochs_to_target", {"max_steps": 500}, {"steps": 240, "epochs": 12}, 25),  # stopped early
        (STEPS, {}, {"steps": 10, "epochs": 1, "steps_per_epoch": 20}, 1200),
        ("epochs_to_target", {}, {"epochs": 12, "steps": 240}, 60),  # stopped early
        (STEPS, {}, {}, 1200),
        (STEPS, {}, {"epochs": 12, "steps": 240}, 1200),
        (STEPS, {"max_steps": 500}, {"steps": 500, "epochs": 25}, 500),
        ("seconds_to_target", {}, {}, 6),
        ("seconds_to_target", {"max_steps": 500}, {"steps": 500, "epochs": 25}, 6),
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

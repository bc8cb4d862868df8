"""The verdict for every combination of the tests of a difference and of equivalence."""

from __future__ import annotations

import math

import pytest

from nnopt.analysis.comparison import MetricResult, Row
from nnopt.analysis.settings import Setting
from nnopt.analysis.statistics import AnyDifference, Difference, RankDifference, estimate
from nnopt.analysis.verdict import verdict

LOW, HIGH = 0.01, 0.2  # p values that are significant and not significant


def verdict_of(difference: AnyDifference, metric: str = "test_accuracy") -> str:
    result = MetricResult(None, difference, is_best=False)
    return verdict(Row(Setting({}, {}, {}, 0), (result,), is_baseline=False), result, metric)


def difference(mean: float, p: float, p_equivalence: float, seeds: int | None) -> Difference:
    change = estimate([mean - 0.1, mean + 0.1])
    return Difference(2, change, p, p, 0.002, p_equivalence, p_equivalence, seeds)


@pytest.mark.parametrize(
    ("mean", "p", "p_equivalence", "seeds", "expected"),
    [
        (1, LOW, HIGH, None, "better"),
        (-1, LOW, HIGH, None, "worse"),
        (1, HIGH, LOW, None, "equivalent within 0.002"),
        (1, LOW, LOW, None, "better by less than 0.002"),
        (-1, LOW, LOW, None, "worse by less than 0.002"),
        (1, HIGH, HIGH, 12, "undecided (about 12 seeds would decide)"),
        (1, HIGH, HIGH, None, "undecided (>1000 seeds would decide)"),
        (1, 0.05, 0.05, 6, "undecided (about 6 seeds would decide)"),
    ],
)
def test_verdict_with_margin_combines_both_tests(
    mean: float, p: float, p_equivalence: float, seeds: int | None, expected: str
) -> None:
    assert verdict_of(difference(mean, p, p_equivalence, seeds)) == expected


@pytest.mark.parametrize(
    ("metric", "mean", "p", "expected"),
    [
        ("test_loss", 1, LOW, "worse by less than 0.002"),
        ("best_epoch", 1, LOW, "higher by less than 0.002"),
        ("train_seconds", -1, HIGH, "equivalent within 0.002 s"),
    ],
)
def test_verdict_with_margin_depends_on_the_metric(
    metric: str, mean: float, p: float, expected: str
) -> None:
    assert verdict_of(difference(mean, p, LOW, None), metric) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (RankDifference((5, 5), 7, 0.9, LOW, p_holm=LOW), "better"),
        (RankDifference((5, 5), 7, 0.1, LOW, p_holm=LOW), "worse"),
        (RankDifference((5, 5), 7, 0.9, LOW, p_holm=HIGH), "not distinguishable"),
        (RankDifference((5, 5), 0, 0.5, None), "no run reached the target"),
        (RankDifference((5, 5), 10, 0.5, None), "equal times"),
        (RankDifference((5, 5), 7, None, None, math.inf), "another target"),
        (RankDifference((5, 0), 0, None, None), "no run with a target"),
        (
            RankDifference((5, 9), 4, None, None, unknown=("pruned", "timeout", "pruned")),
            "not tested: 2 pruned, 1 timeout",
        ),
    ],
)
def test_verdict_on_times_to_target_describes_every_case(
    found: RankDifference, expected: str
) -> None:
    assert verdict_of(found, "steps_to_target") == expected

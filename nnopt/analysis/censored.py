"""Times to a target, which are censored: some runs do not reach the target within their budget.

A run that did not reach the target ranks after all runs that did, and all such runs are tied. Ranks
need no values of the unknown times. If all runs have the same budget, this ranking gives Gehan's
test for censored data (Gehan 1965, "A generalized Wilcoxon test for comparing arbitrarily
singly-censored samples"), which is then the Mann-Whitney test with ties. If the budgets of two
settings differ, times above the smaller budget are censored, too.

The test is not paired by seed. A paired rank test, such as the sign test or Wilcoxon's signed-rank
test, has a p value of at least 2 / 2⁵ = 0.06 for five seeds, the unpaired test of at least
2 / 252 = 0.008. Common seeds make results alike. This lowers the variance of the rank sum, so that
the unpaired test has fewer false positives than its level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnopt.analysis.settings import Setting
from nnopt.analysis.statistics import CONFIDENCE, Estimate, RankDifference
from nnopt.results.collect import Run, Value
from nnopt.results.metrics import CENSORED

TARGET = ("target.metric", "target.value")
"""Keys of the configuration that define the target."""

MAX_EXACT = 100  # number of runs of two settings up to which p values are exact
ROUNDING = 1 + 1e-9  # a time may exceed a budget by this factor because of rounding


@dataclass(frozen=True)
class Times:
    """The times to a target of the runs of a setting."""

    by_seed: Mapping[int, float]  # infinite for a run that did not reach the target
    budget: float  # the shortest training of a run, in the same unit; infinite if unknown
    target: tuple[Value, ...]  # values of the keys ``TARGET``


def times_of(setting: Setting, metric: str) -> Times | None:
    """Return the times of the runs that have a target; None if there are none.

    A diverged run did not reach the target, unless its summary has a time. Runs with another status
    that is not ``done`` are left out.
    """
    runs = {
        seed: run
        for seed, run in sorted({**setting.diverged, **setting.runs}.items())
        if _has_time(run, metric)
    }
    if not runs:
        return None
    times = {seed: run.metrics.get(metric, math.inf) for seed, run in runs.items()}
    budget = min(_budget(run, metric) for run in runs.values())
    first = next(iter(runs.values()))
    return Times(times, budget, tuple(first.settings.get(key) for key in TARGET))


def is_known(metric: str, runs: Sequence[Run]) -> bool:
    """Return whether the metric is a time to a target that a finished run has or did not reach."""
    return metric in CENSORED and any(x.status == "done" and _has_time(x, metric) for x in runs)


def diverged_without_time(setting: Setting) -> int:
    """Return the number of diverged runs that have a target but no time to it."""
    runs = [x for x in setting.diverged.values() if x.settings.get(TARGET[1]) is not None]
    return sum(CENSORED.keys().isdisjoint(run.metrics) for run in runs)


def _has_time(run: Run, metric: str) -> bool:
    return metric in run.metrics or run.settings.get(TARGET[1]) is not None


def _budget(run: Run, metric: str) -> float:
    """Return the configured length of a training in the unit of the metric.

    A run that stopped early has the budget of a complete training: it would not have reached the
    target later. Seconds have no configured budget. A run that used its epochs without reaching the
    target was observed during its own seconds.
    """
    epochs, max_steps = (_number(run.settings.get(key)) for key in ("epochs", "max_steps"))
    trained, steps = run.metrics.get("epochs"), run.metrics.get("steps")
    per_epoch = steps / trained if steps and trained else None
    if epochs is not None and max_steps is not None and per_epoch:
        epochs = min(epochs, max_steps / per_epoch)
    if metric == "epochs_to_target":
        budgets = [epochs]
    elif metric == "steps_to_target":
        budgets = [max_steps, epochs * per_epoch if epochs is not None and per_epoch else None]
    else:
        is_complete = epochs is None or trained is None or trained * ROUNDING >= epochs
        is_censored = metric not in run.metrics and run.status == "done"
        budgets = [run.metrics.get(CENSORED[metric]) if is_censored and is_complete else None]
    return min((x for x in budgets if x is not None), default=math.inf)


def _number(value: Value) -> float | None:
    return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]


# the median ---------------------------------------------------------------------------------------


def median_estimate(times: Sequence[float]) -> Estimate:
    """Return the median of all times and its interval. Unreached targets are infinite.

    The median is infinite unless more than half of the runs reached the target. Its interval has
    the ends x₍ₖ₎ and x₍ₙ₊₁₋ₖ₎ of the sorted times, with the largest k for which it covers the
    true median with a probability of at least 95 % (Conover 1999, "Practical nonparametric
    statistics", section 3.2). There is no interval for fewer than six times.
    """
    x, n = sorted(times), len(times)
    median = (x[(n - 1) // 2] + x[n // 2]) / 2
    k, outside = (
        0,
        2 / 2**n,
    )  # outside: probability that the median is not between x₍ₖ₊₁₎ and its twin
    while outside <= 1 - CONFIDENCE and 2 * k < n:
        k += 1
        outside += 2 * math.comb(n, k) / 2**n
    interval = (x[k - 1], x[n - k]) if k else None
    return Estimate(n, median, None, interval, sum(map(math.isfinite, times)))


# the test -----------------------------------------------------------------------------------------


def rank_difference(one: Times, baseline: Times) -> RankDifference:
    """Compare the times of a setting with those of the baseline by the exact Mann-Whitney test.

    Times after the common budget count as not reached.
    """
    budget = min(one.budget, baseline.budget)
    limit = budget * ROUNDING
    given = [list(times.by_seed.values()) for times in (one, baseline)]
    x, y = ([time if time <= limit else math.inf for time in times] for times in given)
    later = sum(limit < time < math.inf for times in given for time in times)
    counts, reached = (len(x), len(y)), sum(map(math.isfinite, x + y))
    if one.target != baseline.target:
        return RankDifference(counts, reached, None, None, budget, later)
    first = sum((a < b) + (a == b) / 2 for a in x for b in y) / (len(x) * len(y))
    p = mann_whitney_p(x, y) if len({*x, *y}) > 1 else None
    return RankDifference(counts, reached, first, p, budget, later)


def mann_whitney_p(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the two-sided p value of the Mann-Whitney test (Mann and Whitney 1947).

    W is the sum of the ranks of x among all N times, where tied times share their mean rank. Under
    the null hypothesis, every choice of the ranks of x has the same probability. p is the fraction
    of choices whose W is at least as far from its mean as the observed W. Above ``MAX_EXACT``
    times, the normal approximation with the variance for ties is used.
    """
    ranks = _doubled_ranks([*x, *y])
    mean = len(x) * (len(ranks) + 1)  # of the doubled rank sum
    distance = abs(int(ranks[: len(x)].sum()) - mean)
    if len(ranks) > MAX_EXACT:
        share = len(x) * len(y) / (len(ranks) * (len(ranks) - 1))
        deviation = math.sqrt(share * float(((ranks - (len(ranks) + 1)) ** 2).sum()))
        return math.erfc((distance / deviation) / math.sqrt(2))
    probability = _distribution(ranks, len(x))
    far = np.abs(np.arange(len(probability)) - mean) >= distance
    return min(1.0, float(probability[far].sum()))


def _doubled_ranks(times: Sequence[float]) -> np.ndarray:
    """Return twice the mean rank of each time, a whole number, shape (N,)."""
    x = np.asarray(times)
    below, not_above = (np.searchsorted(np.sort(x), x, side=side) for side in ("left", "right"))
    return below + not_above + 1


def _distribution(ranks: np.ndarray, size: int) -> np.ndarray:
    """Return the probability of each sum of ``size`` ranks without replacement, shape (sums,).

    counts[k, s] is the number of choices of k ranks with the sum s among the ranks seen so far.
    """
    sums = int(np.sort(ranks)[-size:].sum()) + 1
    counts = np.zeros((size + 1, sums))
    counts[0, 0] = 1
    for rank in map(int, ranks):
        if rank < sums:
            counts[1:, rank:] += counts[:-1, : sums - rank].copy()
    return np.asarray(counts[size] / math.comb(len(ranks), size))

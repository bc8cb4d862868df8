"""Times to a target, which are censored: some runs do not reach the target within their budget.

A run that did not reach the target ranks after all runs that did, and all such runs are tied. Ranks
need no values of the unknown times. If all runs have the same budget, this ranking gives Gehan's
test for censored data (Gehan 1965, "A generalized Wilcoxon test for comparing arbitrarily
singly-censored samples"), which is then the Mann-Whitney test with ties. If the budgets of two
settings differ, times above the smaller budget are censored, too.

The test assumes that the budget does not depend on the results. Therefore two settings are not
tested if a pruner or a time limit ended a run before the target and before the budget. A pruner
ends the worst runs, and with its length as the common budget, most results would be lost.

The test is not paired by seed. A paired rank test, such as the sign test or Wilcoxon's signed-rank
test, has a p value of at least 2 / 2⁵ = 0.06 for five seeds, the unpaired test of at least
2 / 252 = 0.008. Common seeds make results alike. This lowers the variance of the rank sum, so that
the unpaired test has fewer false positives than its level.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nnopt.analysis.rank_test import mann_whitney_p
from nnopt.analysis.settings import Setting
from nnopt.analysis.statistics import CONFIDENCE, Estimate, RankDifference
from nnopt.results.collect import Run, Value
from nnopt.results.metrics import CENSORED

TARGET = ("target.metric", "target.value")
"""Keys of the configuration that define the target."""

ROUNDING = 1 + 1e-9  # a time may exceed a budget by this factor because of rounding
UNKNOWN = ("pruned", "timeout")
"""Statuses of runs that a pruner or a time limit ended: their continuation is unknown."""


@dataclass(frozen=True)
class Times:
    """The times to a target of the runs of a setting."""

    by_seed: Mapping[int, float]  # infinite for a run that did not reach the target
    budget: float  # length of a complete training in the same unit; infinite if unknown
    target: tuple[Value, ...]  # values of the keys ``TARGET``
    statuses: Mapping[int, str] = field(default_factory=dict)  # by seed, of the incomplete runs
    unknown: Mapping[int, float] = field(default_factory=dict)
    """Length of each run with a status in ``UNKNOWN`` that did not reach the target."""

    def within(self, budget: float) -> list[float]:
        """Return the times, where those above the budget count as not reached."""
        return [x if x <= budget * ROUNDING else math.inf for x in self.by_seed.values()]

    def unknown_within(self, budget: float) -> list[str]:
        """Return the status of each run that was ended before it used the budget."""
        return [self.statuses[s] for s, length in self.unknown.items() if length < budget]

    def earliest(self) -> list[float]:
        """Return the times, with the earliest possible ones of runs with a status in UNKNOWN."""
        return [self.unknown.get(seed, x) for seed, x in self.by_seed.items()]


def times_of(setting: Setting, metric: str) -> Times | None:
    """Return the times of the runs that have a target; None if there are none.

    A diverged run did not reach the target, unless its summary has a time. So did a run that a
    pruner or a time limit ended, but it could have reached the target later. Failed and interrupted
    runs are left out.
    """
    runs = {
        seed: run
        for seed, run in sorted({**setting.incomplete, **setting.runs}.items())
        if _has_time(run, metric)
    }
    if not runs:
        return None
    steps = _StepsPerEpoch.of(runs.values())
    first = next(iter(runs.values()))
    unfinished = {seed: run for seed, run in runs.items() if metric not in run.metrics}
    return Times(
        by_seed={seed: run.metrics.get(metric, math.inf) for seed, run in runs.items()},
        budget=_budget(runs.values(), metric, steps),
        target=tuple(first.settings.get(key) for key in TARGET),
        statuses={seed: run.status for seed, run in runs.items() if run.status != "done"},
        unknown={
            s: _length(x, metric, steps) for s, x in unfinished.items() if x.status in UNKNOWN
        },
    )


def is_known(metric: str, runs: Sequence[Run]) -> bool:
    """Return whether the metric is a time to a target that a finished run has or did not reach."""
    return metric in CENSORED and any(x.status == "done" and _has_time(x, metric) for x in runs)


def not_reached(times: Times) -> Counter[str]:
    """Return the number of incomplete runs that did not reach the target, by status."""
    return Counter(x for seed, x in times.statuses.items() if math.isinf(times.by_seed[seed]))


def _has_time(run: Run, metric: str) -> bool:
    """Return whether a run has a time, or has a target that it did not reach.

    A run with another time reached the target. Its time in the unit of the metric is unknown.
    """
    if metric in run.metrics:
        return True
    return run.settings.get(TARGET[1]) is not None and CENSORED.keys().isdisjoint(run.metrics)


# budgets ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StepsPerEpoch:
    """Limits of the number of steps per epoch, which are equal if it is known."""

    least: float
    most: float

    @classmethod
    def of(cls, runs: Iterable[Run]) -> _StepsPerEpoch:
        """Return the limits that follow from the runs of a setting.

        The runs have the same number. A summary without ``steps_per_epoch`` has the number of
        epochs; the last one may be incomplete: (epochs - 1) n < steps <= epochs n.
        """
        least, most = 0.0, math.inf
        for metrics in (run.metrics for run in runs):
            steps, epochs = metrics.get("steps"), metrics.get("epochs")
            if exact := metrics.get("steps_per_epoch") or _ratio_of_times(metrics):
                return cls(exact, exact)
            if steps and epochs:
                least = max(least, steps / epochs)
                most = min(most, steps / (epochs - 1) if epochs > 1 else math.inf)
        return cls(least, most)


def _ratio_of_times(metrics: Mapping[str, float]) -> float | None:
    steps, epochs = metrics.get("steps_to_target"), metrics.get("epochs_to_target")
    return steps / epochs if steps and epochs else None


def _budget(runs: Iterable[Run], metric: str, per_epoch: _StepsPerEpoch) -> float:
    """Return the configured length of a training in the unit of the metric.

    If it is not known exactly, the result is a lower limit, so that no time beyond the budget
    counts. A run that stopped early has the budget of a complete training: it would not have
    reached the target later. Seconds have no configured budget. A run that used its epochs or steps
    without reaching the target was observed during its own seconds.
    """
    runs = list(runs)
    epochs, max_steps = (_number(runs[0].settings.get(key)) for key in ("epochs", "max_steps"))
    is_known = per_epoch.least > 0
    if metric == "epochs_to_target":
        limits = [
            epochs,
            _epochs_of(runs, max_steps, per_epoch) if max_steps and is_known else None,
        ]
    elif metric == "steps_to_target":
        limits = [max_steps, epochs * per_epoch.least if epochs and is_known else None]
    else:
        limits = [_observed_seconds(run, metric, epochs, max_steps) for run in runs]
    return min((x for x in limits if x is not None), default=math.inf)


def _epochs_of(runs: Sequence[Run], steps: float, per_epoch: _StepsPerEpoch) -> float:
    """Return the number of epochs of some steps, or a lower limit of it."""
    if any(run.metrics.get("steps", math.inf) < steps and run.status == "done" for run in runs):
        return steps / per_epoch.least  # these runs ended with an epoch, so the number is exact
    return steps / per_epoch.most


def _observed_seconds(
    run: Run, metric: str, epochs: float | None, max_steps: float | None
) -> float | None:
    """Return the seconds of a complete training that did not reach the target; otherwise None."""
    trained, steps = (run.metrics.get(key, math.inf) for key in ("epochs", "steps"))
    uses_steps = max_steps is not None and steps >= max_steps
    is_complete = epochs is None or trained * ROUNDING >= epochs or uses_steps
    if metric in run.metrics or run.status != "done" or not is_complete:
        return None
    return run.metrics.get(CENSORED[metric])


def _length(run: Run, metric: str, per_epoch: _StepsPerEpoch) -> float:
    """Return the length of a run in the unit of the metric, or a lower limit of it."""
    if metric == "epochs_to_target":
        return run.metrics.get("steps", 0.0) / per_epoch.most
    return run.metrics.get(CENSORED[metric], 0.0)


def _number(value: Value) -> float | None:
    return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]


# the median and the test --------------------------------------------------------------------------


def median(times: Sequence[float]) -> float:
    """Return the median. Infinite unless more than half of the times are finite."""
    x, n = sorted(times), len(times)
    return (x[(n - 1) // 2] + x[n // 2]) / 2


def median_estimate(times: Sequence[float]) -> Estimate:
    """Return the median of all times and its interval. Unreached targets are infinite.

    The interval has the ends x₍ₖ₎ and x₍ₙ₊₁₋ₖ₎ of the sorted times, with the largest k for which it
    covers the true median with a probability of at least 95 % (Conover 1999, "Practical
    nonparametric statistics", section 3.2). There is no interval for fewer than six times.
    """
    x, n = sorted(times), len(times)
    k = 0
    outside = 2 / 2**n  # probability that the true median is not between x₍ₖ₊₁₎ and x₍ₙ₋ₖ₎
    while outside <= 1 - CONFIDENCE and 2 * k < n:
        k += 1
        outside += 2 * math.comb(n, k) / 2**n
    interval = (x[k - 1], x[n - k]) if k else None
    reached = sum(map(math.isfinite, times))
    return Estimate(n, median(times), None, interval, "median", reached)


def rank_difference(one: Times, baseline: Times) -> RankDifference:
    """Compare the times of a setting with those of the baseline by the Mann-Whitney test.

    Times after the common budget count as not reached.
    """
    budget = min(one.budget, baseline.budget)
    x, y = one.within(budget), baseline.within(budget)
    counts, reached = (len(x), len(y)), sum(map(math.isfinite, x + y))
    given = [*one.by_seed.values(), *baseline.by_seed.values()]
    later = sum(map(math.isfinite, given)) - reached
    unknown = tuple(one.unknown_within(budget) + baseline.unknown_within(budget))
    if one.target != baseline.target or unknown:
        return RankDifference(counts, reached, None, None, budget, later, unknown=unknown)
    first = sum((a < b) + (a == b) / 2 for a in x for b in y) / (len(x) * len(y))
    p = mann_whitney_p(x, y) if len({*x, *y}) > 1 else None
    return RankDifference(counts, reached, first, p, budget, later)

"""Means over seeds, differences between settings, and their significance.

Student's paired t test is used, because results of runs with the same seed are correlated: they
share initial weights and batches. Rank tests such as Wilcoxon's do not suit few seeds: with five
seeds, the smallest possible p value is 2 / 2⁵ = 0.06, which is not below 5 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
ROUNDING = 1e-12  # a smaller standard deviation, relative to the values, is a rounding error


Kind = Literal["mean", "iqm", "median"]
"""Kind of a location: mean, interquartile mean, or median of times to a target."""


@dataclass(frozen=True)
class Estimate:
    """Location of n values."""

    n: int
    location: float  # infinite for a median time if too few runs reached the target
    std: float | None  # standard deviation (denominator n - 1); None for one value or a median
    interval: tuple[float, float] | None  # 95 %; None if n is too small or all values are equal
    kind: Kind = "mean"
    reached: int | None = None  # of a median time: number of runs that reached the target


class _Tested:
    """A difference with a corrected p value."""

    p_holm: float | None

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p value is below the level of significance."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


@dataclass(frozen=True)
class Difference(_Tested):
    """Difference of two settings in one metric over their common seeds.

    ``p`` is the two-sided p value of the paired t test. It is None if there are fewer than two
    pairs, if all differences are equal, or if float64 overflows.
    """

    pairs: int  # number of common seeds
    change: Estimate | None  # mean difference; None without a common seed or if float64 overflows
    p: float | None
    p_holm: float | None = None  # p value after Holm's correction
    margin: float | None = None  # smaller differences do not matter; None without such a margin
    p_equivalence: float | None = None  # of the test that the difference is within the margin
    p_equivalence_holm: float | None = None
    seeds: int | None = None  # rough number that would decide; None if decided, or above 1,000

    @property
    def is_decided(self) -> bool | None:
        """Whether the difference or equivalence is significant; None without equivalence test."""
        if self.p_equivalence_holm is None:
            return None
        return self.is_significant or self.is_equivalent

    @property
    def is_equivalent(self) -> bool:
        """Whether the corrected p value of the equivalence test is below the significance level."""
        return self.p_equivalence_holm is not None and self.p_equivalence_holm < SIGNIFICANCE


@dataclass(frozen=True)
class RankDifference(_Tested):
    """Difference of the times to a target of two settings, by their ranks.

    ``p`` is None if one of the settings has no runs, if their targets differ, if all times are
    equal, or if a run was ended from outside before the target and before the common budget.
    """

    runs: tuple[int, int]  # number of runs of the setting and of the baseline
    reached: int  # number of these runs that reached the target within the budget
    earlier: float | None  # probability that a run of the setting is first; a tie counts as half
    p: float | None
    budget: float = math.inf  # common budget, in the unit of the times
    later: int = 0  # number of runs that reached the target after the common budget
    p_holm: float | None = None
    unknown: tuple[str, ...] = ()  # status of each run that was ended within the common budget


AnyDifference = Difference | RankDifference


def estimate(values: Sequence[float], scale: float = 0.0) -> Estimate:
    """Return the mean x̄ of n >= 1 values and its 95 % interval x̄ ± t s / √n (Student 1908).

    s is the standard deviation, t the 0.975 quantile of Student's distribution with n - 1 degrees
    of freedom. If the values are differences, ``scale`` is the magnitude of the subtracted numbers.
    A standard deviation that is tiny relative to this magnitude is a rounding error.
    """
    n = len(values)
    mean = float(statistics.mean(map(float, values)))  # exact fractions: no rounding, no overflow
    if n < 2:
        return Estimate(n, mean, None, None)
    std = _deviation(values)
    if std <= ROUNDING * max(scale, *map(abs, values)):
        return Estimate(n, mean, 0.0, None)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return Estimate(n, mean, std, (mean - half, mean + half))


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; infinity if it overflows float64."""
    scale = math.ldexp(1.0, math.frexp(max(map(abs, values)))[1] - 1) or 1.0
    return statistics.stdev([value / scale for value in values]) * scale


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Subtract the values of the baseline seed by seed, and apply the paired t test.

    The n differences have the mean d̄ and the standard deviation s. If the expected difference is 0,
    t = d̄ / (s / √n) has Student's distribution with n - 1 degrees of freedom.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return Difference(0, None, None)
    scale = max(max(abs(values[seed]), abs(baseline[seed])) for seed in seeds)
    changes = [values[seed] - baseline[seed] for seed in seeds]
    if not all(map(math.isfinite, changes)):
        return Difference(len(seeds), None, None)
    change = estimate(changes, scale)
    if not change.std or not math.isfinite(change.std):
        if abs(change.location) <= ROUNDING * scale:
            change = replace(change, location=0.0)
        return Difference(len(seeds), change, None)
    from scipy.special import stdtr

    t = change.location / change.std * math.sqrt(change.n)  # std / √n may round to 0
    return Difference(len(seeds), change, float(2 * stdtr(change.n - 1, -abs(t))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for multiple tests, in the same order (Holm 1979).

    The i-th smallest of m values is multiplied by m - i + 1. The result is at most 1, and at least
    the adjusted value of the next smaller value. At level α, the probability of any false positive
    is at most α, even for dependent tests, such as comparisons with a common baseline.
    """
    adjusted, largest, m = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(m), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def corrected(differences: Sequence[AnyDifference | None]) -> list[AnyDifference | None]:
    """Return the differences with p values that ``holm`` corrects.

    The tests of a difference are corrected together. So are the tests of equivalence.
    """
    different = _holm([None if x is None else x.p for x in differences])
    equivalent = _holm(
        [x.p_equivalence if isinstance(x, Difference) else None for x in differences]
    )
    found: list[AnyDifference | None] = []
    for x, p, p_equivalence in zip(differences, different, equivalent, strict=True):
        if isinstance(x, Difference):
            found.append(replace(x, p_holm=p, p_equivalence_holm=p_equivalence))
        else:
            found.append(x and replace(x, p_holm=p))
    return found


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Apply ``holm`` to the p values that are not None."""
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]

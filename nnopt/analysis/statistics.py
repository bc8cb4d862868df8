"""Means over seeds, differences between settings, and what can be said of them.

Two settings are trained with the same seeds, so they share initial weights and batches, and their
results go up and down together: the test looks at the differences seed by seed. It is Student's
paired t test, since seeds are few. Of tests that only count or rank, none can ever reach 5 % with
five seeds: Wilcoxon's signed ranks, and sign flips, give at least 2 / 2⁵ = 0.06.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

ROUNDING = 1e-12
"""A spread below this share of the values is rounding, and nothing can be concluded from it."""


@dataclass(frozen=True)
class Estimate:
    """n values: their mean, standard deviation (divided by n - 1), and the confidence interval of
    the mean; None where so few values, or values without spread, tell nothing."""

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """A setting less another, over the seeds of both.

    change: over ``pairs`` seeds, its mean, spread and interval; None without a common seed, or
    where a difference is too large for float64.
    p: of the paired t test, two-sided; None if that says nothing, with fewer than two pairs or
    differences without spread. p_holm: the same after correction for the other comparisons.
    """

    pairs: int
    change: Estimate | None
    p: float | None
    p_holm: float | None = None

    @property
    def is_significant(self) -> bool:
        """After correction."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


def estimate(values: Sequence[float], scale: float = 0.0) -> Estimate:
    """The mean of at least one value, and its interval x̄ ± t₀.₉₇₅,ₙ₋₁ s / √n (Student 1908).

    scale: the size of what the values were computed from, if larger than they are; it says what
    spread is mere rounding.
    """
    n = len(values)
    mean = float(statistics.mean(map(float, values)))  # in fractions: no rounding, no overflow
    if n < 2:
        return Estimate(n, mean, None, None)
    std = _deviation(values)
    if std <= ROUNDING * max(scale, *map(abs, values)):
        return Estimate(n, mean, 0.0, None)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return Estimate(n, mean, std, (mean - half, mean + half))


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; infinity where float64 cannot hold it."""
    scale = math.ldexp(1.0, math.frexp(max(map(abs, values)))[1] - 1) or 1.0
    return statistics.stdev([value / scale for value in values]) * scale


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """The values less the baseline's, by seed, with the paired t test of a mean of 0:
    t = d̄ / (s / √n) has Student's distribution of n - 1 degrees of freedom."""
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return Difference(0, None, None)
    scale = max(max(abs(values[seed]), abs(baseline[seed])) for seed in seeds)
    changes = [values[seed] - baseline[seed] for seed in seeds]
    if not all(map(math.isfinite, changes)):
        return Difference(len(seeds), None, None)
    change = estimate(changes, scale)
    if not change.std or not math.isfinite(change.std):
        if abs(change.mean) <= ROUNDING * scale:
            change = replace(change, mean=0.0)
        return Difference(len(seeds), change, None)
    from scipy.special import stdtr

    t = change.mean / (change.std / math.sqrt(change.n))
    return Difference(len(seeds), change, float(2 * stdtr(change.n - 1, -abs(t))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given (Holm 1979): the i-th smallest of m is multiplied by
    m - i + 1, and none is below a smaller one's.

    Calling those below α significant errs in any of the m with a probability of at most α, whatever
    the dependence between them; comparisons with one baseline do depend on each other.
    """
    adjusted, largest, m = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(m), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The differences with ``p_holm``, all those that were tested being one family."""
    p_values = [x.p for x in differences if x is not None and x.p is not None]
    adjusted = iter(holm(p_values))
    return [
        x if x is None or x.p is None else replace(x, p_holm=next(adjusted)) for x in differences
    ]

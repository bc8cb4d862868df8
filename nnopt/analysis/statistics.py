"""Means over seeds, differences between settings, and their significance.

Two settings are trained with the same seeds. They share initial weights and batches, so that their
results are correlated. Therefore the test uses the differences seed by seed. It is Student's paired
t test, because there are few seeds: with five seeds, rank tests such as Wilcoxon's cannot reach
5 %, since their smallest p value is 2 / 2⁵ = 0.06.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

ROUNDING = 1e-12
"""A standard deviation below this fraction of the values counts as rounding error."""


@dataclass(frozen=True)
class Estimate:
    """Mean of n values.

    ``std`` is the standard deviation with n - 1 in the denominator, None for a single value. The
    confidence interval is None for a single value or without variance.
    """

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Difference of two settings over their common seeds.

    Attributes:
        pairs: Number of common seeds.
        change: Mean difference; None without a common seed or if it overflows float64.
        p: Two-sided p value of the paired t test; None with fewer than two pairs or without
            variance.
        p_holm: The p value after Holm's correction.
    """

    pairs: int
    change: Estimate | None
    p: float | None
    p_holm: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p value is below the level of significance."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


def estimate(values: Sequence[float], scale: float = 0.0) -> Estimate:
    """Return the mean of at least one value and its interval x̄ ± t₀.₉₇₅,ₙ₋₁ s / √n (Student 1908).

    ``scale`` is the magnitude of the numbers that the values were computed from, if larger than the
    values. It determines which standard deviation counts as rounding error.
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
    """Return the values minus those of the baseline, by seed, with the paired t test.

    If the mean difference is 0, t = d̄ / (s / √n) has Student's distribution with n - 1 degrees of
    freedom.
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
        if abs(change.mean) <= ROUNDING * scale:
            change = replace(change, mean=0.0)
        return Difference(len(seeds), change, None)
    from scipy.special import stdtr

    t = change.mean / (change.std / math.sqrt(change.n))
    return Difference(len(seeds), change, float(2 * stdtr(change.n - 1, -abs(t))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p values in the same order (Holm 1979).

    The i-th smallest of m values is multiplied by m - i + 1, and is at least as large as the
    adjusted values before it. The probability of any false positive at level α is at most α for any
    dependence between the tests; comparisons with a common baseline are dependent.
    """
    adjusted, largest, m = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(m), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Return the differences with ``p_holm``; all tests are one family."""
    p_values = [x.p for x in differences if x is not None and x.p is not None]
    adjusted = iter(holm(p_values))
    return [
        x if x is None or x.p is None else replace(x, p_holm=next(adjusted)) for x in differences
    ]

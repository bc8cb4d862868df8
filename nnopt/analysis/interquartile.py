"""The interquartile mean (IQM) of the results of a setting, with a bootstrap interval.

The IQM is the mean of the middle half of the values. Agarwal et al. 2021 ("Deep reinforcement
learning at the edge of the statistical precipice", section 4.3) recommend it, because a few very
good or bad runs hardly change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.statistics import CONFIDENCE, ROUNDING, Estimate, estimate
from nnopt.random import generator

RESAMPLES = 20_000
CHUNK = 1_000_000  # number of resampled values in memory
MIN_VALUES = 6
"""Minimum number of values for an interval. A bootstrap interval cannot reach beyond the smallest
and the largest value. For 5 values, the expanded percentiles are always these two values."""


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean without the floor(n / 4) smallest and the floor(n / 4) largest values.

    This is ``scipy.stats.trim_mean(values, 0.25)``, as in Agarwal et al.'s library rliable.
    """
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return estimate(middle).location


def interquartile_estimate(values: Sequence[float]) -> Estimate:
    """Return the IQM of n >= 1 values, their standard deviation, and a 95 % bootstrap interval.

    The interval has the expanded percentiles of ``RESAMPLES`` samples with replacement (Hesterberg
    2015, "What teachers should know about the bootstrap", section 3.3): Φ(-√(n / (n - 1)) t)
    instead of 2.5 %, where t is the 0.975 quantile of Student's distribution with n - 1 degrees of
    freedom. The plain percentiles and BCa are too narrow for few values. The resampled indices
    depend only on n. There is no interval for fewer than ``MIN_VALUES`` values, or if both ends are
    equal: most values are then equal, and the resamples do not show the spread of the others.
    """
    plain, center = estimate(values), interquartile_mean(values)
    interval = None
    if plain.n >= MIN_VALUES and plain.std:
        # Division by a power of two is exact. Sums of values between -2 and 2 cannot overflow.
        scale = math.ldexp(1.0, math.frexp(max(map(abs, values)))[1] - 1)
        means = resampled_means(np.sort(np.asarray(values, np.float64) / scale))
        low, high = map(float, np.quantile(means, _expanded_levels(plain.n)))
        if high - low > ROUNDING * max(map(abs, values)) / scale:
            interval = low * scale, high * scale
    return Estimate(plain.n, center, plain.std, interval, "iqm")


def _expanded_levels(n: int) -> tuple[float, float]:
    """Return the levels of the percentiles whose interval is as wide as a t interval."""
    from scipy.special import ndtr, stdtrit

    level = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + CONFIDENCE) / 2)))
    return level, 1 - level


def resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IQM of each resample of sorted values, shape (resamples,)."""
    indices = _middle_indices(len(values))
    rows = max(CHUNK // indices.shape[1], 1)
    starts = range(0, RESAMPLES, rows)
    return np.concatenate([values[indices[i : i + rows]].mean(axis=1) for i in starts])


@lru_cache(maxsize=1)
def _middle_indices(n: int) -> NDArray[np.unsignedinteger]:
    """Return the indices of the middle half of each resample of n sorted values.

    The result has the shape (resamples, n - 2 floor(n / 4)) and the smallest integer type.
    """
    draw, rows = generator(0, "bootstrap", n), max(CHUNK // n, 1)
    middle = np.empty((RESAMPLES, n - 2 * (n // 4)), np.min_scalar_type(n))
    for i in range(0, RESAMPLES, rows):
        part = middle[i : i + rows]
        indices = np.sort(draw.integers(0, n, (len(part), n)), axis=1)
        part[:] = indices[:, n // 4 : n - n // 4]
    return middle

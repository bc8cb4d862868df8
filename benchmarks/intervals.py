"""Measure the intervals of interquartile means, and the spread of the estimated number of seeds.

    python benchmarks/intervals.py

The first table has the probability that an interval contains the IQM of the population, over 2,000
samples of n values. ``nnopt compare`` uses the expanded percentiles. The aim is 95 %.

The second table has the number of seeds that ``nnopt compare`` states for two settings whose true
number is known: the 10 % and 90 % quantiles over 2,000 undecided comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis import interquartile
from nnopt.analysis.equivalence import MAX_SEEDS, seeds_to_decide, with_equivalence_test, with_seeds
from nnopt.analysis.statistics import Difference, Estimate, corrected, paired_difference

Floats = NDArray[np.float64]
CASES = 2000
SIZES = (6, 7, 10, 20)
PILOTS, TRUE_SEEDS = (5, 10), (12, 40)


def main() -> None:
    """Print both tables."""
    print(f"coverage of 95 % intervals, {'':24}" + "".join(f"n = {n:<5}" for n in SIZES))
    samples: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
        "normal": (lambda draw, n: draw.normal(0, 1, (CASES, n)), 0.0),
        # 2 ∫ -ln v dv from 1/4 to 3/4
        "exponential": (lambda draw, n: draw.exponential(1, (CASES, n)), _exponential_iqm()),
    }
    for name, (sample, true) in samples.items():
        shares = [coverage(sample(np.random.default_rng(n), n), true) for n in SIZES]
        for kind, column in zip(("expanded percentiles", "percentiles"), (0, 1), strict=True):
            cells = "".join(f"{100 * share[column]:4.0f} %   " for share in shares)
            print(f"{name:14}{kind:38}{cells}")
    print("\nestimated number of seeds, 10 % to 90 % quantile")
    for true_seeds in TRUE_SEEDS:
        for pilot in PILOTS:
            low, high = spread(pilot, true_seeds)
            print(f"true number {true_seeds}, {pilot:2} seeds: {low} to {high}")


def _exponential_iqm() -> float:
    ends = [v - v * math.log(v) for v in (0.25, 0.75)]
    return 2 * (ends[1] - ends[0])


def coverage(samples: Floats, true: float) -> tuple[float, float]:
    """Return the coverage of the expanded percentiles and of the percentiles 2.5 % and 97.5 %."""
    found = np.zeros((len(samples), 2), dtype=bool)
    for i, values in enumerate(samples):
        interval = interquartile.interquartile_estimate(list(values)).interval
        found[i, 0] = interval is not None and interval[0] <= true <= interval[1]
        means = interquartile.resampled_means(np.sort(values))
        low, high = np.quantile(means, [0.025, 0.975])
        found[i, 1] = low <= true <= high
    return float(found[:, 0].mean()), float(found[:, 1].mean())


def spread(pilot: int, true_seeds: int) -> tuple[str, str]:
    """Return quantiles of the number of seeds for equal settings after ``pilot`` seeds."""
    margin = next(
        margin
        for margin in np.arange(3, 0.1, -0.001)
        if (seeds_to_decide(Estimate(2, 0.0, 1.0, None), margin) or math.inf) >= true_seeds
    )
    draw, numbers = np.random.default_rng(pilot + true_seeds), list[float]()
    zeros = dict.fromkeys(range(pilot), 0.0)
    while len(numbers) < CASES:
        change = paired_difference(dict(enumerate(draw.normal(0, 1, pilot))), zeros)
        (found,) = with_seeds(corrected([with_equivalence_test(change, float(margin))]))
        if isinstance(found, Difference) and found.is_decided is False:
            numbers.append(found.seeds or math.inf)
    return _quantile(numbers, 0.1), _quantile(numbers, 0.9)


def _quantile(numbers: Sequence[float], level: float) -> str:
    value = sorted(numbers)[int(level * (len(numbers) - 1))]
    return f">{MAX_SEEDS}" if math.isinf(value) else f"{value:.0f}"


if __name__ == "__main__":
    main()

"""Equivalence within a margin, and the number of seeds that would decide.

Two one-sided t tests (TOST, Schuirmann 1987, "A comparison of the two one-sided tests procedure and
the power approach for assessing the equivalence of average bioavailability") show that a mean
difference is within ± margin. Each test has the level of significance. Both must be significant, so
their combination needs no further correction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nnopt.analysis.statistics import SIGNIFICANCE, AnyDifference, Difference, Estimate
from nnopt.errors import ConfigError, Problems
from nnopt.results.collect import setting_text
from nnopt.results.metrics import CENSORED, is_fraction_metric, unit_of

POWER = 0.8  # probability with which the computed number of seeds gives a significant result
MAX_SEEDS = 1000  # a larger number of seeds is not computed


def with_equivalence_test(difference: Difference, margin: float | None) -> Difference:
    """Add the margin and the p value of the equivalence test to a difference.

    There is no p value if the test of a difference has none.
    """
    if margin is None or difference.p is None or difference.change is None:
        return replace(difference, margin=margin)
    return replace(
        difference, margin=margin, p_equivalence=equivalence_p(difference.change, margin)
    )


def equivalence_p(change: Estimate, margin: float) -> float:
    """Return the p value of the hypothesis that the mean difference is not within ± margin.

    It is the larger p value of two one-sided t tests with n - 1 degrees of freedom:
    P(T >= (d̄ + margin) / (s / √n)) and P(T <= (d̄ - margin) / (s / √n)).
    """
    from scipy.special import stdtr

    if change.std is None:
        raise ValueError("an equivalence test needs at least two differences")
    # The larger p value belongs to the nearer limit. The standard error std / √n may round to 0.
    t = (abs(change.location) - margin) / change.std * math.sqrt(change.n)
    return float(stdtr(change.n - 1, t))


def with_seeds(differences: Sequence[AnyDifference | None]) -> list[AnyDifference | None]:
    """Add to each undecided difference the number of seeds that would decide it.

    The number is rounded up to two significant digits, because it is a rough estimate.
    """
    tests = sum(x is not None and x.p is not None for x in differences)
    margins = sum(isinstance(x, Difference) and x.p_equivalence is not None for x in differences)

    def seeds(x: Difference) -> int | None:
        if x.margin is None or x.change is None or x.is_decided is not False:
            return None
        found = seeds_to_decide(x.change, x.margin, tests, margins)
        return None if found is None else _rounded_up(found)

    return [replace(x, seeds=seeds(x)) if isinstance(x, Difference) else x for x in differences]


def _rounded_up(seeds: int) -> int:
    """Round a number up to two significant digits."""
    unit = int(10 ** max(len(str(seeds)) - 2, 0))
    return -(-seeds // unit) * unit


def seeds_to_decide(
    change: Estimate, margin: float, tests: int = 1, equivalence_tests: int = 1
) -> int | None:
    """Return the number of common seeds that shows a difference or equivalence with power 0.8.

    The true mean and standard deviation of the differences are assumed to be the observed ones, so
    the number is only a rough estimate if there are few seeds. Of the two results, the one that
    needs fewer seeds counts. A p value must be below the level of significance divided by the
    number of tests of its kind, the strictest level of Holm's method.

    Returns:
        The number of seeds, larger than the present one, or None if it is above ``MAX_SEEDS``.
    """
    if not change.std or change.n >= MAX_SEEDS:
        return None
    mean, std = change.location, change.std

    def decide(n: int) -> bool:
        different = power_of_difference(n, mean, std, SIGNIFICANCE / tests)
        level = SIGNIFICANCE / equivalence_tests
        return max(different, power_of_equivalence(n, mean, std, margin, level)) >= POWER

    too_few, enough = change.n, min(2 * change.n, MAX_SEEDS)
    while not decide(enough):
        if enough >= MAX_SEEDS:
            return None
        too_few, enough = enough, min(2 * enough, MAX_SEEDS)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if decide(middle) else (middle, enough)
    return enough


def power_of_difference(n: int, mean: float, std: float, level: float) -> float:
    """Return the power of the two-sided paired t test with n seeds.

    Power is the probability of a significant difference with the sign of the true ``mean``:
    P(T > t) for the noncentral t distribution with the noncentrality |mean| √n / std, where t is
    the quantile 1 - level / 2 of Student's distribution with n - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    noncentrality = abs(mean) / std * math.sqrt(n)
    return 1 - noncentral_t_cdf(n - 1, noncentrality, float(stdtrit(n - 1, 1 - level / 2)))


def power_of_equivalence(n: int, mean: float, std: float, margin: float, level: float) -> float:
    """Return a lower bound of the power of the equivalence test with n seeds.

    Both one-sided tests must be significant: P(A and B) >= P(A) + P(B) - 1 = P(B) - P(not A). The
    bound is nearly exact for a power above 0.5, because both tests rarely fail together.
    """
    from scipy.special import stdtrit

    root, quantile = math.sqrt(n), float(stdtrit(n - 1, 1 - level))
    below_upper = noncentral_t_cdf(n - 1, (abs(mean) - margin) / std * root, -quantile)
    not_above_lower = noncentral_t_cdf(n - 1, (abs(mean) + margin) / std * root, quantile)
    return max(below_upper - not_above_lower, 0.0)


def noncentral_t_cdf(df: int, noncentrality: float, t: float) -> float:
    """Return P(T <= t) for the noncentral t distribution.

    SciPy returns NaN for some large noncentralities, for which the probability is nearly 0 or 1.
    Then the normal approximation P(Z <= (t (1 - 1 / (4 df)) - noncentrality) / √(1 + t² / (2 df)))
    is used (Abramowitz and Stegun 1964, equation 26.7.10).
    """
    from scipy.special import nctdtr, ndtr

    probability = float(nctdtr(df, noncentrality, t))
    if not math.isnan(probability):
        return probability
    z = (t * (1 - 1 / (4 * df)) - noncentrality) / math.sqrt(1 + t**2 / (2 * df))
    return float(ndtr(z))


# the option --margin ------------------------------------------------------------------------------


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


def read_margins(texts: Sequence[str], labels: Mapping[str, str]) -> dict[str, float]:
    """Parse ``NUMBER`` or ``METRIC=NUMBER``. Return the margin of each metric that has one.

    Args:
        texts: The values of the option.
        labels: Compared metric -> its name in the table. Both names are accepted.

    Raises:
        ConfigError: One of the margins is wrong. All wrong margins are reported.
    """
    problems, margins = Problems(), dict[str, float]()
    for text in texts:
        name, sign, number = text.rpartition("=")
        with problems.collect():
            metric = _metric_of(text, name.strip(), bool(sign), labels)
            if metric in margins:
                raise ConfigError(f"--margin {text}: {metric} has two margins; give one")
            margins[metric] = _margin(text, number.strip(), metric)
    problems.check()
    return margins


def _metric_of(text: str, name: str, is_named: bool, labels: Mapping[str, str]) -> str:
    """Return the metric of a margin. Raises ConfigError if it is unknown or has no margin."""
    first = next(iter(labels))
    if not is_named and len(labels) > 1:
        raise ConfigError(
            f"--margin {text}: there are {len(labels)} metrics; name the metric of the margin, "
            f"as in --margin {labels[first]}={text}"
        )
    given = name if is_named else first
    metric = next((x for x, label in labels.items() if given in (x, label)), None)
    if metric is None:
        raise ConfigError(
            f"--margin {text}: {given!r} is not compared; compared metrics: "
            f"{', '.join(labels.values())}"
        )
    if metric in CENSORED:
        raise ConfigError(
            f"--margin {text}: {metric} is compared by ranks, which have no margin; "
            "remove --margin or choose another --metric"
        )
    return metric


def _margin(text: str, number: str, metric: str) -> float:
    """Parse the number of a margin. Raises ConfigError if it is not finite and positive."""
    is_fraction = is_fraction_metric(metric)
    margin = float(number) if _NUMBER.fullmatch(number) else math.nan  # float() also reads 1_0
    if 0 < margin < (1 if is_fraction else math.inf):
        return margin
    allowed = "a number above 0 and below 1" if is_fraction else "a finite number above 0"
    example = ", such as 0.002 for 0.2 percentage points" if is_fraction else ""
    raise ConfigError(f"--margin {text}: the margin of {metric} must be {allowed}{example}")


def margin_text(metric: str, margin: float) -> str:
    """Return a margin with all digits and the unit of its metric, as ``1.5 s`` or ``20 MiB``."""
    return f"{setting_text(margin)} {unit_of(metric)}".rstrip()

"""The best settings of a comparison, and the order of its rows by a result."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from nnopt.analysis.censored import Times, median
from nnopt.analysis.statistics import Estimate
from nnopt.results.metrics import better_direction


@dataclass(frozen=True)
class Ranking:
    """Numbers by which settings are ordered, and the best settings.

    Times to a target are ordered by their median within the smallest budget of the settings with
    the same test set and target, because the tests use no later times either.
    """

    numbers: tuple[float | None, ...]  # of each setting; None without a result
    best: frozenset[int]  # indices; empty if all numbers of a group are equal, or may be unequal
    budgets_differ: bool  # whether the times of a group have different budgets
    is_open: bool  # whether a run of unknown continuation may have a better time than the best


def rank(
    metric: str,
    estimates: Sequence[Estimate | None],
    times: Sequence[Times | None],
    comparable: Sequence[Hashable],
) -> Ranking:
    """Order the settings by their results in one metric.

    Args:
        metric: Name of the metric, which determines the better direction.
        estimates: Result of each setting.
        times: Times of each setting, if the metric is a time to a target.
        comparable: A value for each setting, such as its test set. Only results of settings with
            equal values are compared.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, (estimate, given) in enumerate(zip(estimates, times, strict=True)):
        if estimate is not None:
            groups.setdefault((comparable[i], given and given.target), []).append(i)
    numbers = [None if x is None else x.location for x in estimates]
    best, budgets_differ, is_open = set[int](), False, False
    for group in groups.values():
        members = {i: x for i in group if (x := times[i]) is not None}
        budget = min((own.budget for own in members.values()), default=math.inf)
        for i, own in members.items():
            numbers[i] = median(own.within(budget))
            budgets_differ |= own.budget > budget
        winners = _winners({i: number for i in group if (number := numbers[i]) is not None}, metric)
        if winners and _may_be_beaten(members, numbers[min(winners)]):
            winners, is_open = set(), True
        best |= winners
    return Ranking(tuple(numbers), frozenset(best), budgets_differ, is_open)


def _winners(numbers: Mapping[int, float], metric: str) -> set[int]:
    """Return the indices of the best numbers; none if all are equal or no direction is better."""
    direction = better_direction(metric)
    if direction is None or len(set(numbers.values())) < 2:
        return set()
    best = (max if direction == "higher" else min)(numbers.values())
    return {i for i, number in numbers.items() if number == best}


def _may_be_beaten(members: Mapping[int, Times], best: float | None) -> bool:
    """Return whether a run that was ended before the target may make another median better."""
    found = [x for x in members.values() if x.unknown]
    return best is not None and any(median(x.earliest()) < best for x in found)

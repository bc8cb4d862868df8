"""The verdict on a setting's difference from its baseline, as text."""

from __future__ import annotations

from collections import Counter

from nnopt.analysis.comparison import MetricResult, Row
from nnopt.analysis.equivalence import MAX_SEEDS, margin_text
from nnopt.analysis.statistics import Difference, RankDifference
from nnopt.results.metrics import better_direction


def verdict(row: Row, outcome: MetricResult, metric: str) -> str:
    """Describe a setting's difference from its baseline; return "" if it has no baseline."""
    difference = outcome.difference
    if row.is_baseline:
        return "baseline"
    if difference is None:
        return ""
    if isinstance(difference, RankDifference):
        return _verdict_of_ranks(difference)
    if difference.change is None:
        return "too large to compare" if difference.pairs else "no common seed"
    mean = difference.change.location
    if difference.p is None:
        if difference.pairs < 2:
            return "one common seed"
        return "the same difference every time" if mean else "equal for every seed"
    better, direction = better_direction(metric), "higher" if mean > 0 else "lower"
    name = direction if better is None else "better" if direction == better else "worse"
    return _verdict_of_means(difference, name, metric)


def _verdict_of_means(difference: Difference, direction: str, metric: str) -> str:
    """Combine the tests of a difference and of equivalence."""
    if difference.margin is None:
        return direction if difference.is_significant else "not distinguishable"
    margin = margin_text(metric, difference.margin)
    if difference.is_equivalent:
        is_different = difference.is_significant
        return (
            f"{direction} by less than {margin}" if is_different else f"equivalent within {margin}"
        )
    if difference.is_significant:
        return direction
    seeds = f">{MAX_SEEDS}" if difference.seeds is None else f"about {difference.seeds}"
    return f"undecided ({seeds} seeds would decide)"


def _verdict_of_ranks(difference: RankDifference) -> str:
    if 0 in difference.runs:
        return "no run with a target"
    if difference.unknown:
        counts = Counter(difference.unknown).items()
        return f"not tested: {', '.join(f'{count} {status}' for status, count in counts)}"
    if difference.earlier is None:
        return "another target"
    if difference.p is None:
        return "equal times" if difference.reached else "no run reached the target"
    if not difference.is_significant:
        return "not distinguishable"
    return "better" if difference.earlier > 1 / 2 else "worse"

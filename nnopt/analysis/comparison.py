"""Comparison of settings: means over seeds, differences from a baseline, and the best mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nnopt.analysis.censored import (
    diverged_without_time,
    is_known,
    median_estimate,
    rank_difference,
    times_of,
)
from nnopt.analysis.equivalence import with_equivalence_test, with_seeds
from nnopt.analysis.interquartile import interquartile_estimate
from nnopt.analysis.same_data import notes_on_training_files, same_test_set, test_set
from nnopt.analysis.settings import (
    Condition,
    Setting,
    group_runs,
    known_metrics,
    sort_key,
    unknown_name,
    varying_keys,
)
from nnopt.analysis.statistics import (
    AnyDifference,
    Estimate,
    RankDifference,
    corrected,
    estimate,
    paired_difference,
)
from nnopt.errors import ConfigError
from nnopt.results.collect import Run, setting_text
from nnopt.results.metrics import CENSORED, METRICS, better_direction

Estimator = Literal["mean", "iqm"]
"""Location of the results of a setting: mean or interquartile mean."""


@dataclass(frozen=True)
class MetricResult:
    """A setting's result in a metric. A setting is a group of runs that differ only in the seed."""

    estimate: Estimate | None  # None if no run of the setting has the metric
    difference: AnyDifference | None  # from the baseline; None for the baseline, or without one
    is_best: bool  # whether the mean is the best on its test set, and not all means are equal


@dataclass(frozen=True)
class Row:
    """A setting and its results, one for each metric of the comparison."""

    setting: Setting
    outcomes: tuple[MetricResult, ...]
    is_baseline: bool


@dataclass(frozen=True)
class Comparison:
    """The compared settings and their results."""

    keys: tuple[str, ...]  # keys that vary among the settings
    metrics: tuple[str, ...]
    baseline: tuple[Condition, ...]  # conditions that select the baseline, if there is one
    rows: tuple[Row, ...]
    notes: tuple[str, ...]  # remarks about the data, one sentence each
    margins: Mapping[str, float] = field(default_factory=dict)  # of equivalence, by metric
    estimator: Estimator = "mean"

    def label(self, metric: str) -> str:
        """Return the name of a metric, with the suffix ``_done`` if a key has the same name."""
        return f"{metric}_done" if metric in self.keys else metric

    @property
    def tests(self) -> int:
        """The number of differences with a p value."""
        differences = [x.difference for row in self.rows for x in row.outcomes]
        return sum(x is not None and x.p is not None for x in differences)


def compare_runs(
    runs: Sequence[Run],
    metrics: Sequence[str],
    baseline: Sequence[Condition] = (),
    margins: Mapping[str, float] | None = None,
    estimator: Estimator = "mean",
) -> Comparison:
    """Compare all settings, by their means over seeds, with each other and with a baseline.

    Args:
        runs: The runs, which are grouped into settings.
        metrics: Names of numbers in the summaries. Times to a target are compared by their ranks.
        baseline: The conditions that select the baseline.
        margins: Metric -> largest difference from the baseline that does not matter.
        estimator: Location of the results of a setting. Differences are always those of means.

    Raises:
        ConfigError: One of the metrics is missing from all runs, or the baseline does not exist or
            is ambiguous.
    """
    for metric in metrics:
        _check_metric(metric, runs)
    margins = margins or {}
    keys = varying_keys(runs)
    settings = group_runs(runs, keys)
    baselines = _baselines(settings, baseline, keys)
    tests = [
        None if j is None or j == i else _difference(settings[i], settings[j], name, margins)
        for i, j in enumerate(baselines)
        for name in metrics
    ]
    # The tests of all metrics are corrected together.
    differences = iter(found := with_seeds(corrected(tests)))
    estimates = {name: [_estimate(x, name, estimator) for x in settings] for name in metrics}
    best = {name: _best(settings, estimates[name], name) for name in metrics}
    outcomes = [
        tuple(MetricResult(estimates[x][i], next(differences), i in best[x]) for x in metrics)
        for i in range(len(settings))
    ]
    rows = [Row(setting, outcomes[i], baselines[i] == i) for i, setting in enumerate(settings)]
    notes = [
        *_notes(settings),
        *_notes_on_times(settings, metrics, found),
        *notes_on_training_files(runs),
    ]
    if baseline and (count := baselines.count(None)):
        subject = "1 setting has" if count == 1 else f"{count} settings have"
        notes.append(f"{subject} no baseline with the same values of the other keys")
    return Comparison(
        keys=tuple(keys),
        metrics=tuple(metrics),
        baseline=tuple(baseline),
        rows=tuple(rows),
        notes=tuple(notes),
        margins=dict(margins),
        estimator=estimator,
    )


def _estimate(setting: Setting, metric: str, estimator: Estimator) -> Estimate | None:
    """Return a setting's mean, IQM or median time; None if no run has the metric."""
    if metric in CENSORED:
        times = times_of(setting, metric)
        return None if times is None else median_estimate(list(times.by_seed.values()))
    values = list(setting.metric(metric).values())
    if not values:
        return None
    return interquartile_estimate(values) if estimator == "iqm" else estimate(values)


def _difference(
    setting: Setting, baseline: Setting, metric: str, margins: Mapping[str, float]
) -> AnyDifference:
    """Test the difference of a setting from its baseline."""
    if metric in CENSORED:
        one, other = times_of(setting, metric), times_of(baseline, metric)
        if one is None or other is None:
            counts = [len(times.by_seed) if times else 0 for times in (one, other)]
            return RankDifference((counts[0], counts[1]), 0, None, None)
        return rank_difference(one, other)
    difference = paired_difference(setting.metric(metric), baseline.metric(metric))
    return with_equivalence_test(difference, margins.get(metric))


def sort_rows(comparison: Comparison, name: str, reverse: bool = False) -> tuple[Row, ...]:
    """Return the rows in ascending order of a key, or from the best to the worst mean of a metric.

    Means of a metric without a better direction are in ascending order.
    Raises ConfigError if the name is neither a key nor a metric of the comparison.
    """
    rows = comparison.rows
    if name in comparison.keys:
        return tuple(sorted(rows, key=lambda x: sort_key(x.setting.values, name), reverse=reverse))
    labels = [comparison.label(metric) for metric in comparison.metrics]
    if name not in labels:
        raise unknown_name("column to sort by", name, [*comparison.keys, *labels])
    column = labels.index(name)
    sign = -1 if (better_direction(comparison.metrics[column]) == "higher") != reverse else 1

    def sort_value(row: Row) -> float:
        result = row.outcomes[column].estimate
        return math.inf if result is None else sign * result.mean

    return tuple(sorted(rows, key=sort_value))


def _check_metric(metric: str, runs: Sequence[Run]) -> None:
    known = known_metrics(runs)
    if metric in known or is_known(metric, runs):
        return
    if metric in METRICS or metric in CENSORED:
        raise ConfigError(f"no finished run has a {metric}; known metrics: {', '.join(known)}")
    raise unknown_name("metric", metric, known)


def _baselines(
    settings: Sequence[Setting], conditions: Sequence[Condition], keys: Sequence[str]
) -> list[int | None]:
    """Return the index of the baseline for each setting.

    If one setting meets the conditions, it is the baseline of all settings on its test set. If
    several do, the baseline of a setting also has the same values of all keys outside of the
    conditions. If a condition is about the dataset, the test sets may differ.
    """
    if not conditions:
        return [None] * len(settings)
    candidates = _candidates(settings, conditions, keys)
    across_data = any(condition.key.partition(".")[0] == "dataset" for condition in conditions)
    other_keys = [key for key in keys if key not in {condition.key for condition in conditions}]
    compared_keys = other_keys if len(candidates) > 1 else []

    def baseline_of(i: int) -> int | None:
        if i in candidates:
            return i
        matches = [
            j
            for j in candidates
            if (across_data or same_test_set(settings[i], settings[j]))
            and _are_equal(settings[j], settings[i], compared_keys)
        ]
        return matches[0] if len(matches) == 1 else None

    baselines = [baseline_of(i) for i in range(len(settings))]
    if len(candidates) > 1 and all(j in (None, i) for i, j in enumerate(baselines)):
        named = ", ".join(map(str, conditions))
        raise ConfigError(
            f"--baseline {named} is ambiguous: it matches {len(candidates)} settings, and no "
            f"other setting agrees in {', '.join(other_keys)} with exactly one of them; "
            "add one of these keys to --baseline"
        )
    return baselines


def _candidates(
    settings: Sequence[Setting], conditions: Sequence[Condition], keys: Sequence[str]
) -> list[int]:
    """Return the indices of the settings that meet the conditions; raise ConfigError if none do."""
    for condition in conditions:
        if condition.key not in keys:
            raise ConfigError(
                f"--baseline {condition}: {condition.key} is no column of this table; "
                f"keys that vary: {', '.join(keys) or 'none'}"
            )
    indices = [i for i, x in enumerate(settings) if all(c.holds(x.values) for c in conditions)]
    if not indices:
        key = conditions[0].key
        values = dict.fromkeys(setting_text(x.values[key]) for x in settings if key in x.values)
        named = ", ".join(map(str, conditions))
        raise ConfigError(f"no setting has {named}; values of {key}: {', '.join(values)}")
    return indices


def _are_equal(one: Setting, other: Setting, keys: Sequence[str]) -> bool:
    """Return whether two settings are equal in every key that both have."""
    shared = one.values.keys() & other.values.keys() & set(keys)
    return all(one.values[key] == other.values[key] for key in shared)


def _best(
    settings: Sequence[Setting], estimates: Sequence[Estimate | None], metric: str
) -> set[int]:
    """Return the indices of the best settings on each test set; none if all means are equal.

    Times to different targets are not compared.
    """
    if (direction := better_direction(metric)) is None:
        return set()
    means: dict[Hashable, dict[int, float]] = {}
    for i, (setting, result) in enumerate(zip(settings, estimates, strict=True)):
        if result is not None:
            times = times_of(setting, metric) if metric in CENSORED else None
            group = (test_set(setting), times and times.target)
            means.setdefault(group, {})[i] = result.mean
    best = set()
    for found in means.values():
        best_mean = (max if direction == "higher" else min)(found.values())
        if len(set(found.values())) > 1:
            best |= {i for i, mean in found.items() if mean == best_mean}
    return best


def _notes(settings: Sequence[Setting]) -> list[str]:
    notes = []
    if left_out := sum((Counter(setting.left_out) for setting in settings), Counter()):
        counts = ", ".join(f"{count} {status}" for status, count in left_out.items())
        notes.append(f"left out of every mean: {counts}")
    if repeated := sum(setting.repeated for setting in settings):
        notes.append(f"runs left out because a newer run has the same setting and seed: {repeated}")
    return notes


def _notes_on_times(
    settings: Sequence[Setting], metrics: Sequence[str], differences: Sequence[AnyDifference | None]
) -> list[str]:
    """Return notes on runs whose times to a target are treated as unknown."""
    if not (names := [name for name in metrics if name in CENSORED]):
        return []
    notes, subject = [], " and ".join(names)
    if count := sum(map(diverged_without_time, settings)):
        runs = "1 diverged run counts" if count == 1 else f"{count} diverged runs count"
        notes.append(f"{subject}: {runs} as not having reached the target")
    if any(isinstance(x, RankDifference) and x.later for x in differences):
        notes.append(
            f"{subject}: two settings with different budgets are tested within the smaller budget; "
            "later times count as not reached"
        )
    return notes

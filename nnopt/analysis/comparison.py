"""Comparison of settings: means over seeds, differences from a baseline, and the best mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nnopt.analysis.baselines import baselines_of
from nnopt.analysis.censored import (
    Times,
    is_known,
    median_estimate,
    not_reached,
    rank_difference,
    times_of,
)
from nnopt.analysis.equivalence import with_equivalence_test, with_seeds
from nnopt.analysis.interquartile import interquartile_estimate
from nnopt.analysis.ranking import Ranking, rank
from nnopt.analysis.same_data import notes_on_training_files, test_set
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
    Kind,
    RankDifference,
    corrected,
    estimate,
    paired_difference,
)
from nnopt.errors import ConfigError
from nnopt.results.collect import Run, Value
from nnopt.results.metrics import CENSORED, FLAGS, LOSS_KEYS, METRICS, better_direction

Estimator = Literal["mean", "iqm"]
"""Location of the results of a setting: mean or interquartile mean."""


@dataclass(frozen=True)
class MetricResult:
    """A setting's result in a metric. A setting is a group of runs that differ only in the seed."""

    estimate: Estimate | None  # None if no run of the setting has the metric
    difference: AnyDifference | None  # from the baseline; None for the baseline, or without one
    is_best: bool  # whether the location is the best on its test set, and not all are equal
    rank_number: float | None = None  # by which rows are sorted; None without an estimate
    times: Times | None = None  # of a time to a target


@dataclass(frozen=True)
class Row:
    """A setting and its results, one for each metric of the comparison."""

    setting: Setting
    outcomes: tuple[MetricResult, ...]
    is_baseline: bool

    @property
    def counted(self) -> dict[int, str]:
        """The status of each run that has a result in at least one metric, by seed."""
        counted = dict.fromkeys(self.setting.runs, "done")
        for times in (outcome.times for outcome in self.outcomes):
            counted |= times.statuses if times else {}
        return counted

    @property
    def left_out(self) -> dict[str, int]:
        """The number of runs that are not done and have no result, by status."""
        return dict(Counter(self.setting.left_out) - Counter(self.counted.values()))


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
        return metric_label(metric, self.keys)

    def kind(self, metric: str) -> Kind:
        """Return the kind of the location of a metric."""
        return "median" if metric in CENSORED else self.estimator

    @property
    def tests(self) -> int:
        """The number of differences with a p value."""
        differences = [x.difference for row in self.rows for x in row.outcomes]
        return sum(x is not None and x.p is not None for x in differences)


def metric_label(metric: str, keys: Sequence[str]) -> str:
    """Return the name of a metric, with the suffix ``_done`` if a key has the same name."""
    return f"{metric}_done" if metric in keys else metric


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
    baselines = baselines_of(settings, baseline, keys)
    times = {name: [_times(setting, name) for setting in settings] for name in metrics}
    losses = {name: [_loss_of(setting, name) for setting in settings] for name in metrics}
    # The tests of all metrics are corrected together.
    tests = [
        _difference(settings, times[name], i, j, name, margins)
        if j is not None and j != i and losses[name][i] == losses[name][j]
        else None
        for i, j in enumerate(baselines)
        for name in metrics
    ]
    differences = iter(found := with_seeds(corrected(tests)))
    estimates = {x: _estimates(settings, times[x], x, estimator) for x in metrics}
    comparable = {x: list(zip(map(test_set, settings), losses[x], strict=True)) for x in metrics}
    rankings = {x: rank(x, estimates[x], times[x], comparable[x]) for x in metrics}

    def result(i: int, name: str) -> MetricResult:
        is_best, number = i in rankings[name].best, rankings[name].numbers[i]
        return MetricResult(estimates[name][i], next(differences), is_best, number, times[name][i])

    rows = [
        Row(setting, tuple(result(i, name) for name in metrics), baselines[i] == i)
        for i, setting in enumerate(settings)
    ]
    notes = [*_notes(rows), *_notes_on_times(rows, rankings, found), *notes_on_training_files(runs)]
    notes += [*_notes_on_losses(losses, keys), *_notes_on_baselines(baselines if baseline else ())]
    return Comparison(
        keys=tuple(keys),
        metrics=tuple(metrics),
        baseline=tuple(baseline),
        rows=tuple(rows),
        notes=tuple(notes),
        margins=dict(margins),
        estimator=estimator,
    )


def _loss_of(setting: Setting, metric: str) -> tuple[Value, ...]:
    """Return the values of ``LOSS_KEYS`` if the metric is a loss, else nothing.

    ``focal_gamma`` has an effect only on the focal loss. A key that does not vary is None.
    """
    if not metric.endswith("loss"):
        return ()
    loss, gamma = (setting.values.get(key) for key in LOSS_KEYS)
    return (loss, gamma if loss in ("focal", None) else None)


def _times(setting: Setting, metric: str) -> Times | None:
    return times_of(setting, metric) if metric in CENSORED else None


def _estimates(
    settings: Sequence[Setting], times: Sequence[Times | None], metric: str, estimator: Estimator
) -> list[Estimate | None]:
    """Return the mean, IQM or median time of each setting; None if no run has the metric."""
    if metric in CENSORED:
        return [None if x is None else median_estimate(list(x.by_seed.values())) for x in times]
    compute = interquartile_estimate if estimator == "iqm" else estimate
    values = [list(setting.metric(metric).values()) for setting in settings]
    return [compute(x) if x else None for x in values]


def _difference(
    settings: Sequence[Setting],
    times: Sequence[Times | None],
    index: int,
    baseline: int,
    metric: str,
    margins: Mapping[str, float],
) -> AnyDifference:
    """Test the difference of a setting from its baseline."""
    if metric in CENSORED:
        one, other = times[index], times[baseline]
        if one is None or other is None:
            counts = [len(x.by_seed) if x else 0 for x in (one, other)]
            return RankDifference((counts[0], counts[1]), 0, None, None)
        return rank_difference(one, other)
    values = [settings[i].metric(metric) for i in (index, baseline)]
    return with_equivalence_test(paired_difference(*values), margins.get(metric))


def sort_rows(comparison: Comparison, name: str, reverse: bool = False) -> tuple[Row, ...]:
    """Return the rows in ascending order of a key, or a metric with the best result first.

    Results in a metric without a better direction are in ascending order. Medians of times to a
    target are those within the smallest budget, by which the best one is selected.
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
        number = row.outcomes[column].rank_number
        return math.inf if number is None else sign * number

    return tuple(sorted(rows, key=sort_value))


def _check_metric(metric: str, runs: Sequence[Run]) -> None:
    known = known_metrics(runs)
    if metric in known or is_known(metric, runs):
        return
    if metric in FLAGS:
        raise ConfigError(
            f"{metric} is true or false, so it has no mean; known metrics: {', '.join(known)}"
        )
    if metric in METRICS or metric in CENSORED:
        raise ConfigError(f"no finished run has a {metric}; known metrics: {', '.join(known)}")
    raise unknown_name("metric", metric, known)


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    if left_out := sum((Counter(row.left_out) for row in rows), Counter()):
        notes.append(f"left out: {_counts(left_out)}")
    if repeated := sum(row.setting.repeated for row in rows):
        notes.append(f"runs left out because a newer run has the same setting and seed: {repeated}")
    return notes


def _counts(runs: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in runs.items())


def _notes_on_losses(
    losses: Mapping[str, Sequence[tuple[Value, ...]]], keys: Sequence[str]
) -> list[str]:
    """Return a note on the metrics whose settings have different losses."""
    names = [name for name, found in losses.items() if len({*found}) > 1]
    varying = " or ".join(key for key in LOSS_KEYS if key in keys)
    note = "not comparable, and not compared, between settings with different"
    return [f"{', '.join(names)}: {note} {varying}"] if names else []


def _notes_on_baselines(baselines: Sequence[int | None]) -> list[str]:
    """Return a note on the settings without a baseline."""
    if not (count := baselines.count(None)):
        return []
    subject = "1 setting has" if count == 1 else f"{count} settings have"
    return [f"{subject} no baseline with the same values of the other keys"]


def _notes_on_times(
    rows: Sequence[Row],
    rankings: Mapping[str, Ranking],
    differences: Sequence[AnyDifference | None],
) -> list[str]:
    """Return notes on runs whose times to a target are treated as unknown."""
    notes, names = [], [name for name in rankings if name in CENSORED]
    columns = zip(rankings, zip(*(row.outcomes for row in rows), strict=True), strict=True)
    for name, outcomes in columns:
        counts = sum((not_reached(x.times) for x in outcomes if x.times), Counter[str]())
        if counts:
            means = "; left out of the means" if len(names) < len(rankings) else ""
            notes.append(
                f"{name}: counted as not having reached the target: {_counts(counts)}{means}"
            )
        if rankings[name].is_open:
            notes.append(
                f"{name}: no median is marked as the best where runs that were pruned or timed out "
                "might have reached the target earlier"
            )
        if rankings[name].budgets_differ:
            notes.append(
                f"{name}: budgets differ; the best median, and the order of --sort, count times "
                "after the smallest budget as not reached"
            )
    if any(isinstance(x, RankDifference) and x.unknown for x in differences):
        notes.append(
            f"{' and '.join(names)}: settings with runs that were ended before the target and "
            "before the common budget are not tested; these runs might have reached it later"
        )
    if any(isinstance(x, RankDifference) and x.later for x in differences):
        notes.append(
            f"{' and '.join(names)}: two settings with different budgets are tested within the "
            "smaller budget; later times count as not reached"
        )
    return notes

"""Settings side by side: means over seeds, differences to a baseline, the best of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

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
from nnopt.analysis.statistics import Difference, Estimate, corrected, estimate, paired_difference
from nnopt.errors import ConfigError
from nnopt.results.collect import Run, setting_text
from nnopt.results.metrics import METRICS, better_direction


@dataclass(frozen=True)
class Outcome:
    """What one setting came to in one metric.

    estimate: None if no run has the metric. difference: to the setting's baseline, None if there is
    none. is_best: of the settings with the same data, where more or less is better; several at once
    if they are equal.
    """

    estimate: Estimate | None
    difference: Difference | None
    is_best: bool


@dataclass(frozen=True)
class Row:
    """A setting and its outcomes, in the order of the metrics."""

    setting: Setting
    outcomes: tuple[Outcome, ...]
    is_baseline: bool


@dataclass(frozen=True)
class Comparison:
    """Settings, by the keys that vary. baseline: the conditions that name it, none if there is
    none. notes: what a reader has to know, a sentence each."""

    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: tuple[Condition, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def label(self, metric: str) -> str:
        """The metric's name; ``epochs_done`` where the key ``epochs`` is a column too."""
        return f"{metric}_done" if metric in self.keys else metric

    @property
    def tests(self) -> int:
        """How many differences were tested."""
        differences = [x.difference for row in self.rows for x in row.outcomes]
        return sum(x is not None and x.p is not None for x in differences)


def compare_runs(
    runs: Sequence[Run], metrics: Sequence[str], baseline: Sequence[Condition] = ()
) -> Comparison:
    """Group the runs over seeds and compare. Raises ConfigError for a metric that no run has, or
    a baseline that no setting is or that does not say which."""
    for metric in metrics:
        _check_metric(metric, runs)
    keys = varying_keys(runs)
    settings = group_runs(runs, keys)
    partners = _baselines(settings, baseline, keys)
    values = [[setting.metric(metric) for metric in metrics] for setting in settings]
    # All that is tested in one table is one family, whatever the metric.
    differences = corrected(
        [
            None if p is None or p == i else paired_difference(values[i][m], values[p][m])
            for i, p in enumerate(partners)
            for m in range(len(metrics))
        ]
    )
    estimates = [[estimate(list(x.values())) if x else None for x in row] for row in values]
    best = [_best(settings, [row[m] for row in estimates], name) for m, name in enumerate(metrics)]
    rows = [
        Row(
            setting,
            tuple(
                Outcome(estimates[i][m], differences[i * len(metrics) + m], i in best[m])
                for m in range(len(metrics))
            ),
            is_baseline=partners[i] == i,
        )
        for i, setting in enumerate(settings)
    ]
    notes = (
        *_notes(settings),
        *notes_on_training_files(runs),
        *_notes_on_baselines(partners, baseline),
    )
    return Comparison(tuple(keys), tuple(metrics), tuple(baseline), tuple(rows), notes)


def verdict(row: Row, outcome: Outcome, metric: str) -> str:
    """What the difference to the baseline says, in words; empty where there is nothing to say."""
    difference = outcome.difference
    if row.is_baseline:
        return "baseline"
    if difference is None:
        return ""
    if difference.change is None:
        return "too large to compare" if difference.pairs else "no common seed"
    mean = difference.change.mean
    if difference.p is None:
        if difference.pairs < 2:
            return "one common seed"
        return "the same difference every time" if mean else "equal for every seed"
    if not difference.is_significant:
        return "not distinguishable"
    side = "higher" if mean > 0 else "lower"
    wanted = better_direction(metric)
    return side if wanted is None else "better" if side == wanted else "worse"


def sort_rows(comparison: Comparison, name: str, reverse: bool = False) -> tuple[Row, ...]:
    """The rows by a key, or by a metric's mean, the best first. Raises ConfigError."""
    if name in comparison.keys:
        return tuple(
            sorted(comparison.rows, key=lambda row: sort_key(row.setting, name), reverse=reverse)
        )
    labels = [comparison.label(metric) for metric in comparison.metrics]
    if name not in labels:
        raise unknown_name("column to sort by", name, [*comparison.keys, *labels])
    column = labels.index(name)
    sign = -1 if (better_direction(comparison.metrics[column]) == "higher") != reverse else 1
    means = [
        float("inf") if (found := row.outcomes[column].estimate) is None else sign * found.mean
        for row in comparison.rows
    ]
    return tuple(comparison.rows[i] for i in sorted(range(len(means)), key=means.__getitem__))


def _check_metric(metric: str, runs: Sequence[Run]) -> None:
    known = known_metrics(runs)
    if metric in known:
        return
    if metric in METRICS:
        raise ConfigError(f"no run has a number for {metric}; there are: {', '.join(known)}")
    raise unknown_name("metric", metric, known)


def _baselines(
    settings: Sequence[Setting], conditions: Sequence[Condition], keys: Sequence[str]
) -> list[int | None]:
    """For each setting the index of the one it is compared with: the only one of which the
    conditions are true, or among several the one that is like it in all other keys."""
    if not conditions:
        return [None] * len(settings)
    fit = [i for i, x in enumerate(settings) if all(c.holds(x.values) for c in conditions)]
    named = ", ".join(map(str, conditions))
    for condition in conditions:
        if condition.key not in keys:
            varying = ", ".join(keys) or "none"
            raise ConfigError(
                f"--baseline {condition}: {condition.key} is no column of this table; "
                f"keys that vary: {varying}"
            )
    if not fit:
        key = conditions[0].key
        there = dict.fromkeys(setting_text(x.values[key]) for x in settings if key in x.values)
        raise ConfigError(f"no setting has {named}; values of {key}: {', '.join(there)}")
    across_data = any(condition.key.partition(".")[0] == "dataset" for condition in conditions)

    def meets_the_same(i: int, j: int) -> bool:
        return across_data or same_test_set(settings[i], settings[j])

    if len(fit) == 1:
        return [fit[0] if meets_the_same(i, fit[0]) else None for i in range(len(settings))]
    other = [key for key in keys if key not in {condition.key for condition in conditions}]
    partners: list[int | None] = []
    for i, setting in enumerate(settings):
        like = [j for j in fit if meets_the_same(i, j) and _are_alike(settings[j], setting, other)]
        like = [i] if i in fit else like
        partners.append(like[0] if len(like) == 1 else None)
    if all(partner in (None, i) for i, partner in enumerate(partners)):
        raise ConfigError(
            f"--baseline {named} are {len(fit)} settings, and no other is like one of them in "
            f"{', '.join(other)}; name one of these keys too"
        )
    return partners


def _are_alike(one: Setting, other: Setting, keys: Sequence[str]) -> bool:
    """Equal in every key that both have."""
    both = [key for key in keys if key in one.values and key in other.values]
    return all(one.values[key] == other.values[key] for key in both)


def _best(
    settings: Sequence[Setting], estimates: Sequence[Estimate | None], metric: str
) -> set[int]:
    """The indices of the best means, among the settings of each test set; none if all are equal."""
    if (wanted := better_direction(metric)) is None:
        return set()
    means: dict[Hashable, dict[int, float]] = {}
    for i, (setting, found) in enumerate(zip(settings, estimates, strict=True)):
        data = test_set(setting)
        if found is not None:
            means.setdefault(data, {})[i] = found.mean
    best = set()
    for group in means.values():
        record = (max if wanted == "higher" else min)(group.values())
        if len(set(group.values())) > 1:
            best |= {i for i, mean in group.items() if mean == record}
    return best


def _notes(settings: Sequence[Setting]) -> list[str]:
    notes = []
    left_out: Counter[str] = Counter()
    for setting in settings:
        left_out.update(setting.left_out)
    if left_out:
        counts = ", ".join(f"{count} {status}" for status, count in left_out.items())
        notes.append(f"left out of every mean: {counts}")
    if repeated := sum(setting.repeated for setting in settings):
        notes.append(f"{repeated} of the runs repeat a setting and seed: of each the newest counts")
    return notes


def _notes_on_baselines(
    partners: Sequence[int | None], conditions: Sequence[Condition]
) -> list[str]:
    if not conditions:
        return []
    if not (alone := partners.count(None)):
        return []
    subject = "1 setting has" if alone == 1 else f"{alone} settings have"
    return [f"{subject} no baseline with the same other keys"]

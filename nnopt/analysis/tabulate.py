"""A comparison as a table of formatted text, and as records in full precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from nnopt.analysis.comparison import Comparison, MetricResult, Row, verdict
from nnopt.analysis.number_format import (
    MISSING,
    format_difference,
    format_interval,
    format_mean,
    format_p,
)
from nnopt.analysis.settings import Setting, sort_key, unknown_name
from nnopt.errors import ConfigError
from nnopt.results.collect import setting_text

MAX_VALUE_CHARACTERS, DIGEST_CHARACTERS = 32, 6
"""Maximum length of a value in a cell, and length of the digest in a shortened value."""


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and whether its value is the best of the column."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text with a title and notes. ``align`` has "l" or "r" for each column."""

    title: str
    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]


Record = dict[str, str | float | bool | None]  # values by column; None is an empty cell
Columns = list[tuple[str, str, list[Cell]]]  # title, alignment and cells of each column


def tabulate(comparison: Comparison) -> Table:
    """Return a table with a row for each setting: the values of its keys, and its results."""
    columns: Columns = [
        (key, "l", [Cell(short_text(value_of(row.setting, key))) for row in comparison.rows])
        for key in comparison.keys
    ]
    for index, metric in enumerate(comparison.metrics):
        columns += _metric_columns(comparison, index, metric)
    left_out = [Cell(format_left_out(row.setting)) for row in comparison.rows]
    if any(cell.text for cell in left_out):
        columns.append(("left out", "l", left_out))
    header, align, cells = zip(*columns, strict=True)
    rows = tuple(zip(*cells, strict=True))
    return Table(_title(comparison), header, "".join(align), rows, _notes(comparison))


def _metric_columns(comparison: Comparison, index: int, metric: str) -> Columns:
    rows, outcomes = comparison.rows, [row.outcomes[index] for row in comparison.rows]
    label = comparison.label(metric)
    prefix = f"{label} " if len(comparison.metrics) > 1 else ""
    columns: Columns = [
        (f"{prefix}n", "r", [Cell(str(x.estimate.n if x.estimate else 0)) for x in outcomes]),
        (label, "r", [Cell(format_mean(x.estimate), x.is_best) for x in outcomes]),
        (f"{prefix}95 % interval", "r", [Cell(format_interval(x.estimate)) for x in outcomes]),
    ]
    if comparison.baseline:
        found = [x.difference for x in outcomes]
        verdicts = [verdict(row, x, metric) for row, x in zip(rows, outcomes, strict=True)]
        columns += [
            (f"{prefix}difference", "r", [Cell(format_difference(x)) for x in found]),
            (f"{prefix}p (Holm)", "r", [Cell(format_p(x.p_holm if x else None)) for x in found]),
            (f"{prefix}verdict", "l", [Cell(x) for x in verdicts]),
        ]
    return columns


def records(comparison: Comparison) -> list[Record]:
    """Return a record for each setting, with all results in full precision."""
    return [dict(_fields(comparison, row)) for row in comparison.rows]


def _fields(comparison: Comparison, row: Row) -> Iterator[tuple[str, str | float | bool | None]]:
    for key in comparison.keys:
        yield key, value_of(row.setting, key)
    for metric, outcome in zip(comparison.metrics, row.outcomes, strict=True):
        label, found = comparison.label(metric), outcome.estimate
        yield f"{label}_n", found.n if found else 0
        yield f"{label}_mean", found.mean if found else None
        yield f"{label}_std", found.std if found else None
        low, high = (found and found.interval) or (None, None)
        yield f"{label}_low", low
        yield f"{label}_high", high
        yield f"{label}_best", outcome.is_best
        if comparison.baseline:
            difference = outcome.difference
            change = difference.change if difference else None
            yield f"{label}_pairs", difference.pairs if difference else None
            yield f"{label}_difference", change.mean if change else None
            low, high = (change and change.interval) or (None, None)
            yield f"{label}_difference_low", low
            yield f"{label}_difference_high", high
            yield f"{label}_p", difference.p if difference else None
            yield f"{label}_p_holm", difference.p_holm if difference else None
            yield f"{label}_verdict", verdict(row, outcome, metric) or None
    yield "left_out", format_left_out(row.setting) or None


# pivot --------------------------------------------------------------------------------------------


def pivot(comparison: Comparison, down: str, across: str) -> tuple[Table, list[Record]]:
    """Return a table of means with a column for each value of the key ``across``, and its records.

    There is a row for each combination of values of the key ``down`` and the remaining varying
    keys. The first columns contain these values. The records are the rows in full precision.
    ``check_pivot`` checks the arguments.
    """
    keys = [down, *(key for key in comparison.keys if key not in (down, across))]
    results: dict[tuple[str | None, ...], dict[str | None, MetricResult]] = {}
    for row in comparison.rows:
        label = tuple(value_of(row.setting, key) for key in keys)
        results.setdefault(label, {})[value_of(row.setting, across)] = row.outcomes[0]
    by_value = sorted(comparison.rows, key=lambda row: sort_key(row.setting.values, across))
    values = list(dict.fromkeys(value_of(row.setting, across) for row in by_value))
    rows, exact = [], []
    for label, by_column in results.items():
        found = [by_column.get(value) for value in values]
        means = [Cell(format_mean(x.estimate), x.is_best) if x else Cell(MISSING) for x in found]
        rows.append((*(Cell(short_text(value)) for value in label), *means))
        record: Record = dict(zip(keys, label, strict=True))
        for value, x in zip(values, found, strict=True):
            mean = x.estimate.mean if x and x.estimate else None
            record[f"{across}={value or MISSING}"] = mean
        exact.append(record)
    header = (*keys, *(f"{across}={short_text(value)}" for value in values))
    align = "l" * len(keys) + "r" * len(values)
    return Table(_title(comparison), header, align, tuple(rows), _notes(comparison)), exact


def check_pivot(comparison: Comparison, down: str, across: str) -> None:
    """Raise ConfigError unless ``down`` and ``across`` are two different keys of the comparison.

    The comparison must have exactly one metric and no baseline.
    """
    for key in (down, across):
        if key not in comparison.keys:
            raise unknown_name("key to pivot by", key, comparison.keys)
    if down == across:
        raise ConfigError(f"--pivot {down} {across}: needs two different keys")
    if len(comparison.metrics) > 1 or comparison.baseline:
        raise ConfigError("--pivot: give exactly one --metric and no --baseline")


# text --------------------------------------------------------------------------------------------


def _title(comparison: Comparison) -> str:
    runs = sum(len(row.setting.runs) for row in comparison.rows)
    names = ", ".join(comparison.label(metric) for metric in comparison.metrics)
    counts = f"{counted(runs, 'run')}, {counted(len(comparison.rows), 'setting')}"
    return f"{names}, mean ± standard deviation over seeds: {counts}"


def _notes(comparison: Comparison) -> tuple[str, ...]:
    notes = []
    if any(outcome.is_best for row in comparison.rows for outcome in row.outcomes):
        notes.append("* the best mean")
    if comparison.baseline:
        named = ", ".join(map(str, comparison.baseline))
        correction = f", corrected for {comparison.tests} comparisons by Holm's method"
        notes.append(
            f"difference: to {named}, over the common seeds, with its 95 % interval; p: paired "
            f"t test{correction if comparison.tests > 1 else ''}"
        )
    return (*notes, *comparison.notes)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as ``1 run`` or ``1,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def value_of(setting: Setting, key: str) -> str | None:
    """Return a value in the syntax of overrides, or None if the setting lacks the key."""
    return setting_text(setting.values[key]) if key in setting.values else None


def short_text(value: str | None, max_characters: int = MAX_VALUE_CHARACTERS) -> str:
    """Return the value as the text of a cell, shortened if it is long.

    A shortened value ends with a part of its digest, so it differs from values that begin alike.
    """
    if value is None or len(value) <= max_characters:
        return value or MISSING
    digest = hashlib.sha256(value.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{value[: max_characters - DIGEST_CHARACTERS - 3]}… #{digest}"


def format_left_out(setting: Setting) -> str:
    """Return the counts of runs that are not done, as ``1 diverged, 2 failed``."""
    return ", ".join(f"{count} {status}" for status, count in setting.left_out.items())

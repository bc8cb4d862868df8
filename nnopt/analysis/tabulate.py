"""A comparison as a table of formatted text, with a row for each setting or as a pivot table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.equivalence import POWER, margin_text
from nnopt.analysis.number_format import (
    MISSING,
    format_difference,
    format_interval,
    format_location,
    format_mean,
    format_p,
)
from nnopt.analysis.settings import Setting, sort_key, unknown_name
from nnopt.analysis.statistics import AnyDifference, Difference, Estimate, RankDifference
from nnopt.analysis.verdict import verdict
from nnopt.errors import ConfigError
from nnopt.results.collect import setting_text
from nnopt.results.metrics import CENSORED

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


Columns = list[tuple[str, str, list[Cell]]]  # title, alignment and cells of each column


def tabulate(comparison: Comparison) -> Table:
    """Return a table with a row for each setting: the values of its keys, and its results."""
    columns: Columns = [
        (key, "l", [Cell(short_text(value_of(row.setting, key))) for row in comparison.rows])
        for key in comparison.keys
    ]
    for index, metric in enumerate(comparison.metrics):
        columns += _metric_columns(comparison, index, metric)
    left_out = [Cell(format_left_out(row)) for row in comparison.rows]
    if any(cell.text for cell in left_out):
        columns.append(("left out", "l", left_out))
    header, align, cells = zip(*columns, strict=True)
    rows = tuple(zip(*cells, strict=True))
    return Table(_title(comparison), header, "".join(align), rows, _notes(comparison))


def _metric_columns(comparison: Comparison, index: int, metric: str) -> Columns:
    outcomes = [row.outcomes[index] for row in comparison.rows]
    label = comparison.label(metric)
    prefix = f"{label} " if len(comparison.metrics) > 1 else ""
    if metric in CENSORED:
        counts = ("reached", [_reached(x.estimate) for x in outcomes])
    else:
        counts = ("n", [str(x.estimate.n if x.estimate else 0) for x in outcomes])
    locations = [_location(comparison, metric, x.estimate) for x in outcomes]
    columns: Columns = [
        (f"{prefix}{counts[0]}", "r", [Cell(text) for text in counts[1]]),
        (label, "r", [Cell(t, x.is_best) for t, x in zip(locations, outcomes, strict=True)]),
        (f"{prefix}95 % interval", "r", [Cell(format_interval(x.estimate)) for x in outcomes]),
    ]
    if comparison.baseline:
        columns += _difference_columns(comparison, index, metric, prefix)
    return columns


def _difference_columns(
    comparison: Comparison, index: int, metric: str, prefix: str
) -> Iterator[tuple[str, str, list[Cell]]]:
    """Yield the columns of the tests against the baseline."""
    pairs = [(row, row.outcomes[index]) for row in comparison.rows]
    found = [outcome.difference for _, outcome in pairs]
    if metric in CENSORED:
        yield f"{prefix}P(earlier)", "r", [Cell(_earlier(x)) for x in found]
    else:
        means = [x if isinstance(x, Difference) else None for x in found]
        yield f"{prefix}difference", "r", [Cell(format_difference(x)) for x in means]
    yield f"{prefix}p (Holm)", "r", [Cell(format_p(x.p_holm if x else None)) for x in found]
    if metric in comparison.margins:
        p_values = [x.p_equivalence_holm if isinstance(x, Difference) else None for x in found]
        yield f"{prefix}p equivalence", "r", [Cell(format_p(p)) for p in p_values]
    yield f"{prefix}verdict", "l", [Cell(verdict(row, x, metric)) for row, x in pairs]


def _location(comparison: Comparison, metric: str, found: Estimate | None) -> str:
    """Format a mean with its standard deviation, an interquartile mean, or a median."""
    is_mean = comparison.kind(metric) == "mean"
    return format_mean(found) if is_mean else format_location(found)


def _reached(found: Estimate | None) -> str:
    return f"{found.reached} of {found.n}" if found else MISSING


def _earlier(difference: AnyDifference | None) -> str:
    if not isinstance(difference, RankDifference) or difference.earlier is None:
        return MISSING
    return f"{difference.earlier:.2f}"


# pivot --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PivotRow:
    """A row of a pivot table: the settings with the same values of all keys but one."""

    values: tuple[str | None, ...]  # of the first columns
    rows: tuple[Row, ...]  # of the comparison, sorted by the key of the columns


@dataclass(frozen=True)
class PivotTable:
    """The settings of a comparison by row and column."""

    keys: tuple[str, ...]  # keys of the first columns
    across: str  # key with a column for each value
    columns: tuple[str | None, ...]  # these values
    rows: tuple[PivotRow, ...]

    def cells(self, row: PivotRow) -> list[Row | None]:
        """Return the setting of each column; None for an empty cell."""
        by_value = {value_of(x.setting, self.across): x for x in row.rows}
        return [by_value.get(value) for value in self.columns]


def pivoted(comparison: Comparison, down: str, across: str) -> PivotTable:
    """Arrange the settings in a row for each value of ``down`` and a column for each of ``across``.

    The remaining varying keys are further keys of the rows. ``check_pivot`` checks the arguments.
    """
    keys = (down, *(key for key in comparison.keys if key not in (down, across)))
    ordered = sorted(comparison.rows, key=lambda row: sort_key(row.setting.values, across))
    groups: dict[tuple[str | None, ...], list[Row]] = {
        tuple(value_of(row.setting, key) for key in keys): [] for row in comparison.rows
    }
    for row in ordered:
        groups[tuple(value_of(row.setting, key) for key in keys)].append(row)
    columns = dict.fromkeys(value_of(row.setting, across) for row in ordered)
    rows = [PivotRow(values, tuple(members)) for values, members in groups.items()]
    return PivotTable(keys, across, tuple(columns), tuple(rows))


def pivot(comparison: Comparison, down: str, across: str) -> Table:
    """Return a pivot table of the locations of the only metric, such as means."""
    found, metric = pivoted(comparison, down, across), comparison.metrics[0]

    def cell(row: Row | None) -> Cell:
        outcome = row.outcomes[0] if row else None
        result = outcome.estimate if outcome else None
        counts = f" ({_reached(result)})" if result and metric in CENSORED else ""
        text = _location(comparison, metric, result) + counts
        return Cell(text, bool(outcome and outcome.is_best))

    rows = [
        (*(Cell(short_text(value)) for value in row.values), *map(cell, found.cells(row)))
        for row in found.rows
    ]
    header = (*found.keys, *(f"{across}={short_text(value)}" for value in found.columns))
    align = "l" * len(found.keys) + "r" * len(found.columns)
    return Table(_title(comparison), header, align, tuple(rows), _notes(comparison))


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
    runs = sum(len(row.counted) for row in comparison.rows)
    counts = f"{counted(runs, 'run')}, {counted(len(comparison.rows), 'setting')}"
    kinds: dict[str, list[str]] = {}
    for metric in comparison.metrics:
        kinds.setdefault(_location_name(comparison, metric), []).append(comparison.label(metric))
    spread = {"mean": "mean ± standard deviation"}
    parts = [f"{', '.join(names)}, {spread.get(x, x)} over seeds" for x, names in kinds.items()]
    return f"{'; '.join(parts)}: {counts}"


def _location_name(comparison: Comparison, metric: str) -> str:
    """Return the name of the location of a metric's values: mean, interquartile mean or median."""
    kind = comparison.kind(metric)
    return "interquartile mean" if kind == "iqm" else kind


def _notes(comparison: Comparison) -> tuple[str, ...]:
    notes = []
    if any(outcome.is_best for row in comparison.rows for outcome in row.outcomes):
        names = dict.fromkeys(_location_name(comparison, name) for name in comparison.metrics)
        notes.append(f"* the best {' or '.join(names)}")
    if comparison.baseline:
        notes += _notes_on_tests(comparison)
    return (*notes, *comparison.notes)


def _notes_on_tests(comparison: Comparison) -> Iterator[str]:
    named = ", ".join(map(str, comparison.baseline))
    correction = f", corrected for {comparison.tests} comparisons by Holm's method"
    correction = correction if comparison.tests > 1 else ""
    if not CENSORED.keys() >= set(comparison.metrics):
        of_means = "of the means, " if comparison.estimator != "mean" else ""
        yield (
            f"difference: {of_means}to {named}, over the common seeds, with its 95 % interval; p: "
            f"paired t test{correction}"
        )
    if margins := comparison.margins:
        texts = {name: margin_text(name, margin) for name, margin in margins.items()}
        named_margins = ", ".join(f"{text} ({name})" for name, text in texts.items())
        shown = named_margins if len(comparison.metrics) > 1 else ", ".join(texts.values())
        yield (
            f"p equivalence: two one-sided paired t tests with the margin {shown}"
            f"{', corrected likewise' if correction else ''}; seeds that would decide: rough "
            f"estimate for a power of {POWER:g} with the observed mean and standard deviation of "
            "the differences"
        )
    if not CENSORED.keys().isdisjoint(comparison.metrics):
        yield (
            f"P(earlier): probability that a run reaches the target before a run of {named}; p: "
            f"Mann-Whitney test{correction}; runs that did not reach the target rank last"
        )


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


def format_left_out(row: Row) -> str:
    """Return the counts of runs without a result, as ``1 diverged, 2 failed``."""
    return ", ".join(f"{count} {status}" for status, count in row.left_out.items())

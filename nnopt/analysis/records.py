"""A comparison as records in full precision, for CSV, and as a document, for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.number_format import MISSING
from nnopt.analysis.settings import Setting
from nnopt.analysis.statistics import CONFIDENCE, SIGNIFICANCE, Difference, RankDifference
from nnopt.analysis.tabulate import format_left_out, pivoted, value_of
from nnopt.analysis.verdict import verdict
from nnopt.results.metrics import CENSORED

Value = str | float | bool | None
Field = tuple[str, Value]  # name and value of a result
Record = dict[str, Value]  # values by column; None is an empty cell


def records(comparison: Comparison) -> list[Record]:
    """Return a record for each setting, with all results in full precision."""
    return [dict(_record(comparison, row)) for row in comparison.rows]


def pivot_records(comparison: Comparison, down: str, across: str) -> list[Record]:
    """Return a record for each row of the pivot table, with the locations in full precision."""
    table, found = pivoted(comparison, down, across), []
    for row in table.rows:
        record: Record = dict(zip(table.keys, row.values, strict=True))
        for value, cell in zip(table.columns, table.cells(row), strict=True):
            estimate = cell.outcomes[0].estimate if cell else None
            record[f"{across}={value or MISSING}"] = _finite(
                estimate.location if estimate else None
            )
        found.append(record)
    return found


def _record(comparison: Comparison, row: Row) -> Iterator[Field]:
    for key in comparison.keys:
        yield key, value_of(row.setting, key)
    for index, metric in enumerate(comparison.metrics):
        label = comparison.label(metric)
        for name, value in _results(comparison, row, index):
            yield f"{label}_{name}", value
    yield "left_out", format_left_out(row) or None


def _results(comparison: Comparison, row: Row, index: int) -> Iterator[Field]:
    """Yield the results of a setting in one metric, with None for a missing number."""
    metric, outcome = comparison.metrics[index], row.outcomes[index]
    found = outcome.estimate
    location = _finite(found.location) if found else None
    yield "n", found.n if found else 0
    if metric in CENSORED:
        yield "reached", found.reached if found else 0
    yield comparison.kind(metric), location
    if metric not in CENSORED:
        yield "std", found.std if found else None
    low, high = (found and found.interval) or (None, None)
    yield "low", _finite(low)
    yield "high", _finite(high)
    yield "best", outcome.is_best
    if not comparison.baseline:
        return
    difference = outcome.difference
    if metric in CENSORED:
        yield from _rank_test(difference if isinstance(difference, RankDifference) else None)
    else:
        has_margin = metric in comparison.margins
        yield from _tests(difference if isinstance(difference, Difference) else None, has_margin)
    yield "verdict", verdict(row, outcome, metric) or None


def _tests(difference: Difference | None, has_margin: bool) -> Iterator[Field]:
    """Yield the difference of means and its tests."""
    change = difference.change if difference else None
    yield "pairs", difference.pairs if difference else None
    yield "difference", change.location if change else None
    low, high = (change and change.interval) or (None, None)
    yield "difference_low", low
    yield "difference_high", high
    yield "p", difference.p if difference else None
    yield "p_holm", difference.p_holm if difference else None
    if has_margin:
        yield "margin", difference.margin if difference else None
        yield "p_equivalence", difference.p_equivalence if difference else None
        yield "p_equivalence_holm", difference.p_equivalence_holm if difference else None
        yield "decided", difference.is_decided if difference else None
        yield "seeds_to_decide", difference.seeds if difference else None


def _rank_test(difference: RankDifference | None) -> Iterator[Field]:
    """Yield the comparison of times to a target."""
    yield "budget", _finite(difference.budget) if difference else None
    yield "earlier", difference.earlier if difference else None
    yield "p", difference.p if difference else None
    yield "p_holm", difference.p_holm if difference else None


# JSON ---------------------------------------------------------------------------------------------


def document(comparison: Comparison, pivoted: tuple[str, str] | None = None) -> dict[str, Any]:
    """Return the comparison as values of JSON, with a setting or a row of a pivot table each."""
    head = {
        "metrics": list(comparison.metrics),
        "estimates": {metric: comparison.kind(metric) for metric in comparison.metrics},
        "confidence": CONFIDENCE,
        "significance": SIGNIFICANCE,
        "baseline": [str(condition) for condition in comparison.baseline],
        "margins": dict(comparison.margins),
        "tests": comparison.tests,
    }
    if pivoted is None:
        body: dict[str, Any] = {"settings": [_setting(comparison, row) for row in comparison.rows]}
    else:
        down, across = pivoted
        body = {"row": down, "column": across, "rows": _pivoted_rows(comparison, down, across)}
    return head | body | {"notes": list(comparison.notes)}


def _setting(comparison: Comparison, row: Row) -> dict[str, Any]:
    """Return the keys and the results of a setting, and the value of each seed."""
    results = {}
    for index, (metric, outcome) in enumerate(zip(comparison.metrics, row.outcomes, strict=True)):
        by_seed = outcome.times.by_seed if outcome.times else row.setting.metric(metric)
        values = {str(seed): _finite(value) for seed, value in by_seed.items()}
        results[metric] = dict(_results(comparison, row, index)) | {"values": values}
    return {
        "keys": _keys(row.setting, comparison.keys),
        "is_baseline": row.is_baseline,
        "runs": len(row.counted),
        "left_out": row.left_out,
        "results": results,
    }


def _pivoted_rows(comparison: Comparison, down: str, across: str) -> list[dict[str, Any]]:
    """Return a record for each row of the pivot table. A record has a cell for each setting."""
    table = pivoted(comparison, down, across)

    def cell(row: Row) -> dict[str, Any]:
        return {"column": row.setting.values.get(across), **dict(_results(comparison, row, 0))}

    return [
        {"keys": _keys(row.rows[0].setting, table.keys), "cells": list(map(cell, row.rows))}
        for row in table.rows
    ]


def _keys(setting: Setting, keys: Sequence[str]) -> dict[str, Any]:
    """Return the values of the keys; None for a key that the configuration lacks."""
    return {key: setting.values.get(key) for key in keys}


def _finite(value: float | None) -> float | None:
    """Return a number, or None if it is infinite, such as the median of unreached targets."""
    return None if value is None or math.isinf(value) else value

"""Data of heat maps: the keys of their axes and the means of their cells."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.settings import sort_key
from nnopt.plots.sweep.labels import Metric, key_labels, result_of, value_labels
from nnopt.results.collect import Value

MIN_FILLED_FRACTION = 0.6  # of the cells; a random search fills fewer
LEARNING_RATE = "optimizer.lr"
MAX_VALUES = 30  # of each key
MAX_FACETS = 6  # maps for the values of the other keys; if more are needed, one map shows the mean

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Facet:
    """One map: arrays (Y, X) with an entry for each cell.

    Attributes:
        means: NaN where no run finished.
        settings: Number of settings.
        done: Number of settings with a mean.
        is_best: Whether the cell has the best mean.
    """

    title: str
    means: Floats
    settings: NDArray[np.int64]
    done: NDArray[np.int64]
    is_best: NDArray[np.bool_]


def rows_with(comparison: Comparison, keys: tuple[str, str]) -> list[Row]:
    """Return the settings that have both keys."""
    return [row for row in comparison.rows if all(key in row.setting.values for key in keys)]


def numeric_values(rows: Sequence[Row], key: str) -> list[Value]:
    """Return the sorted values of a key if they are at least two numbers and perhaps null, else [].

    All ``rows`` have the key.
    """
    ordered = sorted(rows, key=lambda row: sort_key(row.setting.values, key))
    values = list(dict.fromkeys(row.setting.values[key] for row in ordered))
    given = [x for x in values if x is not None]
    are_numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in given)
    return values if are_numbers and len(given) > 1 else []


def heat_map_keys(comparison: Comparison) -> tuple[str, str] | None:
    """Return the keys of the horizontal and the vertical axis; None if no pair is suitable.

    Of the pairs of numeric keys that fill enough cells, the pair with the most cells is chosen.
    Pairs with the learning rate take precedence.
    """
    ranked = []
    for keys in combinations(comparison.keys, 2):
        rows = rows_with(comparison, keys)
        one, other = (numeric_values(rows, key) for key in keys)
        cells = len(one) * len(other)
        pairs = {tuple(row.setting.values[key] for key in keys) for row in rows}
        if (
            not cells
            or len(pairs) < MIN_FILLED_FRACTION * cells
            or max(len(one), len(other)) > MAX_VALUES
        ):
            continue
        across, down = keys
        longer = LEARNING_RATE not in keys and len(other) > len(one)
        is_swapped = down == LEARNING_RATE or longer
        ranked.append((LEARNING_RATE in keys, cells, (down, across) if is_swapped else keys))
    return max(ranked, key=lambda candidate: candidate[:2])[2] if ranked else None


def facets_of(
    rows: Sequence[Row], keys: tuple[str, str], others: Sequence[str], metric: Metric
) -> list[Facet]:
    """Return a map for each setting of the other keys, or one map if there are too many.

    keys: the keys of the horizontal and the vertical axis. All ``rows`` have both.
    """
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(value_labels(row, others), []).append(row)
    if len(groups) > MAX_FACETS:
        groups = {(): list(rows)}
    values = [numeric_values(rows, key) for key in keys]
    indices = [{value: index for index, value in enumerate(axis)} for axis in values]
    names = key_labels(others)
    facets = []
    for labels, members in groups.items():
        pairs = zip(names, labels, strict=bool(labels))
        title = ", ".join(f"{key}={value}" for key, value in pairs)
        facets.append(_facet(title, members, keys, indices, metric))
    return facets


def _facet(
    title: str,
    rows: Sequence[Row],
    keys: tuple[str, str],
    indices: Sequence[Mapping[Value, int]],
    metric: Metric,
) -> Facet:
    shape = (len(indices[1]), len(indices[0]))
    sums, settings, done = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    is_best = np.zeros(shape, np.bool_)
    for row in rows:
        cell = tuple(indices[k][row.setting.values[keys[k]]] for k in (1, 0))
        settings[cell] += 1
        if (result := result_of(row, metric)) is not None:
            sums[cell] += result.mean
            done[cell] += 1
            is_best[cell] |= row.outcomes[0].is_best
    means = np.where(done > 0, sums / np.maximum(done, 1), np.nan)
    if settings.max() > 1:  # the cell of the best setting may not have the best mean
        best = {"higher": np.nanmax, "lower": np.nanmin}.get(metric.direction or "")
        is_best = means == best(means) if best and done.any() else np.zeros(shape, np.bool_)
    return Facet(title, means, settings, done, is_best)

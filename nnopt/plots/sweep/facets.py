"""Maps of two numeric keys: which keys span them, and the means in their cells."""

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

FILLED = 0.6  # of the cells: with fewer, as in a random search, there is no map
LEARNING_RATE = "optimizer.lr"
MOST_VALUES = 30  # of each key
MOST_FACETS = 6  # maps for the values of the other keys; of more the mean is shown

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Facet:
    """A map. means (Y, X): NaN where no run finished; settings, done (Y, X): how many settings
    there are, and how many of them have a mean; is_best (Y, X)."""

    title: str
    means: Floats
    settings: NDArray[np.int64]
    done: NDArray[np.int64]
    is_best: NDArray[np.bool_]


def rows_with(comparison: Comparison, keys: tuple[str, str]) -> list[Row]:
    """The settings that have both keys."""
    return [row for row in comparison.rows if all(key in row.setting.values for key in keys)]


def numeric_values(rows: Sequence[Row], key: str) -> list[Value]:
    """The values of a key that all rows have, in their order, if they are at least two numbers, and
    perhaps null; else none."""
    ordered = sorted(rows, key=lambda row: sort_key(row.setting, key))
    values = list(dict.fromkeys(row.setting.values[key] for row in ordered))
    given = [x for x in values if x is not None]
    are_numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in given)
    return values if are_numbers and len(given) > 1 else []


def heat_map_keys(comparison: Comparison) -> tuple[str, str] | None:
    """The keys across and down: the pair of numeric keys with the most cells of those that are
    filled well enough; the learning rate first. None if there is no such pair."""
    ranked = []
    for keys in combinations(comparison.keys, 2):
        rows = rows_with(comparison, keys)
        one, other = (numeric_values(rows, key) for key in keys)
        cells = len(one) * len(other)
        pairs = {tuple(row.setting.values[key] for key in keys) for row in rows}
        if not cells or len(pairs) < FILLED * cells or max(len(one), len(other)) > MOST_VALUES:
            continue
        across, down = keys
        longer = LEARNING_RATE not in keys and len(other) > len(one)
        turn = down == LEARNING_RATE or longer
        ranked.append((LEARNING_RATE in keys, cells, (down, across) if turn else keys))
    return max(ranked, key=lambda found: found[:2])[2] if ranked else None


def facets_of(
    rows: Sequence[Row], keys: tuple[str, str], others: Sequence[str], metric: Metric
) -> list[Facet]:
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(value_labels(row, others), []).append(row)
    if len(groups) > MOST_FACETS:
        groups = {(): list(rows)}
    values = [numeric_values(rows, key) for key in keys]
    places = [{value: place for place, value in enumerate(found)} for found in values]
    names = key_labels(others)
    facets = []
    for words, members in groups.items():
        title = ", ".join(f"{key}={value}" for key, value in zip(names, words, strict=bool(words)))
        facets.append(_facet(title, members, keys, places, metric))
    return facets


def _facet(
    title: str,
    rows: Sequence[Row],
    keys: tuple[str, str],
    places: Sequence[Mapping[Value, int]],
    metric: Metric,
) -> Facet:
    shape = (len(places[1]), len(places[0]))
    sums, settings, done = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    is_best = np.zeros(shape, np.bool_)
    for row in rows:
        cell = tuple(places[k][row.setting.values[keys[k]]] for k in (1, 0))
        settings[cell] += 1
        if (found := result_of(row, metric)) is not None:
            sums[cell] += found.mean
            done[cell] += 1
            is_best[cell] |= row.outcomes[0].is_best
    means = np.where(done > 0, sums / np.maximum(done, 1), np.nan)
    if settings.max() > 1:  # the best of the means is not the mean of the best
        record = {"higher": np.nanmax, "lower": np.nanmin}.get(metric.direction or "")
        is_best = means == record(means) if record and done.any() else np.zeros(shape, np.bool_)
    return Facet(title, means, settings, done, is_best)

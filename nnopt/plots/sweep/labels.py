"""Texts and line styles that the plots of a sweep share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from nnopt.analysis.comparison import Row
from nnopt.analysis.tabulate import counted, short_text, value_of
from nnopt.plots import style
from nnopt.plots.sweep.metric import Metric

MAX_ALL_NAMED, MAX_NAMED = 10, 7
"""A legend lists up to 10 settings. If there are more, it lists only the best 7."""

MAX_VALUE_CHARACTERS = 24
COLOURS = tuple(colour for colour in style.PALETTE if colour != style.YELLOW)  # yellow is faint
DASHES = ("-", "--", "-.", ":")  # 4, coprime to 7 colours

Item = TypeVar("Item")


def key_labels(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the last part of each key, as ``lr``; if it is not unique, return the whole key."""
    last = [key.rpartition(".")[2] for key in keys]
    return tuple(k if last.count(x) > 1 else x for k, x in zip(keys, last, strict=True))


def value_labels(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a setting in the syntax of the command line, shortened."""
    return tuple(value_label(row, key) for key in keys)


def value_label(row: Row, key: str) -> str:
    """Return a value in a few characters. Numbers with many digits are rounded to four digits."""
    value = row.setting.values.get(key)
    if isinstance(value, float) and len(str(value)) > 8:
        return f"{value:.4g}"
    return style.readable(short_text(value_of(row.setting, key), MAX_VALUE_CHARACTERS))


def split_named(
    items: Sequence[Item], row_of: Callable[[Item], Row], metric: Metric
) -> tuple[list[Item], list[Item]]:
    """Return the items named in a legend, and the others, which are drawn in grey.

    ``row_of`` returns the setting of an item. If there are many items, the best are named.
    """
    if len(items) <= MAX_ALL_NAMED:
        return list(items), []
    ordered = sorted(items, key=lambda item: metric.rank(row_of(item)))
    return ordered[:MAX_NAMED], ordered[MAX_NAMED:]


def count_label(named: int, others: int, metric: Metric, noun: str = "setting") -> str:
    """Return ``7 settings`` or ``the best 7 of 40 settings``, for a title."""
    if not others:
        return counted(named, noun)
    first = "first" if metric.direction is None else "best"
    return f"the {first} {named} of {named + others} {noun}s"


def seed_counts(rows: Iterable[Row]) -> list[int]:
    """Return the number of seeds of each setting that has a mean."""
    return [x.n for row in rows if (x := row.outcomes[0].estimate) is not None]


def seeds_label(counts: Sequence[int]) -> str:
    """Return ``3 seeds``, or ``2 to 5 seeds`` if settings differ in their number of seeds."""
    low, high = min(counts, default=0), max(counts, default=0)
    return counted(low, "seed") if low == high else f"{low} to {high} seeds"


def over_seeds(counts: Sequence[int], statistic: str = "mean") -> str:
    """Return ``mean over 3 seeds``, or ``1 seed`` if no setting has more seeds."""
    several = max(counts, default=0) > 1
    return f"{statistic} over {seeds_label(counts)}" if several else seeds_label(counts)


def footnote(*parts: tuple[object, str]) -> str:
    """Join the texts of the pairs (condition, text) whose condition holds."""
    return "; ".join(text for holds, text in parts if holds)


def line_style(index: int) -> dict[str, Any]:
    """Return the style of the line in row ``index`` of a legend. Lines differ even in greyscale."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": style.MARKERS[index % len(style.MARKERS)],
    }

"""What pictures of a sweep share: their words, which settings are named, and how these look."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnopt.analysis.comparison import Comparison, Row
from nnopt.analysis.statistics import Estimate
from nnopt.analysis.tabulate import counted, short_text, value_of
from nnopt.plots import style
from nnopt.results.metrics import better_direction

ALL_NAMED, SOME_NAMED = 10, 7
"""Up to so many settings are all named; of more only the best few."""

LONGEST_VALUE = 24
COLOURS = tuple(colour for colour in style.PALETTE if colour != style.YELLOW)  # lost on white
DASHES = ("-", "--", "-.", ":")  # 4, prime to the 7 colours
REST = "#B0B0B0"  # of settings that are not named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE_POINTS, NOTE_STEP = 8.5, 0.17  # of footnotes; inches from line to line

UNITS = {"accuracy": "%", "loss": "mean per sample", "seconds": "s", "mb": "MiB"}
"""By the last word of a metric's name."""

WORDS = {
    "train_seconds": "training time",
    "total_seconds": "total time",
    "peak_memory_mb": "peak memory",
    "peak_device_memory_mb": "peak memory of the device",
    "suggested_lr": "learning rate found",
    "flops_per_sample": "FLOPs per sample",
    "final_train_loss": "final training loss",
    "final_train_accuracy": "final training accuracy",
}


@dataclass(frozen=True)
class Metric:
    """A metric as pictures show it. unit: empty if it has none; label: its words and unit; factor:
    from what ``summary.json`` has to that unit; wanted: which values are the better ones."""

    words: str
    unit: str
    label: str
    factor: float
    wanted: str | None


def metric_of(comparison: Comparison) -> Metric:
    """The comparison's first metric."""
    name = comparison.metrics[0]
    unit = UNITS.get(name.rpartition("_")[2], "")
    words = WORDS.get(name) or comparison.label(name).replace("_", " ")
    label = f"{words} ({unit})" if unit else words
    return Metric(words, unit, label, 100.0 if unit == "%" else 1.0, better_direction(name))


def result_of(row: Row, metric: Metric) -> Estimate | None:
    """What a setting came to, in the unit of the picture; None if no run has the metric."""
    found, factor = row.outcomes[0].estimate, metric.factor
    if found is None or factor == 1:
        return found
    low, high = found.interval or (None, None)
    return replace(
        found,
        mean=factor * found.mean,
        std=None if found.std is None else factor * found.std,
        interval=None if low is None or high is None else (factor * low, factor * high),
    )


def key_words(keys: Sequence[str]) -> tuple[str, ...]:
    """The last part of each key, ``lr`` of ``optimizer.lr``; all of it where two would be alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return tuple(k if last.count(x) > 1 else x for k, x in zip(keys, last, strict=True))


def value_words(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    """A setting's values as the command line takes them, long ones shortened."""
    return tuple(value_word(row, key) for key in keys)


def value_word(row: Row, key: str, longest: int = LONGEST_VALUE) -> str:
    """A value in at most so many characters; a number that was drawn at random in four digits."""
    value = row.setting.values.get(key)
    if isinstance(value, float) and len(str(value)) > 8:
        return f"{value:.4g}"
    return style.readable(short_text(value_of(row.setting, key), longest))


def is_logarithmic(values: Sequence[float], metric: Metric) -> bool:
    """Do the values of a cost, such as a loss, span more than a decade? They are shown on a
    logarithmic scale then: the best would lie on top of each other on another."""
    return metric.wanted == "lower" and style.spans_decades(np.array(values, np.float64), 1)


def best_first(rows: Sequence[Row], metric: Metric) -> list[Row]:
    """Sorted by the mean, those without one at the end; where no value is better, in the order
    given."""
    sign = {"higher": -1.0, "lower": 1.0, None: 0.0}[metric.wanted]

    def place(row: Row) -> tuple[bool, float]:
        found = row.outcomes[0].estimate
        return (True, 0.0) if found is None else (False, sign * found.mean)

    return sorted(rows, key=place)


def split_named(rows: Sequence[Row], metric: Metric) -> tuple[list[Row], list[Row]]:
    """The settings that a picture of lines names, and the rest, which it draws in grey."""
    if len(rows) <= ALL_NAMED:
        return list(rows), []
    ordered = best_first(rows, metric)
    return ordered[:SOME_NAMED], ordered[SOME_NAMED:]


def named_words(named: int, rest: int, metric: Metric, noun: str = "setting") -> str:
    """``7 settings`` or ``the best 7 of 40 settings``, for a title."""
    if not rest:
        return counted(named, noun)
    first = "first" if metric.wanted is None else "best"
    return f"the {first} {named} of {named + rest} {noun}s"


def look(place: int) -> dict[str, Any]:
    """Colour, dashes and marker of a named line, told apart in grey as well."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": style.MARKERS[place % len(style.MARKERS)],
    }


def capital(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def footnote_lines(text: str, width: float) -> list[str]:
    """The text in lines that fit into so many inches of a figure."""
    return textwrap.wrap(
        text, max(30, int((width - 0.3) / style.text_width("x", 0.9 * NOTE_POINTS)))
    )


def footnote_height(text: str, width: float) -> float:
    """Inches that it takes from the lower edge of the figure."""
    return 0.18 + NOTE_STEP * len(footnote_lines(text, width))


def draw_footnote(figure: Figure, text: str) -> None:
    """At the lower left of the figure: what a reader has to know."""
    width, height = figure.get_size_inches()
    for number, line in enumerate(reversed(footnote_lines(text, width))):
        y = (0.12 + NOTE_STEP * number) / height
        figure.text(0.15 / width, y, line, fontsize=NOTE_POINTS, color=style.FAINT)


def seeds_words(counts: Sequence[int]) -> str:
    """``3 seeds``, ``2 to 5 seeds``, of settings that have so many each."""
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        return counted(low, "seed")
    return f"{low} to {high} seeds"


def window(values: Sequence[float], wanted: str | None) -> tuple[float, float]:
    """From where to where an axis reaches so that single bad values do not press the others
    together: all of them if the worst quarter lies within three times the spread of the others
    beyond these, else only as far as that. Not finite ones do not count."""
    x = np.sort(np.array([value for value in values if np.isfinite(value)]))
    if not len(x):
        return 0.0, 1.0
    low, high = float(x[0]), float(x[-1])
    spread = 0.0
    if wanted == "higher" and len(x) > 3:
        edge = float(x[len(x) // 4])
        spread = high - edge
        low = max(low, edge - 3 * spread) if spread > 0 else low
    elif wanted == "lower" and len(x) > 3:
        edge = float(x[-1 - len(x) // 4])
        spread = edge - low
        high = min(high, edge + 3 * spread) if spread > 0 else high
    return low, high

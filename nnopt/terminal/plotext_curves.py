"""Learning curves drawn in characters, by plotext; ``nnopt.terminal.live_curves`` says when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.results.metrics_file import EpochRow

if TYPE_CHECKING:
    from rich.text import Text

Floats = NDArray[np.float64]

MOST_COLUMNS, MOST_LINES = 160, 30  # larger curves say no more
STACKED_BELOW = 60  # columns: with fewer the panels stand one above the other if there is room

# A blue and a vermillion that the colour-blind tell apart, after Okabe and Ito: both stand out from
# black and from white. Without colours thin dots and thick blocks still differ.
TRAINING = ("training", "braille", (40, 140, 210), "⠒⠒⠒")
VALIDATION = ("validation", "hd", (213, 94, 0), "▀▀▀")


@dataclass(frozen=True)
class _Panel:
    """What is drawn in one rectangle: values against epochs (N,), in the units of the ruler (the
    logarithm to base 10 of a loss that spans a decade or more), and the ruler's ticks."""

    title: str
    epochs: Floats
    training: Floats
    validation: Floats
    limits: tuple[float, float]
    ticks: list[float]
    labels: list[str]


def curves(rows: Sequence[EpochRow], columns: int, lines: int) -> Text:
    """Loss and accuracy of training and validation against the epoch, and which line is which.

    rows: at least one. columns, lines: the room, at least 30 by 9; not all of a large one is used.
    """
    import plotext
    from rich.text import Text

    columns, lines = min(columns, MOST_COLUMNS), min(lines, MOST_LINES) - 1
    is_stacked = columns < STACKED_BELOW and lines >= 2 * 9
    height = lines // 2 if is_stacked else lines
    width = columns if is_stacked else columns // 2
    figure = plotext.figure  # plotext has this one
    plotext.terminal.limit(False, False)
    figure.clear.all()
    figure.clear.subplots()
    figure.plot_size(columns, lines)
    figure.subplots(*((2, 1) if is_stacked else (1, 2)))
    panels = _panel(rows, "loss", height, width), _panel(rows, "accuracy", height, width)
    for number, panel in enumerate(panels, start=1):
        place = (number, 1) if is_stacked else (1, number)
        _draw(plotext, figure.subplot(*place), panel, width)
    text = Text.from_ansi(figure.build().string(), no_wrap=True, end="\n")
    return text.append_text(_legend(rows, columns))


def _panel(rows: Sequence[EpochRow], what: str, height: int, width: int) -> _Panel:
    epochs = np.array([row.epoch for row in rows], dtype=np.float64)
    training, validation = (_column(rows, f"{part}_{what}") for part in ("train", "validation"))
    values = np.concatenate([training, validation])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    most = max(2, height // 3)
    is_log = what == "loss" and 0 < low <= high / 10
    if is_log:
        training, validation = _log10(training), _log10(validation)
        low, high = math.log10(low), math.log10(high)
        ticks, labels = _log_ticks(low, high, most)
    else:
        margin = max(0.0, 1e-3 * max(abs(low), abs(high), 1e-6) - (high - low))
        low, high = low - margin, high + margin  # else a constant would be a limit of width 0
        ticks, labels = _linear_ticks(low, high, most)
    title = f"{what}, log scale" if is_log else what
    return _Panel(title, epochs, training, validation, (low, high), ticks, labels)


def _column(rows: Sequence[EpochRow], name: str) -> Floats:
    """A column as floats; what is missing is NaN, and so is what is too large to be scaled."""
    values = np.array([getattr(row, name) for row in rows], dtype=np.float64)
    values[~(np.abs(values) < 1e100)] = np.nan
    return values


def _log10(values: Floats) -> Floats:
    """What is not above 0 is NaN."""
    return np.log10(np.where(values > 0, values, np.nan))


def _draw(plotext: Any, plot: Any, panel: _Panel, width: int) -> None:
    """Into a subplot of plotext's. Nothing is coloured but the curves: the rest has the colours of
    the terminal, dark or light."""
    plot.theme("colorless")
    plot.canvas("default")
    plot.title(panel.title)
    plot.legend(False)
    plot.axes(False, axis="x", side="upper")
    plot.axes(False, axis="y", side="right")
    for values, part in ((panel.validation, VALIDATION), (panel.training, TRAINING)):
        _, marker, colour, _ = part
        x, y = _thinned(panel.epochs, values, 2 * width)
        if len(y):
            marker = plotext.marker(marker, plotext.pixel(foreground=colour))
            plot.draw(plot.signal(x.tolist(), y.tolist(), marker=marker).lines(True))
    plot.ruler("y").lim(*panel.limits)
    plot.ruler("y").ticks(panel.ticks, panel.labels)
    first, last = panel.epochs[0], panel.epochs[-1]
    plot.ruler("x").lim(first, last if last > first else first + 1)
    ticks = list(_epoch_ticks(int(first), int(last), max(1, width // 7)))
    plot.ruler("x").ticks(ticks, list(map(str, ticks)))


def _thinned(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats]:
    """The finite points; of more than a terminal can show, the lowest and the highest in each of
    equal stretches, so that no peak is lost."""
    keep = np.flatnonzero(np.isfinite(y))
    if len(keep) > most:
        stretches = np.array_split(keep, most // 2)
        ends = [(part[y[part].argmin()], part[y[part].argmax()]) for part in stretches]
        keep = np.unique(np.array(ends))
    return x[keep], y[keep]


def _nice_step(least: float) -> tuple[float, int]:
    """The first of 1, 2, 5 times a power of ten that is not below ``least``, above 0; and the
    decimals that its multiples have."""
    exponent = math.floor(math.log10(least))
    for factor, shift in ((1, 0), (2, 0), (5, 0), (1, 1)):
        step = factor * 10.0 ** (exponent + shift)
        if step >= least * (1 - 1e-9):
            break
    return step, max(0, -(exponent + shift))


def _linear_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """Round numbers within the limits: as many as fit, but two of them."""
    for share in (most, 2 * most, 4 * most):
        step, decimals = _nice_step((high - low) / share)
        numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        ticks = [number * step for number in numbers]
        if len(ticks) >= 2:
            break
    largest = max(map(abs, ticks), default=0.0)
    form = "{:.3g}" if decimals > 4 or largest >= 1e5 else f"{{:.{decimals}f}}"
    return ticks, [form.format(tick) for tick in ticks]


def _log_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """Positions log10(v) of 1, 2 and 5 times powers of ten within the limits, as many as fit; else
    of powers of ten, or of every so many."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for factors, every in [
        ((1, 2, 5), 1),
        *[((1,), every) for every in range(1, len(decades) + 1)],
    ]:
        numbers = [f * 10.0**k for k in decades if k % every == 0 for f in factors]
        ticks = [(math.log10(v), f"{v:g}") for v in numbers if low <= math.log10(v) <= high]
        if len(ticks) <= most:
            break
    return [position for position, _ in ticks], [label for _, label in ticks]


def _epoch_ticks(first: int, last: int, most: int) -> Iterator[int]:
    """The first epoch, and round numbers that are not too near to it."""
    step = max(1, int(_nice_step(max(1, (last - first) / most))[0]))
    yield first
    yield from (i for i in range(step, last + 1, step) if i - first > step / 2)


def _legend(rows: Sequence[EpochRow], columns: int) -> Text:
    from rich.text import Text

    has_validation = any(row.validation_loss is not None for row in rows)
    parts = []
    for name, _, (red, green, blue), sample in (TRAINING, VALIDATION)[: 1 + has_validation]:
        parts.append(Text.assemble((sample, f"rgb({red},{green},{blue})"), f" {name}"))
    line = Text("   ", no_wrap=True).join(parts)
    line.align("center", columns)
    return line

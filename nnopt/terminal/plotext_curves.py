"""Learning curves drawn with characters by plotext."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.results.metrics_file import EpochRow

if TYPE_CHECKING:
    from rich.text import Text

Floats = NDArray[np.float64]

MAX_COLUMNS, MAX_LINES = 160, 30  # maximum size of the drawing
MIN_COLUMNS_SIDE_BY_SIDE = 60  # in narrower terminals the two panels are stacked if possible
MIN_PANEL_LINES = 9

# Colour-blind readers can distinguish Okabe and Ito's blue and vermillion, which are visible on
# black and on white. Without colours, training is dots, and validation blocks.
Form = tuple[str, str, tuple[int, int, int], str]  # name, marker, RGB, legend sample
TRAINING = ("training", "braille", (40, 140, 210), "⠒⠒⠒")
VALIDATION = ("validation", "hd", (213, 94, 0), "▀▀▀")


def curves(rows: Sequence[EpochRow], columns: int, lines: int) -> Text:
    """Draw loss and accuracy of training and validation against the epoch, with a legend.

    At least one row, 30 columns and 9 lines are required.
    """
    from rich.text import Text

    columns, lines = min(columns, MAX_COLUMNS), min(lines, MAX_LINES) - 1
    is_stacked = columns < MIN_COLUMNS_SIDE_BY_SIDE and lines >= 2 * MIN_PANEL_LINES
    height = lines // 2 if is_stacked else lines
    width = columns if is_stacked else columns // 2
    figure = _empty_figure(columns, lines)
    figure.subplots(*((2, 1) if is_stacked else (1, 2)))
    for number, metric in enumerate(("loss", "accuracy"), start=1):
        position = (number, 1) if is_stacked else (1, number)
        _draw(figure.subplot(*position), rows, metric, height, width)
    text = Text.from_ansi(figure.build().string(), no_wrap=True, end="\n")
    return text.append_text(_legend(rows, columns))


def rate_curve(
    epochs: Floats, rates: Floats, title: str, is_log: bool, columns: int, lines: int
) -> Text:
    """Draw learning rates against the number of epochs before each step.

    At least one rate, 30 columns and 9 lines are required. A linear axis begins at 0.
    """
    from rich.text import Text

    columns, lines = min(columns, MAX_COLUMNS), min(lines, MAX_LINES)
    figure = _empty_figure(columns, lines)
    first, last = int(epochs[0]), math.ceil(epochs[-1])
    x, limits = (
        (epochs, first, last),
        _range_of(rates[rates > 0] if is_log else np.append(rates, 0)),
    )
    _draw_panel(figure, title, x, [(rates, TRAINING)], (*limits, is_log), lines, columns)
    return Text.from_ansi(figure.build().string(), no_wrap=True, end="\n")


def _empty_figure(columns: int, lines: int) -> Any:
    """Return plotext's only figure, without any content."""
    import plotext

    figure = plotext.figure
    plotext.terminal.limit(False, False)
    figure.clear.all()
    figure.clear.subplots()
    figure.plot_size(columns, lines)
    return figure


def _draw(plot: Any, rows: Sequence[EpochRow], metric: str, height: int, width: int) -> None:
    """Draw a metric against the epochs. A loss that spans a decade has a logarithmic axis."""
    epochs = np.array([row.epoch for row in rows], dtype=np.float64)
    series = [
        (_column(rows, f"{part}_{metric}"), form)
        for part, form in (("validation", VALIDATION), ("train", TRAINING))
    ]
    low, high = _range_of(np.concatenate([values for values, _ in series]))
    is_log = metric == "loss" and 0 < low <= high / 10
    x = epochs, rows[0].epoch, rows[-1].epoch
    _draw_panel(plot, metric, x, series, (low, high, is_log), height, width)


def _range_of(values: Floats) -> tuple[float, float]:
    """Return the smallest and the largest finite value, or 0 and 1 if there is none."""
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _draw_panel(
    plot: Any,
    title: str,
    x: tuple[Floats, int, int],
    series: Sequence[tuple[Floats, Form]],
    y: tuple[float, float, bool],
    height: int,
    width: int,
) -> None:
    """Draw lines against the epochs.

    ``x``: epochs, and the ends of the axis. ``y``: ends of the axis, and whether it is logarithmic.
    """
    import plotext

    plot.theme("colorless")  # only the curves have colours of their own
    plot.canvas("default")
    plot.legend(False)
    plot.axes(False, axis="x", side="upper")
    plot.axes(False, axis="y", side="right")
    epochs, first, last = x
    low, high, is_log = y
    max_ticks = max(2, height // 3)
    if is_log:
        series = [(_log10(line), form) for line, form in series]
        low, high = math.log10(low), math.log10(high)
        ticks, labels = _log_ticks(low, high, max_ticks)
    else:
        margin = max(0.0, 1e-3 * max(abs(low), abs(high), 1e-6) - (high - low))
        low, high = low - margin, high + margin  # an axis of positive length, even for a constant
        ticks, labels = _linear_ticks(low, high, max_ticks)
    plot.title(f"{title}, log scale" if is_log else title)
    for line, (_, marker, colour, _) in series:
        across, up = _thinned(epochs, line, 2 * width)
        if len(up):
            marker = plotext.marker(marker, plotext.pixel(foreground=colour))
            plot.draw(plot.signal(across.tolist(), up.tolist(), marker=marker).lines(True))
    plot.ruler("y").lim(low, high)
    plot.ruler("y").ticks(ticks, labels)
    plot.ruler("x").lim(first, last if last > first else first + 1)
    numbers = list(_epoch_ticks(first, last, max(1, width // 7)))
    plot.ruler("x").ticks(numbers, list(map(str, numbers)))


def _column(rows: Sequence[EpochRow], name: str) -> Floats:
    """Return a column as floats, with NaN for missing values and values that are too large."""
    values = np.array([getattr(row, name) for row in rows], dtype=np.float64)
    values[~(np.abs(values) < 1e100)] = np.nan
    return values


def _log10(values: Floats) -> Floats:
    """Return logarithms to base 10, with NaN for values that are not positive."""
    return np.log10(np.where(values > 0, values, np.nan))


def _thinned(x: Floats, y: Floats, max_points: int) -> tuple[Floats, Floats]:
    """Return the finite points, or the extrema in intervals of x if there are too many points."""
    indices = np.flatnonzero(np.isfinite(y))
    if len(indices) > max_points:
        intervals = np.array_split(indices, max_points // 2)
        ends = [(part[y[part].argmin()], part[y[part].argmax()]) for part in intervals]
        indices = np.unique(np.array(ends))
    return x[indices], y[indices]


def _round_step(minimum: float) -> tuple[float, int]:
    """Return the smallest of 1, 2 and 5 times 10ⁿ that is ≥ ``minimum``, and its decimal places."""
    exponent = math.floor(math.log10(minimum))
    for factor, shift in ((1, 0), (2, 0), (5, 0), (1, 1)):
        step = factor * 10.0 ** (exponent + shift)
        if step >= minimum * (1 - 1e-9):
            break
    return step, max(0, -(exponent + shift))


def _linear_ticks(low: float, high: float, max_ticks: int) -> tuple[list[float], list[str]]:
    """Return round numbers within the limits, about ``max_ticks`` but at least 2, and labels."""
    for count in (max_ticks, 2 * max_ticks, 4 * max_ticks):
        step, decimals = _round_step((high - low) / count)
        numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        ticks = [number * step for number in numbers]
        if len(ticks) >= 2:
            break
    largest = max(map(abs, ticks), default=0.0)
    form = "{:.3g}" if decimals > 4 or largest >= 1e5 else f"{{:.{decimals}f}}"
    return ticks, [form.format(tick) for tick in ticks]


def _log_ticks(low: float, high: float, max_ticks: int) -> tuple[list[float], list[str]]:
    """Return at most ``max_ticks`` ticks: 1, 2 and 5 times powers of ten if they fit.

    Otherwise the ticks are all powers of ten, or every second, third, ... power. The limits and the
    positions of ticks are logarithms to base 10.
    """
    decades = range(math.floor(low), math.ceil(high) + 1)
    single = [((1,), every) for every in range(1, len(decades) + 1)]
    for factors, every in [((1, 2, 5), 1), *single]:
        numbers = [f * 10.0**k for k in decades if k % every == 0 for f in factors]
        ticks = [(math.log10(v), f"{v:g}") for v in numbers if low <= math.log10(v) <= high]
        if len(ticks) <= max_ticks:
            break
    return [position for position, _ in ticks], [label for _, label in ticks]


def _epoch_ticks(first: int, last: int, max_ticks: int) -> Iterator[int]:
    """Yield the first epoch, and round numbers that are not too close to the first epoch."""
    step = max(1, int(_round_step(max(1, (last - first) / max_ticks))[0]))
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

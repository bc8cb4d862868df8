"""Learning curves drawn with characters: positions of the dots, sizes, and extreme values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from nnopt.results.metrics_file import EpochRow
from nnopt.terminal.plotext_curves import MAX_COLUMNS, MAX_LINES, curves, rate_curve

ROW = EpochRow(1, 20, 0.1, 1.0, 0.5, 1.25, 0.4, 0.0, 2.5, 0.125)
BRAILLE = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
"""Column and row of the dot for each bit of a braille character (Unicode, chapter 21.1)."""


def history(
    losses: list[float],
    validation: list[float] | None = None,
    accuracies: list[float] | None = None,
) -> list[EpochRow]:
    rows = []
    for i, loss in enumerate(losses):
        row = replace(ROW, epoch=i + 1, train_loss=loss, validation_loss=None)
        if validation is None:
            row = replace(row, validation_accuracy=None)
        else:
            row = replace(row, validation_loss=validation[i])
        rows.append(row if accuracies is None else replace(row, train_accuracy=accuracies[i]))
    return rows


class Panel:
    """The characters of one panel and the dots of its canvas; (0, 0) is at the lower left."""

    def __init__(self, text: Text, columns: slice, lines: slice) -> None:
        self.lines = [line[columns].ljust(1) for line in text.plain.splitlines()[lines]]
        self.title = self.lines[0].strip()
        self.axis = max(line.find("│") for line in self.lines)
        self.canvas = [line[self.axis + 1 :] for line in self.lines[1:-2]]
        self.height, self.width = 4 * len(self.canvas), 2 * max(map(len, self.canvas))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the column and row of the dot at fraction x of the width and y of the height.

        An axis extends from the centre of its first character to the centre of its last character.
        """
        return 0.5 + x * (self.width - 2), 1.5 + y * (self.height - 4)

    def dots(self) -> set[tuple[int, int]]:
        found = set()
        for y, line in enumerate(self.canvas):
            for x, character in enumerate(line):
                bits = ord(character) - 0x2800 if "⠀" <= character <= "⣿" else 0
                for bit, (right, down) in enumerate(BRAILLE):
                    if bits >> bit & 1:
                        found.add((2 * x + right, self.height - 1 - (4 * y + down)))
        return found

    def ticks(self) -> dict[str, int]:
        """Map each label on the left to the number of its line, counted from 0 at the bottom."""
        canvas = self.lines[1:-2]
        labels = {line[: self.axis].strip(): i for i, line in enumerate(reversed(canvas))}
        return {label: i for label, i in labels.items() if label}


def loss_panel(rows: list[EpochRow], columns: int = 80, lines: int = 21) -> Panel:
    return Panel(curves(rows, columns, lines), slice(0, columns // 2), slice(0, lines - 1))


def test_dots_of_curves_are_at_the_values() -> None:
    values = [0.3 + math.exp(-i / 9) + 0.3 * math.sin(i) ** 2 for i in range(40)]
    panel = loss_panel(history(values, accuracies=values), 100, 26)
    low, high = min(values), max(values)
    dots = panel.dots()
    for i, value in enumerate(values):
        x, y = panel.place(i / 39, (value - low) / (high - low))
        assert any(abs(a - x) <= 1 and abs(b - y) <= 1 for a, b in dots), (i, value)
    for a, b in dots:  # each dot is between the values of nearby epochs
        i = int((a - 0.5) / (panel.width - 2) * 39)
        near = values[max(0, i - 1) : i + 3]
        bounds = [panel.place(0, (value - low) / (high - low))[1] for value in near]
        assert min(bounds) - 1 <= b <= max(bounds) + 1


def test_loss_that_spans_a_decade_has_a_log_scale() -> None:
    straight = [10 ** (-3 * i / 29) for i in range(30)]
    panel = loss_panel(history(straight))
    assert panel.title == "loss, log scale"
    lines = panel.height // 4 - 1
    ticks = panel.ticks()
    assert set(ticks) == {"1", "0.1", "0.01", "0.001"}
    for label, line in ticks.items():
        assert abs(line - lines * (1 + math.log10(float(label)) / 3)) <= 0.5
    for x, y in panel.dots():
        assert abs(y - panel.place(0, 1 - (x - 0.5) / (panel.width - 2))[1]) <= 1.5
    assert loss_panel(history([1.0, 0.11])).title == "loss"
    assert loss_panel(history([1.0, 0.0])).title == "loss"


def test_ticks_of_curves_are_round_numbers_at_their_values() -> None:
    panel = loss_panel(history([0.2, 1.31]))
    ticks, lines = panel.ticks(), panel.height // 4 - 1
    assert set(ticks) == {"0.2", "0.4", "0.6", "0.8", "1.0", "1.2"}
    for label, line in ticks.items():
        assert abs(line - lines * (float(label) - 0.2) / 1.11) <= 0.5
    assert loss_panel(history([0.5] * 130)).lines[-1].split() == ["1", "50", "100"]


def test_curves_of_many_epochs_keep_peaks() -> None:
    values = [1.0] * 5000
    values[3210] = 2.0
    panel = loss_panel(history(values))
    peak = {x for x, y in panel.dots() if y >= panel.height - 4}
    assert peak
    assert all(abs(x - panel.place(3210 / 4999, 0)[0]) <= 1 for x in peak)


def test_curves_differ_from_each_other_without_colours() -> None:
    text = curves(history([1.0, 0.9, 0.8], [1.2, 1.15, 1.1]), 80, 21)
    assert text.plain.splitlines()[-1].split() == ["⠒⠒⠒", "training", "▀▀▀", "validation"]
    loss = "".join(line[:40] for line in text.plain.splitlines()[:-1])
    assert set("▖▗▘▝▀▄▌▐▚▞▛▜▙▟█") & set(loss)
    colours = {str(span.style) for span in text.spans if span.style}
    assert len({c for c in colours if "rgb" in c or "#" in c}) >= 2
    alone = curves(history([1.0, 0.9, 0.8]), 80, 21)
    assert alone.plain.splitlines()[-1].split() == ["⠒⠒⠒", "training"]
    assert not set("▖▗▘▝▀▄▌▐▚▞▛▜▙▟█") & set(alone.plain)


def test_only_lines_of_curves_are_coloured() -> None:
    """Text without colour is legible on dark and on light backgrounds."""
    text = curves(history([1.0, 0.9, 0.8], [1.2, 1.15, 1.1]), 80, 21)
    for i, character in enumerate(text.plain):
        styles = [str(s.style) for s in text.spans if s.start <= i < s.end]
        is_curve = "⠀" < character <= "⣿" or character in "▖▗▘▝▀▄▌▐▚▞▛▜▙▟█"
        assert any("#" in style or "rgb" in style for style in styles) == is_curve
        assert not any(" on " in style for style in styles)


@pytest.mark.parametrize(
    ("columns", "lines", "stacked"), [(59, 19, True), (59, 18, False), (60, 40, False)]
)
def test_panels_are_stacked_in_a_narrow_terminal_that_is_high_enough(
    columns: int, lines: int, stacked: bool
) -> None:
    first = curves(history([1.0, 0.9]), columns, lines).plain.splitlines()[0]
    assert ("accuracy" in first) != stacked


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 3)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS | st.none(), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(40, 200),
    st.integers(9, 50),
)
def test_curves_of_arbitrary_values_fit_into_terminal(
    values: list[tuple[float, float | None, float]], columns: int, lines: int
) -> None:
    rows = [
        replace(ROW, epoch=i, train_loss=a, validation_loss=b, train_accuracy=c)
        for i, (a, b, c) in enumerate(values, start=1)
    ]
    shown = curves(rows, columns, lines).plain.splitlines()
    assert min(lines, MAX_LINES) - 1 <= len(shown) <= min(lines, MAX_LINES)
    assert max(map(len, shown)) <= min(columns, MAX_COLUMNS)
    assert sum(character in line for line in shown for character in "│┤") >= 3


def test_curve_of_learning_rates_has_axis_from_zero_or_logarithmic_axis() -> None:
    epochs = np.arange(40) / 10
    falling = rate_curve(epochs, np.linspace(1.0, 0.5, 40), "rate", False, 60, 14).plain
    lines = falling.splitlines()
    assert len(lines) == 14
    assert max(map(len, lines)) <= 60
    assert lines[0].strip() == "rate"
    assert "0.0┤" in falling
    assert "1.0┤" in falling
    assert lines[-1].split() == ["0", "1", "2", "3", "4"]
    logarithmic = rate_curve(epochs, np.geomspace(1.0, 1e-3, 40), "rate", True, 60, 14).plain
    for text in ("rate, log scale", "0.001┤", "0.1┤"):
        assert text in logarithmic
    panel = Panel(Text(logarithmic), slice(0, 60), slice(0, 14))
    dots = sorted(panel.dots())
    assert dots[0][1] > dots[-1][1]

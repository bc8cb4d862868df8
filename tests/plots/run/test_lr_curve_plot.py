"""The plot of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nnopt.plots.run.lr_curve import plot_lr_find
from nnopt.training.lr_finder import BETA, LrCurve, LrRangeTest, LrSuggestion, suggest_from_curve

CheckPng = Callable[[Path], np.ndarray]


def found(
    losses: list[float], sweep: LrRangeTest | None = None, diverged: bool = True
) -> LrSuggestion:
    sweep = sweep or LrRangeTest()
    rates = np.geomspace(sweep.min_lr, sweep.max_lr, sweep.steps)[: len(losses)]
    smoothed = [
        float(np.average(losses[:k], weights=BETA ** np.arange(k)[::-1]))
        for k in range(1, len(losses) + 1)
    ]
    return suggest_from_curve(LrCurve(rates, np.array(losses), np.array(smoothed), diverged), sweep)


def usual() -> LrSuggestion:
    """Return the suggestion for losses that fall from 2.3 to 0.3, then rise to a million."""
    losses = [2.3] * 80 + np.linspace(2.3, 0.3, 100).tolist() + [0.3] * 60
    return found(losses + np.geomspace(0.3, 1e6, 40).tolist())


def test_lr_curve_contains_losses_and_marks(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    outcome = usual()
    plot_lr_find(outcome, tmp_path / "a.png", "mnist_mlp")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "loss (mean per sample)")
    lines = {str(line.get_label()): line for line in axes.lines}
    np.testing.assert_array_equal(lines["smoothed"].get_ydata(), outcome.curve.smoothed)
    assert outcome.lr is not None
    star = lines[f"suggestion {outcome.lr:.2g}"]
    assert list(star.get_xdata()) == [outcome.lr]
    assert outcome.edge_step is not None
    edge = lines[f"largest usable {10 * outcome.lr:.2g}"]
    assert list(edge.get_xdata()) == [outcome.curve.rates[outcome.edge_step]]
    (legend,) = figures[0].legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [name for name in lines if not name.startswith("_")]


def test_lr_curve_omits_diverging_losses(tmp_path: Path, figures: list[Figure]) -> None:
    outcome = usual()
    plot_lr_find(outcome, tmp_path / "a.png", "mnist_mlp")
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    assert low < 0.3
    assert 2.3 < high < 4
    left, right = axes.get_xlim()
    assert left == outcome.curve.rates[0]
    leaves = outcome.curve.rates[np.flatnonzero(outcome.curve.smoothed > high)[0]]
    assert leaves < right < outcome.curve.rates[-1]


@pytest.mark.parametrize(
    ("losses", "sweep"),
    [
        ([2.3] * 300, LrRangeTest()),
        ([2.3, 1e30, np.inf], LrRangeTest()),
        ([2.3, 5.0, 1e9], LrRangeTest(10, 20)),
        ([0.0] * 20, LrRangeTest(1e-3, 2e-3, 20)),
    ],
    ids=["flat", "explodes", "short", "zero"],
)
def test_lr_curve_without_suggestion_says_so_in_its_title(
    tmp_path: Path,
    figures: list[Figure],
    check_png: CheckPng,
    losses: list[float],
    sweep: LrRangeTest,
) -> None:
    plot_lr_find(found(losses, sweep), tmp_path / "a.png", "a name " * 20)
    check_png(tmp_path / "a.png")
    assert figures[0].texts[0].get_text().endswith(": no suggestion")


def test_lr_curve_without_finite_loss_is_drawn(tmp_path: Path) -> None:
    plot_lr_find(found([np.nan]), tmp_path / "a.png", "x")
    assert (tmp_path / "a.png").stat().st_size > 0

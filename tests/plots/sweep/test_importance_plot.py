"""The plot of the importances of a search's keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnopt.plots.sweep.importance import MAX_KEYS, Importance, plot_importances

CheckPng = Callable[[Path], np.ndarray]


def note_of(figure: Figure) -> str:
    faint = [text for text in figure.texts if text.get_fontsize() == 8.5]
    return " ".join(text.get_text() for text in reversed(faint))


def test_importance_plot_contains_a_bar_and_an_interval_for_each_key(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    found = [
        Importance("optimizer.lr", 0.75, (0.4, 0.9)),
        Importance("architecture.hidden", 0.2, (0.05, 0.4)),
        Importance("regularizer.l2", 0.05),
    ]
    plot_importances(found, 25, "best_validation_loss", [tmp_path / "a.png"])
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    bars = [(bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in axes.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(bars, [(0.75, 0), (0.2, -1), (0.05, -2)])
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert [tuple(line.get_xdata()) for line in lines] == [(0.4, 0.9), (0.05, 0.4)]
    shown = [text.get_text() for text in figures[0].texts]
    assert {"optimizer.lr", "architecture.hidden", "regularizer.l2", "0.75", "0.20"} <= set(shown)
    assert "Importance of keys for best validation loss" in shown
    note = note_of(figures[0])
    assert "from 25 finished trials" in note
    assert "with so few trials, the order of the keys is uncertain" in note


def test_importance_plot_of_many_trials_and_keys_omits_the_least_important(
    tmp_path: Path, figures: list[Figure]
) -> None:
    found = [Importance(f"key{n}", 0.5 / (n + 1)) for n in range(MAX_KEYS + 3)]
    plot_importances(found, 2000, "final_train_accuracy", [tmp_path / "a.png"])
    (axes,) = figures[0].axes
    assert len(axes.patches) == MAX_KEYS
    note = note_of(figures[0])
    assert "3 more keys omitted" in note
    assert "uncertain" not in note
    assert "bootstrap" not in note

"""The plot that compares the weights of two runs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from nnopt.plots.run.weights import plot_weight_difference, strongest

CheckPng = Callable[[Path], np.ndarray]
Figures = list[matplotlib.figure.Figure]


def two_runs(layers: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    names = [f"dense{n}.weight" for n in range(1, layers + 1)]
    a = {name: draw.normal(0, 1, (8, 5)) for name in names} | {"dense1.bias": np.ones(8)}
    return a, {name: array + 0.5 for name, array in a.items()}


def test_weight_difference_contains_histograms_and_map(
    tmp_path: Path, check_png: CheckPng, figures: Figures
) -> None:
    a, b = two_runs(2)
    b["dense2.weight"] = a["dense2.weight"].copy()
    b["dense2.weight"][3, 1] -= 2
    plot_weight_difference(a, b, ("one", "other"), tmp_path / "w.png")
    check_png(tmp_path / "w.png")
    maps = [image.get_array() for axes in figures[-1].axes for image in axes.images]
    shown = [x for x in maps if x is not None and x.shape == (8, 5)]
    np.testing.assert_allclose(shown[0], 0.5)
    assert shown[1][3, 1] == pytest.approx(-2)
    assert np.count_nonzero(shown[1]) == 1
    legend_texts = [
        text.get_text() for legend in figures[-1].legends for text in legend.get_texts()
    ]
    assert legend_texts == ["A: one", "B: other"]


def test_weight_difference_svg_is_deterministic(tmp_path: Path) -> None:
    a, b = two_runs(1)
    for name in ("one", "two"):
        plot_weight_difference(a, b, ("a", "b"), tmp_path / f"{name}.svg")
    root = ElementTree.parse(tmp_path / "one.svg").getroot()
    assert root.tag.endswith("svg")
    assert len(list(root.iter())) > 50
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_weight_difference_of_many_layers_or_none_is_drawn(
    tmp_path: Path, check_png: CheckPng, figures: Figures
) -> None:
    plot_weight_difference(*two_runs(9), ("a", "b"), tmp_path / "w.png")
    titles = [text.get_text() for text in figures[-1].texts]
    assert "Weights of two runs, 3 of 9 layers left out" in titles
    assert {"dense1.weight   8×5", "dense9.weight   8×5"} <= set(titles)
    plot_weight_difference({}, {}, ("a", "b"), tmp_path / "none.png")


def test_weight_difference_of_equal_constant_or_nan_weights_is_drawn(tmp_path: Path) -> None:
    a = {"x.weight": np.zeros((2, 2)), "y.weight": np.full((2, 2), np.nan)}
    plot_weight_difference(a, a, ("a", "b"), tmp_path / "w.png")
    assert (tmp_path / "w.png").stat().st_size > 1000


def test_weight_difference_of_one_changed_weight_is_visible() -> None:
    matrix = np.zeros((1000, 301))
    matrix[777, 300] = -0.5
    matrix[778, 299] = 0.25
    found = strongest(matrix, 200)
    assert found.shape == (200, 200)
    assert found.min() == -0.5
    assert strongest(matrix[:3, :4], 200).shape == (3, 4)
    np.testing.assert_array_equal(strongest(np.array([[1.0, -3.0], [2.0, 0.0]]), 1), [[-3.0]])

"""Pictures of what was learned: filters, feature maps, statistics of layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.architecture.layers import parse_layers
from nnopt.architecture.network import place
from nnopt.plots.feature_maps import plot_feature_maps, stages_of
from nnopt.plots.filters import plot_filters
from nnopt.plots.layer_statistics import plot_layer_statistics
from nnopt.results.layers import LayerRow

CheckPng = Callable[[Path], np.ndarray]


def drawn(figure: Figure) -> list[np.ndarray]:
    """The images of a figure's one coordinate system, in the order they were drawn."""
    (axes,) = figure.axes
    return [np.asarray(image.get_array()) for image in axes.images]


def values_of(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata(), dtype=np.float64)


# filters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3), (70, 3), (5, 2)])
def test_filters(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, count: int, channels: int
) -> None:
    weight = np.random.default_rng(0).standard_normal((count, channels, 3, 3))
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    if count > 1:
        check_png(tmp_path / "a.png")
    shown = drawn(figures[0])
    assert len(shown) == min(count, 64)
    assert {x.shape for x in shown} == {(3, 3, 3) if channels == 3 else (3, 3)}
    title = figures[0].texts[0].get_text()
    assert title.startswith("conv2d1: the first 64 of 70" if count == 70 else f"conv2d1: {count} ")
    assert f"{channels}×3×3" in title


def test_a_filter_is_scaled_about_grey_and_keeps_its_colours(
    tmp_path: Path, figures: list[Figure]
) -> None:
    """Of two filters that differ by a factor the pictures are the same; 0 is mid-grey."""
    weight = np.zeros((3, 3, 2, 2))
    weight[0, 0, 0, 1] = 0.1  # red, upper right
    weight[0, 2, 1, 0] = -0.05  # less blue, lower left
    weight[1] = 50 * weight[0]
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    first, second, nothing = drawn(figures[0])
    assert_allclose(first, second)
    assert_allclose(first[0, 1], [1, 0.5, 0.5])
    assert_allclose(first[1, 0], [0.5, 0.5, 0.25])
    assert_allclose(nothing, 0.5)


def test_filters_of_many_channels_are_their_mean(tmp_path: Path, figures: list[Figure]) -> None:
    weight = np.array([1.0, 3.0])[None, :, None, None] * [[1.0, -2.0], [0.0, np.nan]]
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    assert_allclose(drawn(figures[0])[0], [[0.75, 0], [0.5, 0.5]])


# feature maps -------------------------------------------------------------------------------------

BLOCK: list[Any] = [{"conv2d": 4}, "batch_norm", "relu", "max_pool2d", {"dropout": 0.2}]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([*BLOCK, *BLOCK], ("relu1", "relu2", "max_pool2d2")),
        ([{"conv2d": 5}, "relu", {"conv2d": 6}], ("relu1", "conv2d2")),
        ([{"residual": [{"conv2d": 3}, "relu"]}, "relu", {"conv2d": 7}], ("relu1", "conv2d1")),
        ([{"conv2d": k} for k in range(4, 15)], tuple(f"conv2d{k}" for k in (1, 3, 5, 7, 9, 11))),
    ],
)
def test_stages_are_the_last_layers_before_the_shape_changes(
    layers: list[Any], expected: tuple[str, ...]
) -> None:
    records = parse_layers([*layers, "flatten", {"dense": 9}, "relu", {"dense": "classes"}])
    assert stages_of(place(records, (3, 16, 16), 10)) == expected


def test_feature_maps(tmp_path: Path, figures: list[Figure], check_png: CheckPng) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3, 8, 6), dtype=np.uint8)
    strength = np.array([0.1, 5.0, 0.0, 3.0, 4.0])
    maps = strength[:, None, None] * rng.standard_normal((4, 5, 8, 6)) + 100
    outputs = {"relu1": maps, "max_pool2d1": maps[:, :2, ::2, ::2]}
    plot_feature_maps(images, ["cat", "größer", "ключ", "dog"], outputs, tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    shown = drawn(figures[0])
    assert len(shown) == 4 * (1 + 3 + 2)
    assert_array_equal(shown[1], images[1].transpose(1, 2, 0))
    for column, channel in enumerate((1, 3, 4), start=1):
        for row in range(4):
            assert_array_equal(shown[4 * column + row], maps[row, channel])
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    for text in ("cat", "dog", "input", "3×8×6", "relu1", "5×8×6", "max_pool2d1", "2×4×3"):
        assert text in texts
    scales = {image.get_clim() for image in figures[0].axes[0].images[4:8]}
    assert scales == {(maps[:, 1].min(), maps[:, 1].max())}, "one scale in all rows"


def test_feature_maps_that_are_dead_or_not_finite(tmp_path: Path) -> None:
    maps = np.zeros((1, 3, 4, 4))
    maps[:, 1] = np.nan
    plot_feature_maps(np.zeros((1, 1, 4, 4), np.uint8), ["a"], {"relu1": maps}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


# statistics of layers -----------------------------------------------------------------------------


def statistics(epochs: int, layers: int, spread: float = 2.0) -> list[LayerRow]:
    """Convolution, norm and ReLU so many times, then a dense layer."""
    names = [f"{kind}{k + 1}" for k in range(layers) for kind in ("conv2d", "batch_norm", "relu")]
    rows = []
    for epoch in range(1, epochs + 1):
        for depth, name in enumerate([*names, "dense1"]):
            is_relu = name.startswith("relu")
            size = spread ** (depth / len(names))
            dead = 0.125 * (epoch == epochs) if is_relu else None
            gradient = None if is_relu else 0.01 * size / epoch
            mean = None if is_relu else 0.0
            rows.append(LayerRow(epoch, name, 0.0, size, dead, mean, gradient))
    return rows


def test_layer_statistics(tmp_path: Path, figures: list[Figure], check_png: CheckPng) -> None:
    plot_layer_statistics(statistics(4, 2), tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    outputs, gradients, dead = figures[0].axes
    for axes in (outputs, gradients):
        assert [line.get_label() for line in axes.lines] == ["conv2d1", "conv2d2", "dense1"]
        assert axes.get_yscale() == "linear"
        assert axes.get_ylabel() == "standard deviation"
    assert [line.get_label() for line in dead.lines] == ["relu1", "relu2"]
    assert_allclose(values_of(dead.lines[0]), [0, 0, 0, 12.5])
    assert_allclose(values_of(outputs.lines[2]), 2.0)
    assert_allclose(values_of(gradients.lines[0]), [0.01, 0.005, 0.01 / 3, 0.0025])
    looks = {(str(line.get_color()), line.get_marker()) for line in outputs.lines}
    assert len(looks) == len({colour for colour, _ in looks}) == 3


def test_statistics_over_two_decades_are_drawn_on_a_log_scale(
    tmp_path: Path, figures: list[Figure]
) -> None:
    plot_layer_statistics(statistics(40, 5, spread=1e4), tmp_path / "a.png")
    outputs, gradients, dead = figures[0].axes
    assert outputs.get_yscale() == gradients.get_yscale() == "log"
    assert dead.get_yscale() == "linear"
    assert {line.get_marker() for line in outputs.lines} == {""}
    assert len({line.get_linestyle() for line in outputs.lines}) == 4


def test_of_many_layers_some_are_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    plot_layer_statistics(statistics(1, 20), tmp_path / "a.png")
    names = [line.get_label() for line in figures[0].axes[0].lines]
    assert (len(names), names[0], names[-1]) == (8, "conv2d1", "dense1")


def test_layers_without_relu_or_with_nothing_finite(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [LayerRow(k, "dense1", np.nan, np.inf, None, np.nan, np.nan) for k in (1, 2)]
    plot_layer_statistics(rows, tmp_path / "a.png")
    assert len(figures[0].axes) == 2

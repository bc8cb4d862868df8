"""Plots of filters, feature maps and statistics of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.architecture.network import infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.plots.run.feature_maps import plot_feature_maps, select_channels, stages_of
from nnopt.plots.run.images import plot_filters, signed_colours
from nnopt.plots.run.layer_statistics import plot_layer_statistics
from nnopt.results.metrics_file import LayerRow

CheckPng = Callable[[Path], np.ndarray]


def drawn(axes: Axes) -> list[np.ndarray]:
    """Return the images of the axes in the order of drawing."""
    return [np.asarray(image.get_array()) for image in axes.images]


def values_of(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata(), dtype=np.float64)


def texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def texts_of_figure(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


# filters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3), (70, 3), (5, 2)])
def test_filters_are_drawn_as_a_grid(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, count: int, channels: int
) -> None:
    weight = np.random.default_rng(0).standard_normal((count, channels, 3, 3))
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    if count > 1:
        check_png(tmp_path / "a.png")
    shown = drawn(figures[0].axes[0])
    assert len(shown) == min(count, 64)
    assert {x.shape for x in shown} == {(3, 3, 3) if channels == 3 else (3, 3)}
    title = figures[0].texts[0].get_text()
    assert title.startswith("conv2d1: the first 64 of 70" if count == 70 else f"conv2d1: {count} ")
    assert f"{channels}×3×3" in title


def test_filters_are_scaled_about_grey_and_keep_their_colours(
    tmp_path: Path, figures: list[Figure]
) -> None:
    """Filters that differ by a positive factor have equal images; a weight of 0 is mid-grey."""
    weight = np.zeros((3, 3, 2, 2))
    weight[0, 0, 0, 1] = 0.1  # red, upper right
    weight[0, 2, 1, 0] = -0.05  # less blue, lower left
    weight[1] = 50 * weight[0]
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    first, second, nothing = drawn(figures[0].axes[0])
    assert_allclose(first, second)
    assert_allclose(first[0, 1], [1, 0.5, 0.5])
    assert_allclose(first[1, 0], [0.5, 0.5, 0.25])
    assert_allclose(nothing, 0.5)


def test_filters_of_two_channels_show_the_mean_over_channels(
    tmp_path: Path, figures: list[Figure]
) -> None:
    weight = np.array([1.0, 3.0])[None, :, None, None] * [[1.0, -2.0], [0.0, np.nan]]
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    assert_allclose(drawn(figures[0].axes[0])[0], [[0.75, 0], [0.5, 0.5]])


def crossed_out(axes: Axes) -> list[tuple[float, float]]:
    """Return (left, top) of each filter that is marked as dead."""
    corners = [line.get_xydata() for line in axes.lines if line.get_label() == "dead"]
    return [(points[0, 0], points[0, 1]) for points in np.asarray(corners)]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_dead_filters_are_marked(tmp_path: Path, figures: list[Figure], channels: int) -> None:
    """A filter is dead if its norm, not its mean, is below 1 % of the largest norm."""
    weight = np.ones((12, channels, 3, 3))
    weight[:, :, 1, 1] = -1
    weight[2] *= 0.009
    weight[5] *= 0.011
    weight[9] = 0
    weight[11, channels // 2 :] *= -1  # with two channels, their mean is 0
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    axes = figures[0].axes[0]
    marked = crossed_out(axes)
    shown = [image.get_extent() for image in axes.images]
    assert marked == [(shown[k][0], shown[k][3]) for k in (2, 9)]
    assert [k for k, image in enumerate(axes.images) if image.get_alpha() < 1] == [2, 9]
    assert any("2 of 12 dead" in labels for labels in texts_of(axes))


def test_live_filters_have_no_mark(tmp_path: Path, figures: list[Figure]) -> None:
    plot_filters(np.eye(9).reshape(9, 1, 3, 3), "conv2d1", tmp_path / "a.png")
    axes = figures[0].axes[0]
    assert not crossed_out(axes)
    assert not any("dead" in labels for labels in texts_of(axes))


def test_filters_of_zeros_are_all_dead(tmp_path: Path, figures: list[Figure]) -> None:
    plot_filters(np.zeros((3, 1, 3, 3)), "conv2d1", tmp_path / "a.png")
    assert len(crossed_out(figures[0].axes[0])) == 3


def test_filter_bars_show_norms(tmp_path: Path, figures: list[Figure]) -> None:
    weight = np.array([1.0, 4.0, 2.0])[:, None, None, None] * np.ones((3, 1, 2, 2))
    plot_filters(weight, "conv2d1", tmp_path / "a.png")
    full, bars = (
        [np.ptp(segment[:, 0]) for segment in lines.get_segments()]
        for lines in figures[0].axes[0].collections
    )
    assert_allclose(np.array(bars) / full, [0.25, 1, 0.5])


@pytest.mark.parametrize(("channels", "bars"), [(1, 1), (3, 0), (4, 1)])
def test_filters_have_a_colour_bar_unless_they_are_rgb(
    tmp_path: Path, figures: list[Figure], channels: int, bars: int
) -> None:
    plot_filters(np.ones((2, channels, 3, 3)), "conv2d1", tmp_path / "a.png")
    assert len(figures[0].axes) == 1 + bars
    for axes in figures[0].axes[1:]:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["−1", "0", "1"]


def test_lightness_of_colours_increases_with_the_weight() -> None:
    """Positive and negative weights also differ in a greyscale print. The colour of 0 is grey."""
    colours = signed_colours()(np.linspace(0, 1, 101))[:, :3]
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()
    assert np.ptp(colours[50]) < 0.02


# feature maps -------------------------------------------------------------------------------------

BLOCK: list[Any] = [{"conv2d": 4}, "batch_norm", "relu", "max_pool2d", {"dropout": 0.2}]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([*BLOCK, *BLOCK], ("relu1", "relu2")),
        ([{"conv2d": 5}, "relu", {"conv2d": 6}], ("relu1", "conv2d2")),
        ([{"residual": [{"conv2d": 3}, "relu"]}, "relu", {"conv2d": 7}], ("relu1", "conv2d1")),
        ([{"conv2d": 4}, "avg_pool2d", "relu"], ("conv2d1", "relu1")),
        ([{"conv2d": 4}, "relu", "global_avg_pool"], ("relu1",)),
        ([{"conv2d": k} for k in range(4, 15)], tuple(f"conv2d{k}" for k in (1, 4, 7, 11))),
    ],
)
def test_stages_are_last_layers_before_the_shape_changes(
    layers: list[Any], expected: tuple[str, ...]
) -> None:
    records = parse_layers([*layers, "flatten", {"dense": 9}, "relu", {"dense": "classes"}])
    assert stages_of(infer_shapes(records, (3, 16, 16), 10)) == expected


def test_feature_maps_are_drawn_for_each_image(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3, 8, 6), dtype=np.uint8)
    strength = np.array([0.1, 5.0, 0.0, 3.0, 4.0])
    maps = strength[:, None, None] * rng.standard_normal((4, 5, 8, 6)) + 100
    outputs = {"relu1": maps, "relu2": maps[:, :2, ::2, ::2]}
    plot_feature_maps(images, ["cat", "größer", "ключ", "dog"], outputs, tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    axes = figures[0].axes[0]
    shown = drawn(axes)
    assert len(shown) == 4 * (1 + 3 + 1), "channels that hardly vary must be left out"
    assert_array_equal(shown[1], images[1].transpose(1, 2, 0))
    for column, channel in enumerate((1, 4, 3), start=1):
        for row in range(4):
            assert_array_equal(shown[4 * column + row], maps[row, channel])
    texts = texts_of(axes)
    for text in ("cat", "dog", "input", "3×8×6", "relu1", "5×8×6", "relu2", "2×4×3"):
        assert text in texts
    assert "3 of 5 channels" in texts
    assert "100 % of variance" in texts
    scales = {image.get_clim() for image in axes.images[4:8]}
    bright = np.percentile(maps[:, 1], 99)
    assert scales == {(maps[:, 1].min(), bright)}, "all rows must have the same scale"


@pytest.mark.parametrize(("stages", "each"), [(1, 8), (2, 8), (3, 6), (4, 4)])
def test_feature_maps_of_many_stages_have_fewer_channels_each(
    tmp_path: Path, figures: list[Figure], stages: int, each: int
) -> None:
    maps = np.random.default_rng(0).standard_normal((2, 32, 4, 4))
    outputs = {f"relu{k}": maps for k in range(stages)}
    images = np.zeros((2, 1, 4, 4), np.uint8)
    plot_feature_maps(images, ["a", "b"], outputs, tmp_path / "a.png")
    assert len(drawn(figures[0].axes[0])) == 2 * (1 + stages * each)


def test_selection_of_channels_includes_only_one_of_similar_channels() -> None:
    """Channels 3, 4 and 6 are scaled, shifted, negated or noisy copies of channel 1."""
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((6, 8, 5, 5))
    maps[:, 1] *= 30
    maps[:, 3] = 0.9 * maps[:, 1] + 7
    maps[:, 4] = -0.8 * maps[:, 1]
    maps[:, 6] = 0.95 * maps[:, 1] + 0.5 * maps[:, 0]
    maps[:, 5] *= 20
    maps[:, 7] *= 10
    maps[:, 0] = 0.4 * maps[:, 5] + 2 * maps[:, 2]  # large variance, 94 % of it from channel 5
    channels, explained = select_channels(maps, 8)
    assert channels.tolist() == [1, 5, 7]
    assert 0.99 < explained < 1
    variances = maps.var(axis=(0, 2, 3))
    assert set(np.argsort(-variances)[:3]) == {1, 3, 6}, (
        "the test would pass with the channels of largest variance"
    )


def test_selection_of_channels_equals_pivoted_qr() -> None:
    """SciPy's pivoted QR decomposition of the centred maps chooses the same channels."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    mixed = np.einsum("dc,nchw->ndhw", rng.standard_normal((12, 12)), rng.random((5, 12, 6, 6)))
    maps = np.maximum(mixed, 0)
    columns = maps.transpose(0, 2, 3, 1).reshape(-1, 12)
    columns = columns - columns.mean(axis=0)
    factor, order = linalg.qr(columns, mode="r", pivoting=True)
    channels, explained = select_channels(maps, 6)
    assert_array_equal(channels, order[:6])
    assert_allclose(explained, (factor[:6] ** 2).sum() / (columns**2).sum())


def test_feature_maps_that_are_dead_or_nan_are_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    maps = np.zeros((1, 3, 4, 4))
    maps[:, 1] = np.nan
    plot_feature_maps(np.zeros((1, 1, 4, 4), np.uint8), ["a"], {"relu1": maps}, tmp_path / "a.png")
    texts = texts_of(figures[0].axes[0])
    assert "1 of 3 channels" in texts
    assert "no variance" in texts


# statistics of layers -----------------------------------------------------------------------------


def statistics(epochs: int, layers: int, spread: float = 2.0) -> list[LayerRow]:
    """Return rows of a network of ``layers`` blocks (conv, batch norm, ReLU) and a dense layer.

    The standard deviations of the outputs grow from 1 in the first layer to ``spread`` in the last.
    """
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


def plot(rows: list[LayerRow], folder: Path, figures: list[Figure]) -> list[Axes]:
    matrices = {row.layer for row in rows if row.layer.startswith(("conv2d", "dense"))}
    plot_layer_statistics(rows, matrices, folder / "a.png", "spiral_mlp")
    return figures[-1].axes


def on_strip(axes: Axes) -> dict[int, list[float]]:
    """Return height -> epochs, for the lines in the strip that marks zeros or non-finite values."""
    found = {}
    for line in axes.lines:
        heights, epochs = values_of(line), np.asarray(line.get_xdata(), np.float64)
        (height,) = np.unique(heights[np.isfinite(heights)])
        found[int(height)] = epochs[np.isfinite(heights)].tolist()
    return found


def ticks_of(axes: Axes) -> list[str]:
    low, high = sorted(axes.get_ylim())
    axes.figure.draw_without_rendering()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [text.get_text() for value, text in ticks if low <= value <= high]


def test_layer_statistics_of_few_layers_are_lines(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    outputs, gradients, dead, bar = plot(statistics(4, 2), tmp_path, figures)
    check_png(tmp_path / "a.png")
    for axes in (outputs, gradients):
        assert [line.get_label() for line in axes.lines] == ["conv2d1", "conv2d2", "dense1"]
        assert axes.get_yscale() == "linear"
        assert axes.get_ylabel() == "standard deviation"
    assert_allclose(values_of(outputs.lines[2]), 2.0)
    assert_allclose(values_of(gradients.lines[0]), [0.01, 0.005, 0.01 / 3, 0.0025])
    styles = {(str(line.get_color()), line.get_marker()) for line in outputs.lines}
    assert len(styles) == len({colour for colour, _ in styles}) == 3
    assert ticks_of(dead) == ["relu1", "relu2"]
    assert_allclose(drawn(dead)[0], [[0, 0, 0, 12.5]] * 2)
    assert texts_of(dead) == ["12 %", "12 %", "last"]
    assert bar.get_ylabel() == "fraction of units (%)"
    assert figures[0].texts[0].get_text() == "spiral_mlp: layers over training"


def test_layer_statistics_spanning_a_decade_have_a_log_scale(
    tmp_path: Path, figures: list[Figure]
) -> None:
    outputs, gradients, *_ = plot(statistics(1, 2, spread=8.0), tmp_path, figures)
    assert outputs.get_yscale() == gradients.get_yscale() == "linear"
    outputs, gradients, *_ = plot(statistics(40, 5, spread=12.0), tmp_path, figures)
    assert outputs.get_yscale() == gradients.get_yscale() == "log"
    assert {line.get_marker() for line in outputs.lines} == {""}
    assert len({line.get_linestyle() for line in outputs.lines}) == 4


@pytest.mark.parametrize("layers", [2, 12])
def test_layer_statistics_with_zero_gradient_are_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, layers: int
) -> None:
    """With few layers, zeros are lines in a strip below the plot; with many, they are circles."""
    rows = statistics(4, layers)
    for k, row in enumerate(rows):
        if row.epoch >= 3 and row.layer in ("conv2d1", "conv2d2"):
            rows[k] = replace(row, gradient_std=0.0)
    if layers == 2:
        _, gradients, strip, *_ = plot(rows, tmp_path, figures)
        assert_allclose(values_of(gradients.lines[0]), [0.01, 0.005, np.nan, np.nan])
        assert gradients.get_yscale() == "log"
        assert ticks_of(strip) == ["0"]
        assert on_strip(strip) == {0: [3, 4], -1: [3, 4]}
        assert strip.get_position().y1 < gradients.get_position().y0
        colours = [str(line.get_color()) for line in gradients.lines[:2]]
        assert [str(line.get_color()) for line in strip.lines] == colours
    else:
        gradients = plot(rows, tmp_path, figures)[2]
        (circles,) = gradients.lines
        assert {tuple(xy) for xy in circles.get_xydata()} == {(3, 0), (4, 0), (3, 1), (4, 1)}
        assert np.ma.getmaskarray(gradients.images[0].get_array()).sum() == 4
        assert any("○ exactly 0" in text.get_text() for text in figures[0].texts)
    check_png(tmp_path / "a.png")


@pytest.mark.parametrize("layers", [2, 12])
def test_layer_statistics_with_only_zero_gradients_are_drawn(
    tmp_path: Path, figures: list[Figure], layers: int
) -> None:
    rows = [
        replace(row, gradient_std=None if row.gradient_std is None else 0.0)
        for row in statistics(3, layers)
    ]
    axes = plot(rows, tmp_path, figures)
    if layers == 2:
        assert on_strip(axes[2]) == {0: [1, 2, 3], -1: [1, 2, 3], -2: [1, 2, 3]}
        assert texts_of(axes[1]) == ["nothing above 0"]
    else:
        assert len(axes[2].lines[0].get_xydata()) == 3 * (layers + 1)


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_layer_statistics_with_non_finite_outputs_are_drawn(
    tmp_path: Path, figures: list[Figure], lost: float
) -> None:
    rows = statistics(4, 2)
    rows = [
        replace(row, activation_std=lost) if row.layer == "dense1" and row.epoch == 4 else row
        for row in rows
    ]
    outputs, strip, *_ = plot(rows, tmp_path, figures)
    assert ticks_of(strip) == ["not finite"]
    assert on_strip(strip) == {0: [4]}
    assert strip.get_position().y0 > outputs.get_position().y1


def test_layer_statistics_of_many_layers_are_maps(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    outputs, _, gradients, bar, dead, _ = plot(statistics(3, 20, spread=1e4), tmp_path, figures)
    check_png(tmp_path / "a.png")
    names = ticks_of(outputs)
    assert names == [*(f"conv2d{k + 1}" for k in range(20)), "dense1"]
    assert_allclose(drawn(gradients)[0][0], [0.01, 0.005, 0.01 / 3])
    assert_allclose(drawn(outputs)[0][-1], 1e4)
    assert bar.get_ylabel() == "standard deviation"
    assert len(ticks_of(dead)) == 20


def test_maps_of_very_many_layers_show_every_second_name(
    tmp_path: Path, figures: list[Figure]
) -> None:
    outputs, *_ = plot(statistics(1, 60), tmp_path, figures)
    assert ticks_of(outputs)[:3] == ["conv2d1", "conv2d3", "conv2d5"]
    assert drawn(outputs)[0].shape == (61, 1)


def with_updates(rows: list[LayerRow], first: int = 1) -> list[LayerRow]:
    """Add update ratios from an epoch on; 0 in the last epoch of the first layer."""
    last = rows[-1].epoch

    def ratio(row: LayerRow) -> float | None:
        if row.gradient_std is None or row.epoch < first:
            return None
        return 0.0 if (row.layer, row.epoch) == ("conv2d1", last) else 0.001 / row.epoch

    return [replace(row, weight_norm=1.0, update_ratio=ratio(row)) for row in rows]


def test_update_ratios_of_few_layers_are_lines(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    """The epochs before the second were trained by an earlier version, so their ratios are missing.

    A missing ratio is not drawn. It is not marked as a value that is not finite.
    """
    drawn_axes = plot(with_updates(statistics(4, 2), first=2), tmp_path, figures)
    check_png(tmp_path / "a.png")
    labels = [axes.get_ylabel() for axes in drawn_axes]
    assert labels[:3] == ["standard deviation", "standard deviation", "‖update‖ / ‖weight‖"]
    updates, strip = drawn_axes[2:4]
    assert_allclose(values_of(updates.lines[1]), [np.nan, 0.0005, 0.001 / 3, 0.00025])
    assert_allclose(values_of(updates.lines[0]), [np.nan, 0.0005, 0.001 / 3, np.nan])
    assert on_strip(strip) == {0: [4]}
    assert len(drawn_axes) == len(plot(statistics(4, 2), tmp_path, figures)) + 2


def test_update_ratios_of_many_layers_are_a_map(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    drawn_axes = plot(with_updates(statistics(4, 20), first=2), tmp_path, figures)
    check_png(tmp_path / "a.png")
    assert drawn_axes[5].get_ylabel() == "‖update‖ / ‖weight‖"
    values = np.ma.asarray(drawn_axes[4].images[0].get_array())
    assert_allclose(values[1].filled(-1), [-1, 0.0005, 0.001 / 3, 0.00025])
    assert "Update of the weights   ○ exactly 0" in texts_of_figure(figures[-1])


def test_layer_statistics_without_relu_or_finite_values_are_drawn(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rows = [LayerRow(k, "dense1", np.nan, np.inf, None, np.nan, np.nan) for k in (1, 2)]
    outputs, strip, gradients, _ = plot(rows, tmp_path, figures)
    assert texts_of(outputs) == texts_of(gradients) == ["no finite values"]
    assert on_strip(strip) == {0: [1, 2]}


@pytest.mark.parametrize("layers", [2, 12])
@pytest.mark.parametrize("size", [1e-300, 1e-320, 1e300])
def test_layer_statistics_with_tiny_or_huge_values_are_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, layers: int, size: float
) -> None:
    rows = statistics(4, layers)
    rows[0] = replace(rows[0], activation_std=size, gradient_std=size)
    plot(rows, tmp_path, figures)
    check_png(tmp_path / "a.png")

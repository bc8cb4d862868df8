"""The contents of the plots of a run, for ordinary and extreme data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnopt.plots import style
from nnopt.plots.run.confusion import plot_confusion
from nnopt.plots.run.curves import plot_curves, plot_schedule
from nnopt.plots.run.decision_boundary import plot_decision_boundary
from nnopt.plots.run.images import plot_samples
from nnopt.plots.run.weights import plot_weight_histograms
from nnopt.random import generator
from nnopt.results.metrics_file import EpochRow

CheckPng = Callable[[Path], np.ndarray]

NAMES = (
    "T-shirt/top",
    "größer als $x_{",
    "ключ",
    "猫",
    "a very long name of a class indeed",
    "x\ny",
)


def history(epochs: int, final_loss: float = 0.2) -> list[EpochRow]:
    losses = np.geomspace(1.1, final_loss, epochs)
    return [
        EpochRow(
            epoch=k + 1,
            step=20 * (k + 1),
            lr=0.1,
            train_loss=float(loss),
            train_accuracy=1 - float(loss) / 2,
            validation_loss=1.1 * float(loss),
            validation_accuracy=0.95 - float(loss) / 2,
            penalty=0.0,
            gradient_norm=1.0,
            seconds=0.1,
        )
        for k, loss in enumerate(losses)
    ]


def texts(axes_or_figure: Axes | Figure) -> list[str]:
    return [text.get_text() for text in axes_or_figure.texts]


# curves -------------------------------------------------------------------------------------------


def test_curves_contain_losses_and_accuracies(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    rows = history(60)
    plot_curves(rows, tmp_path / "a.png", "spiral_mlp", best_epoch=41)
    check_png(tmp_path / "a.png")
    loss, accuracy = figures[0].axes
    assert texts(figures[0]) == ["spiral_mlp"]
    assert [axes.get_xlabel() for axes in (loss, accuracy)] == ["epoch", "epoch"]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (mean per sample)", "accuracy (%)")
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("linear", "linear")
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), np.arange(1, 61))
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [row.train_loss for row in rows])
    expected = [100 * (row.validation_accuracy or 0) for row in rows]
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), expected)
    assert list(accuracy.lines[3].get_xdata()) == [41]
    assert accuracy.lines[3].get_ydata() == pytest.approx([expected[40]])
    assert f"best: epoch 41, validation {expected[40]:.2f} %" == accuracy.get_title(loc="left")


@pytest.mark.parametrize(("final", "scale"), [(0.013, "linear"), (0.009, "log")])
def test_curves_of_losses_spanning_two_decades_have_a_log_scale(
    tmp_path: Path, figures: list[Figure], final: float, scale: str
) -> None:
    plot_curves(history(30, final), tmp_path / "a.png", "t")
    assert figures[0].axes[0].get_yscale() == scale


def test_curves_of_one_epoch_without_validation_are_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    row = replace(history(2)[0], validation_loss=None, validation_accuracy=None)
    plot_curves([row], tmp_path / "a.png", "t", best_epoch=1)
    check_png(tmp_path / "a.png")
    loss = figures[0].axes[0]
    assert [line.get_label() for line in loss.lines][:1] == ["training"]
    assert loss.lines[0].get_markersize() > 0
    assert "validation" not in [line.get_label() for line in loss.lines]
    assert [tick for tick in loss.get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_curves_of_a_diverged_run_have_a_gap(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    rows = history(8)
    rows[5] = replace(rows[5], train_loss=float("inf"), validation_loss=float("nan"))
    rows[6] = replace(rows[6], train_loss=1e300)
    rows[7] = replace(rows[7], train_loss=1e99)
    plot_curves(rows, tmp_path / "a.png", "t", best_epoch=6)
    check_png(tmp_path / "a.png")
    loss = figures[0].axes[0]
    assert loss.get_yscale() == "log"
    assert np.isnan(np.asarray(loss.lines[0].get_ydata())).tolist() == [False] * 5 + [True] * 2 + [
        False
    ]
    assert loss.get_title(loc="left") == "best: epoch 6"


@pytest.mark.parametrize("rows", [0, 1])
def test_panel_without_finite_values_says_so(
    tmp_path: Path, figures: list[Figure], rows: int
) -> None:
    nan = float("nan")
    row = replace(
        history(2)[0],
        train_loss=nan,
        train_accuracy=nan,
        validation_loss=nan,
        validation_accuracy=nan,
    )
    plot_curves([row] * rows, tmp_path / "a.png", "t")
    assert texts(figures[0].axes[0]) == ["no finite values"]


# schedule -----------------------------------------------------------------------------------------

TIME = np.linspace(0, 1, 1200)


@pytest.mark.parametrize(
    ("rates", "scale"),
    [
        (np.full(1200, 0.1), "linear"),
        (np.zeros(1200), "linear"),
        (0.1 * (1 + np.cos(np.pi * TIME)) / 2, "linear"),
        (0.1 * np.minimum(1, 50 * TIME), "linear"),
        (0.1 * 10.0 ** (-4 * TIME), "log"),
        (np.where(TIME < 0.02, 0, 0.1 * 10.0 ** (-4 * TIME)), "log"),
        (np.array([0.1]), "linear"),
    ],
    ids=["constant", "zero", "cosine", "warm-up", "exponential", "from-zero", "one-step"],
)
def test_schedule_plot_contains_learning_rates(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, rates: np.ndarray, scale: str
) -> None:
    plot_schedule(rates, 20, tmp_path / "a.png", "spiral_mlp")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_yscale() == scale
    np.testing.assert_allclose(axes.lines[0].get_xdata(), np.arange(len(rates)) / 20)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), rates)


def test_schedule_plot_of_many_steps_is_thinned_and_keeps_both_ends(
    tmp_path: Path, figures: list[Figure]
) -> None:
    plot_schedule(np.linspace(1, 0.5, 1_000_000), 1000, tmp_path / "a.png", "t")
    line = figures[0].axes[0].lines[0]
    assert len(np.asarray(line.get_xdata())) <= 2000
    assert np.asarray(line.get_ydata())[[0, -1]].tolist() == [1, 0.5]


# confusion ----------------------------------------------------------------------------------------


def numbers_shown(axes: Axes, size: int) -> list[list[str]]:
    """Return the number in each cell of the matrix. Each digit is drawn separately."""
    cells: dict[tuple[int, int], list[tuple[float, str]]] = {}
    for collection in axes.collections:
        if len(label := str(collection.get_label())) == 1:
            for x, y in np.asarray(collection.get_offsets()):
                cells.setdefault((int(y), round(x)), []).append((x, label))
    return [
        ["".join(digit for _, digit in sorted(cells.get((i, j), []))) for j in range(size)]
        for i in range(size)
    ]


def bar_lengths(axes: Axes) -> np.ndarray:
    """Return the length of each accuracy bar relative to the grey bar behind it."""
    full, bars = (
        np.array([segment[1, 0] - segment[0, 0] for segment in collection.get_segments()])
        for collection in axes.collections
        if hasattr(collection, "get_segments")
    )
    return np.asarray(bars / full)


def test_confusion_matrix_contains_counts_and_accuracies(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    counts = np.array([[198, 2, 0], [11, 1189, 0], [0, 0, 0]])
    plot_confusion(counts, ["a", "b", "c"], tmp_path / "a.png", "spiral_mlp")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert numbers_shown(axes, 3) == [["198", "2", ""], ["11", "1189", ""], ["", "", ""]]
    np.testing.assert_allclose(bar_lengths(axes), [0.99, 1189 / 1200, 0])
    shown = texts(axes)
    assert {"99.0", "99.1", "n/a", "all", "a", "b", "c"} <= set(shown)
    assert texts(figures[0]) == ["spiral_mlp", "predicted class", "true class"]
    image = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(image[0] ** 2, [0.99, 0.01, 0])


def test_large_counts_of_confusion_matrix_are_percentages(
    tmp_path: Path, figures: list[Figure]
) -> None:
    plot_confusion(np.array([[9400, 600], [0, 10_000]]), ["a", "b"], tmp_path / "a.png", "t")
    assert numbers_shown(figures[0].axes[0], 2) == [["94", "6"], ["", "100"]]
    assert "predicted class (numbers: % of the true class)" in texts(figures[0])


@pytest.mark.parametrize("size", [2, 6, 20, 21, 100])
def test_confusion_matrix_of_few_or_many_classes_is_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, size: int
) -> None:
    draw = generator(0, "test")
    counts = draw.integers(0, 50, (size, size)) + 100 * np.eye(size, dtype=np.int64)
    names = [f"{NAMES[k % len(NAMES)]} {k}" for k in range(size)]
    plot_confusion(counts, names, tmp_path / "a.png", "t")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    digits = any(any(row) for row in numbers_shown(axes, size))
    assert digits == (size <= 20)
    named = [text for text in axes.texts if text.get_rotation() == 90 or text.get_ha() == "right"]
    assert len(named) <= 50


def test_dark_cells_of_confusion_matrix_have_white_numbers(
    tmp_path: Path, figures: list[Figure]
) -> None:
    plot_confusion(np.array([[1, 9], [5, 0]]), ["a", "b"], tmp_path / "a.png", "t")
    colours = {
        str(collection.get_label()): np.asarray(collection.get_facecolor())[0, :3].mean()
        for collection in figures[0].axes[0].collections
        if len(str(collection.get_label())) == 1
    }
    assert colours["9"] == 1
    assert colours["1"] < 0.2


# samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(16, 1, 28, 28), (14, 3, 32, 32), (1, 1, 8, 20), (3, 3, 300, 200), (20, 1, 4, 4)]
)
def test_samples_show_true_and_predicted_classes(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng, shape: tuple[int, ...]
) -> None:
    draw = generator(0, "test")
    images = draw.integers(0, 256, shape, dtype=np.uint8)
    labels = draw.integers(0, len(NAMES), shape[0])
    predictions = np.where(np.arange(shape[0]) % 3 == 0, (labels + 1) % len(NAMES), labels)
    plot_samples(images, labels, predictions, NAMES, tmp_path / "a.png")
    if shape[0] > 1:
        check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    count = min(16, shape[0])
    assert len(axes.images) == count
    wrong = [text for text in axes.texts if text.get_text().startswith("✗ ")]
    assert len(wrong) == sum(k % 3 == 0 for k in range(count))
    assert len(axes.texts) == count + len(wrong)
    frames = [line.get_linewidth() for line in axes.lines]
    assert [width > 2 for width in frames] == [k % 3 == 0 for k in range(count)]
    assert texts(figures[0]) == [f"{count - len(wrong)} of {count} test samples are right"]


def test_samples_are_upright_with_original_colours(tmp_path: Path, check_png: CheckPng) -> None:
    """The upper left quarter of each image is red; the rest is blue."""
    image = np.zeros((16, 3, 8, 8), dtype=np.uint8)
    image[:, 2] = 255
    image[:, :, :4, :4] = np.array([255, 0, 0], dtype=np.uint8)[None, :, None, None]
    labels = np.zeros(16, dtype=np.int64)
    plot_samples(image, labels, labels, ["a"], tmp_path / "a.png")
    pixels = check_png(tmp_path / "a.png").astype(int)
    red = np.argwhere((pixels == [255, 0, 0]).all(axis=2))
    blue = np.argwhere((pixels == [0, 0, 255]).all(axis=2))
    assert len(blue) / len(red) == pytest.approx(3, rel=0.1)
    assert (red.min(axis=0) <= blue.min(axis=0)).all()


def test_dark_grey_sample_stays_dark(tmp_path: Path, check_png: CheckPng) -> None:
    labels = np.zeros(16, dtype=np.int64)
    images = np.full((16, 1, 4, 4), 51, dtype=np.uint8)
    plot_samples(images, labels, labels, ["a"], tmp_path / "a.png")
    pixels = check_png(tmp_path / "a.png")
    assert (pixels == 51).all(axis=2).mean() > 0.3


# decision boundary --------------------------------------------------------------------------------


def right_of_zero(points: np.ndarray) -> np.ndarray:
    """Return logits that predict class 1 where the first feature is positive."""
    assert points.dtype == np.float32  # the dtype of the samples
    assert points.ndim == 2
    assert points.shape[1] == 2
    return np.column_stack([np.zeros(len(points)), 20 * points[:, 0]])


def test_decision_boundary_contains_regions_and_samples(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    points = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0.5, 0]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1, 0])
    plot_decision_boundary(right_of_zero, points, labels, ["a", "ключ"], tmp_path / "a.png", "t")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    image = np.asarray(axes.images[0].get_array())
    height, width, _ = image.shape
    blue, vermillion = style.rgb(style.BLUE), style.rgb(style.VERMILLION)
    np.testing.assert_allclose(
        image[:, 0] / 255, np.broadcast_to((1 + blue) / 2, (height, 3)), atol=0.01
    )
    np.testing.assert_allclose(image[5, -1] / 255, (1 + vermillion) / 2, atol=0.01)
    assert image[:, width // 2 - 1 : width // 2 + 1].min() > 200, (
        "the colours are not pale at the boundary"
    )
    first, second, rings = axes.lines
    assert np.asarray(first.get_xydata()).tolist() == points[labels == 0].tolist()
    assert np.asarray(second.get_xydata()).tolist() == points[labels == 1].tolist()
    assert np.asarray(rings.get_xydata()).tolist() == [[0.5, 0]]
    assert rings.get_label() == "wrong: 1 of 5"
    assert first.get_marker() != second.get_marker()
    assert axes.get_xlim()[0] < -1 < 1 < axes.get_xlim()[1]


def test_decision_boundary_is_upright(tmp_path: Path, figures: list[Figure]) -> None:
    def above_zero(points: np.ndarray) -> np.ndarray:
        return np.column_stack([np.zeros(len(points)), 20 * points[:, 1]])

    points = np.array([[-1, -1], [1, 1]], dtype=np.float32)
    plot_decision_boundary(
        above_zero, points, np.array([0, 1]), ["a", "b"], tmp_path / "a.png", "t"
    )
    (image,) = figures[0].axes[0].images
    assert image.origin == "lower"
    pixels = np.asarray(image.get_array())
    assert pixels[0, 0, 2] > pixels[0, 0, 0]  # the bottom is blue, the colour of class 0
    assert pixels[-1, 0, 0] > pixels[-1, 0, 2]


def test_decision_boundary_of_many_classes_and_points_is_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    draw = generator(0, "test")
    points, labels = draw.standard_normal((20_000, 2)), draw.integers(0, 100, 20_000)

    def diverged(points: np.ndarray) -> np.ndarray:
        return np.full((len(points), 100), np.nan)

    path = tmp_path / "a.png"
    plot_decision_boundary(diverged, points, labels, [f"arm {k}" for k in range(100)], path, "t")
    check_png(path)
    (axes,) = figures[0].axes
    assert sum(len(np.asarray(line.get_xdata())) for line in axes.lines[:-1]) <= 1500
    legend = axes.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 13
    styles = {(line.get_marker(), line.get_color()) for line in axes.lines[:88]}
    assert len(styles) == 88


def test_decision_boundary_of_one_point_is_drawn(tmp_path: Path, check_png: CheckPng) -> None:
    path = tmp_path / "a.png"
    plot_decision_boundary(
        right_of_zero, np.ones((1, 2), np.float32), np.array([1]), ["a", "b"], path, "t"
    )
    check_png(path)


# weights ------------------------------------------------------------------------------------------


def weights(layers: int, scale: float) -> dict[str, np.ndarray]:
    draw = generator(0, "test")
    arrays: dict[str, np.ndarray] = {}
    for k in range(layers):
        arrays[f"dense{k + 1}.weight"] = scale * draw.standard_normal((30, 20)).astype(np.float32)
        arrays[f"dense{k + 1}.bias"] = np.zeros(30, dtype=np.float32)
        arrays[f"norm{k + 1}.weight"] = np.ones(30, dtype=np.float32)
    return arrays


def test_weights_plot_contains_initial_and_trained_histograms(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    initial, final = weights(3, 1.0), weights(3, 2.0)
    plot_weight_histograms(initial, final, tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert len(figures[0].axes) == 3
    before, after = (arrays["dense2.weight"].std() for arrays in (initial, final))
    title = figures[0].axes[1].get_title(loc="left")
    assert title == f"dense2.weight\n30×20   std {before:.3g} → {after:.3g}"
    filled, outline = figures[0].axes[1].patches
    for patch in (filled, outline):
        assert patch.get_data().values.sum() == pytest.approx(1)  # type: ignore[attr-defined]
    widths = [np.ptp(np.flatnonzero(p.get_data().values)) for p in (filled, outline)]  # type: ignore[attr-defined]
    assert widths[0] > 1.5 * widths[1]


def test_weights_plot_of_more_than_12_tensors_is_thinned_evenly(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    plot_weight_histograms(weights(23, 1.0), weights(23, 2.0), tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert texts(figures[0]) == ["Weights by layer, 11 of 23 left out"]
    shown = [axes.get_title(loc="left").split(".")[0] for axes in figures[0].axes]
    assert shown == [f"dense{k}" for k in range(1, 24, 2)]
    boxes = [axes.get_position() for axes in figures[0].axes]
    assert all(not a.overlaps(b) for a, b in pairwise(boxes))


def test_weights_that_are_constant_new_or_not_finite_are_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    final = {
        "zero.weight": np.zeros((3, 3)),
        "nan.weight": np.full((3, 3), np.nan),
        "half.weight": np.array([[np.inf, 1.0], [2.0, np.nan]]),
        "conv.weight": np.ones((2, 3, 3, 3)) * 1e30,
        "empty.weight": np.ones((0, 3)),
    }
    plot_weight_histograms({"zero.weight": np.zeros((3, 3))}, final, tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert titles[0].endswith("std 0 → 0")
    assert titles[1].endswith("std n/a")
    assert titles[2].endswith("std 0.5")
    assert "2×3×3×3" in titles[3]


def test_weights_plot_of_a_network_with_only_biases_is_drawn(tmp_path: Path) -> None:
    plot_weight_histograms({}, {"dense.bias": np.zeros(3)}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()

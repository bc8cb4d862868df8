"""The pictures of training samples: images, points and histograms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnopt.plots.data import BINS, MAX_FEATURES, MAX_POINTS, plot_features, plot_images, plot_points

CheckPng = Callable[[Path], np.ndarray]


def test_images_are_drawn_in_order_with_their_names(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    names = [(f"class {n}",) for n in range(16)]
    mixed = [("0.70 a", "0.30 a very long name of a class") for _ in range(16)]
    grids = [("as in the files", images, names), ("augmented", 255 - images, mixed)]
    plot_images(grids, "shapes: 16 training images", tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    drawn = [np.asarray(image.get_array()) for image in axes.images]
    assert len(drawn) == 32
    for number in range(16):
        pixels = images[number].transpose(1, 2, 0)
        np.testing.assert_allclose(drawn[number], pixels / 255 if drawn[0].max() <= 1 else pixels)
    texts = [text.get_text() for text in axes.texts]
    assert texts[:17] == ["as in the files", *(name for (name,) in names)]
    assert texts[18] == "0.70 a\n0.30 a very long na…"


def test_few_images_need_fewer_rows(tmp_path: Path, figures: list[Figure]) -> None:
    for count, rows in ((3, 1), (5, 2), (16, 4)):
        images = np.zeros((count, 1, 4, 4), dtype=np.uint8)
        plot_images([("", images, [("a",)] * count)], "few", tmp_path / "a.png")
        tops = {round(image.get_extent()[3], 3) for image in figures[-1].axes[0].images}
        assert len(tops) == rows


def test_points_are_drawn_by_class(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    points = np.random.default_rng(0).normal(size=(30, 2))
    labels = np.arange(30) % 3
    names = ("length", "width")
    plot_points((points, labels), ("a", "b", "c"), names, "flowers", tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    for number, line in enumerate(axes.lines):
        np.testing.assert_array_equal(line.get_xydata(), points[labels == number])
    assert len({line.get_marker() for line in axes.lines}) == 3
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    seven = tuple("abcdefg")
    plot_points((points, np.arange(30) % 7), seven, names, "flowers", tmp_path / "b.png")
    assert len(figures[1].axes[0].lines) == 7
    assert figures[1].axes[0].get_legend() is not None


def test_many_points_and_classes_are_drawn_in_part_and_in_one_colour(
    tmp_path: Path, figures: list[Figure]
) -> None:
    points = np.random.default_rng(0).normal(size=(3 * MAX_POINTS, 2))
    labels = np.arange(len(points)) % 8
    plot_points((points, labels), tuple("abcdefgh"), ("x", "y"), "many", tmp_path / "a.png")
    (axes,) = figures[0].axes
    (line,) = axes.lines
    assert len(line.get_xdata()) == MAX_POINTS
    assert axes.get_legend() is None
    titles = [text.get_text() for text in figures[0].texts]
    assert f"many: {MAX_POINTS:,} of {3 * MAX_POINTS:,} training samples" in titles


def test_histogram_of_each_class_has_the_same_area(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 3))
    features[:, 2] = 5  # a constant feature
    labels = (np.arange(200) >= 150).astype(np.int64)
    names = ("length", "width", "constant")
    plot_features((features, labels), ("a", "b"), names, "flowers", tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert len(figures[0].axes) == 3
    for index, axes in enumerate(figures[0].axes):
        for number, line in enumerate(axes.lines):
            edges, heights = line.get_xdata()[1:], line.get_ydata()[1:-1]
            chosen = features[labels == number, index]
            np.testing.assert_allclose(heights, np.histogram(chosen, edges)[0] / len(chosen))
            assert heights.sum() == 1 or np.isclose(heights.sum(), 1)
            assert len(heights) == BINS
            assert (np.diff(edges) > 0).all()


def test_only_the_first_of_many_features_are_drawn(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    features = np.random.default_rng(0).normal(size=(50, MAX_FEATURES + 4))
    names = [f"column {n}" for n in range(MAX_FEATURES + 4)]
    classes = tuple("abcdefgh")
    plot_features((features, np.arange(50) % 8), classes, names, "wide", tmp_path / "a.png")
    check_png(tmp_path / "a.png")
    assert len(figures[0].axes) == MAX_FEATURES
    assert all(len(axes.lines) == 1 for axes in figures[0].axes)
    assert "wide: first 16 of 20 features of training samples" in [
        text.get_text() for text in figures[0].texts
    ]

"""The contents of the plots of pruning of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.plots.run.pruning import plot_kept, plot_mask

CheckPng = Callable[[Path], np.ndarray]

RNG = np.random.default_rng(7)


def test_kept_plot_has_a_bar_and_counts_for_each_layer(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    masks = {"conv1": np.arange(12).reshape(3, 4) < 3, "dense1": np.arange(2000) < 1999}
    plot_kept(masks, "weights", tmp_path / "kept.png")
    check_png(tmp_path / "kept.png")
    (axes,) = figures[0].axes
    kept = [bar.get_width() for bar in axes.containers[1]]  # type: ignore[attr-defined]
    assert_allclose(kept, [25, 99.95])
    assert [x.get_text() for x in axes.texts] == ["25 %   3 of 12", "100 %   1,999 of 2,000"]
    assert [x.get_text() for x in axes.get_yticklabels()] == ["conv1", "dense1"]
    assert [x.get_text() for x in figures[0].texts] == ["2,002 of 2,012 prunable weights kept"]


def test_mask_of_dense_layer_on_images_has_map_of_pixels_and_units(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    mask = RNG.random((40, 2 * 5 * 6)) < 0.3
    plot_mask(mask, (2, 5, 6), "dense1", tmp_path / "mask.png")
    check_png(tmp_path / "mask.png")
    canvas, usage, _ = figures[0].axes
    (image,) = usage.images
    assert_allclose(image.get_array(), mask.reshape(40, 2, 5, 6).mean(axis=(0, 1)))
    assert len(canvas.images) == 32
    assert_allclose(canvas.images[31].get_array(), mask[31].reshape(2, 5, 6).mean(axis=0))
    title, note = (text.get_text() for text in figures[0].texts)
    assert title == f"dense1: {100 * mask.mean():.3g} % of 2,400 weights kept"
    assert note.startswith("masks of the first 32 of 40 units; black: kept, grey: kept for some")


def test_mask_of_convolution_has_an_image_for_each_filter(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    mask = RNG.random((9, 1, 3, 3)) < 0.5
    plot_mask(mask, (1, 8, 8), "conv1", tmp_path / "mask.png")
    check_png(tmp_path / "mask.png")
    (canvas,) = figures[0].axes
    assert len(canvas.images) == 9
    for image, kernel in zip(canvas.images, mask[:, 0], strict=True):
        assert_array_equal(image.get_array(), kernel)
    assert figures[0].texts[1].get_text() == "masks of all 9 filters; black: kept"


def test_mask_of_layer_on_features_is_one_image(
    tmp_path: Path, figures: list[Figure], check_png: CheckPng
) -> None:
    """A large mask is averaged over groups of units and inputs."""
    mask = RNG.random((600, 20)) < 0.5
    plot_mask(mask, (20,), "dense1", tmp_path / "mask.png")
    check_png(tmp_path / "mask.png")
    (image,) = figures[0].axes[0].images
    cells = np.asarray(image.get_array())
    assert cells.shape == (256, 20)
    assert_allclose(cells[0], mask[:3].mean(axis=0))
    assert_allclose(image.get_extent(), (0, 20, 600, 0))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.data.batches import crop_indices, draw_crops, epoch_order


@given(count=st.integers(1, 200), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epoch_sees_each_sample_once(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(seed, epoch, count)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(count))
    assert np.array_equal(order, epoch_order(seed, epoch, count))


def test_orders_differ_by_epoch_and_by_seed() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed in range(3) for epoch in range(3)]
    assert len({order.tobytes() for order in orders}) == 9


def cut_out_by_loops(
    images: np.ndarray, crop: int, top: np.ndarray, left: np.ndarray, flip: np.ndarray
) -> np.ndarray:
    """Pixel by pixel: what a crop of the zero-padded image, then mirrored, shows."""
    n, channels, height, width = images.shape
    result = np.zeros_like(images)
    for i in range(n):
        for c in range(channels):
            for h in range(height):
                for w in range(width):
                    row = top[i] + h - crop
                    column = left[i] + (width - 1 - w if flip[i] else w) - crop
                    if 0 <= row < height and 0 <= column < width:
                        result[i, c, h, w] = images[i, c, row, column]
    return result


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 4),
    channels=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    crop=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_crops_agree_with_loops(
    n: int, channels: int, height: int, width: int, crop: int, flip: bool, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(1, 256, (n, channels, height, width), np.uint8)
    crops = draw_crops(seed, 0, n, crop, flip)
    if crops is None:
        assert crop == 0
        assert not flip
        return
    rows, columns = crop_indices(crops.top, crops.left, crops.flip, height, width)
    assert rows.shape == (n, height, 1)
    assert columns.shape == (n, 1, width)
    padded = np.pad(images, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
    i, c = np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None]
    found = padded[i, c, rows[:, None], columns[:, None]]
    assert np.array_equal(found, cut_out_by_loops(images, crop, crops.top, crops.left, crops.flip))


def test_crops_use_the_whole_range_and_flip_half() -> None:
    crops = draw_crops(0, 0, 10_000, crop=2, flip=True)
    assert crops is not None
    assert set(crops.top) == set(crops.left) == {0, 1, 2, 3, 4}
    assert crops.flip.dtype == np.bool_
    assert 0.48 < crops.flip.mean() < 0.52
    assert abs(np.corrcoef(crops.top, crops.left)[0, 1]) < 0.05


def test_crop_and_flip_do_not_change_each_others_draws() -> None:
    both, crop, flip = (
        draw_crops(1, 2, 50, *options) for options in ((2, True), (2, False), (0, True))
    )
    assert both is not None
    assert crop is not None
    assert flip is not None
    assert np.array_equal(both.top, crop.top)
    assert np.array_equal(both.flip, flip.flip)
    assert not crop.flip.any()
    assert not flip.top.any()
    other = draw_crops(1, 3, 50, 2, True)
    assert other is not None
    assert not np.array_equal(both.top, other.top)


def test_nothing_to_draw_when_off() -> None:
    assert draw_crops(0, 0, 10, crop=0, flip=False) is None


@pytest.mark.parametrize("count", [1, 7])
def test_without_padding_crops_change_nothing(count: int) -> None:
    crops = draw_crops(0, 0, count, crop=0, flip=True)
    assert crops is not None
    assert not crops.top.any()
    assert not crops.left.any()

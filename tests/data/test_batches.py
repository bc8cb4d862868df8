"""The order of samples, micro-batches, and random augmentations."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.data.batches import (
    Augmentation,
    batch_parts,
    crop_indices,
    draw_augmentation,
    draw_crops,
    draw_cutmix,
    draw_either,
    draw_mixup,
    draw_squares,
    epoch_order,
    hidden_pixels,
)
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.schema import Config


@given(count=st.integers(1, 200), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_epoch_order_contains_each_sample_once(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(seed, epoch, count)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(count))
    assert np.array_equal(order, epoch_order(seed, epoch, count))


def test_epoch_order_depends_on_epoch_and_seed() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed in range(3) for epoch in range(3)]
    assert len({order.tobytes() for order in orders}) == 9


@given(
    count=st.integers(1, 60), batch_size=st.integers(1, 60), accumulation_steps=st.integers(1, 60)
)
def test_micro_batches_cover_the_batch(
    count: int, batch_size: int, accumulation_steps: int
) -> None:
    parts = batch_parts(count, batch_size, accumulation_steps)
    assert np.concatenate([np.arange(60)[part] for part in parts]).tolist() == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    largest = -(-batch_size // accumulation_steps)
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1
    assert (len(parts) - 1) * largest < count  # no more parts than necessary
    if count <= batch_size:
        assert len(parts) <= accumulation_steps  # no more parts than configured
    if batch_size % accumulation_steps == 0 == count - batch_size:
        assert sizes == [batch_size // accumulation_steps] * accumulation_steps


def cut_out_by_loops(
    images: np.ndarray, crop: int, top: np.ndarray, left: np.ndarray, flip: np.ndarray
) -> np.ndarray:
    """Pad each image with ``crop`` zeros per side, and cut it to its size at (top, left).

    Images whose ``flip`` is True are mirrored after that.
    """
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
def test_crop_indices_give_the_same_crops_as_loops(
    n: int, channels: int, height: int, width: int, crop: int, flip: bool, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(1, 256, (n, channels, height, width), np.uint8)
    crops = draw_crops(seed, 0, n, crop, flip)
    if crops is None:
        assert crop == 0
        assert not flip
        return
    rows, columns = crop_indices(
        crops.top, crops.left, crops.flip, np.arange(height), np.arange(width)
    )
    assert rows.shape == (n, height, 1)
    assert columns.shape == (n, 1, width)
    padded = np.pad(images, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
    i, c = np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None]
    found = padded[i, c, rows[:, None], columns[:, None]]
    assert np.array_equal(found, cut_out_by_loops(images, crop, crops.top, crops.left, crops.flip))


def test_drawn_crops_use_all_offsets_and_flip_half_of_the_images() -> None:
    crops = draw_crops(0, 0, 10_000, crop=2, flip=True)
    assert crops is not None
    assert set(crops.top) == set(crops.left) == {0, 1, 2, 3, 4}
    assert crops.flip.dtype == np.bool_
    assert 0.48 < crops.flip.mean() < 0.52
    assert abs(np.corrcoef(crops.top, crops.left)[0, 1]) < 0.05


def test_drawing_flips_changes_no_offset_and_drawing_offsets_changes_no_flip() -> None:
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


def test_no_crops_are_drawn_if_crop_and_flip_are_off() -> None:
    assert draw_crops(0, 0, 10, crop=0, flip=False) is None


@pytest.mark.parametrize("count", [1, 7])
def test_crops_without_padding_have_zero_offsets(count: int) -> None:
    crops = draw_crops(0, 0, count, crop=0, flip=True)
    assert crops is not None
    assert not crops.top.any()
    assert not crops.left.any()


@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    side=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_hidden_pixels_are_the_same_as_with_loops(
    height: int, width: int, side: int, seed: int
) -> None:
    squares = draw_squares(seed, 0, 5, side, height, width)
    hidden = hidden_pixels(squares.row, squares.column, side, np.arange(height), np.arange(width))
    assert hidden.shape == (5, 1, height, width)
    for n in range(5):
        top, left = squares.row[n] - side // 2, squares.column[n] - side // 2
        for h in range(height):
            for w in range(width):
                inside = top <= h < top + side and left <= w < left + side
                assert hidden[n, 0, h, w] == inside
        assert hidden[n, 0, squares.row[n], squares.column[n]]


def test_centre_of_a_drawn_square_can_be_any_pixel() -> None:
    squares = draw_squares(0, 0, 10_000, 2, 3, 4)
    where, times = np.unique(squares.row * 4 + squares.column, return_counts=True)
    assert list(where) == list(range(12))
    assert times.min() > 700
    other = draw_squares(0, 1, 10_000, 2, 3, 4)
    assert not np.array_equal(squares.row, other.row)


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    alpha=st.sampled_from([1e-300, 1e-3, 0.2, 1.0, 8.0, 1000.0]),
    seed=st.integers(0, 1000),
)
def test_mixup_partners_permute_each_batch_and_weights_sum_to_one(
    count: int, batch_size: int, alpha: float, seed: int
) -> None:
    mixing = draw_mixup(seed, 3, count, batch_size, alpha, classes=4)
    assert len(mixing.weight) == -(-count // batch_size)
    for start in range(0, count, batch_size):
        partner = mixing.partner[start : start + batch_size]
        assert sorted(partner) == list(range(len(partner)))
    assert (mixing.weight >= 0).all()
    assert (mixing.weight <= 1).all()
    for dtype in (np.float32, np.float64):  # λ and 1 - λ are exact in both types
        weight, other = mixing.weight.astype(dtype), (1 - mixing.weight).astype(dtype)
        assert (weight == mixing.weight).all()
        assert (weight + other == 1).all()
    again = draw_mixup(seed, 3, count, batch_size, alpha, classes=4)
    assert np.array_equal(mixing.weight, again.weight)
    assert np.array_equal(mixing.partner, again.partner)


def test_mixup_weights_have_the_beta_distribution() -> None:
    for alpha in (0.2, 1.0, 5.0):
        weight = draw_mixup(0, 0, 20_000, 1, alpha, classes=2).weight
        assert abs(weight.mean() - 0.5) < 0.01
        assert weight.var() == pytest.approx(1 / (8 * alpha + 4), rel=0.03)


def test_mixup_partners_do_not_depend_on_alpha() -> None:
    first, second = (draw_mixup(0, 0, 50, 8, alpha, classes=2) for alpha in (0.2, 2.0))
    assert np.array_equal(first.partner, second.partner)
    assert not np.array_equal(first.weight, second.weight)
    assert not np.array_equal(first.partner, draw_mixup(0, 1, 50, 8, 0.2, classes=2).partner)


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    alpha=st.sampled_from([1e-300, 1e-3, 1.0, 1000.0]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_cutmix_weight_is_the_fraction_outside_of_the_box(
    count: int, batch_size: int, alpha: float, height: int, width: int, seed: int
) -> None:
    mixing = draw_cutmix(seed, 3, count, batch_size, alpha, 4, height, width)
    assert len(mixing.weight) == len(mixing.boxes) == -(-count // batch_size)
    for start in range(0, count, batch_size):
        partner = mixing.partner[start : start + batch_size]
        assert sorted(partner) == list(range(len(partner)))
    for weight, box in zip(mixing.weight, mixing.boxes, strict=True):
        shown = np.ones((height, width))
        assert box is not None
        shown[box] = 0
        assert abs(weight - shown.mean()) <= 2**-25
        for dtype in (np.float32, np.float64):
            assert dtype(weight) + dtype(1 - weight) == 1
            assert dtype(weight) == weight


@pytest.mark.parametrize(("alpha", "side"), [(1.0, 2 / 3), (1000.0, 0.5**0.5)])
def test_cutmix_boxes_have_the_distribution_of_the_paper(alpha: float, side: float) -> None:
    """Compare with expected values. The image has side 1, and a box has side s = √(1 - λ).

    ``side`` is the mean of s. The centre c of a box is uniform in 0..1. The box touches the edge at
    0 if c < s / 2, which has the probability side / 2. It begins at max(c - s / 2, 0), which has
    the mean E[(1 - s / 2)²] / 2.
    """
    mixing = draw_cutmix(0, 0, 20_000, 1, alpha, 2, 1000, 500)
    edges = np.array([(b[0].start, b[0].stop, b[1].start, b[1].stop) for b in mixing.boxes if b])
    top, bottom, left, right = edges.T / np.array([[1000, 1000, 500, 500]]).T
    for start, stop in ((top, bottom), (left, right)):
        assert np.mean(start == 0) == pytest.approx(side / 2, abs=0.015)
        assert np.mean(stop == 1) == pytest.approx(side / 2, abs=0.015)
        begins = (1 - side + 0.5 / 4) / 2  # E[s²] = E[1 - λ] = 0.5
        assert start.mean() == pytest.approx(begins, abs=0.01)
    whole = (edges > 0).all(axis=1) & (edges < (1000, 1000, 500, 500)).all(axis=1)
    assert abs((bottom - top) - (right - left))[whole].max() <= 0.0016  # rounding to pixels
    assert abs(np.corrcoef(top + bottom, left + right)[0, 1]) < 0.03


def test_cutmix_partners_do_not_depend_on_alpha() -> None:
    first, second = (draw_cutmix(0, 0, 50, 8, alpha, 2, 99, 99) for alpha in (0.2, 2.0))
    assert np.array_equal(first.partner, second.partner)
    assert not np.array_equal(first.weight, second.weight)
    partners = draw_mixup(0, 0, 50, 8, 0.2, classes=2).partner
    assert not np.array_equal(first.partner, partners)


def test_each_batch_has_either_mixup_or_cutmix() -> None:
    """Of 10,000 batches, 5,000 ± 200 (four standard deviations) have mixup."""
    mixup = draw_mixup(0, 0, 29_999, 3, 1.0, 2)
    cutmix = draw_cutmix(0, 0, 29_999, 3, 1.0, 2, 6, 5)
    both = draw_either(0, 0, 29_999, 3, mixup, cutmix)
    blended = np.array([box is None for box in both.boxes])
    assert abs(blended.mean() - 0.5) < 0.02
    for batch, is_mixup in enumerate(blended):
        source, window = mixup if is_mixup else cutmix, slice(3 * batch, 3 * batch + 3)
        assert both.weight[batch] == source.weight[batch]
        assert both.boxes[batch] == source.boxes[batch]
        assert both.partner[window].tolist() == source.partner[window].tolist()
    other = draw_either(0, 1, 29_999, 3, mixup, cutmix)
    assert 0.48 < np.mean([box is None for box in other.boxes] == blended) < 0.52


def images() -> Dataset:
    part = Part(np.zeros((30, 1, 6, 5), np.uint8), np.zeros(30, np.int64), np.arange(30))
    return Dataset("test", ("a", "b", "c"), part, None, part, Normalization(*np.ones((2, 1))), {})


def test_augmentation_without_settings_is_empty(
    make_config: Callable[..., Config],
) -> None:
    assert draw_augmentation(make_config(), images(), 1, 30) == Augmentation()


@given(seed=st.integers(0, 99), epoch=st.integers(1, 99))
@settings(max_examples=20)
def test_drawn_augmentations_are_repeatable_and_do_not_depend_on_each_other(
    make_config: Callable[..., Config], seed: int, epoch: int
) -> None:
    def draw(**chosen: Any) -> Augmentation:
        changes = {f"regularizer.augmentation.{key}": value for key, value in chosen.items()}
        config = make_config(seed=seed, batch_size=4, **changes)
        return draw_augmentation(config, images(), epoch, 30)

    kinds: list[dict[str, Any]] = [
        {"crop": 2, "flip": True},
        {"policy": "trivial_augment"},
        {"cutout": 3},
        {"mixup": 0.4},
        {"cutmix": 1.0},
    ]
    crops, policy, squares, mixup, cutmix = (draw(**chosen) for chosen in kinds)
    everything, again = (draw(**dict(ChainMap(*kinds))) for _ in range(2))
    assert repr(everything) == repr(again)
    assert mixup.mixing is not None
    assert cutmix.mixing is not None
    mixing = draw_either(seed, epoch, 30, 4, mixup.mixing, cutmix.mixing)
    parts = crops.crops, policy.policy, squares.squares, mixing
    assert repr(everything) == repr(Augmentation(*parts))
    assert mixing.classes == 3

"""Batches of the NumPy loader: the selected rows, crops and normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.backends.numpy import loader as loader_file
from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.data.batches import PLAIN, Augmentation, Crops
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

ROWS = np.array([1, 2, 4, 5, 7, 8, 10])


def image_part(shape: tuple[int, ...] = (2, 5, 4)) -> Part:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (12, *shape), dtype=np.uint8)
    inputs.setflags(write=False)
    return Part(inputs, rng.integers(0, 3, 12), ROWS)


def scaling(width: int) -> Normalization:
    return Normalization(np.linspace(0.5, 2, width), np.linspace(-1, 1, width))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_batches_are_normalized_rows_in_order(make_config: MakeConfig, dtype: Any) -> None:
    part, norm = image_part(), scaling(2)
    loader = NumpyLoader(part, norm, make_config(**{"backend.dtype": dtype}))
    order = np.array([6, 0, 3, 2, 5, 1, 4])
    inputs, labels = [], []
    for x, y in loader.train_batches(order, 3, PLAIN):
        assert x.dtype == dtype
        inputs.append(x.copy())
        labels.append(y)
    assert [len(x) for x in inputs] == [3, 3, 1]
    scale, shift = norm.scale.reshape(2, 1, 1), norm.shift.reshape(2, 1, 1)
    expected = part.inputs[ROWS[order]] * scale + shift
    assert_allclose(np.concatenate(inputs), expected, rtol=1e-5)
    assert_array_equal(np.concatenate(labels), part.labels[ROWS[order]])


def test_evaluation_batches_of_any_size_have_the_order_of_the_data(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, norm = image_part(), scaling(2)
    loader = NumpyLoader(part, norm, make_config(**{"backend.dtype": "float64"}))
    whole = np.concatenate([x.copy() for x in loader.evaluation_batches()])
    monkeypatch.setattr(loader_file, "EVALUATION_BATCH_SIZE", 3)
    pieces = [x.copy() for x in loader.evaluation_batches()]
    assert [len(x) for x in pieces] == [3, 3, 1]
    assert_array_equal(np.concatenate(pieces), whole)


def test_float64_loader_accepts_float32_features(make_config: MakeConfig) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((12, 3)).astype(np.float32)
    part = Part(values, np.zeros(12, np.int64), ROWS)
    loader = NumpyLoader(part, scaling(3), make_config(**{"backend.dtype": "float64"}))
    (x,) = loader.evaluation_batches()
    assert_allclose(x, values[ROWS] * scaling(3).scale + scaling(3).shift, rtol=1e-6)


def test_crops_and_flips_equal_padding_and_slicing(make_config: MakeConfig) -> None:
    part, crop = image_part(), 2
    config = make_config(
        **{
            "backend.dtype": "float64",
            "regularizer.augmentation.crop": crop,
            "regularizer.augmentation.flip": True,
        }
    )
    rng = np.random.default_rng(2)
    n = len(ROWS)
    crops = Crops(rng.integers(0, 5, n), rng.integers(0, 5, n), rng.random(n) < 0.5)
    loader = NumpyLoader(part, Normalization(np.ones(2), np.zeros(2)), config)
    order = np.arange(n)[::-1].copy()
    batches = [x.copy() for x, _ in loader.train_batches(order, 3, Augmentation(crops))]
    for position, image in enumerate(np.concatenate(batches)):
        source = np.pad(part.inputs[ROWS[order[position]]], ((0, 0), (crop, crop), (crop, crop)))
        top, left = crops.top[position], crops.left[position]
        expected = source[:, top : top + 5, left : left + 4]
        if crops.flip[position]:
            expected = expected[:, :, ::-1]
        assert_array_equal(image, expected)


def test_loader_reuses_its_arrays(make_config: MakeConfig) -> None:
    loader = NumpyLoader(image_part(), scaling(2), make_config())
    order = np.arange(len(ROWS))
    first = [id(x) for x, _ in loader.train_batches(order, 3, PLAIN)]
    again = [id(x) for x, _ in loader.train_batches(order, 3, PLAIN)]
    assert first == again
    assert first[0] == first[1] != first[2]

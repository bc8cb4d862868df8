"""Batches of the PyTorch loader, compared with explicit indexing in NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.backends.torch import build_loader
from nnopt.backends.torch import loader as loader_file
from nnopt.backends.torch.loader import TorchLoader
from nnopt.data.batches import PLAIN, Augmentation, Crops, draw_crops
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

SCALE = Normalization(np.array([0.5, 0.25, 2.0]), np.array([-1.0, 0.0, 3.0]))


def images(count: int = 23, seed: int = 0) -> Part:
    """Return a part of a dataset: every other image of an array."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (2 * count, 3, 5, 4), dtype=np.uint8)
    return Part(inputs, rng.integers(0, 7, 2 * count), np.arange(1, 2 * count, 2))


def float64_loader(make_config: MakeConfig, part: Part, **changes: Any) -> TorchLoader:
    config = make_config(backend="torch", **{"backend.dtype": "float64"} | changes)
    return build_loader(part, SCALE, config)


def normalized(raw: np.ndarray) -> np.ndarray:
    axes = (1,) * (raw.ndim - 2)
    return raw * SCALE.scale.reshape(-1, *axes) + SCALE.shift.reshape(-1, *axes)


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 30), chunk_bytes=st.integers(1, 40_000), seed=st.integers(0, 99))
def test_training_batches_follow_the_order(
    make_config: MakeConfig, batch: int, chunk_bytes: int, seed: int
) -> None:
    part = images()
    order = np.random.default_rng(seed).permutation(len(part))[: len(part) - seed % 5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_file, "CPU_CHUNK_BYTES", chunk_bytes)
        loader = float64_loader(make_config, part)
    batches = list(loader.train_batches(order, batch, PLAIN))
    assert [len(y) for _, y in batches[:-1]] == [batch] * (len(batches) - 1)
    assert_array_equal(torch.cat([x for x, _ in batches]), normalized(part.inputs[2 * order + 1]))
    assert_array_equal(torch.cat([y for _, y in batches]), part.labels[2 * order + 1])
    assert batches[0][1].dtype == torch.int64


def test_evaluation_batches_keep_the_order(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_file, "EVALUATION_BYTES", 10 * 60 * 8 + 1)
    part = images()
    batches = list(float64_loader(make_config, part).evaluation_batches())
    assert [len(x) for x in batches] == [10, 10, 3]
    assert_array_equal(torch.cat(batches), normalized(part.inputs[part.rows]))


def test_features_are_scaled_per_column_and_data_are_unchanged(make_config: MakeConfig) -> None:
    inputs = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    inputs.setflags(write=False)
    kept = inputs.copy()
    part = Part(inputs, np.zeros(9, np.int64), np.arange(9))
    for dtype in ("float32", "float64"):
        loader = float64_loader(make_config, part, **{"backend.dtype": dtype})
        (x, _), *_ = loader.train_batches(np.arange(9), 9, PLAIN)
        (again,) = loader.evaluation_batches()
        assert x.dtype == getattr(torch, dtype)
        assert_allclose(x, normalized(kept), rtol=1e-6)
        assert torch.equal(x, again)
    assert_array_equal(inputs, kept)


def test_memory_map_is_not_copied_and_gives_no_warning(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    part = images()
    np.save(tmp_path / "x.npy", part.inputs)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = float64_loader(make_config, Part(mapped, part.labels, part.rows))
    assert loader._inputs.data_ptr() == mapped.ctypes.data
    (x,) = loader.evaluation_batches()
    assert_array_equal(x, normalized(part.inputs[part.rows]))


def cut_out(image: np.ndarray, top: int, left: int, flip: bool, pad: int) -> np.ndarray:
    """Return one cropped and flipped image, computed pixel by pixel."""
    channels, height, width = image.shape
    cut = np.zeros_like(image)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                source_i = top + i - pad
                source_j = left + (width - 1 - j if flip else j) - pad
                if 0 <= source_i < height and 0 <= source_j < width:
                    cut[c, i, j] = image[c, source_i, source_j]
    return cut


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (3, False), (0, True)])
def test_crops_equal_padding_and_slicing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, pad: int, flip: bool
) -> None:
    monkeypatch.setattr(loader_file, "CPU_CHUNK_BYTES", 8 * 60 * 8)
    part = images()
    order = np.random.default_rng(1).permutation(len(part))
    crops = draw_crops(0, 1, len(part), pad, flip)
    assert isinstance(crops, Crops)
    changes = {"regularizer.augmentation.crop": pad, "regularizer.augmentation.flip": flip}
    loader = float64_loader(make_config, part, **changes)
    found = torch.cat([x for x, _ in loader.train_batches(order, 4, Augmentation(crops))])
    moves = zip(crops.top, crops.left, crops.flip, strict=True)
    raw = [
        cut_out(part.inputs[part.rows[k]], top, left, mirrored, pad)
        for k, (top, left, mirrored) in zip(order, moves, strict=True)
    ]
    assert_array_equal(found, normalized(np.stack(raw)))

"""Both loaders return the same bits for images and features, with and without augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.backends import load_backend
from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.backends.protocol import Loader
from nnopt.backends.torch import loader as torch_loader_file
from nnopt.data.batches import Augmentation, draw_augmentation, epoch_order, hidden_pixels
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

COUNT, BATCH = 31, 8

ALL = {"crop": 2, "flip": True, "cutout": 4, "mixup": 1.0, "cutmix": 1.0}
"""All augmentations that both backends have."""


def make_dataset(shape: tuple[int, ...]) -> Dataset:
    rng = np.random.default_rng(0)
    if len(shape) == 1:
        inputs = rng.standard_normal((50, *shape)).astype(np.float32)
    else:
        inputs = rng.integers(0, 256, (50, *shape), dtype=np.uint8)
    part = Part(inputs, rng.integers(0, 4, 50), np.sort(rng.permutation(50)[:COUNT]))
    scaling = Normalization(rng.random(shape[0]), rng.standard_normal(shape[0]))
    return Dataset("test", tuple("abcd"), part, None, part, scaling, {})


def make_loader(
    make_config: MakeConfig, backend: str, dataset: Dataset, dtype: str = "float64", crop: int = 0
) -> Loader:
    changes = {"backend.dtype": dtype, "regularizer.augmentation.crop": crop}
    config = make_config(backend=backend, **changes)
    return load_backend(backend).build_loader(dataset.train, dataset.normalization, config)


def whole_epoch(loader: Loader, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Return copies of the inputs and labels of an epoch, because NumPy's loader reuses arrays."""
    batches = [
        (np.asarray(x).copy(), np.asarray(y))
        for x, y in loader.train_batches(epoch_order(0, 1, COUNT), BATCH, augmentation)
    ]
    assert [len(y) for _, y in batches] == [8, 8, 8, 7]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chunk_bytes", [1, 2**20], ids=["batch by batch", "in one chunk"])
@pytest.mark.parametrize(
    ("chosen", "shape"),
    [
        ({}, (3, 6, 5)),
        ({"crop": 2, "flip": True}, (3, 6, 5)),
        ({"crop": 1}, (1, 4, 4)),
        ({"cutout": 3}, (3, 6, 5)),
        ({"mixup": 0.4}, (3, 6, 5)),
        ({"cutmix": 1.0}, (3, 6, 5)),
        (ALL, (3, 6, 5)),
        ({}, (3,)),
        ({"mixup": 0.4}, (3,)),
    ],
    ids=str,
)
def test_batches_agree_between_backends(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    chunk_bytes: int,
    chosen: dict[str, Any],
    shape: tuple[int, ...],
) -> None:
    monkeypatch.setattr(torch_loader_file, "CPU_CHUNK_BYTES", chunk_bytes)
    dataset = make_dataset(shape)
    augmentation = drawn(make_config, dataset, **chosen)
    crop = chosen.get("crop", 0)
    loader, torch_loader = (
        make_loader(make_config, name, dataset, dtype, crop) for name in ("numpy", "torch")
    )
    x, y = whole_epoch(loader, augmentation)
    torch_x, torch_y = whole_epoch(torch_loader, augmentation)
    assert x.dtype == torch_x.dtype == dtype
    assert y.dtype == torch_y.dtype == (dtype if augmentation.mixing else np.int64)
    assert_array_equal(torch_x, x)
    assert_array_equal(torch_y, y)
    # The loaders may choose different sizes of evaluation batches.
    evaluation = np.concatenate([x.copy() for x in loader.evaluation_batches()])
    assert_array_equal(torch.cat(list(torch_loader.evaluation_batches())), evaluation)


def drawn(make_config: MakeConfig, dataset: Dataset, **chosen: Any) -> Augmentation:
    changes = {f"regularizer.augmentation.{key}": value for key, value in chosen.items()}
    config = make_config(batch_size=BATCH, **changes)
    return draw_augmentation(config, dataset, 1, COUNT)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("batches_per_chunk", [1, 2, 99])
@pytest.mark.parametrize(
    ("backend", "chosen", "shape"),
    [
        *((backend, {}, (3,)) for backend in ("numpy", "torch")),
        *((backend, ALL, (3, 6, 5)) for backend in ("numpy", "torch")),
        ("torch", ALL | {"policy": "rand_augment"}, (3, 6, 5)),
    ],
    ids=["numpy", "torch", "numpy-augmented", "torch-augmented", "torch-policy"],
)
def test_epoch_started_at_a_later_batch_has_the_remaining_batches_of_the_epoch(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    chosen: dict[str, Any],
    shape: tuple[int, ...],
    batches_per_chunk: int,
    first: int,
) -> None:
    for name in ("CPU_CHUNK_BYTES", "CPU_POLICY_CHUNK_BYTES"):
        monkeypatch.setattr(
            torch_loader_file, name, batches_per_chunk * BATCH * int(np.prod(shape)) * 4
        )
    changes = {f"regularizer.augmentation.{key}": value for key, value in chosen.items()}
    config = make_config(backend=backend, batch_size=BATCH, **changes)
    dataset = make_dataset(shape)
    build = load_backend(backend).build_loader
    augmentation, order = draw_augmentation(config, dataset, 1, COUNT), epoch_order(0, 1, COUNT)

    def batches(first: int) -> list[tuple[Any, Any]]:
        loader = build(dataset.train, dataset.normalization, config)
        found = loader.train_batches(order, BATCH, augmentation, first)
        return [(np.asarray(x).copy(), np.asarray(y).copy()) for x, y in found]

    whole, later = batches(0), batches(first)
    assert len(later) == 4 - first
    for pair, expected in zip(later, whole[first:], strict=True):
        assert_array_equal(pair[0], expected[0], strict=True)
        assert_array_equal(pair[1], expected[1], strict=True)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_cutout_hides_only_a_square(make_config: MakeConfig, backend: str, side: int) -> None:
    dataset = make_dataset((3, 6, 5))
    loader = make_loader(make_config, backend, dataset)
    plain, _ = whole_epoch(loader, Augmentation())
    augmentation = drawn(make_config, dataset, cutout=side)
    squares = augmentation.squares
    assert squares is not None
    actual, _ = whole_epoch(loader, augmentation)
    for image, original, row, column in zip(
        actual, plain, squares.row, squares.column, strict=True
    ):
        top, left = row - side // 2, column - side // 2
        expected = original.copy()
        expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        assert_array_equal(image, expected)
    hidden = hidden_pixels(squares.row, squares.column, side, np.arange(6), np.arange(5))
    assert ((actual == 0) == hidden).all()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [(3, 6, 5), (3,)])
def test_mixup_equals_formula(
    make_config: MakeConfig, backend: str, shape: tuple[int, ...]
) -> None:
    dataset = make_dataset(shape)
    loader = make_loader(make_config, backend, dataset)
    plain, labels = whole_epoch(loader, Augmentation())
    augmentation = drawn(make_config, dataset, mixup=1.0)
    mixing = augmentation.mixing
    assert mixing is not None
    actual, targets = whole_epoch(loader, augmentation)
    assert targets.shape == (COUNT, 4)
    assert_array_equal(targets.sum(axis=1), 1)
    for i in range(COUNT):
        weight = mixing.weight[i // BATCH]
        j = i // BATCH * BATCH + mixing.partner[i]
        assert_allclose(actual[i], weight * plain[i] + (1 - weight) * plain[j], rtol=1e-13)
        expected = weight * np.eye(4)[labels[i]] + (1 - weight) * np.eye(4)[labels[j]]
        assert_array_equal(targets[i], expected)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("mixup", [0.0, 1.0], ids=["alone", "with mixup"])
def test_cutmix_equals_formula(make_config: MakeConfig, backend: str, mixup: float) -> None:
    """With mixup, some batches are blended by mixup instead of cutmix."""
    dataset = make_dataset((3, 6, 5))
    loader = make_loader(make_config, backend, dataset)
    plain, labels = whole_epoch(loader, Augmentation())
    augmentation = drawn(make_config, dataset, cutmix=1.0, mixup=mixup)
    mixing = augmentation.mixing
    assert mixing is not None
    assert any(box is None for box in mixing.boxes) == bool(mixup)
    actual, targets = whole_epoch(loader, augmentation)
    for i in range(COUNT):
        weight, box = mixing.weight[i // BATCH], mixing.boxes[i // BATCH]
        j = i // BATCH * BATCH + mixing.partner[i]
        if box is None:
            assert_allclose(actual[i], weight * plain[i] + (1 - weight) * plain[j], rtol=1e-13)
            continue
        for row in range(6):
            for column in range(5):
                inside = box[0].start <= row < box[0].stop and box[1].start <= column < box[1].stop
                source = plain[j if inside else i]
                assert_array_equal(actual[i, :, row, column], source[:, row, column])
        expected = weight * np.eye(4)[labels[i]] + (1 - weight) * np.eye(4)[labels[j]]
        assert_array_equal(targets[i], expected)
    areas = {(b[0].stop - b[0].start) * (b[1].stop - b[1].start) for b in mixing.boxes if b}
    assert areas - {0, 30}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_augmentation_does_not_change_the_data(make_config: MakeConfig, backend: str) -> None:
    for shape in ((3, 6, 5), (3,)):
        dataset = make_dataset(shape)
        before = dataset.train.inputs.copy()
        loader = make_loader(make_config, backend, dataset)
        plain = whole_epoch(loader, Augmentation())
        everything = {"cutout": 3, "mixup": 0.4, "cutmix": 1.0, "flip": True}
        chosen = {"mixup": 0.4} if len(shape) == 1 else everything
        whole_epoch(loader, drawn(make_config, dataset, **chosen))
        assert_array_equal(dataset.train.inputs, before)
        assert_array_equal(whole_epoch(loader, Augmentation())[0], plain[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float64_features_are_centred_before_rounding(
    make_config: Callable[..., Config], dtype: str
) -> None:
    """In float32, all time stamps within a minute would be rounded to at most two numbers."""
    inputs = 1.7e9 + np.arange(60.0)[:, None]
    part = Part(inputs, np.zeros(60, np.int64), np.arange(0, 60, 2))
    scaling = Normalization(np.array([1 / 17]), np.zeros(1), origin=np.array([1.7e9 + 30]))
    expected = (np.arange(-30.0, 30, 2)[:, None] / 17).astype(dtype)
    config = make_config(**{"backend.dtype": dtype})
    (actual,) = NumpyLoader(part, scaling, config).evaluation_batches()
    assert actual.dtype == dtype
    np.testing.assert_array_max_ulp(actual, expected, 1)
    loader = torch_loader_file.TorchLoader(
        part, scaling, make_config(backend="torch", **{"backend.dtype": dtype})
    )
    (other,) = loader.evaluation_batches()
    on_device = loader._rows_of(part)  # the loader uses these rows on an accelerator
    assert np.array_equal(other.numpy(), actual)
    assert np.array_equal(on_device.numpy(), actual)
    assert inputs[0] == 1.7e9

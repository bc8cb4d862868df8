"""Operations, magnitudes and frequencies of augmentation policies, compared with torchvision."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import Tensor
from torchvision.transforms import v2

from nnopt.backends.torch import build_loader, check_backend
from nnopt.backends.torch import loader as loader_file
from nnopt.backends.torch.policies import PolicyOperations, magnitudes
from nnopt.data.batches import Augmentation, draw_augmentation, hidden_pixels
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.data.policies import LEVELS, OPERATIONS, SIGNED, WITHOUT_LEVEL, Policy
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

CLASSES = {"rand_augment": v2.RandAugment(), "trivial_augment": v2.TrivialAugmentWide()}
POLICIES = pytest.mark.parametrize("policy", list(CLASSES))

COUNT, BATCH, SHAPE = 50, 8, (3, 9, 12)


def levels_of(name: str) -> range:
    if name in WITHOUT_LEVEL:
        return range(1)
    return range(1 - LEVELS if name in SIGNED else 0, LEVELS)


def by_torchvision(policy: str, image: Tensor, operation: int, level: int) -> Tensor:
    """Apply one operation to an image (C, H, W) with torchvision's policy class."""
    transform, name = CLASSES[policy], OPERATIONS[operation]
    strengths, _ = transform._AUGMENTATION_SPACE[name]
    table = strengths(LEVELS, *image.shape[1:])
    magnitude = 0.0 if table is None else float(table[abs(level)]) * (-1 if level < 0 else 1)
    changed: Tensor = transform._apply_image_or_video_transform(
        image, name, magnitude, interpolation=transform.interpolation, fill=transform._fill
    )
    return changed


@POLICIES
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (17, 40)])
def test_magnitudes_equal_magnitudes_of_torchvision(policy: str, size: tuple[int, int]) -> None:
    space = CLASSES[policy]._AUGMENTATION_SPACE
    assert tuple(space) == OPERATIONS
    assert tuple(name for name, (_, signed) in space.items() if signed) == SIGNED
    tables = {name: strengths(LEVELS, *size) for name, (strengths, _) in space.items()}
    assert {name for name, table in tables.items() if table is None} == set(WITHOUT_LEVEL)
    expected = {name: table.tolist() for name, table in tables.items() if table is not None}
    assert magnitudes(policy, *size) == expected


@POLICIES
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 12)])
def test_every_operation_and_level_equals_torchvision(
    policy: str, shape: tuple[int, int, int]
) -> None:
    """Each image gets a different operation or level. The images are noise, ramps or constant."""
    settings = [(k, level) for k, name in enumerate(OPERATIONS) for level in levels_of(name)]
    rng = np.random.default_rng(0)
    rng.shuffle(settings)
    assert len(settings) == 9 * 61 + 2 * 31 + 3
    images = torch.from_numpy(rng.integers(0, 256, (len(settings), *shape), dtype=np.uint8))
    images[::3] = images[::3] // 16 + 5 * torch.arange(shape[2], dtype=torch.uint8)
    images[::25] = 77
    changed = images.clone()
    operation, level = np.array(settings).T[:, None]
    operations = PolicyOperations(policy, *shape[1:], torch.device("cpu"))
    operations.apply(changed, Policy(operation, level), slice(0, len(settings)))
    expected = [by_torchvision(policy, x, *s) for x, s in zip(images, settings, strict=True)]
    same = (changed == torch.stack(expected)).flatten(1).all(dim=1)
    assert [s for s, is_same in zip(settings, same.tolist(), strict=True) if not is_same] == []


def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (2 * COUNT, *SHAPE), dtype=np.uint8)
    part = Part(inputs, rng.integers(0, 4, 2 * COUNT), np.arange(1, 2 * COUNT, 2))
    scaling = Normalization(rng.random(3), rng.standard_normal(3))
    return Dataset("test", tuple("abcd"), part, None, part, scaling, {})


def config_of(make_config: MakeConfig, policy: str, seed: int = 0, **chosen: Any) -> Config:
    config = make_config(backend="torch", seed=seed, batch_size=BATCH)
    augmentation = replace(config.regularizer.augmentation, policy=policy, **chosen)
    changes = {"regularizer.augmentation": augmentation, "backend.dtype": "float64"}
    return make_config(backend="torch", seed=seed, batch_size=BATCH, **changes)


def epoch_of(
    config: Config, samples: Dataset, count: int = COUNT
) -> tuple[np.ndarray, Augmentation]:
    """Return the inputs of the first epoch in dataset order, and the drawn augmentations."""
    loader = build_loader(samples.train, samples.normalization, config)
    augmentation = draw_augmentation(config, samples, 1, count)
    batches = loader.train_batches(np.arange(count), BATCH, augmentation)
    return torch.cat([x for x, _ in batches]).numpy(), augmentation


@POLICIES
@pytest.mark.parametrize("chunk_bytes", [1, 2**20], ids=["batch by batch", "in one chunk"])
def test_policy_is_applied_after_flips_and_before_normalization(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, policy: str, chunk_bytes: int
) -> None:
    monkeypatch.setattr(loader_file, "CPU_POLICY_CHUNK_BYTES", chunk_bytes)
    samples = dataset()
    moves = {"crop": 2, "flip": True}
    pixels = replace(samples, normalization=Normalization(np.ones(3), np.zeros(3)))
    moved, before = epoch_of(config_of(make_config, "none", **moves), pixels)
    actual, augmentation = epoch_of(config_of(make_config, policy, cutout=3, **moves), samples)
    assert repr(augmentation.crops) == repr(before.crops)
    drawn, squares = augmentation.policy, augmentation.squares
    assert drawn is not None
    assert squares is not None
    assert len(drawn.operation) == (2 if policy == "rand_augment" else 1)
    expected = torch.from_numpy(moved.astype(np.uint8))
    for operation, level in zip(drawn.operation.tolist(), drawn.level.tolist(), strict=True):
        expected = torch.stack(
            [
                by_torchvision(policy, *setting)
                for setting in zip(expected, operation, level, strict=True)
            ]
        )
    scale, shift = (
        x.reshape(3, 1, 1) for x in (samples.normalization.scale, samples.normalization.shift)
    )
    hidden = hidden_pixels(squares.row, squares.column, 3, *map(np.arange, SHAPE[1:]))
    assert_array_equal(actual, np.where(hidden, 0, expected.numpy() * scale + shift))
    assert (expected.numpy() != moved).any(axis=(1, 2, 3)).mean() > 0.7


def numpy_state() -> str:
    return repr(np.random.get_state())  # noqa: NPY002 # the state that must not change


@POLICIES
def test_policy_is_repeatable_and_changes_neither_data_nor_random_generators(
    make_config: MakeConfig, policy: str
) -> None:
    samples, config = dataset(), config_of(make_config, policy)
    inputs = samples.train.inputs.copy()
    before = torch.get_rng_state(), numpy_state(), random.getstate()
    first, _ = epoch_of(config, samples)
    assert_array_equal(torch.get_rng_state(), before[0])
    assert (numpy_state(), random.getstate()) == before[1:]
    torch.manual_seed(5)
    assert_array_equal(epoch_of(config, samples)[0], first)
    assert (epoch_of(config_of(make_config, policy, seed=1), samples)[0] != first).any()
    assert_array_equal(samples.train.inputs, inputs)
    loader = build_loader(samples.train, samples.normalization, config)
    (evaluated,) = loader.evaluation_batches()
    plain = build_loader(samples.train, samples.normalization, config_of(make_config, "none"))
    assert_array_equal(evaluated, *plain.evaluation_batches())


@POLICIES
def test_frequencies_of_operations_equal_frequencies_of_torchvision(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """nnopt and torchvision draw operations and magnitudes from the same distribution.

    A cell is an operation, a direction, and a weak or strong magnitude. nnopt draws it m times, and
    torchvision draws it n times. Σ (m - n)² / (m + n) over all cells differs from the number of
    cells by less than five standard deviations.
    """
    transform, count = CLASSES[policy], 2000
    seen: list[tuple[str, float]] = []

    def note(image: Tensor, name: str, magnitude: float, **_: Any) -> Tensor:
        seen.append((name, magnitude))
        return image

    monkeypatch.setattr(transform, "_apply_image_or_video_transform", note)
    image = torch.zeros(SHAPE, dtype=torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(count):
            transform(image)
    tables = magnitudes(policy, *SHAPE[1:])
    middle = {name: table[LEVELS // 2] for name, table in tables.items()}
    theirs = Counter(
        (name, magnitude < 0, abs(magnitude) <= middle.get(name, 0)) for name, magnitude in seen
    )
    drawn = draw_augmentation(config_of(make_config, policy), dataset(), 1, count).policy
    assert drawn is not None
    assert drawn.operation.size == len(seen)
    ours: Counter[tuple[str, bool, bool]] = Counter()
    for number, level in zip(drawn.operation.flat, drawn.level.flat, strict=True):
        name = OPERATIONS[number]
        magnitude = tables[name][abs(level)] if name in tables else 0.0
        ours[name, level < 0 and magnitude > 0, magnitude <= middle.get(name, 0)] += 1
    cells = set(ours) | set(theirs)
    assert len(cells) == (23 if policy == "rand_augment" else 43)
    statistic = sum((ours[x] - theirs[x]) ** 2 / (ours[x] + theirs[x]) for x in cells)
    assert abs(statistic - len(cells)) < 5 * (2 * len(cells)) ** 0.5


def test_torchvision_is_imported_only_for_a_policy(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # an import then raises an error
    monkeypatch.delitem(sys.modules, "nnopt.backends.torch.policies")
    epoch_of(config_of(make_config, "none", crop=1), dataset())
    (problem,) = check_backend(config_of(make_config, "trivial_augment"))
    assert problem.startswith("regularizer.augmentation.policy = 'trivial_augment': torchvision ")
    assert "pip install" in problem

"""``nnopt data show``: class counts and a picture of the training samples of a dataset."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt import data
from nnopt.analysis.tabulate import counted
from nnopt.backends import load_backend
from nnopt.cli.data_parsers import show_parser
from nnopt.cli.parsers import picture_path
from nnopt.config.compose import compose_config
from nnopt.data.batches import epoch_order
from nnopt.data.dataset import Dataset, Normalization
from nnopt.errors import ConfigError, Problems
from nnopt.recipe.prepare import DataShape, image_problems
from nnopt.schema import Config
from nnopt.terminal import console
from nnopt.training.loop import epoch_batches

MAX_CLASSES = 100  # rows of the table
IMAGES = 16

Names = list[tuple[str, ...]]
Images = tuple[NDArray[np.uint8], Names]  # images (N, C, H, W), and the classes of each


def main(arguments: list[str]) -> int:
    """Print the numbers of samples of each class and part, and draw training samples to a file."""
    options = show_parser().parse_intermixed_args(arguments)
    path = None if options.out is None else picture_path(options.out)
    config = compose_config(_overrides(options), options.config_dir)
    dataset = data.load(config.dataset, config.data, config.seed, config.backend.dtype)
    shape = DataShape(dataset.name, dataset.input_shape, len(dataset.classes), len(dataset.train))
    Problems(image_problems(config, shape)).check()
    _print_counts(dataset)
    if path is None:
        path = _free_path(f"data_{Path(options.name).name}")
    is_replaced = path.exists()
    _draw(config, dataset, path)
    replaces = ", which replaces an earlier file" if is_replaced else ""
    console.note(f"wrote {console.short(path)}{replaces}")
    return 0


def _overrides(options: Namespace) -> list[str]:
    """Return all overrides. Raises ConfigError for an unusable name, or a second dataset."""
    if not re.fullmatch(r"[\w./-]+", options.name):
        raise ConfigError(
            f"NAME = {options.name!r}: needs the name of a dataset before the overrides, as in "
            "`nnopt data show mnist`"
        )
    for override in options.overrides:
        if override.lstrip("+~").partition("=")[0] == "dataset":
            raise ConfigError(
                f"{override} chooses a dataset, but NAME = {options.name!r} already does; leave "
                "the override out"
            )
    return [f"dataset={options.name}", *options.overrides]


def _free_path(stem: str) -> Path:
    """Return the first name that does not exist: ``stem.png``, ``stem-2.png``, ..."""
    names = (Path(f"{stem}{f'-{n}' if n > 1 else ''}.png") for n in count(1))
    return next(path for path in names if not path.exists() and not path.is_symlink())


def _print_counts(dataset: Dataset) -> None:
    parts = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = {
        name: np.bincount(part.labels[part.rows], minlength=len(dataset.classes))
        for name, part in parts.items()
        if part is not None
    }
    rows = [
        (name, *(f"{numbers[index]:,}" for numbers in counts.values()))
        for index, name in enumerate(dataset.classes[:MAX_CLASSES])
    ]
    total = ("total", *(f"{numbers.sum():,}" for numbers in counts.values()))
    console.print_table(("class", *counts), [*rows, total], "l" + "r" * len(counts))
    if (rest := len(dataset.classes) - MAX_CLASSES) > 0:
        console.note(f"{rest:,} more {'class is' if rest == 1 else 'classes are'} not listed")
    shape = "x".join(map(str, dataset.input_shape))
    kind = f"images of {shape}" if dataset.is_image else counted(dataset.input_shape[0], "feature")
    number = len(dataset.classes)
    console.note(f"{dataset.name}: {kind}, {number:,} class{'es' if number > 1 else ''}")


def _draw(config: Config, dataset: Dataset, path: Path) -> None:
    from nnopt.plots.data import plot_features, plot_images, plot_points

    if dataset.is_image:
        grids = [("training images", *_first_images(config, dataset))]
        if is_augmented(config):
            grids.append(("augmented, as in epoch 1", *augmented_images(config, dataset)))
        title = f"{dataset.name}: {len(dataset.train):,} training images"
        plot_images(grids, title, path)
        return
    part = dataset.train
    features = part.take(part.rows).astype(np.float64, copy=False)
    names = dataset.features or tuple(f"feature {n}" for n in range(features.shape[1]))
    draw = plot_points if features.shape[1] == 2 else plot_features
    draw((features, part.labels[part.rows]), dataset.classes, names, dataset.name, path)


def _first_images(config: Config, dataset: Dataset) -> Images:
    """Return the first images of the first epoch, and their classes."""
    part = dataset.train
    rows = part.rows[epoch_order(config.seed, 1, len(part))[:IMAGES]]
    return part.take(rows), [(dataset.classes[label],) for label in part.labels[rows]]


def is_augmented(config: Config) -> bool:
    """Return whether the configuration augments training images."""
    chosen = config.regularizer.augmentation
    fields = (chosen.crop, chosen.flip, chosen.cutout, chosen.mixup, chosen.cutmix)
    return any(fields) or chosen.policy != "none"


def augmented_images(config: Config, dataset: Dataset) -> Images:
    """Return the same images as the first batches of the training contain them.

    Raises ConfigError if the device of the backend is not available.
    """
    # Both backends augment equally, except for the policies, which only PyTorch has.
    name = "numpy" if config.regularizer.augmentation.policy == "none" else config.backend.name
    backend = load_backend(name)
    if name == config.backend.name:
        Problems(backend.check_backend(config)).check()
    config = replace(config, drop_last=False)
    loader = backend.build_loader(dataset.train, dataset.normalization, config)
    images: list[NDArray[np.uint8]] = []
    names: Names = []
    for x, y in epoch_batches(config, dataset, loader, 1):
        inputs, labels = (np.asarray(a if isinstance(a, np.ndarray) else a.cpu()) for a in (x, y))
        images.append(to_bytes(inputs[:IMAGES], dataset.normalization))
        names += [_names_of(label, dataset.classes) for label in labels[:IMAGES]]
        if len(names) >= IMAGES:
            break
    return np.concatenate(images)[:IMAGES], names[:IMAGES]


def to_bytes(x: NDArray[Any], normalization: Normalization) -> NDArray[np.uint8]:
    """Undo the normalization of images (N, C, H, W), and round to whole numbers from 0 to 255."""
    axes = (-1, 1, 1)
    raw = (x - normalization.shift.reshape(axes)) / normalization.scale.reshape(axes)
    return np.clip(np.rint(raw), 0, 255).astype(np.uint8)


def _names_of(label: Any, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class of a label, or the classes of a mixed label (K,) with their fractions."""
    if np.ndim(label) == 0:
        return (classes[int(label)],)
    present = [int(k) for k in np.argsort(-label, kind="stable") if label[k] > 0]
    if len(present) == 1:
        return (classes[present[0]],)
    return tuple(f"{label[k]:.2f} {classes[k]}" for k in present)

"""From a dataset's configuration to the arrays that training sees.

Source -> whole arrays (cached on disk) -> classes to keep -> validation rows -> subset ->
normalization. Choosing rows copies no images: a part is rows of arrays that stay mapped.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.data import cifar10, cinic10, csv_file, idx
from nnopt.data.cache import cached
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.data.generated import generate
from nnopt.data.places import Place
from nnopt.data.published import PUBLISHED, Published
from nnopt.data.source import Decoded, Source, channel_statistics
from nnopt.data.split import check_own_part, chosen_classes, hold_out, renumber, subset
from nnopt.errors import DataError
from nnopt.paths import absolute_folder
from nnopt.random import generator
from nnopt.schema import CsvConfig, DataConfig, DatasetVariant, SpiralConfig, TwoClassConfig

LOG = logging.getLogger("nnopt")

NAMES_SHOWN = 5  # classes that a warning spells out


def load(dataset: DatasetVariant, data: DataConfig, seed: int) -> Dataset:
    """Load and split a dataset; the same arguments give the same rows.

    The arrays of the last few datasets are remembered, since the points of a sweep share them:
    files that change while the process runs are not noticed. All arrays are read-only.

    Raises DataError for missing or damaged files, ConfigError for options that the data cannot
    fulfil.
    """
    root = absolute_folder(data.root, "data.root")
    cache = None if data.cache is None else absolute_folder(data.cache, "data.cache")
    decoded = _decode(dataset, replace(data, root=root, cache=cache), os.getcwd())
    return split(decoded, dataset, seed)


@lru_cache(maxsize=4)
def _decode(dataset: DatasetVariant, data: DataConfig, working: str) -> Decoded:
    if isinstance(dataset, SpiralConfig | TwoClassConfig):
        decoded = generate(dataset)
    else:
        source = locate(dataset, data, Path(working))
        root, cache = Path(data.root), data.cache
        decoded = source.decode() if cache is None else cached(source, Path(cache), root)
    for note in decoded.notes:
        LOG.warning(note)
    return decoded


def locate(dataset: DatasetVariant, data: DataConfig, working: Path) -> Source[Any]:
    """Where the dataset's files lie; fetched first if they are missing and may be downloaded."""
    root = Path(data.root)
    if isinstance(dataset, CsvConfig):
        return csv_file.locate(dataset, root, working)
    try:
        return locate_published(dataset.name, root)
    except DataError:
        if not data.download:
            raise
    from nnopt.data.fetch import fetch

    fetch(PUBLISHED[dataset.name], root, LOG.info)
    return locate_published(dataset.name, root)


def locate_published(name: str, root: Path) -> Source[Published]:
    """Where the files of a published dataset lie under ``root``. Raises DataError if missing."""
    if name == "cifar10":
        return cifar10.locate(root)
    if name == "cinic10":
        return cinic10.locate(root)
    return idx.locate(PUBLISHED[name], root)


def published_places(name: str, root: Path) -> list[Place]:
    """Return the folders under ``root`` that may hold a published dataset, the usual one first."""
    if name == "cifar10":
        return cifar10.places(root)
    if name == "cinic10":
        return cinic10.places(root)
    return idx.places(PUBLISHED[name], root)


def split(decoded: Decoded, config: DatasetVariant, seed: int) -> Dataset:
    """Choose classes and rows of decoded arrays, and how their values are scaled."""
    wanted = getattr(config, "classes", None)  # a number for the spiral, which made them so
    kept = chosen_classes(decoded.classes, None if isinstance(wanted, int) else wanted)
    names = tuple(decoded.classes[number] for number in kept)
    parts = {name: _part(decoded, name, kept) for name in decoded.parts}
    if isinstance(config, CsvConfig) and "test" not in parts:
        key, random = "dataset.test_fraction", generator(seed, "split", 1)
        parts["train"], parts["test"] = _cut(parts["train"], config.test_fraction, key, random)
        if parts["train"].inputs.ndim == 4 and config.normalization == "standard":
            mean, std = channel_statistics(parts["train"].inputs, parts["train"].rows)
            decoded = replace(decoded, mean=mean, std=std)
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"{config.name}: 0 samples in the {name} part; expected some")

    rule, validation = config.validation, None
    key, random = "dataset.validation.fraction", generator(seed, "split")
    if rule.source == "own":
        check_own_part(config.name, parts)
        validation = parts["valid"]
    elif rule.source != "none":
        rest, validation = _cut(parts[rule.source], rule.fraction, key, random)
        parts[rule.source] = rest
    train, test = parts["train"], parts["test"]
    rows = subset(train.labels, train.rows, config.subset, generator(seed, "subset"))
    train = replace(train, rows=rows)
    if len(train) < len(names):
        raise DataError(
            f"{config.name}: {len(train)} training sample(s) for {len(names)} classes; there must "
            "be at least as many samples as classes (see dataset.subset, dataset.classes)"
        )
    _freeze(train, validation, test)
    _warn_of_absent_classes(names, {"training": train, "validation": validation, "test": test})
    normalization = _normalization(decoded, train, config.normalization)
    sources = dict(decoded.sources)
    return Dataset(config.name, names, train, validation, test, normalization, sources)


def _cut(part: Part, fraction: float, key: str, random: np.random.Generator) -> tuple[Part, Part]:
    """A part without a fraction of it, and that fraction."""
    rest, held = hold_out(part.labels, part.rows, fraction, key, random)
    return replace(part, rows=rest), replace(part, rows=held)


def _part(decoded: Decoded, name: str, kept: list[int]) -> Part:
    inputs, labels = decoded.parts[name]
    labels = renumber(labels, kept, len(decoded.classes))
    return Part(inputs, labels, np.flatnonzero(labels >= 0))


def _freeze(*parts: Part | None) -> None:
    """Points of a sweep share these arrays, so writing to them must fail."""
    for part in parts:
        if part is not None:
            for array in (part.inputs, part.labels, part.rows):
                array.setflags(write=False)


def _warn_of_absent_classes(names: tuple[str, ...], parts: dict[str, Part | None]) -> None:
    if len(names) == 1:
        LOG.warning(f"only one class, {names[0]}: there is nothing to tell apart")
    for name, part in parts.items():
        if part is None:
            continue
        counts = np.bincount(part.labels[part.rows], minlength=len(names))
        absent = [names[number] for number in np.flatnonzero(counts == 0)]
        if absent:
            more = f" and {len(absent) - NAMES_SHOWN} more" if len(absent) > NAMES_SHOWN else ""
            LOG.warning(
                f"no {name} sample of class {', '.join(absent[:NAMES_SHOWN])}{more}"
                f" among {len(part):,}"
            )


def _normalization(decoded: Decoded, train: Part, rule: str) -> Normalization:
    """Scale and shift per channel or feature.

    For images, mean and variance are those of the published training part as a whole, so they do
    not depend on split, subset or classes; for features they are taken from the training rows
    alone. A channel or feature that never changes is shifted, but not scaled.
    """
    is_image = train.inputs.ndim == 4
    width = train.inputs.shape[1]
    if rule == "none":
        return Normalization(np.ones(width), np.zeros(width))
    if is_image and rule == "unit":
        return Normalization(np.full(width, 1 / 255), np.zeros(width))
    if is_image:
        return _scaled(np.array(decoded.mean), np.array(decoded.std))
    values = train.inputs[train.rows].astype(np.float64)
    if rule == "unit":
        return _scaled(values.min(axis=0), np.ptp(values, axis=0))
    return _scaled(values.mean(axis=0), values.std(axis=0))


def _scaled(origin: np.ndarray, length: np.ndarray) -> Normalization:
    """(x - origin) / length as x * scale + shift."""
    scale = 1 / np.where(length > 0, length, 1.0)
    return Normalization(scale=scale, shift=-origin * scale)

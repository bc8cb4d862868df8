"""Loads a configured dataset: finds, decodes, splits and normalizes it.

Each part, such as the training samples, is a list of row numbers, so no image is copied.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.data import csv_file
from nnopt.data.cache import cached
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.data.download import fetch, locate_published
from nnopt.data.duplicates import repeated_rows
from nnopt.data.published import PUBLISHED
from nnopt.data.source import Decoded, Source, channel_statistics
from nnopt.data.split import check_own_part, chosen_classes, hold_out, renumber, subset
from nnopt.data.synthetic import generate
from nnopt.data.warnings import (
    warn_of_absent_classes,
    warn_of_label_among_features,
    warn_of_merged_values,
    warn_of_repeats,
)
from nnopt.errors import DataError
from nnopt.io.paths import absolute_folder
from nnopt.random import generator
from nnopt.schema import (
    CsvConfig,
    DataConfig,
    DatasetVariant,
    ImageConfig,
    SpiralConfig,
    TwoClassConfig,
)
from nnopt.schema.tables import filled

LOG = logging.getLogger("nnopt")

CHUNK_CELLS = 2**20
MIN_LENGTH = 1e-300  # a feature with a smaller range or standard deviation is not scaled


def load(dataset: DatasetVariant, data: DataConfig, seed: int, dtype: str = "float32") -> Dataset:
    """Load and split a dataset. The same arguments give the same rows.

    The arrays of the last few datasets stay in memory, because the runs of a sweep share them.
    Later changes of a dataset's files are not detected. All arrays are read-only. ``dtype`` is the
    number type of the backend: features whose values become equal in this type cause a warning.

    Raises DataError for a missing or damaged file, and ConfigError for data that do not fit the
    configuration.
    """
    root = absolute_folder(data.root, "data.root")
    cache = None if data.cache is None else absolute_folder(data.cache, "data.cache")
    decoded = _decode(dataset, replace(data, root=root, cache=cache), os.getcwd())
    return split(decoded, dataset, seed, dtype)


@lru_cache(maxsize=4)
def _decode(dataset: DatasetVariant, data: DataConfig, working: str) -> Decoded:
    decoded = DECODERS[dataset.name](dataset, data, working)
    for note in decoded.notes:
        LOG.warning(note)
    return decoded


def _generate(dataset: SpiralConfig | TwoClassConfig, data: DataConfig, working: str) -> Decoded:
    decoded = generate(dataset)
    return replace(decoded, repeated=repeated_rows(decoded.parts))


def _read(dataset: ImageConfig | CsvConfig, data: DataConfig, working: str) -> Decoded:
    source, cache = locate(dataset, data, Path(working)), data.cache
    return source.decode() if cache is None else cached(source, Path(cache), Path(data.root))


DECODERS: dict[str, Callable[[Any, DataConfig, str], Decoded]] = filled(
    "dataset/decoder",
    {
        **dict.fromkeys(("spiral", "moons", "circles"), _generate),
        **dict.fromkeys((*PUBLISHED, "csv"), _read),
    },
)
"""Name of a dataset -> function that generates or reads the arrays.

The arguments are the configuration of the dataset, absolute paths, and the working directory.
"""


def locate(dataset: DatasetVariant, data: DataConfig, working: Path) -> Source[Any]:
    """Find the files of a dataset. Download missing ones if ``data.download``."""
    root = Path(data.root)
    if isinstance(dataset, CsvConfig):
        return csv_file.locate(dataset, root, working)
    try:
        return locate_published(dataset.name, root)
    except DataError:
        if not data.download:
            raise
    fetch(PUBLISHED[dataset.name], root, LOG.info)
    return locate_published(dataset.name, root)


def split(decoded: Decoded, config: DatasetVariant, seed: int, dtype: str = "float32") -> Dataset:
    """Select classes and rows of decoded arrays, and compute the normalization."""
    selected = getattr(config, "classes", None)  # for the spiral, the number of arms
    kept = chosen_classes(decoded.classes, None if isinstance(selected, int) else selected)
    names = tuple(decoded.classes[number] for number in kept)
    parts = {}
    for name, (inputs, labels) in decoded.parts.items():
        labels = renumber(labels, kept, len(decoded.classes))
        parts[name] = Part(inputs, labels, np.flatnonzero(labels >= 0))
    if isinstance(config, CsvConfig) and "test" not in parts:
        key, random = "dataset.test_fraction", generator(seed, "split", 1)
        parts["train"], parts["test"] = _cut(parts["train"], config.test_fraction, key, random)
        if parts["train"].inputs.ndim == 4 and config.normalization == "standard":
            parts["train"].check_file()
            mean, std = channel_statistics(parts["train"].inputs, parts["train"].rows)
            decoded = replace(decoded, mean=mean, std=std)
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"{config.name}: 0 samples in the {name} part; expected some")

    rule, validation = config.validation, None
    if rule.source == "own":
        check_own_part(config.name, parts)
        validation = parts["valid"]
    elif rule.source != "none":
        key, random = "dataset.validation.fraction", generator(seed, "split")
        parts[rule.source], validation = _cut(parts[rule.source], rule.fraction, key, random)
    train, test = parts["train"], parts["test"]
    random = generator(seed, "subset")
    train = replace(train, rows=subset(train.labels, train.rows, config.subset, random))
    if len(train) < len(names):
        raise DataError(
            f"{config.name}: {len(train)} training sample(s) for {len(names)} classes; there must "
            "be at least as many samples as classes (see dataset.subset, dataset.classes)"
        )
    for part in (part for part in (train, validation, test) if part is not None):
        for array in (part.inputs, part.labels, part.rows):
            array.setflags(write=False)  # the runs of a sweep share the arrays
    warn_of_absent_classes(names, {"training": train, "validation": validation, "test": test})
    warn_of_repeats(decoded, train, {"test": test, "validation": validation})
    if isinstance(config, CsvConfig):
        warn_of_label_among_features(decoded.features, train)
    normalization = _normalization(decoded, train, config.normalization)
    warn_of_merged_values(decoded.features, train, normalization, dtype)
    sources, features = dict(decoded.sources), decoded.features
    return Dataset(config.name, names, train, validation, test, normalization, sources, features)


def _cut(part: Part, fraction: float, key: str, random: np.random.Generator) -> tuple[Part, Part]:
    """Split a part into the remaining rows and a stratified ``fraction`` of it."""
    rest, held = hold_out(part.labels, part.rows, fraction, key, random)
    return replace(part, rows=rest), replace(part, rows=held)


def _normalization(decoded: Decoded, train: Part, rule: str) -> Normalization:
    """Return scale and shift per channel or feature.

    The mean and standard deviation of images are those of all decoded training images (without the
    test samples drawn from a single CSV file), whatever the subset. Those of features are of the
    training rows only. Constant features and, with "standard", constant channels are not scaled.
    """
    width = train.inputs.shape[1]
    if rule == "none":
        return Normalization(np.ones(width), np.zeros(width))
    if train.inputs.ndim == 2:
        return _scaled_features(train, rule)
    if rule == "unit":
        return Normalization(np.full(width, 1 / 255), np.zeros(width))
    return _scaled(np.array(decoded.mean), np.array(decoded.std))


def _scaled_features(train: Part, rule: str) -> Normalization:
    """Return the normalization of features, computed in several passes over chunks of rows."""
    step = max(1, CHUNK_CELLS // train.inputs.shape[1])
    starts = range(0, len(train), step)

    @lru_cache(maxsize=1)  # if all rows fit into one chunk, they are read once
    def chunk(start: int) -> NDArray[np.float64]:
        return train.take(train.rows[start : start + step]).astype(np.float64, copy=False)

    low = reduce(np.minimum, (x.min(axis=0) for x in map(chunk, starts)))
    high = reduce(np.maximum, (x.max(axis=0) for x in map(chunk, starts)))
    varies = high > low  # the mean of a constant feature can differ from its value by rounding
    if rule == "unit":
        origin, length = low, high - low
    else:
        mean = sum(x.sum(axis=0) for x in map(chunk, starts)) / len(train)
        origin = np.where(varies, mean, low)
        variance = sum(np.square(x - origin).sum(axis=0) for x in map(chunk, starts)) / len(train)
        length = np.where(varies, np.sqrt(variance), 0)
    if train.inputs.dtype != np.float64:
        return _scaled(origin, length)
    return replace(_scaled(origin, length), shift=np.zeros(len(origin)), origin=origin)


def _scaled(origin: np.ndarray, length: np.ndarray) -> Normalization:
    """Return scale, shift of (x - origin) / length = x * scale + shift; a tiny length becomes 1."""
    scale = 1 / np.where(length > MIN_LENGTH, length, 1.0)
    return Normalization(scale=scale, shift=-origin * scale)

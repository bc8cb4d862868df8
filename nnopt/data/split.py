"""Selection of classes, and stratified selection of rows."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import MAX_LISTED_NAMES, ConfigError, DataError, nearest, suggest
from nnopt.schema import CsvConfig, DatasetVariant, ImageConfig

Rows = NDArray[np.int64]


def stratified(labels: Rows, rows: Rows, count: int, random: np.random.Generator) -> Rows:
    """Draw ``count`` of the ``rows`` (N,), each class in proportion to its size, and sort them.

    ``labels`` (M,) are the classes of all rows of the arrays. From a class with n_k rows,
    count * n_k / N rows are drawn, rounded down. The rows that are still lacking are drawn
    from the classes with the largest remainders, one from each.
    """
    classes, sizes = np.unique(labels[rows], return_counts=True)
    exact = sizes * count
    quotas = exact // len(rows) if len(rows) else exact
    lacking = count - int(quotas.sum())
    remainders = exact - quotas * len(rows)
    quotas[np.argsort(-remainders, kind="stable")[:lacking]] += 1
    chosen = [
        random.permutation(rows[labels[rows] == label])[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *chosen]))


def hold_out(
    labels: Rows, rows: Rows, fraction: float, key: str, random: np.random.Generator
) -> tuple[Rows, Rows]:
    """Split the rows of a part into the remaining ones and a stratified ``fraction``.

    Raises DataError, with the name of the setting ``key``, if one of the two would be empty.
    """
    count = _held_count(len(rows), fraction, key)
    held = stratified(labels, rows, count, random)
    return np.setdiff1d(rows, held, assume_unique=True), held


def _held_count(available: int, fraction: float, key: str) -> int:
    """Return the number of samples that a ``fraction`` takes. Raises DataError; see hold_out."""
    count = round(fraction * available)
    if not 0 < count < available:
        raise DataError(
            f"{key}={fraction:g} of {available:,} samples takes {count:,} and leaves "
            f"{available - count:,}; both need at least 1"
        )
    return count


def subset(labels: Rows, rows: Rows, count: int | None, random: np.random.Generator) -> Rows:
    """Return a stratified selection of ``count`` training rows, or all of them for None."""
    size = _subset_size(count, len(rows))
    return rows if count is None else stratified(labels, rows, size, random)


def _subset_size(count: int | None, available: int) -> int:
    """Return ``count``, or ``available`` for None. Raises ConfigError if ``count`` is larger."""
    if count is not None and count > available:
        raise ConfigError(
            f"dataset.subset={count}: the training part has {available:,} samples, without "
            "validation samples and deselected classes; allowed are at most this number, or null"
        )
    return available if count is None else count


def check_own_part(name: str, parts: Container[str]) -> None:
    """Raise ConfigError if the dataset is not published with a validation part."""
    if "valid" not in parts:
        raise ConfigError(
            f"dataset.validation.source=own: {name} has no validation part of its own "
            "(cinic10 has); allowed are train, test, none"
        )


def training_samples(dataset: DatasetVariant, parts: Mapping[str, int]) -> int | None:
    """Return the number of training samples; None if it depends on the content of the files.

    It does if ``parts``, which maps each part to its size, is empty, and if classes are selected.
    Raises ConfigError if a part is missing or too small, and DataError if the split is impossible.
    """
    rule = dataset.validation
    selects = isinstance(dataset, ImageConfig | CsvConfig) and dataset.classes is not None
    if rule.source == "own":
        check_own_part(dataset.name, parts)
    if selects or not parts:
        return dataset.subset
    available = parts["train"]
    if rule.source == "train":
        available -= _held_count(available, rule.fraction, "dataset.validation.fraction")
    return _subset_size(dataset.subset, available)


def chosen_classes(names: tuple[str, ...], selected: Sequence[int | str] | None) -> list[int]:
    """Return the indices of the selected classes in the given order; None selects all.

    An entry is the name of a class, or else its index. Raises ConfigError.
    """
    if selected is None:
        return list(range(len(names)))
    key = f"dataset.classes={list(selected)}"
    if not selected:
        raise ConfigError(f"{key}: give at least one class, or null for all")
    numbers = []
    for item in selected:
        if str(item) in names:
            numbers.append(names.index(str(item)))
        elif isinstance(item, int) and 0 <= item < len(names):
            numbers.append(item)
        else:
            listed = names if nearest(str(item), names) else names[:MAX_LISTED_NAMES]
            raise ConfigError(
                f"{key}: there is no class {item!r}; {suggest(item, listed)}; or a number from 0 "
                f"to {len(names) - 1}"
            )
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{key}: a class is named twice; name each once")
    return numbers


def renumber(labels: Rows, kept: list[int], classes: int) -> Rows:
    """Return the labels as indices in ``kept``, -1 for other classes."""
    numbers = np.full(classes, -1, dtype=np.int64)
    numbers[kept] = np.arange(len(kept))
    return numbers[labels]

"""Which rows are for training, validation and testing: drawn once, classes in proportion."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import ConfigError, DataError, suggest
from nnopt.schema import ImageConfig

Rows = NDArray[np.int64]


def stratified(labels: Rows, rows: Rows, count: int, random: np.random.Generator) -> Rows:
    """Draw ``count`` of ``rows``, each class in proportion to its size.

    labels: (M,) class of every row of the array; rows: (N,) the rows to draw from; the result is
    ascending. A class of n_k rows gives count * n_k / N of them, rounded down; what is then lacking
    comes from the classes with the largest remainders, first class first. So no class gives more
    rows than it has, however small it is.
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
    """Split the rows of a part into those that stay and a stratified ``fraction`` of them.

    key: of the configuration, to be named by the DataError raised if either comes out empty.
    """
    count = round(fraction * len(rows))
    if not 0 < count < len(rows):
        raise DataError(
            f"{key}={fraction:g} of {len(rows):,} samples takes {count:,} and leaves "
            f"{len(rows) - count:,}; both need at least 1"
        )
    held = stratified(labels, rows, count, random)
    return np.setdiff1d(rows, held, assume_unique=True), held


def subset(labels: Rows, rows: Rows, count: int | None, random: np.random.Generator) -> Rows:
    """A stratified choice of ``count`` training rows; all of them for None."""
    if count is None:
        return rows
    _check_subset(count, len(rows))
    return stratified(labels, rows, count, random)


def _check_subset(count: int, available: int) -> None:
    if count > available:
        raise ConfigError(
            f"dataset.subset={count}: the training part has {available:,} samples; allowed are 1 "
            f"to {available}, or null for all"
        )


def check_own_part(name: str, parts: Container[str]) -> None:
    """Raises ConfigError for dataset.validation.source=own if there is no such part."""
    if "valid" not in parts:
        raise ConfigError(
            f"dataset.validation.source=own: {name} has no validation part of its own "
            "(cinic10 has); allowed are train, test, none"
        )


def training_samples(dataset: ImageConfig, parts: Mapping[str, int]) -> int | None:
    """How many training samples come of whole parts of these sizes; None if only some classes are
    kept, whose sizes are not known. Raises ConfigError for what the sizes cannot fulfil."""
    rule = dataset.validation
    if rule.source == "own":
        check_own_part(dataset.name, parts)
    if dataset.classes is not None:
        return dataset.subset
    available = parts["train"]
    if rule.source == "train":
        available -= round(rule.fraction * available)
    if dataset.subset is None:
        return available
    _check_subset(dataset.subset, available)
    return dataset.subset


def chosen_classes(names: tuple[str, ...], wanted: Sequence[int | str] | None) -> list[int]:
    """The numbers of the classes to keep, in the order asked for; all of them for None.

    A class is found by its name, else by its number, so that 5 means the class called "5" where
    there is one. Raises ConfigError.
    """
    if wanted is None:
        return list(range(len(names)))
    key = f"dataset.classes={list(wanted)}"
    if not wanted:
        raise ConfigError(f"{key}: give at least one class, or null for all")
    numbers = []
    for item in wanted:
        if str(item) in names:
            numbers.append(names.index(str(item)))
        elif isinstance(item, int) and 0 <= item < len(names):
            numbers.append(item)
        else:
            raise ConfigError(
                f"{key}: there is no class {item!r}; {suggest(item, names)}; or a number from 0 to "
                f"{len(names) - 1}"
            )
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{key}: a class is named twice; name each once")
    return numbers


def renumber(labels: Rows, kept: list[int], classes: int) -> Rows:
    """Return the labels, numbered by their place in ``kept``; -1 for classes not kept."""
    numbers = np.full(classes, -1, dtype=np.int64)
    numbers[kept] = np.arange(len(kept))
    return numbers[labels]

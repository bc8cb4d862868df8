"""Warnings about suspicious data."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset import Normalization, Part
from nnopt.data.duplicates import NONE_REPEATED, different_values, groups_among
from nnopt.data.source import Decoded
from nnopt.io.safe_text import quoted

LOG = logging.getLogger("nnopt")

ONCE = {"once": True}  # ``extra`` of a warning that a command shows once, even with varying values

MAX_LISTED_CLASSES = 5
MAX_LISTED_FEATURES = 20
CHUNK_CELLS = 2**20
MAX_COMPARED_ROWS = 4_096  # rows that ``warn_of_merged_values`` reads
FIRST_CHUNK_ROWS = 64  # a small first chunk rules out nearly all columns
MIN_REPEATS = 20  # samples beyond the first of each class; fewer may equal the first by chance
MIN_CLASS_SAMPLES = 5  # in a smaller class, a feature may have a single value by chance


def warn_of_absent_classes(names: tuple[str, ...], parts: dict[str, Part | None]) -> None:
    """Warn of a single class, and of classes without samples in a part."""
    if len(names) == 1:
        LOG.warning(
            f"{names[0]} is the only class of the data; a network has nothing to learn from them"
        )
    for name, part in parts.items():
        if part is None:
            continue
        counts = np.bincount(part.labels[part.rows], minlength=len(names))
        if absent := [names[number] for number in np.flatnonzero(counts == 0)]:
            listed = ", ".join(absent[:MAX_LISTED_CLASSES]) + _more(len(absent), MAX_LISTED_CLASSES)
            LOG.warning(f"no {name} sample of class {listed} among {len(part):,}")


def _more(count: int, listed: int) -> str:
    return f" and {count - listed:,} more" if count > listed else ""


def warn_of_repeats(decoded: Decoded, train: Part, others: Mapping[str, Part | None]) -> None:
    """Warn of validation and test samples whose inputs equal those of a training sample."""

    def groups(part: Part) -> NDArray[np.int64]:
        names = [name for name, (inputs, _) in decoded.parts.items() if inputs is part.inputs]
        return groups_among(decoded.repeated.get(names[0], NONE_REPEATED), part.rows)

    known = groups(train)
    found = []
    for name, part in others.items():
        if part is not None and (count := int(np.isin(groups(part), known).sum())):
            found.append(f"{count:,} of {len(part):,} {name} samples")
    if found:
        LOG.warning(
            "%s have the same inputs as a training sample: on these, the accuracy does not "
            "measure generalization",
            " and ".join(found),
            extra=ONCE,
        )


def warn_of_label_among_features(names: tuple[str, ...], train: Part) -> None:
    """Warn of features that are constant within each class and differ between classes."""
    labels = train.labels[train.rows]
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    if train.inputs.ndim != 2 or len(present) < 2 or counts[present].min() < MIN_CLASS_SAMPLES:
        return
    if len(labels) - len(present) < MIN_REPEATS:
        return
    first = np.empty(len(counts), dtype=np.int64)  # first sample of each class
    first[labels[::-1]] = np.arange(len(labels))[::-1]
    columns = np.arange(train.inputs.shape[1])

    def cells(samples: NDArray[np.int64]) -> np.ndarray:
        train.check_file()
        found: np.ndarray = train.inputs[np.ix_(train.rows[samples], columns)]
        return found

    start, step = 0, FIRST_CHUNK_ROWS
    while start < len(labels) and len(columns):
        samples = np.arange(start, min(start + step, len(labels)))
        columns = columns[(cells(samples) == cells(first[labels[samples]])).all(axis=0)]
        start, step = start + step, max(1, CHUNK_CELLS // max(1, len(columns)))
    columns = columns[different_values(cells(first[present])) == len(present)]
    if len(columns):
        texts = [quoted(names[column]) if names else f"number {column}" for column in columns]
        others = len(texts) - 1
        more = f" and {others:,} other{'s' * (others > 1)} are" if others else " is"
        listed = (
            f"=[{','.join(texts[:MAX_LISTED_FEATURES])}]{_more(len(texts), MAX_LISTED_FEATURES)}"
        )
        LOG.warning(
            "feature %s%s constant within each of the %s classes and different between them, in "
            "all %s training samples; if %s the label, leave %s out with dataset.drop_columns%s",
            *(texts[0], more, f"{len(present):,}", f"{len(labels):,}"),
            *(("they repeat", "them") if others else ("it repeats", "it")),
            listed if names else "",
            extra=ONCE,
        )


def warn_of_merged_values(
    names: tuple[str, ...], train: Part, normalization: Normalization, dtype: str
) -> None:
    """Warn of features whose different values become equal by normalization and rounding.

    At most ``MAX_COMPARED_ROWS`` rows are compared. Of n evenly spread values, about n² / 2²⁴
    become equal in float32 by chance. So a warning needs more than n² / 2²² equal values.
    """
    if train.inputs.dtype != np.float64:
        return
    count = min(len(train), MAX_COMPARED_ROWS, max(2, CHUNK_CELLS // train.inputs.shape[1]))
    raw = train.take(train.rows[np.arange(count) * len(train) // count])
    before = different_values(raw)
    after = different_values(normalization.of_features(raw).astype(dtype))
    merged = np.flatnonzero(before - after > before.astype(np.float64) ** 2 / 2**22)
    if len(merged):
        first = merged[0]
        more = f" ({len(merged) - 1:,} more features are like this)" if len(merged) > 1 else ""
        remedy = "backend.dtype=float64" if dtype == "float32" else "other units"
        if normalization.origin is None:
            remedy = f"dataset.normalization=standard or {remedy}"
        name = quoted(names[first]) if names else f"number {first}"
        LOG.warning(
            f"feature {name} has {before[first]:,} different values, but only "
            f"{after[first]:,} in {dtype}{more}; use {remedy}"
        )

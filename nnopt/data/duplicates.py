"""Repeated values and samples, such as test samples that are also training samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 2**20

NONE_REPEATED = np.empty((2, 0), dtype=np.int64)


def row_hashes(inputs: np.ndarray) -> NDArray[np.int64]:
    """Return the hashes (M,) of the rows of ``inputs`` (M, ...).

    A hash is Python's 64-bit hash of the row's bytes. The probability that any two of 10⁶ different
    rows have the same hash is 3·10⁻⁸. -0.0 and 0.0 have the same hash.
    """
    hashes = np.empty(len(inputs), dtype=np.int64)
    row_bytes = math.prod(inputs.shape[1:]) * inputs.dtype.itemsize
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(inputs), step):
        chunk = inputs[start : start + step]
        content = (chunk + 0.0 if chunk.dtype.kind == "f" else chunk).tobytes()
        rows = range(0, len(content), row_bytes)
        hashes[start : start + step] = [hash(content[i : i + row_bytes]) for i in rows]
    return hashes


def repeated_rows(parts: Mapping[str, tuple[np.ndarray, Any]]) -> dict[str, NDArray[np.int64]]:
    """Find the rows whose inputs equal those of another row in any part.

    Equal rows form a group. The result contains an array (2, k) for each part: the k indices of its
    repeated rows, ascending, and the group of each. Groups are numbered in order of first row.
    """
    hashes = {name: row_hashes(inputs) for name, (inputs, _) in parts.items()}
    ordered = np.concatenate(list(hashes.values()))
    ordered.sort()
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    found = {}
    for name, of_part in hashes.items():
        groups = np.searchsorted(repeated, of_part)
        groups[groups == len(repeated)] = 0
        rows = np.flatnonzero(repeated[groups] == of_part) if len(repeated) else groups[:0]
        found[name] = rows, groups[rows]
    _, first = np.unique(np.concatenate([x for _, x in found.values()]), return_index=True)
    numbers = np.argsort(np.argsort(first))  # by first row: hashes differ between processes
    return {name: np.stack([rows, numbers[groups]]) for name, (rows, groups) in found.items()}


def groups_among(repeated: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each repeated row in ``rows``.

    ``repeated`` (2, k) is the array of one part in the result of ``repeated_rows``.
    """
    groups: NDArray[np.int64] = repeated[1][np.isin(repeated[0], rows)]
    return groups


def different_values(values: np.ndarray) -> NDArray[np.int64]:
    """Return the number of different values in each column of an array with at least one row."""
    ordered = np.sort(values, axis=0)
    steps: NDArray[np.int64] = np.count_nonzero(ordered[1:] != ordered[:-1], axis=0)
    return 1 + steps

"""Values and samples that occur more than once, such as test samples that are training samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 2**20
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

NONE_REPEATED = np.empty((2, 0), dtype=np.int64)


def row_hashes(inputs: np.ndarray) -> NDArray[np.uint64]:
    """Return a hash of each row of ``inputs`` (M, ...): (M,).

    Equal rows have equal hashes, where -0.0 equals 0.0. The hash is the sum, modulo 2⁶⁴, of the
    eight-byte words of a row, each mixed with its position by the function of SplitMix64 (Steele et
    al. 2014). Among 10⁶ rows, two different ones have the same hash with probability 3·10⁻⁸.
    """
    rows = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))  # -1 fails for no rows
    row_bytes = rows.shape[1] * rows.dtype.itemsize
    words = -(-row_bytes // 8)
    positions = np.arange(1, words + 1, dtype=np.uint64) * GOLDEN
    hashes = np.empty(len(rows), dtype=np.uint64)
    step = max(1, BLOCK_BYTES // (8 * words))
    padded = np.zeros((min(step, len(rows)), 8 * words), dtype=np.uint8)
    for start in range(0, len(rows), step):
        block = np.ascontiguousarray(rows[start : start + step])
        if block.dtype.kind == "f":
            block = block + 0.0
        content = padded[: len(block)]
        content[:, :row_bytes] = block.view(np.uint8).reshape(len(block), -1)
        hashes[start : start + step] = _mixed(content.view(np.uint64) + positions).sum(axis=1)
    return hashes


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's function to each word; x is overwritten."""
    for shift, factor in zip((30, 27), MIX, strict=True):
        x ^= x >> np.uint64(shift)
        x *= factor
    x ^= x >> np.uint64(31)
    return x


def repeated_rows(
    parts: Mapping[str, tuple[np.ndarray, Any]],
) -> dict[str, NDArray[np.int64]]:
    """Find the rows whose inputs equal those of another row, of any part.

    The result has for each part an array (2, k): the numbers of the rows, ascending, and the
    numbers of their groups of equal rows.
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
        found[name] = np.stack([rows, groups[rows]])
    return found


def groups_among(repeated: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the groups of those repeated rows (2, k) that are among ``rows``, ascending."""
    places = np.searchsorted(rows, repeated[0])
    inside = places < len(rows)
    inside[inside] = rows[places[inside]] == repeated[0][inside]
    groups: NDArray[np.int64] = repeated[1][inside]
    return groups


def different_values(values: np.ndarray) -> NDArray[np.int64]:
    """Return the number of different values in each column of at least one row."""
    ordered = np.sort(values, axis=0)
    steps: NDArray[np.int64] = np.count_nonzero(ordered[1:] != ordered[:-1], axis=0)
    return 1 + steps

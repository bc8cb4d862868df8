"""Passes over a batch of images, in pieces that stay in a core's cache, dealt out to threads.

Images (H, W, N, C) are a matrix (H·W, N·C) here: a row for every position, and in it a lane for
every channel of every sample. Sums over positions are sums of long rows, and a number for each
channel or sample, repeated to a vector of lanes, meets all of a row at once. What is summed is
summed by piece first and over the pieces afterwards: the error stays that of a few hundred
additions at most, and it makes no difference which thread did which piece.
"""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer
from nnopt.backends.numpy.threads import SERIAL, ThreadPool, chunk_slices


def by_position(x: Array) -> Array:
    """(H, W, N, C) as (H·W, N·C), without a copy where x is C-contiguous."""
    height, width, samples, channels = x.shape
    return x.reshape(height * width, samples * channels)


def sharing(workers: ThreadPool, size: int) -> ThreadPool:
    """The threads that an array of so many elements is worth."""
    return workers if size >= tuning.THREADING_MIN_ELEMENTS else SERIAL


def sums(
    a: Array, b: Array, workers: ThreadPool, buffer: Buffer, where: Array | None = None
) -> Array:
    """Σ a and Σ a · b of every lane over the positions: twice (P, L) to (2, L). With ``where``,
    (P, L), a becomes 0 first wherever that is not positive."""
    height, pieces = _cut(a.shape)
    of_blocks = buffer("sums", (2, -(-len(a) // height), a.shape[1]), a.dtype)

    def of_piece(worker: int, number: int) -> None:
        block, place = pieces[number]
        part = a[place]
        if where is not None:
            positive = workers.scratch("positive", part.shape, bool)
            np.greater(where[place], 0, out=positive)
            np.multiply(part, positive, out=part)
        np.add.reduce(part, axis=0, out=of_blocks[0, block, place[1]])
        np.einsum("ij,ij->j", part, b[place], out=of_blocks[1, block, place[1]])

    sharing(workers, a.size).map(of_piece, len(pieces))
    total: Array = np.add.reduce(of_blocks, axis=1)
    return total


def scale_and_shift(
    x: Array, scale: Array, shift: Array, out: Array, workers: ThreadPool, relu: bool = False
) -> Array:
    """out = x · scale + shift, a scale and a shift for each lane: (P, L), (L,) and (L,). Negative
    numbers are replaced by 0 with ``relu``."""
    _, pieces = _cut(x.shape)
    zeros = np.zeros_like(shift)

    def of_piece(worker: int, number: int) -> None:
        _, place = pieces[number]
        part = np.multiply(x[place], scale[place[1]], out=out[place])
        np.add(part, shift[place[1]], out=part)
        if relu:
            np.maximum(part, zeros[place[1]], out=part)

    sharing(workers, x.size).map(of_piece, len(pieces))
    return out


def combine(g: Array, x: Array, a: Array, b: Array, c: Array, workers: ThreadPool) -> Array:
    """g ← a · g + b · x + c, with a, b and c for each lane: (P, L) and three (L,)."""
    _, pieces = _cut(x.shape)

    def of_piece(worker: int, number: int) -> None:
        _, place = pieces[number]
        part, lanes = g[place], place[1]
        from_x = workers.scratch("from_x", part.shape, part.dtype)
        np.multiply(x[place], b[lanes], out=from_x)
        np.add(from_x, c[lanes], out=from_x)
        np.multiply(part, a[lanes], out=part)
        np.add(part, from_x, out=part)

    sharing(workers, x.size).map(of_piece, len(pieces))
    return g


def row_blocks(rows: int, elements_of_row: int, elements: int) -> list[slice]:
    """The rows cut into blocks of at most so many elements, or of one row."""
    return chunk_slices(rows, max(1, elements // elements_of_row))


Pieces = list[tuple[int, tuple[slice, slice]]]


def _cut(shape: tuple[int, ...]) -> tuple[int, Pieces]:
    """A matrix (P, L) in pieces: rows of a block, and (number of block, (its rows, its lanes))."""
    width = min(shape[1], tuning.IMAGE_CHUNK_LANES)
    height = min(shape[0], max(1, tuning.IMAGE_CHUNK_ELEMENTS // width), tuning.IMAGE_CHUNK_ROWS)
    pieces = [
        (block, (slice(top, top + height), slice(left, left + width)))
        for block, top in enumerate(range(0, shape[0], height))
        for left in range(0, shape[1], width)
    ]
    return height, pieces

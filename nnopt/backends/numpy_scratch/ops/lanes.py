"""Passes over a batch of images, in pieces that stay in a core's cache, dealt out to threads.

Images (H, W, N, C) are a matrix (H·W, N·C) here: a row for every position, and in it a lane for
every channel of every sample. Sums over positions are sums of long rows, and a number for each
channel or sample, repeated to a vector of lanes, meets all of a row at once. What is summed is
summed by piece first and over the pieces afterwards: the error stays that of a few dozen additions,
and it makes no difference which thread did which piece.
"""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer
from nnopt.backends.numpy_scratch.threads import ALONE, Workers, pieces_of

PIECE = 2**17
"""Elements: 512 kB in float32. Larger pieces leave the cache. Smaller ones cost more calls, and
threads that take turns at Python's lock more often."""

LONGEST_ROW = 4096
"""Lanes of a piece at most, so that a piece has rows enough to add up."""

SHARED_FROM = 2**18
"""Elements from which pieces are dealt out to threads; starting them costs some 50 µs."""


def by_position(x: Array) -> Array:
    """(H, W, N, C) as (H·W, N·C), without a copy where x is C-contiguous."""
    height, width, samples, channels = x.shape
    return x.reshape(height * width, samples * channels)


def sharing(workers: Workers, size: int) -> Workers:
    """The threads that an array of so many elements is worth."""
    return workers if size >= SHARED_FROM else ALONE


def moments(
    x: Array, shape: tuple[int, ...], workers: Workers, buffer: Buffer
) -> tuple[Array, Array]:
    """Mean and biased variance of every lane over the positions: (P, L) to twice (L,), in the shape
    asked for.

    Of each block of rows first, around the block's own mean, so nothing cancels however far the
    mean is from zero; then of the whole by the law of total variance, wᵢ being a block's share of
    the rows (Chan et al. 1983, eq. 2.1, for many parts at once):

        μ = Σᵢ wᵢ μᵢ      σ² = Σᵢ wᵢ (σᵢ² + (μᵢ - μ)²)
    """
    height, pieces = _cut(x.shape)
    blocks = -(-len(x) // height)
    means = buffer("means", (blocks, x.shape[1]), x.dtype)
    variances = buffer("variances", means.shape, x.dtype)

    def of_piece(worker: int, number: int) -> None:
        block, rows, lanes = pieces[number]
        part = x[rows, lanes]
        deviation = workers.space("scratch", part.shape, part.dtype)
        mean = np.add.reduce(part, axis=0, out=means[block, lanes])
        np.divide(mean, len(part), out=mean)
        np.subtract(part, mean, out=deviation)
        np.multiply(deviation, deviation, out=deviation)
        variance = np.add.reduce(deviation, axis=0, out=variances[block, lanes])
        np.divide(variance, len(part), out=variance)

    sharing(workers, x.size).share(of_piece, len(pieces))
    if blocks == 1:
        return means.reshape(shape), variances.reshape(shape)
    shares = np.full((blocks, 1), height / len(x), x.dtype)
    shares[-1] = 1 - (blocks - 1) * height / len(x)
    mean = np.add.reduce(means * shares, axis=0)
    np.subtract(means, mean, out=means)
    np.multiply(means, means, out=means)
    np.add(variances, means, out=variances)
    np.multiply(variances, shares, out=variances)
    return mean.reshape(shape), np.add.reduce(variances, axis=0).reshape(shape)


def of_equal_parts(means: Array, variances: Array, axis: int) -> tuple[Array, Array]:
    """Mean and biased variance of all parts along an axis taken together, being equally large."""
    mean = means.mean(axis=axis)
    variance: Array = variances.mean(axis=axis) + means.var(axis=axis)
    return mean, variance


def gradient_sums(
    g: Array, x: Array, mean: Array, workers: Workers, buffer: Buffer
) -> tuple[Array, Array]:
    """Σ g and Σ g (x - mean) of every lane over the positions: (P, L) to (L,) and (L,)."""
    height, pieces = _cut(x.shape)
    blocks = -(-len(x) // height)
    sums = buffer("sums", (2, blocks, x.shape[1]), x.dtype)

    def of_piece(worker: int, number: int) -> None:
        block, rows, lanes = pieces[number]
        part = x[rows, lanes]
        product = workers.space("scratch", part.shape, part.dtype)
        np.add.reduce(g[rows, lanes], axis=0, out=sums[0, block, lanes])
        np.subtract(part, mean[lanes], out=product)
        np.multiply(product, g[rows, lanes], out=product)
        np.add.reduce(product, axis=0, out=sums[1, block, lanes])

    sharing(workers, x.size).share(of_piece, len(pieces))
    of_gradient, of_product = np.add.reduce(sums, axis=1)
    return of_gradient, of_product


def scale_and_shift(x: Array, scale: Array, shift: Array, out: Array, workers: Workers) -> Array:
    """out = x · scale + shift, a scale and a shift for each lane: (P, L), (L,) and (L,)."""
    _, pieces = _cut(x.shape)

    def of_piece(worker: int, number: int) -> None:
        _, rows, lanes = pieces[number]
        part = np.multiply(x[rows, lanes], scale[lanes], out=out[rows, lanes])
        np.add(part, shift[lanes], out=part)

    sharing(workers, x.size).share(of_piece, len(pieces))
    return out


def combine(g: Array, x: Array, a: Array, b: Array, c: Array, workers: Workers) -> Array:
    """g ← a · g + b · x + c, with a, b and c for each lane: (P, L) and three (L,)."""
    _, pieces = _cut(x.shape)

    def of_piece(worker: int, number: int) -> None:
        _, rows, lanes = pieces[number]
        part = g[rows, lanes]
        from_x = workers.space("scratch", part.shape, part.dtype)
        np.multiply(x[rows, lanes], b[lanes], out=from_x)
        np.add(from_x, c[lanes], out=from_x)
        np.multiply(part, a[lanes], out=part)
        np.add(part, from_x, out=part)

    sharing(workers, x.size).share(of_piece, len(pieces))
    return g


def row_blocks(rows: int, elements_of_row: int, elements: int) -> list[slice]:
    """The rows cut into blocks of at most so many elements, or of one row."""
    return pieces_of(rows, max(1, elements // elements_of_row))


Pieces = list[tuple[int, slice, slice]]


def _cut(shape: tuple[int, ...]) -> tuple[int, Pieces]:
    """A matrix (P, L) in pieces: rows of a block, and (number of block, its rows, its lanes)."""
    width = min(shape[1], LONGEST_ROW)
    height = min(shape[0], max(1, PIECE // width))
    pieces = [
        (block, slice(top, top + height), slice(left, left + width))
        for block, top in enumerate(range(0, shape[0], height))
        for left in range(0, shape[1], width)
    ]
    return height, pieces

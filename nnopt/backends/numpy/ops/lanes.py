"""Sums and element-wise operations on a batch of images.

Images (H, W, N, C) are viewed as a matrix (P, L) = (H·W, N·C). A row contains one position. A
column, called a lane, contains one channel of one sample. A vector with one number for each lane,
such as the scales of all channels repeated for each sample, can be applied to a whole row at once.

The matrix is divided into chunks that stay in the cache of a core. Sums are computed for each chunk
and then over the chunks, so the rounding error is as small as for a few hundred additions, and the
result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Shape
from nnopt.backends.numpy.threads import SERIAL, ThreadPool, chunk_slices

Chunk = tuple[int, tuple[slice, slice]]
"""A part of a matrix (P, L): its row in the grid of chunks, and its slice of each axis."""

MAX_MEAN_IN_STDS = 4
"""Channels or groups with |μ| > 4 √(σ² + ε) are shifted by μ, and σ² is computed again."""


def by_position(x: Array) -> Array:
    """Return (H, W, N, C) as (H·W, N·C), without a copy if x is C-contiguous."""
    height, width, samples, channels = x.shape
    return x.reshape(height * width, samples * channels)


def workers_for(x: Array, buffer: Buffer) -> ThreadPool:
    """Return the threads for an operation on x. For a small x, this is only the calling thread."""
    return buffer.workers if x.size >= tuning.THREADING_MIN_ELEMENTS else SERIAL


def sums(a: Array, b: Array, buffer: Buffer, where: Array | None = None) -> Array:
    """Return Σ a and Σ a · b of each lane, (2, L), for two matrices (P, L).

    If a matrix ``where`` (P, L) is given, ``a`` is first set to 0 in place wherever ``where`` <= 0.
    """
    chunks = _chunks(a.shape)
    last_row, _ = chunks[-1]
    chunk_sums = buffer("sums", (2, last_row + 1, a.shape[1]), a.dtype)

    def task(worker: int, chunk: Chunk) -> None:
        row, index = chunk
        part = a[index]
        if where is not None:
            positive = buffer.workers.scratch("positive", part.shape, bool)
            np.greater(where[index], 0, out=positive)
            np.multiply(part, positive, out=part)
        np.add.reduce(part, axis=0, out=chunk_sums[0, row, index[1]])
        np.einsum("ij,ij->j", part, b[index], out=chunk_sums[1, row, index[1]])

    workers_for(a, buffer).map(task, chunks)
    return np.add.reduce(chunk_sums, axis=1)  # type: ignore[no-any-return]


def scale_and_shift(
    x: Array, scale: Array, shift: Array, out: Array, buffer: Buffer, relu: bool = False
) -> Array:
    """Compute out = x · scale + shift, then ReLU if ``relu``. x, out: (P, L); others: (L,)."""
    zeros = np.zeros_like(shift)

    def task(worker: int, chunk: Chunk) -> None:
        _, index = chunk
        part = np.multiply(x[index], scale[index[1]], out=out[index])
        np.add(part, shift[index[1]], out=part)
        if relu:
            np.maximum(part, zeros[index[1]], out=part)

    workers_for(x, buffer).map(task, _chunks(x.shape))
    return out


def combine(g: Array, x: Array, a: Array, b: Array, c: Array, buffer: Buffer) -> Array:
    """Compute g ← a · g + b · x + c, with g and x (P, L) and a, b and c (L,)."""

    def task(worker: int, chunk: Chunk) -> None:
        _, index = chunk
        part, lanes = g[index], index[1]
        from_x = buffer.workers.scratch("from_x", part.shape, part.dtype)
        np.multiply(x[index], b[lanes], out=from_x)
        np.add(from_x, c[lanes], out=from_x)
        np.multiply(part, a[lanes], out=part)
        np.add(part, from_x, out=part)

    workers_for(x, buffer).map(task, _chunks(x.shape))
    return g


def moments(
    x: Array, shape: Shape, axis: int, epsilon: float, buffer: Buffer
) -> tuple[Array, Array, Array, Array]:
    """Compute μ = Σx / M and σ² = Σx² / M - μ² of images (H, W, N, C), with M terms in each Σ.

    The N · C lanes are viewed as an array of ``shape``, such as (N, groups, C / groups). The sums
    are over the positions and over ``axis`` of this array. Unless ``axis`` is 0, the moments keep
    this axis with length 1.

    If |μ| > MAX_MEAN_IN_STDS · σ, cancellation makes σ² wrong by about u μ², with the unit roundoff
    u. The values with such a μ are therefore shifted by μ in a copy of x, and summed again.
    Return the shifted values (H·W, N·C), the shift or 0, the mean of the shifted values, and σ².
    """

    def mean_and_variance(values: Array) -> tuple[Array, Array]:
        lane_sums = sums(values, values, buffer).reshape(2, *shape)
        count = len(values) * shape[axis]
        mean, square = np.sum(lane_sums, axis=axis + 1, keepdims=axis > 0) / count
        variance = np.maximum(square - mean * mean, 0)
        variance[variance == np.inf] = np.nan  # otherwise x / σ would be 0, a plausible number
        return mean, variance

    values = by_position(x)
    mean, variance = mean_and_variance(values)
    is_far = mean * mean > MAX_MEAN_IN_STDS**2 * (variance + epsilon)
    if not is_far.any():
        return values, np.zeros_like(mean), mean, variance
    shift = np.where(is_far, mean, 0)
    shifted = buffer("shifted", values.shape, x.dtype)
    np.subtract(values, to_lanes(shape, shift), out=shifted)
    return shifted, shift, *mean_and_variance(shifted)


def to_lanes(shape: Shape, *values: Array) -> Array:
    """Broadcast each of k arrays to ``shape``, the shape of the lanes. Return an array (k, N·C)."""
    lanes = np.empty((len(values), *shape), values[0].dtype)
    for lane, value in zip(lanes, values, strict=True):  # broadcast_to takes several times longer
        lane[:] = value
    return lanes.reshape(len(values), -1)


def row_chunks(rows: int, row_elements: int, max_elements: int) -> list[slice]:
    """Divide rows into chunks of at most ``max_elements`` elements, but at least one row."""
    return chunk_slices(rows, max(1, max_elements // row_elements))


def _chunks(shape: Shape) -> list[Chunk]:
    """Divide a matrix (P, L) into a grid of chunks."""
    width = min(shape[1], tuning.IMAGE_CHUNK_LANES)
    height = min(shape[0], max(1, tuning.IMAGE_CHUNK_ELEMENTS // width), tuning.IMAGE_CHUNK_ROWS)
    return [
        (row, (slice(top, top + height), slice(left, left + width)))
        for row, top in enumerate(range(0, shape[0], height))
        for left in range(0, shape[1], width)
    ]

"""Pooling of images (H, W, N, C): the largest value or the mean of each window.

Windows of ``size`` x ``size`` pixels start every ``stride`` pixels, on images with ``padding``
pixels more on each side; rows and columns that no whole window reaches are left out. The loops of
the naive versions say what is computed. The fast ones turn the loops inside out: for each of the
size² positions in a window, the inputs at that position of all windows are a strided view of x.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, new
from nnopt.backends.numpy.ops.lanes import by_position, row_blocks, sharing
from nnopt.backends.numpy.threads import SERIAL, ThreadPool

Shape = tuple[int, ...]


class Windows(NamedTuple):
    """How the windows lie on images (H, W, N, C)."""

    size: int
    stride: int
    padding: int
    images: Shape

    def output_shape(self) -> Shape:
        """(H', W', N, C), where H' = ⌊(H + 2 padding - size) / stride⌋ + 1, and W' likewise."""
        height, width = [
            (pixels + 2 * self.padding - self.size) // self.stride + 1 for pixels in self.images[:2]
        ]
        return height, width, *self.images[2:]

    def overlap(self) -> bool:
        """Do neighbouring windows share pixels?"""
        return self.size > self.stride

    def tile(self) -> bool:
        """Is every pixel in exactly one window?"""
        fits = all(pixels % self.size == 0 for pixels in self.images[:2])
        return self.size == self.stride and self.padding == 0 and fits

    def pixels(self, window: int, axis: int) -> range:
        """The rows (axis 0) or columns (axis 1) of the image in a window."""
        start = window * self.stride - self.padding
        return range(max(start, 0), min(start + self.size, self.images[axis]))

    def positions(self, rows: slice) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
        """For each position in a window, row by row: its number, and which outputs (of these rows)
        take which inputs there. Inputs in the padding, and the outputs they go to, are left out."""
        columns = slice(0, self.output_shape()[1])
        for number in range(self.size**2):
            below, right = divmod(number, self.size)
            vertical = self._meet(below - self.padding, rows, self.images[0])
            horizontal = self._meet(right - self.padding, columns, self.images[1])
            if vertical and horizontal:
                outputs, inputs = zip(vertical, horizontal, strict=True)
                yield number, outputs, inputs

    def first_positions(self, rows: slice) -> Array:
        """For each output of these rows, (rows, W', 1, 1): the number of the first position in its
        window that is not in the padding."""
        below, right = (
            np.maximum(self.padding - self.stride * np.arange(windows), 0)
            for windows in self.output_shape()[:2]
        )
        return (below[rows, None] * self.size + right)[:, :, None, None]

    def _meet(self, offset: int, windows: slice, pixels: int) -> tuple[slice, slice] | None:
        """Along one axis, the windows that have a pixel ``offset`` after their start, and these
        pixels: 0 <= window · stride + offset < pixels."""
        first = max(windows.start, -(offset // self.stride))
        last = min(windows.stop - 1, (pixels - 1 - offset) // self.stride)
        if last < first:
            return None
        start, stop = first * self.stride + offset, last * self.stride + offset + 1
        return slice(first, last + 1), slice(start, stop, self.stride)


def max_pool2d_naive_forward(
    x: Array, *, size: int, stride: int, padding: int = 0
) -> tuple[Array, tuple[Array, Windows]]:
    """yᵢⱼ = the largest x of window (i, j); of equals the first, row by row. NaN is the largest, of
    several the last, as in PyTorch."""
    windows = Windows(size, stride, padding, x.shape)
    y = np.empty(windows.output_shape(), x.dtype)
    winners = np.empty((*y.shape, 2), np.intp)  # the row and column in x
    for i, j, n, c in np.ndindex(y.shape):
        best = None
        for row in windows.pixels(i, axis=0):
            for column in windows.pixels(j, axis=1):
                value = x[row, column, n, c]
                if best is None or value > best or np.isnan(value):
                    best, winners[i, j, n, c] = value, (row, column)
        y[i, j, n, c] = best
    return y, (winners, windows)


def max_pool2d_naive_backward(g: Array, saved: tuple[Array, Windows]) -> tuple[Array]:
    """Every output's gradient goes to the input it was taken from."""
    winners, windows = saved
    d_x = np.zeros(windows.images, g.dtype)
    for i, j, n, c in np.ndindex(g.shape):
        row, column = winners[i, j, n, c]
        d_x[row, column, n, c] += g[i, j, n, c]
    return (d_x,)


def avg_pool2d_naive_forward(
    x: Array, *, size: int, stride: int, padding: int = 0
) -> tuple[Array, Windows]:
    """yᵢⱼ = Σ x over window (i, j) / size²; the padding counts as zeros."""
    windows = Windows(size, stride, padding, x.shape)
    y = np.zeros(windows.output_shape(), x.dtype)
    for i, j in np.ndindex(y.shape[:2]):
        for row in windows.pixels(i, axis=0):
            for column in windows.pixels(j, axis=1):
                y[i, j] += x[row, column] / size**2
    return y, windows


def avg_pool2d_naive_backward(g: Array, windows: Windows) -> tuple[Array]:
    """Every output's gradient goes to all inputs of its window, divided by size²."""
    d_x = np.zeros(windows.images, g.dtype)
    for i, j in np.ndindex(g.shape[:2]):
        for row in windows.pixels(i, axis=0):
            for column in windows.pixels(j, axis=1):
                d_x[row, column] += g[i, j] / windows.size**2
    return (d_x,)


def max_pool2d_forward(
    x: Array,
    *,
    size: int,
    stride: int,
    padding: int = 0,
    workers: ThreadPool = SERIAL,
    buffer: Buffer = new,
) -> tuple[Array, tuple[Array, Windows, ThreadPool]]:
    """yᵢⱼ = the largest x of window (i, j); NaN if there is one.

    x: (H, W, N, C), y: (H', W', N, C). Saved: for each output the number of the position in the
    window that won, the first of equals as in PyTorch: after a ReLU, zeros tie all the time. Where
    y is NaN it is, unlike in the naive version, that of the largest before the first NaN, if any:
    a loss that is not a number ends the training, so its gradients are not worth a pass over x.
    """
    windows = Windows(size, stride, padding, x.shape)
    y = buffer("y", windows.output_shape(), x.dtype)
    number_type = np.min_scalar_type(size**2 - 1)
    winner = buffer("winner", y.shape, number_type)
    larger = buffer("larger", y.shape, bool)
    marked = buffer("marked", y.shape, number_type)
    blocks = _blocks(windows)

    def of_block(worker: int, block: int) -> None:
        rows = blocks[block]
        winner[rows] = windows.first_positions(rows) if padding else 0  # the winner if all are -∞
        if padding:
            y[rows] = -np.inf
        for number, outputs, inputs in windows.positions(rows):
            best, candidate = y[outputs], x[inputs]
            if number == 0 and not padding:  # every window has a first pixel
                np.copyto(best, candidate)
                continue
            np.greater(candidate, best, out=larger[outputs])
            np.maximum(best, candidate, out=best)
            # Numbers rise, so the last position to be larger has the largest number.
            ones = larger[outputs].view(np.uint8)
            np.multiply(ones, number_type.type(number), out=marked[outputs])
            np.maximum(winner[outputs], marked[outputs], out=winner[outputs])

    sharing(workers, x.size).map(of_block, len(blocks))
    return y, (winner, windows, workers)


def max_pool2d_backward(
    g: Array,
    saved: tuple[Array, Windows, ThreadPool],
    *,
    buffer: Buffer = new,
) -> tuple[Array]:
    """dL/dx is the sum of the gradients of the outputs that x was taken for."""
    winner, windows, workers = saved
    d_x = _gradient_of_images(windows, g, buffer)
    won = buffer("won", g.shape, bool)
    blocks = _blocks(windows) if not windows.overlap() else [slice(0, len(g))]

    def of_block(worker: int, block: int) -> None:
        for number, outputs, inputs in windows.positions(blocks[block]):
            np.equal(winner[outputs], number, out=won[outputs])
            if windows.overlap():
                part = buffer("part", g.shape, g.dtype)[outputs]
                np.multiply(g[outputs], won[outputs], out=part)
                np.add(d_x[inputs], part, out=d_x[inputs])
            else:
                np.multiply(g[outputs], won[outputs], out=d_x[inputs])

    sharing(workers, d_x.size).map(of_block, len(blocks))
    return (d_x,)


def avg_pool2d_forward(
    x: Array,
    *,
    size: int,
    stride: int,
    padding: int = 0,
    workers: ThreadPool = SERIAL,
    buffer: Buffer = new,
) -> tuple[Array, tuple[Windows, ThreadPool]]:
    """yᵢⱼ = Σ x over window (i, j) / size²; the padding counts as zeros.

    x: (H, W, N, C), y: (H', W', N, C).
    """
    windows = Windows(size, stride, padding, x.shape)
    y = buffer("y", windows.output_shape(), x.dtype)
    blocks = _blocks(windows)

    def of_block(worker: int, block: int) -> None:
        rows = blocks[block]
        y[rows] = 0
        for _, outputs, inputs in windows.positions(rows):
            np.add(y[outputs], x[inputs], out=y[outputs])
        np.multiply(y[rows], 1 / size**2, out=y[rows])

    sharing(workers, x.size).map(of_block, len(blocks))
    return y, (windows, workers)


def avg_pool2d_backward(
    g: Array, saved: tuple[Windows, ThreadPool], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = Σ g / size² over the windows that x is in."""
    windows, workers = saved
    d_x = _gradient_of_images(windows, g, buffer)
    blocks = _blocks(windows) if not windows.overlap() else [slice(0, len(g))]

    def of_block(worker: int, block: int) -> None:
        rows = blocks[block]
        np.multiply(g[rows], 1 / windows.size**2, out=g[rows])
        for _, outputs, inputs in windows.positions(rows):
            if windows.overlap():
                np.add(d_x[inputs], g[outputs], out=d_x[inputs])
            else:
                np.copyto(d_x[inputs], g[outputs])

    sharing(workers, d_x.size).map(of_block, len(blocks))
    return (d_x,)


def global_avg_pool_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Shape]:
    """y = the mean of x over all positions (Lin et al. 2014, section 3.2).

    x: (H, W, N, C), y: (N, C).
    """
    y = buffer("y", x.shape[2:], x.dtype)
    np.add.reduce(by_position(x), axis=0, out=y.reshape(-1))
    return np.multiply(y, 1 / (x.shape[0] * x.shape[1]), out=y), x.shape


def global_avg_pool_backward(g: Array, shape: Shape, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g / (H · W), the same at every position."""
    d_x = buffer("d_x", shape, g.dtype)
    np.copyto(d_x, np.multiply(g, 1 / (shape[0] * shape[1]), out=g))
    return (d_x,)


def _blocks(windows: Windows) -> list[slice]:
    """The rows of the output, cut into pieces of work."""
    height, *_ = windows.output_shape()
    _, width, samples, channels = windows.images
    return row_blocks(
        height, windows.stride * width * samples * channels, tuning.POOLING_CHUNK_ELEMENTS
    )


def _gradient_of_images(windows: Windows, g: Array, buffer: Buffer) -> Array:
    """The array for dL/dx; zeros, unless every pixel will be written to."""
    d_x = buffer("d_x", windows.images, g.dtype)
    if not windows.tile():
        d_x.fill(0)
    return d_x


MAX_POOL2D = Op(max_pool2d_forward, max_pool2d_backward, ("x",))
AVG_POOL2D = Op(avg_pool2d_forward, avg_pool2d_backward, ("x",))
GLOBAL_AVG_POOL = Op(global_avg_pool_forward, global_avg_pool_backward, ("x",))

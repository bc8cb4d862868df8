"""Pooling of images (H, W, N, C): the maximum or the mean of each window.

The options ``window`` are the size, the stride and the padding of ``Windows``. The naive versions
loop over the windows. The fast versions loop over the size² positions in a window, because the
inputs at the same position in all windows are a strided view of x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, Shape, new
from nnopt.backends.numpy.ops.lanes import by_position, row_chunks, workers_for


def max_pool2d_naive_forward(x: Array, **window: int) -> Array:
    """Compute yᵢⱼ = the maximum of x over window (i, j), or NaN if the window contains a NaN."""
    windows = Windows(x.shape, **window)
    y = np.empty(windows.output_shape(), x.dtype)
    for output in np.ndindex(y.shape):
        y[output] = x[_naive_winner(x, windows, output)]
    return y


def max_pool2d_naive_backward(g: Array, x: Array, **window: int) -> tuple[Array]:
    """Add the gradient of each output to that of the input that was the maximum of the window."""
    windows = Windows(x.shape, **window)
    d_x = np.zeros_like(x)
    for output in np.ndindex(g.shape):
        d_x[_naive_winner(x, windows, output)] += g[output]
    return (d_x,)


def _naive_winner(x: Array, windows: Windows, output: Shape) -> Shape:
    """Return the index in x of a window's last NaN, or else of its first maximum, row by row."""
    pixels = [(*pixel, *output[2:]) for pixel in windows.pixels(*output[:2])]
    nans = [pixel for pixel in pixels if np.isnan(x[pixel])]
    return nans[-1] if nans else max(pixels, key=lambda pixel: x[pixel])  # the first maximum


def avg_pool2d_naive_forward(x: Array, **window: int) -> Array:
    """Compute yᵢⱼ = Σ x over window (i, j) / size²; the padding counts as zeros."""
    windows = Windows(x.shape, **window)
    y = np.zeros(windows.output_shape(), x.dtype)
    for i, j in np.ndindex(y.shape[:2]):
        for pixel in windows.pixels(i, j):
            y[i, j] += x[pixel] / windows.size**2
    return y


def avg_pool2d_naive_backward(g: Array, x: Array, **window: int) -> tuple[Array]:
    """Add the gradient of each output, divided by size², to those of all inputs in the window."""
    windows = Windows(x.shape, **window)
    d_x = np.zeros_like(x)
    for i, j in np.ndindex(g.shape[:2]):
        for pixel in windows.pixels(i, j):
            d_x[pixel] += g[i, j] / windows.size**2
    return (d_x,)


def global_avg_pool_naive_forward(x: Array) -> Array:
    """Compute y = the mean of x over all positions: (H, W, N, C) to (N, C)."""
    return np.asarray(x.mean(axis=(0, 1)))


def global_avg_pool_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g / (H · W) at every position."""
    return (np.broadcast_to(g, x.shape) / (x.shape[0] * x.shape[1]),)


class Windows(NamedTuple):
    """The windows of ``size`` x ``size`` pixels on images (H, W, N, C).

    Windows start every ``stride`` pixels, on images that are padded with ``padding`` pixels on each
    side. Rows and columns beyond the last complete window are ignored.
    """

    images: Shape
    size: int
    stride: int
    padding: int = 0

    def output_shape(self) -> Shape:
        """Return (H', W', N, C), with H' = ⌊(H + 2 padding - size) / stride⌋ + 1."""
        height, width = [
            (pixels + 2 * self.padding - self.size) // self.stride + 1 for pixels in self.images[:2]
        ]
        return height, width, *self.images[2:]

    def overlap(self) -> bool:
        """Return whether neighbouring windows share pixels."""
        return self.size > self.stride

    def pixels(self, i: int, j: int) -> Iterator[tuple[int, int]]:
        """Iterate over the pixels (row, column) of the image in window (i, j), row by row."""
        top, left = i * self.stride - self.padding, j * self.stride - self.padding
        rows = range(max(top, 0), min(top + self.size, self.images[0]))
        columns = range(max(left, 0), min(left + self.size, self.images[1]))
        return product(rows, columns)

    def positions(self, rows: slice) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
        """Yield the positions in a window, row by row, for some rows of the output.

        Each item is (number of the position, slices of outputs, slices of inputs). The inputs are
        the pixels at this position in the windows. Windows whose pixel is padding are left out.
        """
        columns = slice(0, self.output_shape()[1])
        for number in range(self.size**2):
            below, right = divmod(number, self.size)
            vertical = self._match(below - self.padding, rows, self.images[0])
            horizontal = self._match(right - self.padding, columns, self.images[1])
            if vertical and horizontal:
                outputs, inputs = zip(vertical, horizontal, strict=True)
                yield number, outputs, inputs

    def first_positions(self, rows: slice) -> Array:
        """Return each window's first position in the image, as a number, (rows, W', 1, 1)."""
        below, right = (
            np.maximum(self.padding - self.stride * np.arange(windows), 0)
            for windows in self.output_shape()[:2]
        )
        return (below[rows, None] * self.size + right)[:, :, None, None]

    def _match(self, offset: int, windows: slice, pixels: int) -> tuple[slice, slice] | None:
        """Return a slice of windows along an axis, and a slice of one pixel of each window.

        This pixel has the index window · stride + offset. Windows whose pixel is outside the image
        (index below 0 or at least ``pixels``) are left out. Return None if no window is left.
        """
        first = max(windows.start, -(offset // self.stride))
        last = min(windows.stop - 1, (pixels - 1 - offset) // self.stride)
        if last < first:
            return None
        start, stop = first * self.stride + offset, last * self.stride + offset + 1
        return slice(first, last + 1), slice(start, stop, self.stride)


def max_pool2d_forward(
    x: Array, *, buffer: Buffer = new, **window: int
) -> tuple[Array, tuple[Array, Windows]]:
    """Compute ``max_pool2d_naive_forward``, and save the position of each maximum in its window.

    Of equal values, the first one is the maximum. If y is NaN, the position of the maximum before
    the first NaN is saved. The naive version uses the last NaN, which would take another pass over
    x here. The difference has no effect, because a NaN loss ends the training.
    """
    windows = Windows(x.shape, **window)
    y = buffer("y", windows.output_shape(), x.dtype)
    number_type = np.min_scalar_type(windows.size**2 - 1)
    winner = buffer("winner", y.shape, number_type)
    larger = buffer("larger", y.shape, bool)
    marked = buffer("marked", y.shape, number_type)

    def task(worker: int, rows: slice) -> None:
        winner[rows] = 0  # this position remains if all values are -∞
        if windows.padding:
            winner[rows] = windows.first_positions(rows)
            y[rows] = -np.inf
        for number, outputs, inputs in windows.positions(rows):
            best, candidate = y[outputs], x[inputs]
            if number == 0 and not windows.padding:  # no window has its first pixel in the padding
                np.copyto(best, candidate)
                continue
            np.greater(candidate, best, out=larger[outputs])
            np.maximum(best, candidate, out=best)
            # The numbers of positions increase, so the latest winner has the largest number.
            ones = larger[outputs].view(np.uint8)
            np.multiply(ones, number_type.type(number), out=marked[outputs])
            np.maximum(winner[outputs], marked[outputs], out=winner[outputs])

    _map_rows(task, windows, x, buffer)
    return y, (winner, windows)


def max_pool2d_backward(
    g: Array, saved: tuple[Array, Windows], *, buffer: Buffer = new
) -> tuple[Array]:
    """Compute ``max_pool2d_naive_backward``."""
    winner, windows = saved
    d_x = _gradient_buffer(windows, g, buffer)
    won = buffer("won", g.shape, bool)

    def task(worker: int, rows: slice) -> None:
        for number, outputs, inputs in windows.positions(rows):
            np.equal(winner[outputs], number, out=won[outputs])
            if windows.overlap():
                part = buffer("part", g.shape, g.dtype)[outputs]
                np.multiply(g[outputs], won[outputs], out=part)
                np.add(d_x[inputs], part, out=d_x[inputs])
            else:
                np.multiply(g[outputs], won[outputs], out=d_x[inputs])

    _map_rows(task, windows, d_x, buffer, is_serial=windows.overlap())
    return (d_x,)


def avg_pool2d_forward(x: Array, *, buffer: Buffer = new, **window: int) -> tuple[Array, Windows]:
    """Compute ``avg_pool2d_naive_forward``."""
    windows = Windows(x.shape, **window)
    y = buffer("y", windows.output_shape(), x.dtype)

    def task(worker: int, rows: slice) -> None:
        y[rows] = 0
        for _, outputs, inputs in windows.positions(rows):
            np.add(y[outputs], x[inputs], out=y[outputs])
        np.multiply(y[rows], 1 / windows.size**2, out=y[rows])

    _map_rows(task, windows, x, buffer)
    return y, windows


def avg_pool2d_backward(g: Array, windows: Windows, *, buffer: Buffer = new) -> tuple[Array]:
    """Compute ``avg_pool2d_naive_backward``."""
    d_x = _gradient_buffer(windows, g, buffer)

    def task(worker: int, rows: slice) -> None:
        np.multiply(g[rows], 1 / windows.size**2, out=g[rows])
        for _, outputs, inputs in windows.positions(rows):
            if windows.overlap():
                np.add(d_x[inputs], g[outputs], out=d_x[inputs])
            else:
                np.copyto(d_x[inputs], g[outputs])

    _map_rows(task, windows, d_x, buffer, is_serial=windows.overlap())
    return (d_x,)


def global_avg_pool_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Shape]:
    """Compute ``global_avg_pool_naive_forward`` (Lin et al. 2014, section 3.2)."""
    y = buffer("y", x.shape[2:], x.dtype)
    np.add.reduce(by_position(x), axis=0, out=y.reshape(-1))
    return np.multiply(y, 1 / (x.shape[0] * x.shape[1]), out=y), x.shape


def global_avg_pool_backward(g: Array, shape: Shape, *, buffer: Buffer = new) -> tuple[Array]:
    """Compute ``global_avg_pool_naive_backward``."""
    d_x = buffer("d_x", shape, g.dtype)
    np.copyto(d_x, np.multiply(g, 1 / (shape[0] * shape[1]), out=g))
    return (d_x,)


def _map_rows(
    task: Callable[[int, slice], None],
    windows: Windows,
    images: Array,
    buffer: Buffer,
    is_serial: bool = False,
) -> None:
    """Call ``task`` for chunks of rows of the output, or once for all rows if ``is_serial``."""
    rows, *_ = windows.output_shape()
    row_elements = windows.stride * images[0].size
    chunks = row_chunks(rows, row_elements, tuning.POOLING_CHUNK_ELEMENTS)
    workers_for(images, buffer).map(task, [slice(0, rows)] if is_serial else chunks)


def _gradient_buffer(windows: Windows, g: Array, buffer: Buffer) -> Array:
    """Return the array for dL/dx, filled with zeros unless every pixel is in exactly one window."""
    d_x = buffer("d_x", windows.images, g.dtype)
    are_tiles = windows.size == windows.stride and not windows.padding
    if not are_tiles or any(pixels % windows.size for pixels in windows.images[:2]):
        d_x.fill(0)
    return d_x


MAX_POOL2D = Op(max_pool2d_forward, max_pool2d_backward, ("x",))
AVG_POOL2D = Op(avg_pool2d_forward, avg_pool2d_backward, ("x",))
GLOBAL_AVG_POOL = Op(global_avg_pool_forward, global_avg_pool_backward, ("x",))

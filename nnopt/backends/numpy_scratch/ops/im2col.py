"""Convolution as one product of matrices, for kernels, strides and paddings of any size.

The windows of the input become the columns of a matrix ("image to column", Chellapilla et al.
2006): its rows are the C · kh · kw places of a kernel, its columns the H' · W' · n windows of a
piece, a few images that stay in a core's cache. Images lie as (H, W, C, N) here, padded: the
numbers at one place of consecutive images' windows are then neighbours in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy_scratch.ops import Array, Buffer
from nnopt.backends.numpy_scratch.threads import Workers, pieces_of

IMAGES, NUMBERS = 16, 2**18
"""A piece has at most so many images, and at most so many numbers in its matrix."""


def im2col_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: int,
    padding: int,
    workers: Workers,
    buffer: Buffer,
) -> Array:
    """y[h, w, n, o] = b[o] + Σ_{i,j,c} x[s h + i - p, s w + j - p, n, c] w[o, c, i, j].

    x: (H, W, N, C), weight: (O, C, kh, kw), bias: (O,), stride s, padding p, y: (H', W', N, O) with
    H' = ⌊(H + 2p - kh) / s⌋ + 1.
    """
    size = _output_size(x, weight, stride, padding)
    outputs = len(weight)
    y = buffer("y", (*size, x.shape[2], outputs), x.dtype)
    pieces = _pieces(x, weight, size)

    def task(worker: int, index: int) -> None:
        piece = pieces[index]
        columns = _columns(x[:, :, piece], weight.shape[2:], size, stride, padding, workers)
        product = workers.space("product", (columns.shape[1], outputs), x.dtype)
        np.matmul(columns.T, weight.reshape(outputs, -1).T, out=product)
        part = product.reshape(*size, -1, outputs)
        if bias is None:
            np.copyto(y[:, :, piece], part)
        else:
            np.add(part, bias, out=y[:, :, piece])

    workers.share(task, len(pieces))
    return y


def im2col_weight_gradient(
    g: Array,
    x: Array,
    weight: Array,
    stride: int,
    padding: int,
    workers: Workers,
    buffer: Buffer,
) -> tuple[Array, Array]:
    """With the matrix of windows X (C · kh · kw, windows) and g = dL/dy as (windows, O):

        dL/dw = (X g)ᵀ  (O, C, kh, kw)      dL/db = Σ g  (O,)

    The pieces are dealt to the workers in a fixed way, for the sum to be the same at every run.
    """
    size, outputs = g.shape[:2], g.shape[3]
    pieces = _pieces(x, weight, size)
    shares = min(workers.count, len(pieces))
    sums = workers.space("sums", (shares, outputs, weight[0].size), x.dtype)
    bias_sums = workers.space("bias_sums", (shares, outputs), x.dtype)
    sums.fill(0)
    bias_sums.fill(0)

    def task(worker: int, share: int) -> None:
        for piece in pieces[share::shares]:
            columns = _columns(x[:, :, piece], weight.shape[2:], size, stride, padding, workers)
            rows = _rows(g[:, :, piece], workers)
            sums[share] += np.matmul(rows.T, columns.T)
            bias_sums[share] += np.add.reduce(rows, axis=0)

    workers.share(task, shares)
    d_weight = buffer("d_weight", weight.shape, x.dtype)
    np.add.reduce(sums, axis=0, out=d_weight.reshape(outputs, -1))
    d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), x.dtype))
    return d_weight, d_bias


def im2col_input_gradient(
    g: Array,
    shape: tuple[int, ...],
    weight: Array,
    stride: int,
    padding: int,
    workers: Workers,
    buffer: Buffer,
) -> Array:
    """dL/dx, of the shape (H, W, N, C) given: the product wᵀ gᵀ (C · kh · kw, windows) holds what
    each place of each window receives; it is added up where the windows came from."""
    height, width, _, channels = shape
    down, across = g.shape[:2]
    kernel_height, kernel_width = weight.shape[2:]
    d_x = buffer("d_x", shape, g.dtype)
    pieces = _pieces(d_x, weight, (down, across))

    def task(worker: int, index: int) -> None:
        piece = pieces[index]
        rows = _rows(g[:, :, piece], workers)
        images = piece.stop - piece.start
        columns = workers.space("columns", (weight[0].size, len(rows)), g.dtype)
        np.matmul(weight.reshape(len(weight), -1).T, rows.T, out=columns)
        places = columns.reshape(channels, kernel_height, kernel_width, down, across, images)
        padded_shape = (height + 2 * padding, width + 2 * padding, channels, images)
        padded = workers.space("padded_gradient", padded_shape, g.dtype)
        padded.fill(0)
        for i in range(kernel_height):
            for j in range(kernel_width):
                window = padded[i : i + stride * down : stride, j : j + stride * across : stride]
                window = window[:down, :across]
                np.add(window, places[:, i, j].transpose(1, 2, 0, 3), out=window)
        inside = padded[padding : padding + height, padding : padding + width]
        np.copyto(d_x[:, :, piece], inside.transpose(0, 1, 3, 2))

    workers.share(task, len(pieces))
    return d_x


def _output_size(x: Array, weight: Array, stride: int, padding: int) -> tuple[int, int]:
    """(H', W')."""
    (height, width), (kernel_height, kernel_width) = x.shape[:2], weight.shape[2:]
    down = (height + 2 * padding - kernel_height) // stride + 1
    return down, (width + 2 * padding - kernel_width) // stride + 1


def _pieces(x: Array, weight: Array, size: tuple[int, int]) -> list[slice]:
    """The images cut into pieces."""
    per_image = weight[0].size * size[0] * size[1]
    return pieces_of(x.shape[2], max(min(IMAGES, NUMBERS // per_image), 1))


def _columns(
    x: Array,
    kernel: tuple[int, ...],
    size: tuple[int, int],
    stride: int,
    padding: int,
    workers: Workers,
) -> Array:
    """The windows of x (H, W, n, C): (C · kh · kw, H' · W' · n)."""
    height, width, images, channels = x.shape
    shape = (height + 2 * padding, width + 2 * padding, channels, images)
    padded = workers.space("padded", shape, x.dtype)
    for border in (
        padded[:padding],
        padded[padding + height :],
        padded[:, :padding],
        padded[:, padding + width :],
    ):
        border.fill(0)
    inside = padded[padding : padding + height, padding : padding + width]
    np.copyto(inside, x.transpose(0, 1, 3, 2))
    row, column, channel, image = padded.strides
    windows = as_strided(
        padded,
        (channels, *kernel, *size, images),
        (channel, row, column, stride * row, stride * column, image),
    )
    columns = workers.space("columns", windows.shape, x.dtype)
    np.copyto(columns, windows)
    return columns.reshape(channels * kernel[0] * kernel[1], -1)


def _rows(g: Array, workers: Workers) -> Array:
    """A piece of g (H', W', n, O) as a matrix (H' · W' · n, O)."""
    rows = workers.space("rows", g.shape, g.dtype)
    np.copyto(rows, g)
    return rows.reshape(-1, g.shape[3])

"""Convolution as a product of matrices, for kernels, strides and paddings of any size.

The windows of the input become the columns of a matrix ("image to column", Chellapilla et al.
2006), its rows being the C · kh · kw places of a kernel. It is made and used in pieces, rows of
windows, that stay in a core's cache if they are not too long. Images lie as (H, W, C, N) here,
padded: the numbers at one place of the windows of all images are then neighbours in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy_scratch.ops import Array, Buffer
from nnopt.backends.numpy_scratch.threads import Workers, pieces_of

NUMBERS = 2**17
"""A piece's matrix has at most so many numbers, unless one row of windows has more."""

IMAGES = 16
"""The input gradient's pieces are at most so many images; the others' are rows of all images."""


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
    outputs, kernel = len(weight), weight.shape[2:]
    size = [
        (length + 2 * padding - k) // stride + 1 for length, k in zip(x.shape, kernel, strict=False)
    ]
    y = buffer("y", (*size, x.shape[2], outputs), x.dtype)
    padded = _padded(x, padding, workers)
    pieces = _rows_of_all_images(y.shape, weight)

    def task(worker: int, index: int) -> None:
        columns = _columns(padded, kernel, pieces[index], y.shape[1], stride, workers)
        part = y[pieces[index]].reshape(-1, outputs)
        np.matmul(columns.T, weight.reshape(outputs, -1).T, out=part)
        if bias is not None:
            np.add(part, bias, out=part)

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
    outputs, kernel = len(weight), weight.shape[2:]
    padded = _padded(x, padding, workers)
    pieces = _rows_of_all_images(g.shape, weight)
    shares = min(workers.count, len(pieces))
    sums = workers.space("sums", (shares, weight[0].size, outputs), x.dtype)
    bias_sums = workers.space("bias_sums", (shares, outputs), x.dtype)
    sums.fill(0)
    bias_sums.fill(0)

    def task(worker: int, share: int) -> None:
        for piece in pieces[share::shares]:
            columns = _columns(padded, kernel, piece, g.shape[1], stride, workers)
            rows = g[piece].reshape(-1, outputs)
            product = workers.space("product", sums[share].shape, x.dtype)
            np.add(sums[share], np.matmul(columns, rows, out=product), out=sums[share])
            bias_sums[share] += np.ones(len(rows), rows.dtype) @ rows

    workers.share(task, shares)
    d_weight = buffer("d_weight", weight.shape, x.dtype)
    np.add.reduce(sums, axis=0, out=d_weight.reshape(outputs, -1).T)
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
    pieces = pieces_of(shape[2], IMAGES)

    def task(worker: int, index: int) -> None:
        piece = pieces[index]
        images = piece.stop - piece.start
        part = workers.space("part", (down, across, images, len(weight)), g.dtype)
        np.copyto(part, g[:, :, piece])
        rows = part.reshape(-1, len(weight))
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


def _padded(x: Array, padding: int, workers: Workers) -> Array:
    """x (H, W, N, C) as (H + 2p, W + 2p, C, N), with zeros around."""
    height, width, images, channels = x.shape
    shape = (height + 2 * padding, width + 2 * padding, channels, images)
    padded = workers.space("padded_images", shape, x.dtype)
    inside = padded[padding : padding + height, padding : padding + width]
    padded[:padding] = padded[padding + height :] = 0
    padded[:, :padding] = padded[:, padding + width :] = 0

    def task(worker: int, row: int) -> None:
        np.copyto(inside[row], x[row].transpose(0, 2, 1))

    workers.share(task, height)
    return padded


def _rows_of_all_images(size: tuple[int, ...], weight: Array) -> list[slice]:
    """The rows of the output (H', W', N, O) cut into pieces."""
    rows, across, images, _ = size
    return pieces_of(rows, max(NUMBERS // (weight[0].size * across * images), 1))


def _columns(
    padded: Array,
    kernel: tuple[int, ...],
    rows: slice,
    across: int,
    stride: int,
    workers: Workers,
) -> Array:
    """The windows of some rows of the output: (C · kh · kw, rows · W' · N)."""
    channels, images = padded.shape[2:]
    row, column, channel, image = padded.strides
    windows = as_strided(
        padded[stride * rows.start :],
        (channels, *kernel, rows.stop - rows.start, across, images),
        (channel, row, column, stride * row, stride * column, image),
    )
    columns = workers.space("columns", windows.shape, padded.dtype)
    np.copyto(columns, windows)
    return columns.reshape(channels * kernel[0] * kernel[1], -1)

"""Convolution as a product of matrices, for kernels, strides and paddings of any size.

The windows of the input become the columns of a matrix ("image to column", Chellapilla et al.
2006), its rows being the C · kh · kw places of a kernel. It is made and used in pieces, rows of
windows, that stay in a core's cache if they are not too long. Images lie as (H, W, C, N) here,
padded: the numbers at one place of the windows of all images are then neighbours in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer
from nnopt.backends.numpy.ops.lanes import workers_for
from nnopt.backends.numpy.threads import ThreadPool, chunk_slices, partial_sum_count


def padded_images(x: Array, padding: int, workers: ThreadPool, buffer: Buffer) -> Array:
    """Images (H, W, N, C) as (H + 2p, W + 2p, C, N), with zeros around."""
    height, width, images, channels = x.shape
    shape = (height + 2 * padding, width + 2 * padding, channels, images)
    padded = buffer("padded", shape, x.dtype)
    inside = padded[padding : padding + height, padding : padding + width]
    padded[:padding] = padded[padding + height :] = 0
    padded[:, :padding] = padded[:, padding + width :] = 0
    pieces = chunk_slices(images, tuning.IM2COL_CHUNK_IMAGES)

    def task(worker: int, number: int) -> None:
        piece = pieces[number]
        np.copyto(inside[..., piece], x[:, :, piece].transpose(0, 1, 3, 2))

    workers_for(x, workers).map(task, len(pieces))
    return padded


def im2col_forward(
    padded: Array,
    weight: Array,
    bias: Array | None,
    stride: int,
    workers: ThreadPool,
    buffer: Buffer,
) -> Array:
    """y[h, w, n, o] = b[o] + Σ_{i,j,c} x[s h + i, s w + j, c, n] w[o, c, i, j].

    Padded x: (H, W, C, N), weight: (O, C, kh, kw), bias: (O,), stride s, y: (H', W', N, O) with
    H' = ⌊(H - kh) / s⌋ + 1.
    """
    outputs, kernel = len(weight), weight.shape[2:]
    size = [(length - k) // stride + 1 for length, k in zip(padded.shape, kernel, strict=False)]
    y = buffer("y", (*size, padded.shape[3], outputs), padded.dtype)
    pieces = _rows(y.shape, weight, tuning.IM2COL_CHUNK_ELEMENTS)
    factor = weight.reshape(outputs, -1).T

    def task(worker: int, index: int) -> None:
        columns = _columns(padded, kernel, pieces[index], y.shape[1], stride, workers)
        part = y[pieces[index]].reshape(-1, outputs)
        np.matmul(columns.T, factor, out=part)
        if bias is not None:
            np.add(part, bias, out=part)

    workers.map(task, len(pieces))
    return y


def im2col_parameter_gradients(
    g: Array,
    padded: Array,
    weight: Array,
    stride: int,
    requires_grad: tuple[bool, bool],
    workers: ThreadPool,
    buffer: Buffer,
) -> tuple[Array | None, Array | None]:
    """With the matrix of windows X (C · kh · kw, windows) and g = dL/dy as (windows, O):

        dL/dw = (X g)ᵀ  (O, C, kh, kw)      dL/db = Σ g  (O,)

    as far as they are ``requires_grad``.

    The pieces and partial sums are the same with any number of threads, and so is the sum.
    """
    outputs, kernel = len(weight), weight.shape[2:]
    weight_wanted, bias_wanted = requires_grad
    pieces = _rows(g.shape, weight, tuning.IM2COL_CHUNK_ELEMENTS)
    shares = partial_sum_count(len(pieces), weight.size)
    sums = workers.scratch("sums", (shares, weight[0].size, outputs), g.dtype)
    bias_sums = workers.scratch("bias_sums", (shares, outputs), g.dtype)
    sums.fill(0)
    bias_sums.fill(0)

    def task(worker: int, share: int) -> None:
        for piece in pieces[share::shares]:
            rows = g[piece].reshape(-1, outputs)
            if weight_wanted:
                columns = _columns(padded, kernel, piece, g.shape[1], stride, workers)
                product = workers.scratch("product", sums[share].shape, g.dtype)
                np.add(sums[share], np.matmul(columns, rows, out=product), out=sums[share])
            if bias_wanted:
                bias_sums[share] += np.ones(len(rows), rows.dtype) @ rows

    workers.map(task, shares)
    d_weight = d_bias = None
    if weight_wanted:
        d_weight = buffer("d_weight", weight.shape, g.dtype)
        np.add.reduce(sums, axis=0, out=d_weight.reshape(outputs, -1).T)
    if bias_wanted:
        d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), g.dtype))
    return d_weight, d_bias


def im2col_input_gradient(
    g: Array,
    shape: tuple[int, ...],
    weight: Array,
    stride: int,
    padding: int,
    workers: ThreadPool,
    buffer: Buffer,
) -> Array:
    """dL/dx, of the shape (H, W, N, C) given: the product wᵀ gᵀ (C · kh · kw, windows) holds what
    each place of each window receives; it is added up where the windows came from.

    Windows overlap, so of one image a single task adds them all up, in pieces of a few rows. From
    the last row to the first they reach a pixel through the kernel's rows in their order, wherever
    the cuts are, so these do not change the sum.
    """
    height, width, _, channels = shape
    down, across = g.shape[:2]
    outputs, kernel = len(weight), weight.shape[2:]
    d_x = buffer("d_x", shape, g.dtype)
    pieces = chunk_slices(shape[2], tuning.IM2COL_CHUNK_IMAGES)

    def task(worker: int, index: int) -> None:
        piece = pieces[index]
        images = piece.stop - piece.start
        padded_shape = (height + 2 * padding, channels, width + 2 * padding, images)
        padded = workers.scratch("padded_gradient", padded_shape, g.dtype)
        padded.fill(0)
        for rows in reversed(_rows((down, across, images), weight, tuning.COL2IM_CHUNK_ELEMENTS)):
            size = (rows.stop - rows.start, across, images)
            part = workers.scratch("part", (*size, outputs), g.dtype)
            np.copyto(part, g[rows, :, piece])
            places = workers.scratch("places", (channels, *kernel, *size), g.dtype)
            np.matmul(
                weight.reshape(outputs, -1).T,
                part.reshape(-1, outputs).T,
                out=places.reshape(weight[0].size, -1),
            )
            for i, j in np.ndindex(kernel):
                window = padded[stride * rows.start + i :: stride, :, j::stride]
                window = window[: size[0], :, :across]
                np.add(window, places[:, i, j].transpose(1, 0, 2, 3), out=window)
        inside = padded[padding : padding + height, :, padding : padding + width]
        np.copyto(d_x[:, :, piece], inside.transpose(0, 2, 3, 1))

    workers.map(task, len(pieces))
    return d_x


def _rows(size: tuple[int, ...], weight: Array, numbers: int) -> list[slice]:
    """The rows of an output (H', W', N, ...) cut into pieces."""
    rows, across, images = size[:3]
    return chunk_slices(rows, max(numbers // (weight[0].size * across * images), 1))


def _columns(
    padded: Array,
    kernel: tuple[int, ...],
    rows: slice,
    across: int,
    stride: int,
    workers: ThreadPool,
) -> Array:
    """The windows of some rows of the output: (C · kh · kw, rows · W' · N)."""
    channels, images = padded.shape[2:]
    row, column, channel, image = padded.strides
    windows = as_strided(
        padded[stride * rows.start :],
        (channels, *kernel, rows.stop - rows.start, across, images),
        (channel, row, column, stride * row, stride * column, image),
    )
    columns = workers.scratch("columns", windows.shape, padded.dtype)
    np.copyto(columns, windows)
    return columns.reshape(channels * kernel[0] * kernel[1], -1)

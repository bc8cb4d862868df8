"""Convolution as a matrix product, for kernels, strides and paddings of any size.

Each window of the input becomes a column of a matrix (image to column, Chellapilla et al. 2006).
The matrix has C · kh · kw rows, for C channels and kernels of kh x kw pixels. A chunk contains the
windows of a few rows of the output and stays in a core's cache. Images are padded and have the
layout (H, W, C, N): the values of all images at one position in one channel are contiguous.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Shape
from nnopt.backends.numpy.ops.lanes import workers_for
from nnopt.backends.numpy.threads import ThreadPool, chunk_slices, partial_sum_count


def padded_images(x: Array, padding: int, buffer: Buffer) -> Array:
    """Pad images (H, W, N, C) with p = ``padding`` zeros. Return (H + 2p, W + 2p, C, N)."""
    height, width, images, channels = x.shape
    shape = (height + 2 * padding, width + 2 * padding, channels, images)
    padded = buffer("padded", shape, x.dtype)
    inside = padded[padding : padding + height, padding : padding + width]
    padded[:padding] = padded[padding + height :] = 0
    padded[:, :padding] = padded[:, padding + width :] = 0

    def task(worker: int, chunk: slice) -> None:
        np.copyto(inside[..., chunk], x[:, :, chunk].transpose(0, 1, 3, 2))

    workers_for(x, buffer).map(task, chunk_slices(images, tuning.IM2COL_CHUNK_IMAGES))
    return padded


def im2col_forward(
    padded: Array, weight: Array, bias: Array | None, stride: int, buffer: Buffer
) -> Array:
    """Compute y[u, v, n, o] = b[o] + Σ_{i,j,c} x[s u + i, s v + j, c, n] w[o, c, i, j].

    x: padded images (H, W, C, N), weight w: (O, C, kh, kw), bias b: (O,), stride s,
    y: (H', W', N, O), with H' = ⌊(H - kh) / s⌋ + 1.
    """
    outputs, kernel = len(weight), weight.shape[2:]
    size = [(length - k) // stride + 1 for length, k in zip(padded.shape, kernel, strict=False)]
    y = buffer("y", (*size, padded.shape[3], outputs), padded.dtype)
    factor = weight.reshape(outputs, -1).T

    def task(worker: int, rows: slice) -> None:
        columns = _columns(padded, kernel, rows, y.shape[1], stride, buffer.workers)
        rows_of_y = y[rows].reshape(-1, outputs)
        np.matmul(columns.T, factor, out=rows_of_y)
        if bias is not None:
            np.add(rows_of_y, bias, out=rows_of_y)

    buffer.workers.map(task, _row_chunks(y.shape, weight, tuning.IM2COL_CHUNK_ELEMENTS))
    return y


def im2col_backward(
    g: Array,
    padded: Array,
    weight: Array,
    stride: int,
    padding: int,
    requires_grad: tuple[bool, ...],
    buffer: Buffer,
) -> tuple[Array | None, ...]:
    """Compute the required gradients among dL/dx, dL/dw = (X g)ᵀ and dL/db = Σ g.

    X is the matrix of windows, (C · kh · kw, windows), and g is dL/dy as a matrix (windows, O).
    Chunks and partial sums, and thus all sums, do not depend on the number of threads.
    """
    x_required, weight_required, bias_required = (*requires_grad, False)[:3]
    d_x = d_weight = d_bias = None
    if x_required:
        d_x = _input_gradient(g, padded.shape, weight, stride, padding, buffer)
    outputs, kernel, workers = len(weight), weight.shape[2:], buffer.workers
    chunks = _row_chunks(g.shape, weight, tuning.IM2COL_CHUNK_ELEMENTS)
    count = partial_sum_count(len(chunks), weight.size)
    sums = workers.scratch("sums", (count, weight[0].size, outputs), g.dtype)
    bias_sums = workers.scratch("bias_sums", (count, outputs), g.dtype)
    sums.fill(0)
    bias_sums.fill(0)

    def task(worker: int, index: int) -> None:
        for chunk in chunks[index::count]:
            rows = g[chunk].reshape(-1, outputs)
            if weight_required:
                columns = _columns(padded, kernel, chunk, g.shape[1], stride, workers)
                product = workers.scratch("product", sums[index].shape, g.dtype)
                np.add(sums[index], np.matmul(columns, rows, out=product), out=sums[index])
            if bias_required:
                bias_sums[index] += np.ones(len(rows), rows.dtype) @ rows

    workers.map(task, range(count))
    if weight_required:
        d_weight = buffer("d_weight", weight.shape, g.dtype)
        np.add.reduce(sums, axis=0, out=d_weight.reshape(outputs, -1).T)
    if bias_required:
        d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), g.dtype))
    return (d_x, d_weight, d_bias)[: len(requires_grad)]


def _input_gradient(
    g: Array, padded_shape: Shape, weight: Array, stride: int, padding: int, buffer: Buffer
) -> Array:
    """Compute dL/dx, (H, W, N, C).

    The product wᵀ gᵀ, (C · kh · kw, windows), contains one term for each value of each window. The
    term is added to the gradient of this value. Windows overlap, so one task adds all terms of an
    image. The task starts with the windows of the last rows, so that the terms of a value are added
    in the order of the kernel's rows. The sum thus does not depend on the chunks.
    """
    height, width, channels, images = padded_shape
    (down, across), outputs, kernel = g.shape[:2], len(weight), weight.shape[2:]
    factor, workers = weight.reshape(outputs, -1).T, buffer.workers
    d_x = buffer("d_x", (height - 2 * padding, width - 2 * padding, images, channels), g.dtype)

    def task(worker: int, chunk: slice) -> None:
        count = chunk.stop - chunk.start
        padded = workers.scratch("padded_gradient", (height, channels, width, count), g.dtype)
        padded.fill(0)
        whole = down, across, count
        for rows in reversed(_row_chunks(whole, weight, tuning.COL2IM_CHUNK_ELEMENTS)):
            size = rows.stop - rows.start, across, count
            rows_of_g = workers.scratch("rows_of_g", (*size, outputs), g.dtype)
            np.copyto(rows_of_g, g[rows, :, chunk])
            terms = workers.scratch("terms", (channels, *kernel, *size), g.dtype)
            columns = terms.reshape(weight[0].size, -1)
            np.matmul(factor, rows_of_g.reshape(-1, outputs).T, out=columns)
            for i, j in np.ndindex(kernel):
                window = padded[stride * rows.start + i :: stride, :, j::stride]
                window = window[: size[0], :, :across]
                np.add(window, terms[:, i, j].transpose(1, 0, 2, 3), out=window)
        inside = padded[padding : height - padding, :, padding : width - padding]
        np.copyto(d_x[:, :, chunk], inside.transpose(0, 2, 3, 1))

    workers.map(task, chunk_slices(images, tuning.IM2COL_CHUNK_IMAGES))
    return d_x


def _row_chunks(size: Shape, weight: Array, max_elements: int) -> list[slice]:
    """Divide the rows of an output (H', W', N, ...) into chunks."""
    rows, across, images = size[:3]
    return chunk_slices(rows, max(max_elements // (weight[0].size * across * images), 1))


def _columns(
    padded: Array, kernel: Shape, rows: slice, across: int, stride: int, workers: ThreadPool
) -> Array:
    """Copy the windows of the output rows ``rows`` to a matrix (C · kh · kw, rows · W' · N)."""
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

"""3x3 convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray 2016).

The output is cut into tiles of 4x4. A tile y depends on a 6x6 window d of the input, and

    y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A

takes 36 multiplications where the sum over the 3x3 kernel takes 144. Over channels, the product ⊙
becomes a product of matrices at each of the 36 places: (tiles, C) @ (C, O). B, G and A come from
interpolating at 0, ±1, ±2 and infinity; docs/theory.md derives them, and the gradients.

Images lie in memory as (H, W, N, C). What follows works on pieces, a few images each, that stay in
a core's cache. The images of a piece and their channels are one axis here, "run", contiguous at
every position, and transforming tiles is a product of a small matrix with rows of runs.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy_scratch.ops import Array, Buffer
from nnopt.backends.numpy_scratch.threads import Workers, pieces_of

BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
"""(6, 6): window to transformed window."""

G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""(6, 3): kernel to transformed kernel."""

AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
"""(4, 6): transformed tile to tile."""

GG = np.kron(G, G)
"""(36, 9): both axes of a kernel at once."""

OF_CONSTANT = 7
"""The place (1, 1) of 36: Aᵀ has ones there, so what is added there is added to the whole tile."""

TILES, RUN = 128, 256
"""A piece has at least so many tiles, for the matrix products to be efficient, and its runs are at
least so long."""


def winograd_forward(
    x: Array, weight: Array, bias: Array | None, padding: int, workers: Workers, buffer: Buffer
) -> Array:
    """y[h, w, n, o] = b[o] + Σ_{i,j,c} x[h + i - p, w + j - p, n, c] w[o, c, i, j].

    x: (H, W, N, C), weight: (O, C, 3, 3), bias: (O,), padding p: 0, 1 or 2, y: (H', W', N, O) with
    H' = H + 2p - 2, W' = W + 2p - 2.
    """
    kernels = _transform_kernels(GG, weight, workers)
    return _correlate(x, kernels.transpose(0, 2, 1), bias, padding, "y", workers, buffer)


def winograd_input_gradient(
    g: Array, weight: Array, padding: int, workers: Workers, buffer: Buffer
) -> Array:
    """dL/dx (H, W, N, C) of g = dL/dy (H', W', N, O): g correlated with the kernels turned by half,
    inputs and outputs exchanged, under the padding 2 - p."""
    kernels = _transform_kernels(GG[:, ::-1], weight, workers)
    return _correlate(g, kernels, None, 2 - padding, "d_x", workers, buffer)


def winograd_weight_gradient(
    g: Array, x: Array, padding: int, workers: Workers, buffer: Buffer
) -> tuple[Array, Array]:
    """dL/dw (O, C, 3, 3) and dL/db (O,): with V = Bᵀ d B and M = A g Aᵀ at each tile,

        dL/dw = Gᵀ [ Σ_tiles Mᵀ V ] G      dL/db = Σ_tiles of M's place (1, 1)

    The pieces are dealt to the workers in a fixed way, for the sum to be the same at every run.
    """
    (height, width, images, channels), outputs = g.shape[:3] + x.shape[3:], g.shape[3]
    down, across = -(-height // 4), -(-width // 4)
    full = _whole_tiles(g, down, across, workers)
    pieces = _pieces(images, down * across, min(channels, outputs))
    shares = min(workers.count, len(pieces))
    sums = [workers.space(f"sum{i}", (36, outputs, channels), x.dtype) for i in range(shares)]
    bias_sums = workers.space("bias_sums", (shares, outputs), x.dtype)
    bias_sums.fill(0)

    def task(worker: int, share: int) -> None:
        for number, piece in enumerate(pieces[share::shares]):
            windows = _transform_windows(x[:, :, piece], padding, down, across, workers)
            tiles = _transform_tiles(full[:, :, piece], workers)
            if number == 0:
                np.matmul(tiles.transpose(0, 2, 1), windows, out=sums[share])
            else:
                product = workers.space("product", sums[share].shape, x.dtype)
                np.matmul(tiles.transpose(0, 2, 1), windows, out=product)
                np.add(sums[share], product, out=sums[share])
            bias_sums[share] += np.ones(tiles.shape[1], x.dtype) @ tiles[OF_CONSTANT]

    workers.share(task, shares)
    for other in sums[1:]:
        np.add(sums[0], other, out=sums[0])
    d_weight = buffer("d_weight", (outputs, channels, 3, 3), x.dtype)
    flat = sums[0].reshape(36, -1)
    np.matmul(flat.T, GG.astype(x.dtype), out=d_weight.reshape(-1, 9))
    d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), x.dtype))
    return d_weight, d_bias


def _transform_kernels(matrix: Array, weight: Array, workers: Workers) -> Array:
    """G w Gᵀ of every kernel: (36, O, C)."""
    outputs, channels = weight.shape[:2]
    kernels = workers.space("kernels", (36, outputs, channels), weight.dtype)
    flat = weight.reshape(-1, 9)
    np.matmul(matrix.astype(weight.dtype), flat.T, out=kernels.reshape(36, -1))
    return kernels


def _correlate(
    x: Array,
    kernels: Array,
    bias: Array | None,
    padding: int,
    name: str,
    workers: Workers,
    buffer: Buffer,
) -> Array:
    """Correlation of x (H, W, N, C) with transformed kernels (36, C, O)."""
    (rows, columns, images, channels), outputs = x.shape, kernels.shape[2]
    height, width = rows + 2 * padding - 2, columns + 2 * padding - 2
    down, across = -(-height // 4), -(-width // 4)
    fits = (4 * down, 4 * across) == (height, width)
    y = buffer(name, (height, width, images, outputs), x.dtype)
    whole = y if fits else workers.space("whole", (4 * down, 4 * across, *y.shape[2:]), x.dtype)
    pieces = _pieces(images, down * across, min(channels, outputs))

    def task(worker: int, index: int) -> None:
        piece = pieces[index]
        windows = _transform_windows(x[:, :, piece], padding, down, across, workers)
        tiles = workers.space("tiles", (36, windows.shape[1], outputs), x.dtype)
        np.matmul(windows, kernels, out=tiles)
        if bias is not None:
            np.add(tiles[OF_CONSTANT], bias, out=tiles[OF_CONSTANT])
        _transform_back(tiles, whole[:, :, piece], workers)
        if whole is not y:
            y[:, :, piece] = whole[:height, :width, piece]

    workers.share(task, len(pieces))
    return y


def _pieces(images: int, tiles_per_image: int, channels: int) -> list[slice]:
    """The images cut into pieces of TILES tiles and RUN numbers at least."""
    smallest = max(-(-TILES // tiles_per_image), -(-RUN // channels))
    return pieces_of(images, -(-images // max(images // smallest, 1)))


def _transform_windows(x: Array, padding: int, down: int, across: int, workers: Workers) -> Array:
    """Bᵀ d B of all windows d of x (H, W, n, C), which begin every 4 rows and columns from
    -padding on: (36, down · across · n, C). Outside x there are zeros."""
    height, width, images, channels = x.shape
    run = images * channels
    bt = BT.astype(x.dtype)
    # Down first: (down, 6, columns, run).
    columns = 4 * across + 2
    half = workers.space("half", (down, 6, columns, run), x.dtype)
    last = min(width, columns - padding)
    half[:, :, :padding] = 0
    half[:, :, padding + last :] = 0
    inside = half[:, :, padding : padding + last].transpose(0, 2, 1, 3)
    lines = x[:, :last].reshape(height, last, run)
    complete = slice(-(-padding // 4), max((height + padding - 6) // 4 + 1, 0))
    for i in range(down):
        if complete.start <= i < complete.stop:
            continue
        first = 4 * i - padding
        top, bottom = max(first, 0), min(first + 6, height)
        part = bt[:, top - first : bottom - first]
        np.matmul(part, lines[top:bottom].transpose(1, 0, 2), out=inside[i])
    if complete.stop > complete.start:
        start = lines[4 * complete.start - padding :]
        shape = (complete.stop - complete.start, last, 6, run)
        strides = (4 * start.strides[0], start.strides[1], start.strides[0], start.strides[2])
        np.matmul(bt, as_strided(start, shape, strides), out=inside[complete])
    # Then across: the windows of a line begin every 4 columns.
    s_down, s_row, s_column, s_run = half.strides
    windows = as_strided(
        half, (down, 6, across, 6, run), (s_down, s_row, 4 * s_column, s_column, s_run)
    )
    whole = workers.space("windows", (6, 6, down, across, run), x.dtype)
    np.matmul(bt, windows, out=whole.transpose(2, 0, 3, 1, 4))
    return whole.reshape(36, -1, channels)


def _transform_back(tiles: Array, y: Array, workers: Workers) -> None:
    """Aᵀ m A of all tiles m (36, down · across · n, O), written to y (4 down, 4 across, n, O)."""
    height, width, images, outputs = y.shape
    down, across, run = height // 4, width // 4, images * outputs
    at = AT.astype(y.dtype)
    half = workers.space("half_back", (4, 6, down, across, run), y.dtype)
    rows = tiles.reshape(6, 6, -1).transpose(1, 0, 2)
    np.matmul(at, rows, out=half.reshape(4, 6, -1).transpose(1, 0, 2))
    np.matmul(at, half.transpose(0, 2, 3, 1, 4), out=_as_tiles(y))


def _transform_tiles(g: Array, workers: Workers) -> Array:
    """A g Aᵀ of all tiles g of (4 down, 4 across, n, O): (36, down · across · n, O)."""
    height, width, images, outputs = g.shape
    down, across, run = height // 4, width // 4, images * outputs
    a = AT.T.astype(g.dtype)
    half = workers.space("half_back", (4, 6, down, across, run), g.dtype)
    np.matmul(a, _as_tiles(g), out=half.transpose(0, 2, 3, 1, 4))
    tiles = workers.space("tiles", (36, down * across * images, outputs), g.dtype)
    rows = half.reshape(4, 6, -1).transpose(1, 0, 2)
    np.matmul(a, rows, out=tiles.reshape(6, 6, -1).transpose(1, 0, 2))
    return tiles


def _as_tiles(y: Array) -> Array:
    """y (4 down, 4 across, n, O) seen as (row in tile, down, across, column in tile, n · O)."""
    height, width, images, outputs = y.shape
    s_row, s_column, _, s_run = y.strides
    return as_strided(
        y,
        (4, height // 4, width // 4, 4, images * outputs),
        (s_row, 4 * s_row, 4 * s_column, s_column, s_run),
    )


def _whole_tiles(g: Array, down: int, across: int, workers: Workers) -> Array:
    """g, filled up with zeros to whole tiles."""
    height, width = g.shape[:2]
    if (4 * down, 4 * across) == (height, width):
        return g
    whole = workers.space("whole_gradient", (4 * down, 4 * across, *g.shape[2:]), g.dtype)
    whole[:height, :width] = g
    whole[height:] = 0
    whole[:, width:] = 0
    return whole

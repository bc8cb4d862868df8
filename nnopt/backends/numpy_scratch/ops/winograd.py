"""3x3 convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray 2016).

The output is cut into tiles of 4x4. A tile y depends on a 6x6 window d of the input, and

    y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A

takes 36 multiplications where the sum over the 3x3 kernel takes 144. Over channels, the product ⊙
becomes a product of matrices at each of the 36 places: (tiles, C) @ (C, O). B, G and A come from
interpolating at 0, ±1, ±2 and infinity; docs/theory.md derives them, and the gradients.

Images lie in memory as (H, W, N, C). What follows works on pieces, a few rows of tiles of a few
images, whose intermediate results stay in a core's cache. The images of a piece and their channels
are one axis here, "run", contiguous at every position, and transforming tiles is a product of a
small matrix with rows of runs.
"""

from __future__ import annotations

from typing import NamedTuple

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

RUN = 1024
"""Numbers in a run, unless the batch has fewer: the products that transform are efficient then."""

TILES = 128, 256
"""Tiles of a piece at least, for the products over channels to be efficient, and tiles at which it
is large enough if its channels are few."""


class Piece(NamedTuple):
    """Rows of tiles, and images, of which the work is one task."""

    rows: slice
    images: slice


def winograd_forward(
    x: Array, weight: Array, bias: Array | None, padding: int, workers: Workers, buffer: Buffer
) -> Array:
    """y[h, w, n, o] = b[o] + Σ_{i,j,c} x[h + i - p, w + j - p, n, c] w[o, c, i, j].

    x: (H, W, N, C), weight: (O, C, 3, 3), bias: (O,), padding p: 0, 1 or 2, y: (H', W', N, O) with
    H' = H + 2p - 2, W' = W + 2p - 2.
    """
    (rows, columns, images, channels), outputs = x.shape, len(weight)
    height, width = rows + 2 * padding - 2, columns + 2 * padding - 2
    down, across = -(-height // 4), -(-width // 4)
    kernels = _transform_kernels(GG, weight, workers).transpose(0, 2, 1)
    y = buffer("y", (height, width, images, outputs), x.dtype)
    pieces = _pieces(images, down, across, min(channels, outputs))

    def task(worker: int, number: int) -> None:
        piece = pieces[number]
        windows = _transform_windows(x, piece, padding, across, workers)
        tiles = workers.space("tiles", (36, windows.shape[1], outputs), x.dtype)
        np.matmul(windows, kernels, out=tiles)
        if bias is not None:
            np.add(tiles[OF_CONSTANT], bias, out=tiles[OF_CONSTANT])
        _transform_back(tiles, y, piece, workers)

    workers.share(task, len(pieces))
    return y


def winograd_backward(
    g: Array,
    x: Array,
    weight: Array,
    padding: int,
    x_wanted: bool,
    workers: Workers,
    buffer: Buffer,
) -> tuple[Array | None, Array, Array]:
    """dL/dx (H, W, N, C) if wanted, dL/dw (O, C, 3, 3) and dL/db (O,) of g = dL/dy (H', W', N, O).

    dL/dx is g correlated with the kernels turned by half, under the padding 2 - p: with the windows
    V = Bᵀ g B and the turned kernels U = G w Gᵀ, its tiles are

        dL/dx = Aᵀ [ Σ_o U ⊙ V ] A      dL/dw = Gᵀ [ Σ_tiles V ⊙ (A x Aᵀ) ] G, turned by half

    the second because Σ x · dL/dx = Σ w · dL/dw, both sums being Σ g x w over all that meet. The
    windows of g serve both. The pieces are dealt to the workers in a fixed way, for the sum over
    tiles to be the same at every run.
    """
    (height, width, images, channels), outputs = x.shape, g.shape[3]
    down, across = -(-height // 4), -(-width // 4)
    kernels = _transform_kernels(GG[:, ::-1], weight, workers)
    d_x = buffer("d_x", x.shape, x.dtype) if x_wanted else None
    pieces = _pieces(images, down, across, min(channels, outputs))
    shares = min(workers.count, len(pieces))
    sums = [workers.space(f"sum{i}", (36, outputs, channels), x.dtype) for i in range(shares)]
    bias_sums = workers.space("bias_sums", (shares, outputs), x.dtype)
    bias_sums.fill(0)

    def task(worker: int, share: int) -> None:
        for number, piece in enumerate(pieces[share::shares]):
            windows = _transform_windows(g, piece, 2 - padding, across, workers)
            tiles = workers.space("tiles", (36, windows.shape[1], channels), x.dtype)
            if d_x is not None:
                np.matmul(windows, kernels, out=tiles)
                _transform_back(tiles, d_x, piece, workers)
            _transform_tiles(x, piece, tiles, workers)
            if number == 0:
                np.matmul(windows.transpose(0, 2, 1), tiles, out=sums[share])
            else:
                product = workers.space("product", sums[share].shape, x.dtype)
                np.matmul(windows.transpose(0, 2, 1), tiles, out=product)
                np.add(sums[share], product, out=sums[share])
            stop = None if piece.rows.stop == down else 4 * piece.rows.stop
            bias_sums[share] += _total(g[4 * piece.rows.start : stop, :, piece.images])

    workers.share(task, shares)
    for other in sums[1:]:
        np.add(sums[0], other, out=sums[0])
    d_weight = buffer("d_weight", weight.shape, x.dtype)
    turned = GG[:, ::-1].astype(x.dtype)
    np.matmul(sums[0].reshape(36, -1).T, turned, out=d_weight.reshape(-1, 9))
    d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), x.dtype))
    return d_x, d_weight, d_bias


def _pieces(images: int, down: int, across: int, channels: int) -> list[Piece]:
    """All tiles cut into pieces: images enough for a run of RUN numbers, then rows of tiles until
    it has tiles enough, then more images. "Enough" is a quarter of all at most, for threads to
    share the work, and grows with the channels, whose products have a cost of their own."""
    enough = min(max(TILES[1], 4 * channels), images * down * across // 4)
    enough = max(enough, TILES[0])
    together = min(images, -(-RUN // channels))
    rows = min(down, -(-enough // (across * together)))
    if rows == down:
        together = min(images, max(together, -(-enough // (across * down))))
    cuts = pieces_of(images, -(-images // (images // together)))
    return [Piece(part, cut) for cut in cuts for part in pieces_of(down, rows)]


def _transform_kernels(matrix: Array, weight: Array, workers: Workers) -> Array:
    """G w Gᵀ of every kernel: (36, O, C)."""
    outputs, channels = weight.shape[:2]
    kernels = workers.space("kernels", (36, outputs, channels), weight.dtype)
    flat = weight.reshape(-1, 9)
    np.matmul(matrix.astype(weight.dtype), flat.T, out=kernels.reshape(36, -1))
    return kernels


def _transform_windows(
    x: Array, piece: Piece, padding: int, across: int, workers: Workers
) -> Array:
    """Bᵀ d B of the piece's windows d of x (H, W, N, C), which begin every 4 rows and columns from
    -padding on: (36, tiles · n, C). Outside x there are zeros."""
    height, width, _, channels = x.shape
    down, images = _size(piece)
    run, columns = images * channels, 4 * across + 2
    bt = BT.astype(x.dtype)
    last = min(width, columns - padding)
    lines = x[:, :last, piece.images].reshape(height, last, run).transpose(1, 0, 2)
    half = workers.space("half", (6, columns, run), x.dtype)
    half[:, :padding] = 0
    half[:, padding + last :] = 0
    inside = half[:, padding : padding + last].transpose(1, 0, 2)
    s_row, s_column, s_run = half.strides
    windows = as_strided(half, (6, across, 6, run), (s_row, 4 * s_column, s_column, s_run))
    whole = workers.space("windows", (6, 6, down, across, run), x.dtype)
    places = whole.transpose(2, 0, 3, 1, 4)
    for i in range(down):
        first = 4 * (piece.rows.start + i) - padding
        top, bottom = max(first, 0), min(first + 6, height)
        np.matmul(bt[:, top - first : bottom - first], lines[:, top:bottom], out=inside)
        np.matmul(bt, windows, out=places[i])
    return whole.reshape(36, -1, channels)


def _transform_back(tiles: Array, y: Array, piece: Piece, workers: Workers) -> None:
    """Aᵀ m A of the piece's tiles m (36, tiles · n, O), written to its place in y (H, W, N, O)."""
    height, width, _, outputs = y.shape
    down, images = _size(piece)
    across, run = -(-width // 4), images * outputs
    at = AT.astype(y.dtype)
    places = tiles.reshape(6, 6, down, across * run).transpose(2, 1, 0, 3)
    half = workers.space("half", (4, 6, across, run), y.dtype)
    rows = half.reshape(4, 6, -1).transpose(1, 0, 2)
    columns = half.transpose(0, 2, 1, 3)
    for i in range(down):
        line = 4 * (piece.rows.start + i)
        np.matmul(at, places[i], out=rows)
        place = y[line : line + 4, :, piece.images]
        if place.shape[:2] == (4, 4 * across):
            np.matmul(at, columns, out=_as_tiles(place))
        else:
            whole = workers.space("whole", (4, 4 * across, images, outputs), y.dtype)
            np.matmul(at, columns, out=_as_tiles(whole))
            place[:] = whole[: len(place), :width]


def _transform_tiles(x: Array, piece: Piece, out: Array, workers: Workers) -> None:
    """A t Aᵀ of the piece's tiles t of x (H, W, N, C), to ``out`` (36, tiles · n, C). Outside x
    there are zeros."""
    _, width, _, channels = x.shape
    down, images = _size(piece)
    across, run = -(-width // 4), images * channels
    a = AT.T.astype(x.dtype)
    places = out.reshape(6, 6, down, across * run).transpose(2, 1, 0, 3)
    half = workers.space("half", (4, 6, across, run), x.dtype)
    rows = half.reshape(4, 6, -1).transpose(1, 0, 2)
    columns = half.transpose(0, 2, 1, 3)
    for i in range(down):
        line = 4 * (piece.rows.start + i)
        place = x[line : line + 4, :, piece.images]
        if place.shape[:2] != (4, 4 * across):
            whole = workers.space("whole", (4, 4 * across, images, channels), x.dtype)
            whole.fill(0)
            whole[: len(place), :width] = place
            place = whole
        np.matmul(a, _as_tiles(place), out=columns)
        np.matmul(a, rows, out=places[i])


def _total(g: Array) -> Array:
    """Σ g over rows, columns and images: (O,)."""
    height, width, images, outputs = g.shape
    positions = g.reshape(height * width, images * outputs)
    total = np.ones(len(positions), g.dtype) @ positions
    sums: Array = np.add.reduce(total.reshape(images, outputs), axis=0)
    return sums


def _size(piece: Piece) -> tuple[int, int]:
    """Rows of tiles, images."""
    rows, images = piece
    return rows.stop - rows.start, images.stop - images.start


def _as_tiles(line: Array) -> Array:
    """A row of tiles (4, 4 across, n, O) seen as (row in tile, across, column in tile, n · O)."""
    _, width, images, outputs = line.shape
    s_row, s_column, _, s_run = line.strides
    shape = (4, width // 4, 4, images * outputs)
    return as_strided(line, shape, (s_row, 4 * s_column, s_column, s_run))

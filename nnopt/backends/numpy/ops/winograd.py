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

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer
from nnopt.backends.numpy.threads import ThreadPool, chunk_slices, partial_sum_count, sum_into_first

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


class Piece(NamedTuple):
    """Rows of tiles, and images, of which the work is one task."""

    rows: slice
    images: slice


def winograd_forward(
    x: Array, weight: Array, bias: Array | None, padding: int, workers: ThreadPool, buffer: Buffer
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
    windows_of_x, tiles_of_y = Windows(x, padding, across), Tiles(y)
    pieces = _pieces(images, down, across, min(channels, outputs))

    def task(worker: int, number: int) -> None:
        windows = windows_of_x.transformed(pieces[number], workers)
        space = tiles_of_y.space(pieces[number], workers)
        np.matmul(windows, kernels, out=space.transformed)
        if bias is not None:
            np.add(space.of_constant, bias, out=space.of_constant)
        tiles_of_y.transform_back(pieces[number], space)

    workers.map(task, len(pieces))
    return y


def winograd_backward(
    g: Array,
    x: Array,
    weight: Array,
    padding: int,
    requires_grad: tuple[bool, ...],
    workers: ThreadPool,
    buffer: Buffer,
) -> tuple[Array | None, ...]:
    """dL/dx (H, W, N, C), dL/dw (O, C, 3, 3) and, if there is a bias, dL/db (O,) of g = dL/dy
    (H', W', N, O), as far as they are ``requires_grad``.

    dL/dx is g correlated with the kernels turned by half, under the padding 2 - p: with the windows
    V = Bᵀ g B and the turned kernels U = G w Gᵀ, its tiles are

        dL/dx = Aᵀ [ Σ_o U ⊙ V ] A      dL/dw = Gᵀ [ Σ_tiles V ⊙ (A x Aᵀ) ] G, turned by half

    the second because Σ x · dL/dx = Σ w · dL/dw, both sums being Σ g x w over all that meet. The
    windows of g serve both. The pieces and partial sums are the same with any number of threads,
    and so is the sum over tiles.
    """
    (height, width, images, channels), outputs = x.shape, g.shape[3]
    x_wanted, weight_wanted, bias_wanted = (*requires_grad, False)[:3]
    down, across = -(-height // 4), -(-width // 4)
    kernels = _transform_kernels(GG[:, ::-1], weight, workers)
    d_x = buffer("d_x", x.shape, x.dtype) if x_wanted else x
    windows_of_g, tiles_of_x, tiles_of_d_x = Windows(g, 2 - padding, across), Tiles(x), Tiles(d_x)
    pieces = _pieces(images, down, across, min(channels, outputs))
    shares = partial_sum_count(len(pieces), 36 * outputs * channels)
    sums = [workers.scratch(f"sum{i}", (36, outputs, channels), x.dtype) for i in range(shares)]
    bias_sums = np.zeros((shares, outputs), x.dtype)

    def task(worker: int, share: int) -> None:
        for number, piece in enumerate(pieces[share::shares]):
            windows = windows_of_g.transformed(piece, workers)
            space = tiles_of_x.space(piece, workers)
            if x_wanted:
                np.matmul(windows, kernels, out=space.transformed)
                tiles_of_d_x.transform_back(piece, space)
            if weight_wanted:
                tiles_of_x.transform(piece, space)
                part = sums[share]
                if number:
                    part = workers.scratch("product", sums[share].shape, x.dtype)
                np.matmul(windows.transpose(0, 2, 1), space.transformed, out=part)
                if number:
                    np.add(sums[share], part, out=sums[share])
            if bias_wanted:
                stop = None if piece.rows.stop == down else 4 * piece.rows.stop
                bias_sums[share] += _total(g[4 * piece.rows.start : stop, :, piece.images])

    workers.map(task, shares)
    d_weight = d_bias = None
    if weight_wanted:
        sum_into_first(sums, workers)
        d_weight = buffer("d_weight", weight.shape, x.dtype)
        turned = GG[:, ::-1].astype(x.dtype)
        np.matmul(sums[0].reshape(36, -1).T, turned, out=d_weight.reshape(-1, 9))
    if bias_wanted:
        d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), x.dtype))
    return (d_x if x_wanted else None, d_weight, d_bias)[: len(requires_grad)]


def _pieces(images: int, down: int, across: int, channels: int) -> list[Piece]:
    """All tiles cut into pieces: images enough for a run, then rows of tiles until
    it has tiles enough, then more images. "Enough" is a quarter of all at most, for threads to
    share the work, and grows with the channels, whose products have a cost of their own."""
    enough = min(max(tuning.WINOGRAD_TILES, 4 * channels), images * down * across // 4)
    enough = max(enough, tuning.WINOGRAD_MIN_TILES)
    together = min(images, -(-tuning.WINOGRAD_RUN_ELEMENTS // channels))
    rows = min(down, -(-enough // (across * together)))
    if rows == down:
        together = min(images, max(together, -(-enough // (across * down))))
    cuts = chunk_slices(images, -(-images // (images // together)))
    return [Piece(part, cut) for cut in cuts for part in chunk_slices(down, rows)]


def _transform_kernels(matrix: Array, weight: Array, workers: ThreadPool) -> Array:
    """G w Gᵀ of every kernel: (36, O, C)."""
    outputs, channels = weight.shape[:2]
    kernels = workers.scratch("kernels", (36, outputs, channels), weight.dtype)
    flat = weight.reshape(-1, 9)
    np.matmul(matrix.astype(weight.dtype), flat.T, out=kernels.reshape(36, -1))
    return kernels


class WindowSpace(NamedTuple):
    """A thread's working space to transform windows, and views of it."""

    edges: tuple[Array, Array]  # what lies outside of the image, left and right
    inside: Array  # (column, row in window, run): half transformed, without the edges
    windows: Array  # (row in window, across, column in window, run): half transformed
    rows: list[Array]  # (across, row in window, column in window, run) of each row of windows
    transformed: Array  # (36, windows, C)


class Windows:
    """The windows d, 6x6, of images x (H, W, N, C), which begin every 4 rows and columns from
    -padding on. Outside x there are zeros."""

    def __init__(self, x: Array, padding: int, across: int) -> None:
        self.height, width, _, self.channels = x.shape
        self.padding, self.across = padding, across
        self.reach = min(width, 4 * across + 2 - padding)  # columns that some window has
        lines = x.reshape(self.height, width, -1)[:, : self.reach]
        self.lines = lines.transpose(1, 0, 2)  # (W, H, N · C)
        self.bt = BT.astype(x.dtype)

    def transformed(self, piece: Piece, workers: ThreadPool) -> Array:
        """Bᵀ d B of the piece's windows: (36, windows · n, C)."""
        rows, run = _size(piece, self.channels)
        shape = rows, self.across, run, self.padding, self.reach, self.channels
        space = workers.cached(_window_space, shape, self.bt.dtype)
        for edge in space.edges:
            edge.fill(0)
        lines = self.lines[:, :, _lanes(piece, self.channels)]
        first = 4 * piece.rows.start - self.padding
        for of_row in space.rows:
            top, bottom = max(first, 0), min(first + 6, self.height)
            bt = self.bt if bottom - top == 6 else self.bt[:, top - first : bottom - first]
            np.matmul(bt, lines[:, top:bottom], out=space.inside)
            np.matmul(self.bt, space.windows, out=of_row)
            first += 4
        return space.transformed


def _window_space(workers: ThreadPool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> WindowSpace:
    down, across, run, padding, reach, channels = shape
    half = workers.scratch("half", (6, 4 * across + 2, run), dtype)
    s_row, s_column, s_run = half.strides
    transformed = workers.scratch("windows", (6, 6, down, across, run), dtype)
    return WindowSpace(
        (half[:, :padding], half[:, padding + reach :]),
        half[:, padding : padding + reach].transpose(1, 0, 2),
        as_strided(half, (6, across, 6, run), (s_row, 4 * s_column, s_column, s_run)),
        list(transformed.transpose(2, 0, 3, 1, 4)),
        transformed.reshape(36, -1, channels),
    )


class TileSpace(NamedTuple):
    """A thread's working space to transform tiles there and back, and views of it."""

    transformed: Array  # (36, tiles, C)
    of_constant: Array  # (tiles, C): the place where a constant of all pixels goes
    rows: list[Array]  # (column of 6, row of 6, across · run) of each row of tiles
    half_rows: Array  # (column of 6, row in tile, across · run): half transformed
    half_columns: Array  # (row in tile, across, column of 6, run): the same
    border: Array  # (4, 4 across, run): a row of tiles that reaches beyond the image
    border_tiles: Array  # (row in tile, across, column in tile, run): the same


class Tiles:
    """The tiles of images y (H, W, N, C), 4x4. The last ones may reach beyond: outside y there are
    zeros, and what is written there is lost."""

    def __init__(self, y: Array) -> None:
        height, self.width, _, self.channels = y.shape
        self.across = -(-self.width // 4)
        self.lines = y.reshape(height, self.width, -1)
        self.whole = 0 if self.width % 4 else height // 4  # rows of tiles that lie inside
        inside = self.lines[: 4 * self.whole]
        self.tiles = inside.reshape(self.whole, 4, self.across, 4, self.lines.shape[2])
        self.at = AT.astype(y.dtype)
        self.a = np.ascontiguousarray(self.at.T)

    def space(self, piece: Piece, workers: ThreadPool) -> TileSpace:
        """Where the piece's tiles are transformed."""
        rows, run = _size(piece, self.channels)
        return workers.cached(_tile_space, (rows, self.across, run, self.channels), self.at.dtype)

    def transform(self, piece: Piece, space: TileSpace) -> None:
        """A t Aᵀ of the piece's tiles t."""
        lanes = _lanes(piece, self.channels)
        for row, transformed in enumerate(space.rows, piece.rows.start):
            if row < self.whole:
                tiles = self.tiles[row, :, :, :, lanes]
            else:
                tiles, inside = space.border_tiles, self.lines[4 * row : 4 * row + 4, :, lanes]
                space.border.fill(0)
                np.copyto(space.border[: len(inside), : self.width], inside)
            np.matmul(self.a, tiles, out=space.half_columns)
            np.matmul(self.a, space.half_rows, out=transformed)

    def transform_back(self, piece: Piece, space: TileSpace) -> None:
        """y = Aᵀ m A of the piece's transformed tiles m."""
        lanes = _lanes(piece, self.channels)
        for row, transformed in enumerate(space.rows, piece.rows.start):
            np.matmul(self.at, transformed, out=space.half_rows)
            if row < self.whole:
                np.matmul(self.at, space.half_columns, out=self.tiles[row, :, :, :, lanes])
            else:
                np.matmul(self.at, space.half_columns, out=space.border_tiles)
                inside = self.lines[4 * row : 4 * row + 4, :, lanes]
                np.copyto(inside, space.border[: len(inside), : self.width])


def _tile_space(workers: ThreadPool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> TileSpace:
    down, across, run, channels = shape
    transformed = workers.scratch("tiles", (6, 6, down, across * run), dtype)
    half = workers.scratch("half", (4, 6, across, run), dtype)
    border = workers.scratch("border", (4, 4 * across, run), dtype)
    places = transformed.reshape(36, -1, channels)
    return TileSpace(
        places,
        places[OF_CONSTANT],
        list(transformed.transpose(2, 1, 0, 3)),
        half.reshape(4, 6, -1).transpose(1, 0, 2),
        half.transpose(0, 2, 1, 3),
        border,
        border.reshape(4, across, 4, run),
    )


def _size(piece: Piece, channels: int) -> tuple[int, int]:
    """Rows of tiles, and the length of a run."""
    rows, images = piece
    return rows.stop - rows.start, (images.stop - images.start) * channels


def _lanes(piece: Piece, channels: int) -> slice:
    """The piece's images and their channels, of all N · C."""
    return slice(piece.images.start * channels, piece.images.stop * channels)


def _total(g: Array) -> Array:
    """Σ g over rows, columns and images: (O,)."""
    height, width, images, outputs = g.shape
    positions = g.reshape(height * width, images * outputs)
    total = np.ones(len(positions), g.dtype) @ positions
    sums: Array = np.add.reduce(total.reshape(images, outputs), axis=0)
    return sums

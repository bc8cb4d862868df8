"""3x3 convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray 2016).

The output is divided into tiles of 4x4. For a 6x6 window d of the input and a kernel w, a tile is

    y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A

This takes 36 multiplications instead of 144. Summed over channels, the element-wise product ⊙ is a
matrix product (tiles, C) @ (C, O) at each of the 36 positions. B, G and A follow from interpolation
at 0, ±1, ±2 and infinity; docs/theory.md derives these matrices and the gradients.

Images (H, W, N, C) have ``down`` rows of ``across`` tiles. A chunk consists of a few rows of tiles
of a few images, so that intermediate results stay in the cache of a core. The values of all images
and channels of a chunk at one position, which are contiguous, form a run. A transform multiplies a
small matrix by the runs of a tile, first along one axis (half transformed), then along the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Shape
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
"""The matrix Bᵀ (6, 6), which transforms a window."""

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
"""The matrix G (6, 3), which transforms a kernel."""

AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
"""The matrix Aᵀ (4, 6), which transforms a tile back."""

GG = np.kron(G, G)
"""The matrix (36, 9) that transforms both axes of a kernel at once."""

CONSTANT_POSITION = 7
"""Index of position (1, 1) among the 36. Column 1 of Aᵀ has only ones, so a number added at this
position is added to the whole tile."""


class Chunk(NamedTuple):
    """The work of one task: a range of tile rows and a range of images."""

    rows: slice
    images: slice

    def size(self, channels: int) -> tuple[int, int]:
        """Return the number of tile rows and the length of a run."""
        rows, images = self
        return rows.stop - rows.start, (images.stop - images.start) * channels

    def lanes(self, channels: int) -> slice:
        """Return the images of the chunk as a slice of an axis (N · C), with all channels."""
        return slice(self.images.start * channels, self.images.stop * channels)


def winograd_forward(
    x: Array, weight: Array, bias: Array | None, padding: int, buffer: Buffer
) -> Array:
    """Compute y[u, v, n, o] = b[o] + Σ_{i,j,c} x[u + i - p, v + j - p, n, c] w[o, c, i, j].

    x: (H, W, N, C); weight w: (O, C, 3, 3); bias b: (O,); padding p: 0, 1 or 2; y: (H', W', N, O),
    with H' = H + 2p - 2 and W' = W + 2p - 2.
    """
    (rows, columns, images, channels), outputs = x.shape, len(weight)
    height, width = rows + 2 * padding - 2, columns + 2 * padding - 2
    down, across = -(-height // 4), -(-width // 4)
    workers = buffer.workers
    kernels = _transform_kernels(GG, weight, workers).transpose(0, 2, 1)
    y = buffer("y", (height, width, images, outputs), x.dtype)
    windows_of_x, tiles_of_y = WindowTransform(x, padding, across), TileTransform(y)

    def task(worker: int, chunk: Chunk) -> None:
        windows = windows_of_x.transform(chunk, workers)
        scratch = tiles_of_y.scratch(chunk, workers)
        np.matmul(windows, kernels, out=scratch.transformed)
        if bias is not None:
            np.add(scratch.constant, bias, out=scratch.constant)
        tiles_of_y.transform_back(chunk, scratch)

    workers.map(task, _chunks(images, down, across, min(channels, outputs)))
    return y


def winograd_backward(
    g: Array, x: Array, weight: Array, padding: int, requires_grad: tuple[bool, ...], buffer: Buffer
) -> tuple[Array | None, ...]:
    """Compute the required gradients: dL/dx (H, W, N, C), dL/dw (O, C, 3, 3) and dL/db (O,).

    dL/dx is the correlation of g = dL/dy, (H', W', N, O), with the kernels rotated by 180°, for the
    padding 2 - p. With U = G w Gᵀ for the rotated kernels w, and V = Bᵀ g B for windows g:

        dL/dx = Aᵀ [ Σ_o U ⊙ V ] A      dL/dw = Gᵀ [ Σ_tiles V ⊙ (A x Aᵀ) ] G, rotated by 180°

    The formula for dL/dw, with 4x4 tiles x, follows from Σ x · dL/dx = Σ w · dL/dw. Chunks and
    partial sums, and thus the sums over tiles, do not depend on the number of threads.
    """
    (height, width, images, channels), outputs = x.shape, g.shape[3]
    x_required, weight_required, bias_required = (*requires_grad, False)[:3]
    down, across = -(-height // 4), -(-width // 4)
    turned, workers = GG[:, ::-1], buffer.workers
    kernels = _transform_kernels(turned, weight, workers)
    d_x = buffer("d_x", x.shape, x.dtype) if x_required else x
    windows_of_g = WindowTransform(g, 2 - padding, across)
    tiles_of_x, tiles_of_d_x = TileTransform(x), TileTransform(d_x)
    chunks = _chunks(images, down, across, min(channels, outputs))
    count = partial_sum_count(len(chunks), kernels.size)
    weight_sums = [workers.scratch(f"sum{i}", kernels.shape, x.dtype) for i in range(count)]
    bias_sums = np.zeros((count, outputs), x.dtype)

    def task(worker: int, index: int) -> None:
        for number, chunk in enumerate(chunks[index::count]):
            windows = windows_of_g.transform(chunk, workers)
            scratch = tiles_of_x.scratch(chunk, workers)
            if x_required:
                np.matmul(windows, kernels, out=scratch.transformed)
                tiles_of_d_x.transform_back(chunk, scratch)
            if weight_required:
                tiles_of_x.transform(chunk, scratch)
                total = product = weight_sums[index]
                if number:
                    product = workers.scratch("product", total.shape, total.dtype)
                np.matmul(windows.transpose(0, 2, 1), scratch.transformed, out=product)
                if number:
                    np.add(total, product, out=total)
            if bias_required:
                stop = None if chunk.rows.stop == down else 4 * chunk.rows.stop
                bias_sums[index] += _total(g[4 * chunk.rows.start : stop, :, chunk.images])

    workers.map(task, range(count))
    d_weight = d_bias = None
    if weight_required:
        sum_into_first(weight_sums, workers)
        d_weight = buffer("d_weight", weight.shape, x.dtype)
        total = weight_sums[0].reshape(36, -1)
        np.matmul(total.T, turned.astype(x.dtype), out=d_weight.reshape(-1, 9))
    if bias_required:
        d_bias = np.add.reduce(bias_sums, axis=0, out=buffer("d_bias", (outputs,), x.dtype))
    return (d_x if x_required else None, d_weight, d_bias)[: len(requires_grad)]


def _chunks(images: int, down: int, across: int, channels: int) -> list[Chunk]:
    """Divide all tiles into chunks of enough tiles for efficient products.

    A chunk gets enough images for a long run, then rows of tiles until it has ``enough`` tiles, and
    then more images. ``enough`` grows with the number of channels, because a matrix product has a
    fixed cost. With many tiles, ``enough`` is at most a quarter of them, so threads share the work.
    """
    enough = min(max(tuning.WINOGRAD_TILES, 4 * channels), images * down * across // 4)
    enough = max(enough, tuning.WINOGRAD_MIN_TILES)
    together = min(images, -(-tuning.WINOGRAD_RUN_ELEMENTS // channels))
    rows = min(down, -(-enough // (across * together)))
    if rows == down:
        together = min(images, max(together, -(-enough // (across * down))))
    image_chunks = chunk_slices(images, -(-images // (images // together)))
    return [Chunk(part, cut) for cut in image_chunks for part in chunk_slices(down, rows)]


def _transform_kernels(matrix: Array, weight: Array, workers: ThreadPool) -> Array:
    """Return the product of ``matrix`` (36, 9) and every kernel w, as (36, O, C)."""
    outputs, channels = weight.shape[:2]
    kernels = workers.scratch("kernels", (36, outputs, channels), weight.dtype)
    flat = weight.reshape(-1, 9)
    np.matmul(matrix.astype(weight.dtype), flat.T, out=kernels.reshape(36, -1))
    return kernels


class WindowScratch:
    """Views of the scratch memory of a thread, for the transform of windows."""

    def __init__(self, workers: ThreadPool, shape: Shape, dtype: np.dtype[Any]) -> None:
        down, across, run, padding, reach, channels = shape
        half = workers.scratch("half", (6, 4 * across + 2, run), dtype)
        self.edges = half[:, :padding], half[:, padding + reach :]  # columns outside the image
        # (column, row in window, run): half-transformed columns inside the image
        self.inside = half[:, padding : padding + reach].transpose(1, 0, 2)
        # (row in window, across, column in window, run): half-transformed windows
        row, column, element = half.strides
        window = 6, across, 6, run
        self.windows = as_strided(half, window, (row, 4 * column, column, element))
        transformed = workers.scratch("windows", (6, 6, down, across, run), dtype)
        # (across, row in window, column in window, run) of each row of windows
        self.rows = list(transformed.transpose(2, 0, 3, 1, 4))
        self.transformed = transformed.reshape(36, -1, channels)  # (36, windows, C)


class WindowTransform:
    """Transforms the windows d, 6x6, of images x (H, W, N, C).

    Windows start every 4 rows and columns, beginning at -padding. Outside the images, x is zero.
    """

    def __init__(self, x: Array, padding: int, across: int) -> None:
        self.height, width, _, self.channels = x.shape
        self.padding, self.across = padding, across
        self.reach = min(width, 4 * across + 2 - padding)  # number of columns that windows cover
        lines = x.reshape(self.height, width, -1)[:, : self.reach]
        self.lines = lines.transpose(1, 0, 2)  # (W, H, N · C)
        self.bt = BT.astype(x.dtype)

    def transform(self, chunk: Chunk, workers: ThreadPool) -> Array:
        """Return Bᵀ d B for the windows of a chunk, (36, windows · images, C)."""
        rows, run = chunk.size(self.channels)
        shape = rows, self.across, run, self.padding, self.reach, self.channels
        scratch = workers.cached(WindowScratch, shape, self.bt.dtype)
        for edge in scratch.edges:
            edge.fill(0)
        lines = self.lines[:, :, chunk.lanes(self.channels)]
        first = 4 * chunk.rows.start - self.padding
        for row in scratch.rows:
            top, bottom = max(first, 0), min(first + 6, self.height)
            bt = self.bt if bottom - top == 6 else self.bt[:, top - first : bottom - first]
            np.matmul(bt, lines[:, top:bottom], out=scratch.inside)
            np.matmul(self.bt, scratch.windows, out=row)
            first += 4
        return scratch.transformed


class TileScratch:
    """Views of the scratch memory of a thread, for the transforms of tiles."""

    def __init__(self, workers: ThreadPool, shape: Shape, dtype: np.dtype[Any]) -> None:
        down, across, run, channels = shape
        transformed = workers.scratch("tiles", (6, 6, down, across * run), dtype)
        self.transformed = transformed.reshape(36, -1, channels)  # (36, tiles, C)
        self.constant = self.transformed[CONSTANT_POSITION]  # (tiles, C)
        # (column of 6, row of 6, across · run) of each row of tiles
        self.rows = list(transformed.transpose(2, 1, 0, 3))
        half = workers.scratch("half", (4, 6, across, run), dtype)
        # Two views of half-transformed tiles: half_rows (column of 6, row in tile, across · run),
        # half_columns (row in tile, across, column of 6, run).
        self.half_rows = half.reshape(4, 6, -1).transpose(1, 0, 2)
        self.half_columns = half.transpose(0, 2, 1, 3)
        # Two views of a row of tiles that extends beyond the image: border (4, 4 · across, run),
        # border_tiles (row in tile, across, column in tile, run).
        self.border = workers.scratch("border", (4, 4 * across, run), dtype)
        self.border_tiles = self.border.reshape(4, across, 4, run)


class TileTransform:
    """Transforms the tiles, 4x4, of images y (H, W, N, C).

    The last tiles may extend beyond the images, where y is read as zero and writes are ignored.
    """

    def __init__(self, y: Array) -> None:
        height, self.width, _, self.channels = y.shape
        self.across = -(-self.width // 4)
        self.lines = y.reshape(height, self.width, -1)
        self.whole = 0 if self.width % 4 else height // 4  # rows of tiles inside the image
        inside = self.lines[: 4 * self.whole]
        self.tiles = inside.reshape(self.whole, 4, self.across, 4, self.lines.shape[2])
        self.at = AT.astype(y.dtype)
        self.a = np.ascontiguousarray(self.at.T)

    def scratch(self, chunk: Chunk, workers: ThreadPool) -> TileScratch:
        """Return the scratch memory for the tiles of a chunk."""
        rows, run = chunk.size(self.channels)
        return workers.cached(TileScratch, (rows, self.across, run, self.channels), self.at.dtype)

    def transform(self, chunk: Chunk, scratch: TileScratch) -> None:
        """Write the product A t Aᵀ to the scratch memory, for each tile t of a chunk."""
        lanes = chunk.lanes(self.channels)
        for row, transformed in enumerate(scratch.rows, chunk.rows.start):
            if row < self.whole:
                tiles = self.tiles[row, :, :, :, lanes]
            else:
                tiles, inside = scratch.border_tiles, self.lines[4 * row : 4 * row + 4, :, lanes]
                scratch.border.fill(0)
                np.copyto(scratch.border[: len(inside), : self.width], inside)
            np.matmul(self.a, tiles, out=scratch.half_columns)
            np.matmul(self.a, scratch.half_rows, out=transformed)

    def transform_back(self, chunk: Chunk, scratch: TileScratch) -> None:
        """Write the product Aᵀ m A to y, for each transformed tile m of a chunk."""
        lanes = chunk.lanes(self.channels)
        for row, transformed in enumerate(scratch.rows, chunk.rows.start):
            np.matmul(self.at, transformed, out=scratch.half_rows)
            if row < self.whole:
                np.matmul(self.at, scratch.half_columns, out=self.tiles[row, :, :, :, lanes])
            else:
                np.matmul(self.at, scratch.half_columns, out=scratch.border_tiles)
                inside = self.lines[4 * row : 4 * row + 4, :, lanes]
                np.copyto(inside, scratch.border[: len(inside), : self.width])


def _total(g: Array) -> Array:
    """Return Σ g over rows, columns and images, (O,)."""
    height, width, images, outputs = g.shape
    positions = g.reshape(height * width, images * outputs)
    total = np.ones(len(positions), g.dtype) @ positions
    return np.add.reduce(total.reshape(images, outputs), axis=0)  # type: ignore[no-any-return]

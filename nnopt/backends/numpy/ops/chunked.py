"""Element-wise operations on chunks of rows.

Images (H·W, N·C) and large batches (N, D) are divided into chunks of rows that stay in the cache of
a core, and threads share the chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, Shape, lanes, new


def chunked(forward: Callable[..., tuple[Array, Any]], backward: Callable[..., tuple[Array]]) -> Op:
    """Return an operation that applies ``forward`` and ``backward`` to chunks of a large input."""

    @wraps(forward)
    def chunked_forward(x: Array, *, buffer: Buffer = new, **options: Any) -> tuple[Array, Any]:
        if x.ndim == 2 and x.size < tuning.THREADING_MIN_ELEMENTS:
            y, saved = forward(x, buffer=buffer, **options)
            return y, (None, saved)
        rows = rows_of(x)
        chunks = lanes.row_chunks(len(rows), rows.shape[1], tuning.IMAGE_CHUNK_ELEMENTS)
        saved_by_chunk: list[Any] = [None] * len(chunks)
        y = buffer("y", rows.shape, x.dtype)

        def task(worker: int, index: int) -> None:
            chunk = chunks[index]

            def chunk_buffer(name: str, shape: Shape, dtype: Any) -> Array:
                return y[chunk] if name == "y" else buffer(f"{name}{index}", shape, dtype)

            _, saved_by_chunk[index] = forward(rows[chunk], buffer=chunk_buffer, **options)

        lanes.workers_for(x, buffer).map(task, range(len(chunks)))
        return y.reshape(x.shape), (chunks, saved_by_chunk)

    @wraps(backward)
    def chunked_backward(g: Array, saved: Any, *, buffer: Buffer = new) -> tuple[Array]:
        chunks, saved_by_chunk = saved
        if chunks is None:
            return backward(g, saved_by_chunk, buffer=buffer)
        rows = rows_of(g)

        def task(worker: int, index: int) -> None:
            backward(rows[chunks[index]], saved_by_chunk[index], buffer=buffer.workers.scratch)

        lanes.workers_for(g, buffer).map(task, range(len(chunks)))
        return (rows.reshape(g.shape),)

    return Op(chunked_forward, chunked_backward, ("x",))


def rows_of(x: Array) -> Array:
    """Return flat samples (N, D) unchanged, and images (H, W, N, C) as (H·W, N·C)."""
    return x if x.ndim == 2 else lanes.by_position(x)

"""Running averages of arrays."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from nnopt.backends.numpy.memory import empty, zeros
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.optimizers import update_chunks, update_workers
from nnopt.backends.numpy.threads import SERIAL, ThreadPool


class Average:
    """The running average of each of ``arrays``, C-contiguous arrays of one type. It is 0 at first.

    In the methods, ``w`` is a chunk of an array, as in ``Optimizer``, and ``a`` is its average.

    Attributes:
        averages: The average of each array as a flat array, in the order of ``arrays``.
    """

    def __init__(self, arrays: Iterable[Array], workers: ThreadPool = SERIAL) -> None:
        flat = [array.reshape(-1) for array in arrays]
        self._workers = update_workers(sum(w.size for w in flat), workers)
        self.averages = [zeros(w.shape, w.dtype) for w in flat]
        self._chunks = [
            (a[chunk], w[chunk])
            for a, w in zip(self.averages, flat, strict=True)
            for chunk in update_chunks(w.size, self._workers)
        ]
        largest = max(w.size for _, w in self._chunks)
        self._scratch = [empty((largest,), flat[0].dtype) for _ in range(self._workers.count)]

    def move(self, weight: float) -> None:
        """Compute a ← a + weight · (w - a)."""
        self._workers.map(partial(self._move, weight), self._chunks)

    def swap(self) -> None:
        """Exchange a and w without rounding."""
        self._workers.map(self._swap, self._chunks)

    def _move(self, weight: float, worker: int, chunk: tuple[Array, Array]) -> None:
        a, w = chunk
        scratch = self._scratch[worker][: w.size]
        np.subtract(w, a, out=scratch)
        np.multiply(scratch, weight, out=scratch)
        np.add(a, scratch, out=a)

    def _swap(self, worker: int, chunk: tuple[Array, Array]) -> None:
        a, w = chunk
        scratch = self._scratch[worker][: w.size]
        np.copyto(scratch, w)
        np.copyto(w, a)
        np.copyto(a, scratch)

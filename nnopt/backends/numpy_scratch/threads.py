"""A few threads for work cut into pieces.

NumPy's element-wise loops use one thread, and a large array that passes through several of them
goes to memory and back each time. Cut into pieces that stay in a core's cache, and the pieces dealt
out to threads, the same work takes all cores and little memory traffic: NumPy lets go of Python's
lock while it computes. BLAS is held to one thread meanwhile, or its threads and these would fight
for the cores.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import LibController, ThreadpoolController

from nnopt.backends.numpy_scratch.memory import empty


class Workers:
    """``count`` threads, the calling one among them. The others start when first needed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._spaces = threading.local()

    def share(self, task: Callable[[int, int], None], pieces: int) -> None:
        """Call ``task(worker, piece)`` for every piece from 0 to ``pieces`` - 1, in any order.

        ``worker``, from 0 to ``count`` - 1, says which thread it is: two pieces with the same
        worker never overlap in time, so that each worker can have working space of its own. Who
        does which piece is left to chance; a task whose result must not depend on it writes to a
        place of its piece's. ``numpy.errstate`` holds in all of them.

        Raises whatever a task raises, once all threads have stopped.
        """
        if self.count == 1 or pieces == 1:
            for piece in range(pieces):
                task(0, piece)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count - 1)
        numbers = itertools.count()  # next() of it is atomic

        def work(worker: int) -> None:
            while (piece := next(numbers)) < pieces:
                task(worker, piece)

        blas = _blas()
        threads_before = [library.get_num_threads() for library in blas]
        _set_threads(blas, [1] * len(blas))
        try:
            others = [
                self._pool.submit(copy_context().run, work, worker)
                for worker in range(1, self.count)
            ]
            try:
                work(0)
            finally:
                errors = [other.exception() for other in others]  # waits for every thread
            for error in errors:
                if error is not None:
                    raise error
        finally:
            _set_threads(blas, threads_before)

    def space(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Working space of the calling thread: an uninitialized array that shares its memory with
        every other of this name that the thread has asked for. Nothing in it outlasts a task."""
        spaces: dict[tuple[str, Any], NDArray[Any]]
        spaces = self._spaces.__dict__.setdefault("by_name_and_dtype", {})
        key, size = (name, np.dtype(dtype)), math.prod(shape)
        if key not in spaces or spaces[key].size < size:
            spaces[key] = empty((size,), dtype)
        return spaces[key][:size].reshape(shape)


ALONE = Workers(1)
"""No threads but the calling one."""


def usable_threads() -> int:
    """What NumPy's matrix library uses: it heeds OMP_NUM_THREADS, the cores that a container or
    ``taskset`` leaves, and the limit a run sets. Without one that can be asked, a thread a core."""
    counts = [library.get_num_threads() for library in _blas()]
    return max(counts, default=os.cpu_count() or 1)


def pieces_of(count: int, largest: int) -> list[slice]:
    """0 to ``count`` cut into equal pieces, as few as possible, of at most ``largest``."""
    pieces = -(-count // largest)
    bounds = [round(count * i / pieces) for i in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


@cache
def _blas() -> list[LibController]:
    """The libraries that compute NumPy's matrix products."""
    libraries: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


def _set_threads(libraries: list[LibController], counts: list[int]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        library.set_num_threads(count)

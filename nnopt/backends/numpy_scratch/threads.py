"""A few threads for work cut into pieces.

NumPy's element-wise loops use one thread, and a large array that passes through several of them
goes to memory and back each time. Cut into pieces that stay in a core's cache, and the pieces dealt
out to threads, the same work takes all cores and little memory traffic: NumPy lets go of Python's
lock while it computes. BLAS is held to one thread meanwhile, or its threads and these would fight
for the cores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache

from threadpoolctl import LibController, ThreadpoolController


class Workers:
    """``count`` threads, the calling one among them. The others start when first needed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

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


ALONE = Workers(1)
"""No threads but the calling one."""


@cache
def _blas() -> list[LibController]:
    """The libraries that compute NumPy's matrix products."""
    libraries: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


def _set_threads(libraries: list[LibController], counts: list[int]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        library.set_num_threads(count)

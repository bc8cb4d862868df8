"""A pool of threads for work that is divided into chunks.

NumPy's element-wise operations use one thread. If an array does not fit into the cache, every
operation reads the array from memory and writes it back. Here, several threads process chunks that
fit into the cache of a core. Threads run in parallel: NumPy releases Python's global lock in a
computation. Meanwhile, BLAS is limited to one thread, because its threads would compete for cores.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import LibController, ThreadpoolController

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.memory import empty

Task = Callable[[], None]
Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


class ThreadPool:
    """``count`` threads, including the calling thread.

    The other threads start when they are first needed, sleep while there is no task, and end with
    this object. Tasks are sent through a queue that is implemented in C, because a training step
    calls ``map`` about a hundred times, and an executor of ``concurrent.futures`` can take 0.1 ms
    per call.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._started = False
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._local = _ThreadMemory()

    def map(self, task: Callable[[int, Chunk], None], chunks: Sequence[Chunk]) -> None:
        """Call ``task(worker, chunk)`` for every chunk, in any order.

        ``worker`` is the index of a thread, from 0 to ``count`` - 1. A thread computes one chunk at
        a time, so ``worker`` can select scratch memory. Any thread may compute any chunk, so
        results that must not depend on the threads are stored by chunk. The context variables of
        the calling thread, such as ``numpy.errstate``, apply in all threads. If a task fails,
        remaining chunks may be skipped. The error is raised after every started chunk has ended.

        On a busy machine, another thread may wait for a core for milliseconds. The calling thread
        therefore waits only for chunks that other threads have started.
        """
        total = len(chunks)
        if self.count == 1 or not total:
            for chunk in chunks:
                task(0, chunk)
            return
        if total == 1:
            with single_blas_thread():  # gives the same bits as with several chunks
                task(0, chunks[0])
            return
        if not self._started:
            self._start()
        numbers = itertools.count()  # next(numbers) is atomic
        reports: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()

        def run_chunks(worker: int) -> tuple[int, BaseException | None]:
            started = 0
            try:
                while (number := next(numbers)) < total:
                    started += 1
                    task(worker, chunks[number])
            except BaseException as caught:  # the calling thread raises it
                return started, caught
            return started, None

        def run_and_report(worker: int) -> None:
            reports.put(run_chunks(worker))

        with single_blas_thread():
            for worker in range(1, min(self.count, total)):
                self._tasks.put(partial(copy_context().run, run_and_report, worker))
            started, error = run_chunks(0)
            with suppress(Empty):  # discard the tasks that no thread has started
                while True:
                    self._tasks.get_nowait()
            while next(numbers) < total:  # after an error, skipped chunks count as started
                started += 1
            while started < total:
                count, other_error = reports.get()
                started += count
                error = other_error if error is None else error
        if error is not None:
            try:
                raise error
            finally:
                error = other_error = None  # the tracebacks refer to this frame: break the cycle

    def _start(self) -> None:
        self._started = True
        for _ in range(1, self.count):
            threading.Thread(target=_serve, args=(self._tasks,), daemon=True).start()
            weakref.finalize(self, self._tasks.put, None)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an uninitialized array. A thread's arrays of one name and type share memory."""
        array = self._local.results.get((name, shape, dtype))
        if array is None:
            local, key, size = self._local, (name, np.dtype(dtype)), math.prod(shape)
            if key in local.memory and local.memory[key].size < size:
                del local.memory[key]
                local.results.clear()  # because they are views of the smaller memory
            if key not in local.memory:
                local.memory[key] = empty((size,), dtype)
            array = local.results[name, shape, dtype] = local.memory[key][:size].reshape(shape)
        return array

    def cached(self, make: Callable[..., Result], *arguments: Hashable) -> Result:
        """Return the stored result of ``make(self, *arguments)`` for the calling thread.

        The result contains views of scratch memory, and is deleted when this memory grows. It is
        stored because other threads may wait for the global lock while ``make`` runs.
        """
        result = self._local.results.get((make, *arguments))
        if result is None:
            result = self._local.results[make, *arguments] = make(self, *arguments)
        return result


class _ThreadMemory(threading.local):
    """The scratch memory of a thread by name and type, and views of this memory."""

    def __init__(self) -> None:
        self.memory: dict[tuple[str, np.dtype[Any]], NDArray[Any]] = {}
        self.results: dict[tuple[Hashable, ...], Any] = {}


def _serve(tasks: SimpleQueue[Task | None]) -> None:
    """Run tasks until None arrives."""
    while (task := tasks.get()) is not None:
        task()
        del task  # a task refers to the pool, and this thread ends when the pool is deleted


SERIAL = ThreadPool(1)
"""A pool that consists only of the calling thread."""


def default_threads() -> int:
    """Return the matrix library's default number of threads; if unknown, the number of cores."""
    counts = [library.get_num_threads() for library in _blas_libraries()]
    return max(counts, default=os.cpu_count() or 1)


def chunk_slices(count: int, largest: int) -> list[slice]:
    """Divide ``count`` elements into the fewest slices of nearly equal lengths <= ``largest``."""
    chunks = -(-count // largest)
    bounds = [round(count * i / chunks) for i in range(chunks + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def partial_sum_count(chunks: int, elements: int) -> int:
    """Return the number of partial sums for adding ``chunks`` arrays of ``elements`` elements.

    The number, and thus the rounding of the sum, does not depend on the number of threads.
    """
    most = min(tuning.MAX_PARTIAL_SUMS, max(tuning.MAX_PARTIAL_SUM_ELEMENTS // elements, 2))
    return min(chunks, most)


def sum_into_first(sums: Sequence[NDArray[Any]], workers: ThreadPool) -> None:
    """Add all other arrays to the first array, in order. Threads share the work on large arrays."""
    if len(sums) == 1:
        return
    first = sums[0]
    count = tuning.PARALLEL_SUM_CHUNKS if first.size >= tuning.PARALLEL_SUM_MIN_ELEMENTS else 1

    def task(worker: int, chunk: slice) -> None:
        for other in sums[1:]:
            np.add(first[chunk], other[chunk], out=first[chunk])

    workers.map(task, chunk_slices(len(first), -(-len(first) // count)))


class single_blas_thread:
    """A context manager that limits matrix products to the calling thread.

    ``contextlib.contextmanager`` would take one percent of a small network's training step.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = [get() for get, _ in _blas_functions()]
        for _, set_ in _blas_functions():
            set_(1)

    def __exit__(self, *error: object) -> None:
        for (_, set_), count in zip(_blas_functions(), self._before, strict=True):
            set_(count)


@cache
def _blas_functions() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """Return the functions that read and set the number of threads of each matrix library.

    If OpenBLAS manages its threads itself, OpenBLAS is called directly. Calls through threadpoolctl
    include checks, which take 5 µs if a matrix product has displaced their data from the cache.
    """
    functions = []
    for library in _blas_libraries():
        names = [f"{a}openblas_{{}}_num_threads{b}" for a in ("", "scipy_") for b in ("", "64_")]
        name = next((x for x in names if hasattr(library.dynlib, x.format("set"))), None)
        if name is None or library.threading_layer != "pthreads":
            functions.append((library.get_num_threads, library.set_num_threads))
        else:
            get, set_ = (getattr(library.dynlib, name.format(verb)) for verb in ("get", "set"))
            functions.append((get, set_))
    return functions


@cache
def _blas_libraries() -> list[LibController]:
    """Return the libraries that compute NumPy's matrix products."""
    libraries: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries

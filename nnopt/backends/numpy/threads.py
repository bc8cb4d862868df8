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
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import LibController, ThreadpoolController

from nnopt.backends.numpy.memory import empty

Task = Callable[[], None]
Result = TypeVar("Result")


class Workers:
    """``count`` threads, the calling one among them. The others start when first needed, wait for
    tasks without taking time, and end with this object.

    They get their tasks through a queue written in C. A training step deals out work a hundred
    times, and the locks of an executor of ``concurrent.futures`` can take a tenth of a millisecond
    each time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._started = False
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._own = _OfThread()

    def share(self, task: Callable[[int, int], None], pieces: int) -> None:
        """Call ``task(worker, piece)`` for every piece from 0 to ``pieces`` - 1, in any order.

        ``worker``, from 0 to ``count`` - 1, says which thread it is: two pieces with the same
        worker never overlap in time, so that each worker can have working space of its own. Who
        does which piece is left to chance; a task whose result must not depend on it writes to a
        place of its piece's. ``numpy.errstate`` holds in all of them.

        On a busy machine another thread may get no core for milliseconds. So the calling thread
        waits only for pieces that another thread has begun, and does all others itself.

        Raises the exception of a task, after all threads have finished their pieces.
        """
        if self.count == 1 or not pieces:
            for piece in range(pieces):
                task(0, piece)
            return
        if pieces == 1:
            with OneBlasThread():  # as in pieces that are shared
                task(0, 0)
            return
        if not self._started:
            self._start()
        numbers = itertools.count()  # next() of it is atomic
        reports: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()

        def help_out(worker: int) -> None:
            begun = 0
            error: BaseException | None = None
            try:
                while (piece := next(numbers)) < pieces:
                    begun += 1
                    task(worker, piece)
            except BaseException as caught:  # the calling thread raises it
                error = caught
            if begun:
                reports.put((begun, error))

        with OneBlasThread():
            for worker in range(1, min(self.count, pieces)):
                self._tasks.put(partial(copy_context().run, help_out, worker))
            begun = 0
            try:
                while (piece := next(numbers)) < pieces:
                    begun += 1
                    task(0, piece)
            finally:
                self._forget_tasks()
                errors = self._wait(reports, numbers, pieces, begun)
            for error in errors:
                raise error

    def _forget_tasks(self) -> None:
        """Take back the tasks that no thread has begun."""
        with suppress(Empty):
            while True:
                self._tasks.get_nowait()

    @staticmethod
    def _wait(
        reports: SimpleQueue[tuple[int, BaseException | None]],
        numbers: Iterator[int],
        pieces: int,
        begun: int,
    ) -> list[BaseException]:
        """Wait until all pieces that other threads have begun are done. Return their errors. After
        an error, pieces that no thread has begun are left out."""
        errors = []
        while next(numbers) < pieces:
            begun += 1
        while begun < pieces:
            count, error = reports.get()
            begun += count
            if error is not None:
                errors.append(error)
        return errors

    def _start(self) -> None:
        self._started = True
        for _ in range(1, self.count):
            threading.Thread(target=_serve, args=(self._tasks,), daemon=True).start()
            weakref.finalize(self, self._tasks.put, None)

    def space(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Working space of the calling thread: an uninitialized array that shares its memory with
        every other of this name that the thread has asked for. Nothing in it outlasts a task."""
        array = self._own.results.get((name, shape, dtype))
        if array is None:
            own, key, size = self._own, (name, np.dtype(dtype)), math.prod(shape)
            if key in own.memory and own.memory[key].size < size:
                del own.memory[key]
                own.results.clear()  # they keep the smaller memory
            if key not in own.memory:
                own.memory[key] = empty((size,), dtype)
            array = own.results[name, shape, dtype] = own.memory[key][:size].reshape(shape)
        return array

    def kept(self, make: Callable[..., Result], *arguments: Hashable) -> Result:
        """``make(self, *arguments)``, views of the calling thread's working space, made again only
        if that has grown: ``make`` is a function of a module, and the arguments say all that the
        views depend on. Between two calls of NumPy a thread holds Python's lock, and others may
        have to wait for it, so the less it does there, the better."""
        result = self._own.results.get((make, *arguments))
        if result is None:
            result = make(self, *arguments)
            self._own.results[make, *arguments] = result
        return result


class _OfThread(threading.local):
    """What a thread has for itself: memory by name and type, and views of it, as many as there are
    shapes of layers and batches, by what they are."""

    def __init__(self) -> None:
        self.memory: dict[tuple[str, np.dtype[Any]], NDArray[Any]] = {}
        self.results: dict[tuple[Hashable, ...], Any] = {}


def _serve(tasks: SimpleQueue[Task | None]) -> None:
    """What a thread does: one task after the other, until there is None."""
    while (task := tasks.get()) is not None:
        task()
        del task  # it holds arrays, and the Workers whose end this thread waits for


MOST_SUMS = 8
"""Partial sums at most, and so the threads that can share a sum."""

NUMBERS_OF_SUMS = 2**24
"""Numbers in all partial sums together: 64 MB in float32. Two partial sums may have more."""

SHARED_SUM_FROM, PARTS_OF_SUM = 2**18, 4
"""Numbers in a sum from which threads share the addition of partial sums, and the parts."""

ALONE = Workers(1)
"""No threads but the calling one."""


def usable_threads() -> int:
    """Return the number of threads that NumPy's matrix library uses: it follows OMP_NUM_THREADS,
    ``taskset`` and the limit that a run sets. If the library cannot be asked, one for each core."""
    counts = [library.get_num_threads() for library in _blas()]
    return max(counts, default=os.cpu_count() or 1)


def pieces_of(count: int, largest: int) -> list[slice]:
    """0 to ``count`` cut into equal pieces, as few as possible, of at most ``largest``."""
    pieces = -(-count // largest)
    bounds = [round(count * i / pieces) for i in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def partial_sums(pieces: int, numbers: int) -> int:
    """Return the number of partial sums for a sum of ``numbers`` numbers over ``pieces`` pieces.

    It does not depend on the number of threads, so the sum is the same with any. Each partial sum
    is the task of one thread, and takes memory.
    """
    most = min(MOST_SUMS, max(NUMBERS_OF_SUMS // numbers, 2))
    return min(pieces, most)


def add_up(sums: Sequence[NDArray[Any]], workers: Workers) -> None:
    """Add all arrays to the first one, in their order. The first axis is shared between threads if
    the arrays are large."""
    first = sums[0]
    count = PARTS_OF_SUM if first.size >= SHARED_SUM_FROM else 1
    parts = pieces_of(len(first), -(-len(first) // count))

    def task(worker: int, number: int) -> None:
        part = parts[number]
        for other in sums[1:]:
            np.add(first[part], other[part], out=first[part])

    workers.share(task, len(parts) if len(sums) > 1 else 0)


class OneBlasThread:
    """A context in which matrix products take the calling thread alone. It is entered at every step
    of a small network, of which ``contextlib`` would take a hundredth."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = [get() for get, _ in _blas_threads()]
        for _, set_ in _blas_threads():
            set_(1)

    def __exit__(self, *error: object) -> None:
        for (_, set_), count in zip(_blas_threads(), self._before, strict=True):
            set_(count)


@cache
def _blas_threads() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """For each library of matrix products, how to ask for its number of threads, and to change it.
    They are OpenBLAS's own functions, where it is that and has threads of its own: threadpoolctl's
    check more, and take 5 µs after a product has emptied the cache."""
    functions = []
    for library in _blas():
        names = [f"{a}openblas_{{}}_num_threads{b}" for a in ("", "scipy_") for b in ("", "64_")]
        name = next((x for x in names if hasattr(library.dynlib, x.format("set"))), None)
        if name is None or library.threading_layer != "pthreads":
            functions.append((library.get_num_threads, library.set_num_threads))
        else:
            get, set_ = (getattr(library.dynlib, name.format(verb)) for verb in ("get", "set"))
            functions.append((get, set_))
    return functions


@cache
def _blas() -> list[LibController]:
    """The libraries that compute NumPy's matrix products."""
    libraries: list[LibController] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries

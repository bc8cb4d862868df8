"""A running average of arrays, beside them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.memory import empty, zeros
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.optimizers import pieces_for
from nnopt.backends.numpy.threads import SERIAL, ThreadPool


class Average:
    """An average a of C-contiguous ``arrays`` w of one number type, walked in pieces as an update
    is (see ``nnopt.backends.numpy.optimizers``); it starts at zero."""

    def __init__(self, arrays: Iterable[Array], workers: ThreadPool = SERIAL) -> None:
        flat = [array.reshape(-1) for array in arrays]
        self._workers = (
            workers if sum(w.size for w in flat) >= tuning.UPDATE_THREADING_MIN_ELEMENTS else SERIAL
        )
        self._pieces = [
            (a[piece], w[piece])
            for w, a in [(w, zeros(w.shape, w.dtype)) for w in flat]
            for piece in pieces_for(self._workers, w.size)
        ]
        largest = max(w.size for _, w in self._pieces)
        self._spaces = [empty((largest,), flat[0].dtype) for _ in range(self._workers.count)]

    def move(self, weight: float) -> None:
        """a ← a + weight · (w - a)."""
        self._workers.map(partial(self._move, weight), len(self._pieces))

    def swap(self) -> None:
        """Exchange a and w, to the bit."""
        self._workers.map(self._swap, len(self._pieces))

    def _move(self, weight: float, worker: int, number: int) -> None:
        a, w = self._pieces[number]
        space = self._spaces[worker][: w.size]
        np.subtract(w, a, out=space)
        np.multiply(space, weight, out=space)
        np.add(a, space, out=a)

    def _swap(self, worker: int, number: int) -> None:
        a, w = self._pieces[number]
        space = self._spaces[worker][: w.size]
        np.copyto(space, w)
        np.copyto(w, a)
        np.copyto(a, space)

"""Optimizers: updates of a flat vector of all parameters by one of the rules of ``update_rules``.

Memory traffic, not arithmetic, determines the time of an update. The vector is therefore updated in
chunks, which stay in the processor's cache from one operation to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.memory import CACHE_LINE_BYTES, empty, zeros
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.threads import SERIAL, ThreadPool
from nnopt.backends.numpy.update_rules import OPTIMIZERS, Momenta, Update
from nnopt.schema import NadamConfig, OptimizerVariant


class Optimizer:
    """Applies one update rule to ``parameters``, a flat vector that is updated in place.

    The parameters in the slice ``decayed`` have decoupled weight decay, w ← (1 - lr·λ) w
    (Loshchilov and Hutter 2019, algorithms 1 and 2).

    Threads update chunks of the vector in parallel. The views of the chunks are created only once,
    so that a step runs little Python code: threads wait for each other at Python's global lock, and
    waking a waiting thread takes longer than a short update.

    Attributes:
        steps: The number of updates so far.
        vectors: The state of the update rule by name, one number for each parameter.
    """

    def __init__(
        self,
        config: OptimizerVariant,
        parameters: Array,
        gradient: Array,
        decayed: slice,
        weight_decay: float,
        workers: ThreadPool = SERIAL,
    ) -> None:
        self.config = config
        self.steps = 0
        rule = OPTIMIZERS[config.name]
        self._rule = rule.update
        names = rule.vectors_for(config)
        self.vectors = {x: zeros(parameters.shape, parameters.dtype) for x in names}
        self._momenta = Momenta(config) if isinstance(config, NadamConfig) else None
        self._squares = self.vectors.get("squares")
        self._decayed = parameters[decayed]
        self._weight_decay = weight_decay
        self._workers = update_workers(parameters.size, workers)
        chunks = update_chunks(parameters.size, self._workers)
        self._updates = [  # one list for each worker, with one item for each chunk
            self._chunk_updates(parameters, gradient, chunks) for _ in range(self._workers.count)
        ]

    def _chunk_updates(self, w: Array, g: Array, chunks: Sequence[slice]) -> list[Update]:
        change, scratch = (empty((chunks[0].stop,), w.dtype) for _ in range(2))
        updates = []
        for chunk in chunks:
            size = chunk.stop - chunk.start
            views = w[chunk], g[chunk], [vector[chunk] for vector in self.vectors.values()]
            buffers = change[:size], scratch[:size]
            updates.append(Update(self.config, *views, *buffers, self._momenta))
        return updates

    def reset(self) -> None:
        """Return to the state before the first update."""
        self.steps = 0
        for vector in self.vectors.values():
            vector.fill(0)

    def step(self, lr: float) -> None:
        """Update the parameters. Their bits do not depend on the number of threads."""
        self.steps += 1
        if self._momenta is not None:
            self._momenta.advance(self.steps)
        if self._weight_decay:
            self._decayed *= 1 - lr * self._weight_decay
        self._workers.map(partial(self._update, lr), range(len(self._updates[0])))

    def state_is_finite(self) -> bool:
        """Return whether all sums or averages of squared gradients are finite.

        A parameter never changes again if its sum or average is infinite. Other state vectors need
        no check: if they are not finite, the parameters are not finite either.
        """
        return self._squares is None or math.isfinite(float(np.max(self._squares)))

    def _update(self, lr: float, worker: int, index: int) -> None:
        update = self._updates[worker][index]
        self._rule(update, lr, self.steps)
        np.subtract(update.w, update.change, out=update.w)


def update_workers(size: int, workers: ThreadPool) -> ThreadPool:
    """Return the threads for an update of ``size`` elements. A small update uses one thread."""
    return workers if size >= tuning.UPDATE_THREADING_MIN_ELEMENTS else SERIAL


def update_chunks(size: int, workers: ThreadPool) -> list[slice]:
    """Divide ``size`` elements at cache lines; a large array has at least one chunk per thread."""
    per_worker = -(-size // workers.count)
    length = min(tuning.UPDATE_CHUNK_ELEMENTS, per_worker + -per_worker % CACHE_LINE_BYTES)
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]

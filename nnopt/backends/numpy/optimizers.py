"""Optimizers: update rules for a flat vector of all parameters.

Memory traffic, not arithmetic, determines the time of an update. The vector is therefore updated in
chunks, which stay in the processor's cache from one operation to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.memory import CACHE_LINE_BYTES, empty, zeros
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.threads import SERIAL, ThreadPool
from nnopt.schema import OptimizerVariant

State = list[Array]


def sgd_naive(w: Array, g: Array, lr: float) -> Array:
    """Compute w ← w - lr·g."""
    return w - lr * g


def momentum_naive(w: Array, g: Array, state: State, lr: float, momentum: float) -> Array:
    """Compute v ← μ·v + g;  w ← w - lr·v."""
    v = state[0] = momentum * state[0] + g
    return w - lr * v


def nesterov_naive(w: Array, g: Array, state: State, lr: float, momentum: float) -> Array:
    """Compute v ← μ·v + g;  w ← w - lr·(g + μ·v)."""
    v = state[0] = momentum * state[0] + g
    return w - lr * (g + momentum * v)


def adagrad_naive(w: Array, g: Array, state: State, lr: float, epsilon: float) -> Array:
    """Compute s ← s + g²;  w ← w - lr·g / (√s + ε)."""
    s = state[0] = state[0] + g * g
    return np.asarray(w - lr * g / (np.sqrt(s) + epsilon))


def rmsprop_naive(w: Array, g: Array, state: State, lr: float, rho: float, epsilon: float) -> Array:
    """Compute s ← ρ·s + (1-ρ)·g²;  w ← w - lr·g / (√s + ε)."""
    s = state[0] = rho * state[0] + (1 - rho) * g * g
    return w - lr * g / (np.sqrt(s) + epsilon)


def adam_naive(
    w: Array, g: Array, state: State, lr: float, t: int, beta1: float, beta2: float, epsilon: float
) -> Array:
    """Compute m ← β₁·m + (1-β₁)·g;  s ← β₂·s + (1-β₂)·g²;  w ← w - lr·m̂ / (√ŝ + ε).

    m̂ = m / (1-β₁ᵗ) and ŝ = s / (1-β₂ᵗ) correct the bias in update number t, counted from 1.
    """
    m = state[0] = beta1 * state[0] + (1 - beta1) * g
    s = state[1] = beta2 * state[1] + (1 - beta2) * g * g
    m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(s_hat) + epsilon)


class Update(NamedTuple):
    """The arrays with which a thread updates one chunk of the parameters.

    An update rule takes these arrays, the learning rate ``lr`` and the number ``t`` of the update,
    counted from 1. It updates ``state`` and writes to ``change`` the amount to subtract from the
    parameters.
    """

    config: Any
    w: Array  # the parameters
    g: Array  # the gradient, which is only read
    state: Sequence[Array]
    change: Array
    scratch: Array


def sgd(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``sgd_naive`` (Robbins and Monro 1951)."""
    np.multiply(u.g, lr, out=u.change)


def momentum(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``momentum_naive`` (Polyak 1964, with lr outside v as in PyTorch)."""
    (v,) = u.state
    np.multiply(v, u.config.momentum, out=v)
    np.add(v, u.g, out=v)
    np.multiply(v, lr, out=u.change)


def nesterov(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``nesterov_naive`` (Sutskever et al. 2013, in the form of PyTorch)."""
    (v,) = u.state
    np.multiply(v, u.config.momentum, out=v)
    np.add(v, u.g, out=v)
    np.multiply(v, u.config.momentum, out=u.change)
    np.add(u.change, u.g, out=u.change)
    np.multiply(u.change, lr, out=u.change)


def adagrad(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``adagrad_naive`` (Duchi et al. 2011)."""
    (s,) = u.state
    np.multiply(u.g, u.g, out=u.change)
    np.add(s, u.change, out=s)
    _divide_gradient(s, u, lr)


def rmsprop(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``rmsprop_naive`` (Tieleman and Hinton 2012, lecture 6.5)."""
    (s,) = u.state
    _average_squares(s, u.config.rho, u)
    _divide_gradient(s, u, lr)


def adam(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``adam_naive`` (Kingma and Ba 2015, algorithm 1)."""
    m, s = u.state
    np.multiply(m, u.config.beta1, out=m)
    np.multiply(u.g, 1 - u.config.beta1, out=u.change)
    np.add(m, u.change, out=m)
    _average_squares(s, u.config.beta2, u)
    np.sqrt(s, out=u.change)
    np.multiply(u.change, 1 / math.sqrt(1 - u.config.beta2**t), out=u.change)
    np.add(u.change, u.config.epsilon, out=u.change)
    np.multiply(m, lr / (1 - u.config.beta1**t), out=u.scratch)
    np.divide(u.scratch, u.change, out=u.change)


def _average_squares(s: Array, decay: float, u: Update) -> None:
    """Compute s ← ρ·s + (1-ρ)·g² with ρ = ``decay``."""
    np.multiply(s, decay, out=s)
    np.multiply(u.g, 1 - decay, out=u.change)
    np.multiply(u.change, u.g, out=u.change)
    np.add(s, u.change, out=s)


def _divide_gradient(s: Array, u: Update, lr: float) -> None:
    """Compute change ← lr·g / (√s + ε)."""
    np.sqrt(s, out=u.change)
    np.add(u.change, u.config.epsilon, out=u.change)
    np.multiply(u.g, lr, out=u.scratch)
    np.divide(u.scratch, u.change, out=u.change)


class Rule(NamedTuple):
    """An update rule, and the names of the state vectors that the rule needs."""

    update: Callable[[Update, float, int], None]
    vectors: tuple[str, ...] = ()


OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(sgd),
    "momentum": Rule(momentum, ("velocity",)),
    "nesterov": Rule(nesterov, ("velocity",)),
    "adagrad": Rule(adagrad, ("squares",)),
    "rmsprop": Rule(rmsprop, ("squares",)),
    "adam": Rule(adam, ("mean", "squares")),
    "adamw": Rule(adam, ("mean", "squares")),  # weight decay is decoupled for every optimizer
}


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
        self.vectors = {x: zeros(parameters.shape, parameters.dtype) for x in rule.vectors}
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
            updates.append(Update(self.config, *views, change[:size], scratch[:size]))
        return updates

    def reset(self) -> None:
        """Return to the state before the first update."""
        self.steps = 0
        for vector in self.vectors.values():
            vector.fill(0)

    def step(self, lr: float) -> None:
        """Update the parameters. Their bits do not depend on the number of threads."""
        self.steps += 1
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

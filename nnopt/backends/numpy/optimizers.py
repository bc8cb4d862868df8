"""Update rules, in order of complexity. Each is written for flat slices of all parameters at once:

    w: parameters, g: their gradient (only read), state: the rule's own slices, lr: learning rate,
    t: the number of this update, from 1, a and b: working space, two slices.

What an update costs is memory traffic, not arithmetic. So the whole vector is walked in pieces:
what one call has left in the processor's cache, the next one finds there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.memory import CACHE_LINE_BYTES, empty, zeros
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.threads import SERIAL, ThreadPool
from nnopt.schema import (
    AdagradConfig,
    AdamConfig,
    MomentumConfig,
    OptimizerVariant,
    RmspropConfig,
    SgdConfig,
)

State = Sequence[Array]


def sgd(
    config: SgdConfig, w: Array, g: Array, state: State, lr: float, t: int, a: Array, b: Array
) -> None:
    """w ← w - lr·g (Robbins and Monro 1951)."""
    np.multiply(g, lr, out=a)
    np.subtract(w, a, out=w)


def momentum(
    config: MomentumConfig, w: Array, g: Array, state: State, lr: float, t: int, a: Array, b: Array
) -> None:
    """v ← μ·v + g;  w ← w - lr·v (Polyak 1964; as in PyTorch, lr is outside v)."""
    (v,) = state
    np.multiply(v, config.momentum, out=v)
    np.add(v, g, out=v)
    np.multiply(v, lr, out=a)
    np.subtract(w, a, out=w)


def nesterov(
    config: MomentumConfig, w: Array, g: Array, state: State, lr: float, t: int, a: Array, b: Array
) -> None:
    """v ← μ·v + g;  w ← w - lr·(g + μ·v) (Sutskever et al. 2013; in the form of PyTorch)."""
    (v,) = state
    np.multiply(v, config.momentum, out=v)
    np.add(v, g, out=v)
    np.multiply(v, config.momentum, out=a)
    np.add(a, g, out=a)
    np.multiply(a, lr, out=a)
    np.subtract(w, a, out=w)


def adagrad(
    config: AdagradConfig, w: Array, g: Array, state: State, lr: float, t: int, a: Array, b: Array
) -> None:
    """s ← s + g²;  w ← w - lr·g / (√s + ε) (Duchi et al. 2011)."""
    (s,) = state
    np.multiply(g, g, out=a)
    np.add(s, a, out=s)
    np.sqrt(s, out=a)
    np.add(a, config.epsilon, out=a)
    np.multiply(g, lr, out=b)
    np.divide(b, a, out=a)
    np.subtract(w, a, out=w)


def rmsprop(
    config: RmspropConfig, w: Array, g: Array, state: State, lr: float, t: int, a: Array, b: Array
) -> None:
    """s ← ρ·s + (1-ρ)·g²;  w ← w - lr·g / (√s + ε) (Tieleman and Hinton 2012, lecture 6.5)."""
    (s,) = state
    np.multiply(s, config.rho, out=s)
    np.multiply(g, 1 - config.rho, out=a)
    np.multiply(a, g, out=a)
    np.add(s, a, out=s)
    np.sqrt(s, out=a)
    np.add(a, config.epsilon, out=a)
    np.multiply(g, lr, out=b)
    np.divide(b, a, out=a)
    np.subtract(w, a, out=w)


def adam(
    config: AdamConfig, w: Array, g: Array, state: State, lr: float, t: int, a: Array, b: Array
) -> None:
    """m ← β₁·m + (1-β₁)·g;  s ← β₂·s + (1-β₂)·g²;  m̂ = m/(1-β₁ᵗ);  ŝ = s/(1-β₂ᵗ);
    w ← w - lr·m̂ / (√ŝ + ε) (Kingma and Ba 2015, algorithm 1)."""
    m, s = state
    np.multiply(m, config.beta1, out=m)
    np.multiply(g, 1 - config.beta1, out=a)
    np.add(m, a, out=m)
    np.multiply(s, config.beta2, out=s)
    np.multiply(g, 1 - config.beta2, out=a)
    np.multiply(a, g, out=a)
    np.add(s, a, out=s)
    np.sqrt(s, out=a)
    np.multiply(a, 1 / math.sqrt(1 - config.beta2**t), out=a)
    np.add(a, config.epsilon, out=a)
    np.multiply(m, lr / (1 - config.beta1**t), out=b)
    np.divide(b, a, out=a)
    np.subtract(w, a, out=w)


def pieces_for(workers: ThreadPool, size: int) -> list[slice]:
    """0 to ``size`` in pieces of limited size that begin where a cache line does; where there are
    many threads, so small that each gets one."""
    share = -(-size // workers.count)
    length = min(tuning.UPDATE_CHUNK_ELEMENTS, share + -share % CACHE_LINE_BYTES)
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


@dataclass(frozen=True)
class Rule:
    """An update rule and the number of vectors it remembers between steps; has_squares: the last
    of them sums squares of the gradient."""

    update: Callable[..., None]
    memories: int
    has_squares: bool = False


OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(sgd, 0),
    "momentum": Rule(momentum, 1),
    "nesterov": Rule(nesterov, 1),
    "adagrad": Rule(adagrad, 1, has_squares=True),
    "rmsprop": Rule(rmsprop, 1, has_squares=True),
    "adam": Rule(adam, 2, has_squares=True),
    "adamw": Rule(adam, 2, has_squares=True),  # the weight decay of all is decoupled
}


class Optimizer:
    """One rule over ``parameters``, the flat vector of all of them, by ``gradient``, that of their
    gradients; both are kept, and read and written where they lie. The slice ``decayed`` shrinks by
    decoupled weight decay: w ← (1 - lr·λ) w (Loshchilov and Hutter 2019, algorithms 1 and 2).

    Threads take turns at holding Python's lock, and waking the next one takes longer than a short
    piece of work: so the slices of every piece are made once, and between two of NumPy's calls
    there is next to no Python."""

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
        self._memories = [zeros(parameters.shape, parameters.dtype) for _ in range(rule.memories)]
        self._squares = self._memories[-1] if rule.has_squares else None
        self._decayed = parameters[decayed]
        self._weight_decay = weight_decay
        self._workers = (
            workers if parameters.size >= tuning.UPDATE_THREADING_MIN_ELEMENTS else SERIAL
        )
        pieces = pieces_for(self._workers, parameters.size)
        self._pieces = [
            (parameters[piece], gradient[piece], [memory[piece] for memory in self._memories])
            for piece in pieces
        ]
        space = (pieces[0].stop,), parameters.dtype
        self._spaces = [(empty(*space), empty(*space)) for _ in range(self._workers.count)]

    def step(self, lr: float) -> None:
        """Update the parameters. How the pieces are dealt out does not change a bit."""
        self.steps += 1
        if self._weight_decay:
            self._decayed *= 1 - lr * self._weight_decay
        self._workers.map(partial(self._update, lr), len(self._pieces))

    def state_is_finite(self) -> bool:
        """Return whether no sum of squares has overflowed, which would stop its parameter without
        any other sign. Other memories are not finite only if the parameters are not."""
        return self._squares is None or math.isfinite(float(np.max(self._squares)))

    def _update(self, lr: float, worker: int, number: int) -> None:
        """One piece."""
        w, g, state = self._pieces[number]
        a, b = self._spaces[worker]
        self._rule(self.config, w, g, state, lr, self.steps, a[: w.size], b[: w.size])

"""Update rules of the optimizers, for chunks of a flat vector of all parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nnopt.backends.numpy.ops import Array
from nnopt.schema import NadamConfig, OptimizerVariant
from nnopt.schema.tables import filled

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


def rmsprop_naive(
    w: Array,
    g: Array,
    state: State,
    lr: float,
    rho: float,
    epsilon: float,
    momentum: float,
    centered: bool,
) -> Array:
    """Compute s ← ρ·s + (1-ρ)·g²;  v ← μ·v + g / (√s + ε);  w ← w - lr·v.

    If ``centered``, the variance max(s - m², 0) replaces s, with the mean m ← ρ·m + (1-ρ)·g.
    Rounding makes s - m² slightly negative if the gradient is constant.
    """
    s = state[0] = rho * state[0] + (1 - rho) * g * g
    m = state[1] = rho * state[1] + (1 - rho) * g
    v = state[2] = momentum * state[2] + g / (
        np.sqrt(np.maximum(s - centered * m * m, 0)) + epsilon
    )
    return w - lr * v


def adadelta_naive(
    w: Array, g: Array, state: State, lr: float, rho: float, epsilon: float
) -> Array:
    """Compute s ← ρ·s + (1-ρ)·g²;  d = g·√(a + ε) / √(s + ε);  w ← w - lr·d.

    Then the average of d² is updated: a ← ρ·a + (1-ρ)·d².
    """
    s = state[0] = rho * state[0] + (1 - rho) * g * g
    d = g * np.sqrt(state[1] + epsilon) / np.sqrt(s + epsilon)
    state[1] = rho * state[1] + (1 - rho) * d * d
    return w - lr * d


def adam_naive(
    w: Array,
    g: Array,
    state: State,
    lr: float,
    t: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    amsgrad: bool,
) -> Array:
    """Compute m ← β₁·m + (1-β₁)·g;  s ← β₂·s + (1-β₂)·g²;  w ← w - lr·m̂ / (√ŝ + ε).

    m̂ = m / (1-β₁ᵗ) and ŝ = s / (1-β₂ᵗ) correct the bias in update number t, counted from 1. With
    ``amsgrad``, ŝ is computed from the largest s so far.
    """
    m = state[0] = beta1 * state[0] + (1 - beta1) * g
    s = state[1] = beta2 * state[1] + (1 - beta2) * g * g
    largest = state[2] = np.maximum(state[2], s)
    m_hat, s_hat = m / (1 - beta1**t), (largest if amsgrad else s) / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(s_hat) + epsilon)


def nadam_naive(
    w: Array,
    g: Array,
    state: State,
    lr: float,
    t: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    momentum_decay: float,
) -> Array:
    """Compute w ← w - lr·n / (√ŝ + ε) with m, s and ŝ of Adam.

    n = (1-μₜ)·g / (1-μ₁⋯μₜ) + μₜ₊₁·m / (1-μ₁⋯μₜ₊₁) and μᵢ = β₁·(1 - 0.96^(i·ψ) / 2), with
    ψ = ``momentum_decay`` and the number t of the update, counted from 1.
    """
    m = state[0] = beta1 * state[0] + (1 - beta1) * g
    s = state[1] = beta2 * state[1] + (1 - beta2) * g * g
    mu = [beta1 * (1 - 0.96 ** (i * momentum_decay) / 2) for i in range(1, t + 2)]
    n = (1 - mu[-2]) * g / (1 - math.prod(mu[:-1])) + mu[-1] * m / (1 - math.prod(mu))
    return np.asarray(w - lr * n / (np.sqrt(s / (1 - beta2**t)) + epsilon))


class Momenta:
    """The momenta μᵢ of NAdam, and the product of the first t momenta.

    Attributes:
        product: μ₁⋯μₜ after the call ``advance(t)``.
    """

    def __init__(self, config: NadamConfig) -> None:
        self._config = config
        self._t = 0
        self.product = 1.0

    def __getitem__(self, i: int) -> float:
        """Return μᵢ (Dozat 2016, algorithm 2, with the schedule of PyTorch)."""
        config = self._config
        decay: float = 0.96 ** (i * config.momentum_decay)
        return config.beta1 * (1 - 0.5 * decay)

    def advance(self, t: int) -> None:
        """Update the product to μ₁⋯μₜ, in constant time if t follows the previous update."""
        if t != self._t + 1:
            self._t, self.product = 0, 1.0
        for i in range(self._t + 1, t + 1):
            self.product *= self[i]
        self._t = t


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
    momenta: Momenta | None  # the momenta of NAdam, None for other rules


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
    _divide_gradient(s, u)
    np.multiply(u.change, lr, out=u.change)


def rmsprop(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``rmsprop_naive`` (Tieleman and Hinton 2012, lecture 6.5).

    Sources of the variants: Graves 2013, "Generating sequences with recurrent neural networks",
    equations 38 to 41, for ``centered``; PyTorch for ``momentum``, with lr outside v.
    """
    s, *optional = u.state
    _average_squares(s, u.config.rho, u)
    if u.config.centered:
        m = optional.pop(0)
        _average(m, u.config.rho, u)
        np.multiply(m, m, out=u.scratch)
        np.subtract(s, u.scratch, out=u.change)
        np.maximum(u.change, 0, out=u.change)  # rounding makes it negative if g is constant
        s = u.change
    _divide_gradient(s, u)
    v = u.change
    if u.config.momentum:
        (v,) = optional
        np.multiply(v, u.config.momentum, out=v)
        np.add(v, u.change, out=v)
    np.multiply(v, lr, out=u.change)


def adadelta(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``adadelta_naive`` (Zeiler 2012, algorithm 1)."""
    s, a = u.state
    rho, epsilon = u.config.rho, u.config.epsilon
    _average_squares(s, rho, u)
    np.add(s, epsilon, out=u.scratch)
    np.add(a, epsilon, out=u.change)
    np.divide(u.change, u.scratch, out=u.change)
    np.sqrt(u.change, out=u.change)
    np.multiply(u.change, u.g, out=u.change)  # d
    np.multiply(u.change, u.change, out=u.scratch)
    np.multiply(u.scratch, 1 - rho, out=u.scratch)
    np.multiply(a, rho, out=a)
    np.add(a, u.scratch, out=a)
    np.multiply(u.change, lr, out=u.change)


def adam(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``adam_naive`` (Kingma and Ba 2015, algorithm 1).

    Source of ``amsgrad``: Reddi et al. 2018, algorithm 2, with the bias correction of PyTorch.
    """
    m, s, *optional = u.state
    # This is _average, without its call: calls take much of the step of a small network.
    np.multiply(m, u.config.beta1, out=m)
    np.multiply(u.g, 1 - u.config.beta1, out=u.change)
    np.add(m, u.change, out=m)
    _average_squares(s, u.config.beta2, u)
    if u.config.amsgrad:
        (largest,) = optional
        s = np.maximum(largest, s, out=largest)
    np.sqrt(s, out=u.change)
    np.multiply(u.change, 1 / math.sqrt(1 - u.config.beta2**t), out=u.change)
    np.add(u.change, u.config.epsilon, out=u.change)
    np.multiply(m, lr / (1 - u.config.beta1**t), out=u.scratch)
    np.divide(u.scratch, u.change, out=u.change)


def nadam(u: Update, lr: float, t: int) -> None:
    """Compute the update of ``nadam_naive`` (Dozat 2016, "Incorporating Nesterov momentum ...")."""
    m, s = u.state
    assert u.momenta is not None
    following, product = u.momenta[t + 1], u.momenta.product
    of_gradient = (1 - u.momenta[t]) / (1 - product)
    of_mean = following / (1 - product * following)
    _average(m, u.config.beta1, u)
    _average_squares(s, u.config.beta2, u)
    np.sqrt(s, out=u.change)
    np.multiply(u.change, 1 / math.sqrt(1 - u.config.beta2**t), out=u.change)
    np.add(u.change, u.config.epsilon, out=u.change)
    np.multiply(m, of_mean / of_gradient, out=u.scratch)
    np.add(u.scratch, u.g, out=u.scratch)
    np.multiply(u.scratch, lr * of_gradient, out=u.scratch)
    np.divide(u.scratch, u.change, out=u.change)


def _average(m: Array, decay: float, u: Update) -> None:
    """Compute m ← β·m + (1-β)·g with β = ``decay``."""
    np.multiply(m, decay, out=m)
    np.multiply(u.g, 1 - decay, out=u.change)
    np.add(m, u.change, out=m)


def _average_squares(s: Array, decay: float, u: Update) -> None:
    """Compute s ← ρ·s + (1-ρ)·g² with ρ = ``decay``."""
    np.multiply(s, decay, out=s)
    np.multiply(u.g, 1 - decay, out=u.change)
    np.multiply(u.change, u.g, out=u.change)
    np.add(s, u.change, out=s)


def _divide_gradient(s: Array, u: Update) -> None:
    """Compute change ← g / (√s + ε)."""
    np.sqrt(s, out=u.change)
    np.add(u.change, u.config.epsilon, out=u.change)
    np.divide(u.g, u.change, out=u.change)


class Rule(NamedTuple):
    """An update rule, and the names of its state vectors.

    ``optional`` maps a key of the configuration to a vector that is needed unless the key is zero
    or false. The update rule reads these vectors in this order, after ``vectors``.
    """

    update: Callable[[Update, float, int], None]
    vectors: tuple[str, ...] = ()
    optional: Mapping[str, str] = MappingProxyType({})

    def vectors_for(self, config: OptimizerVariant) -> tuple[str, ...]:
        """Return the names of the state vectors in the order of ``Update.state``."""
        optional = (vector for key, vector in self.optional.items() if getattr(config, key))
        return (*self.vectors, *optional)


OPTIMIZERS: dict[str, Rule] = filled(
    "optimizer/numpy",
    {
        "sgd": Rule(sgd),
        "momentum": Rule(momentum, ("velocity",)),
        "nesterov": Rule(nesterov, ("velocity",)),
        "adagrad": Rule(adagrad, ("squares",)),
        "rmsprop": Rule(rmsprop, ("squares",), {"centered": "mean", "momentum": "velocity"}),
        "adadelta": Rule(adadelta, ("squares", "squared_changes")),
        "adam": Rule(adam, ("mean", "squares"), {"amsgrad": "largest_squares"}),
        # Weight decay is decoupled for every optimizer.
        "adamw": Rule(adam, ("mean", "squares"), {"amsgrad": "largest_squares"}),
        "nadam": Rule(nadam, ("mean", "squares")),
    },
)

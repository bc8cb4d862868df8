"""Twenty steps of each update rule, compared with the formula in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from nnopt.backends.torch.optimizers import OPTIMIZERS, build_optimizer, set_learning_rate
from nnopt.schema import VARIANTS, Config

Array = np.ndarray
Rule = Callable[[Any], Iterator[Array]]
"""Function that returns the generator of an update rule. The generator receives (g, lr), where g is
the gradient of w, and yields the array to subtract from w."""


def sgd(config: Any) -> Iterator[Array]:
    g, lr = yield
    while True:
        g, lr = yield lr * g


def momentum(config: Any) -> Iterator[Array]:
    v = 0.0
    g, lr = yield
    while True:
        v = config.momentum * v + g
        g, lr = yield lr * v


def nesterov(config: Any) -> Iterator[Array]:
    v = 0.0
    g, lr = yield
    while True:
        v = config.momentum * v + g
        g, lr = yield lr * (g + config.momentum * v)


def rmsprop(config: Any) -> Iterator[Array]:
    s, m, v = 0.0, 0.0, 0.0
    g, lr = yield
    while True:
        s = config.rho * s + (1 - config.rho) * g**2
        m = config.rho * m + (1 - config.rho) * g
        v = config.momentum * v + g / (np.sqrt(s - config.centered * m**2) + config.epsilon)
        g, lr = yield lr * v


def adadelta(config: Any) -> Iterator[Array]:
    s, a = 0.0, 0.0
    g, lr = yield
    while True:
        s = config.rho * s + (1 - config.rho) * g**2
        d = g * np.sqrt(a + config.epsilon) / np.sqrt(s + config.epsilon)
        a = config.rho * a + (1 - config.rho) * d**2
        g, lr = yield lr * d


def adagrad(config: Any) -> Iterator[Array]:
    s = 0.0
    g, lr = yield
    while True:
        s = s + g**2
        g, lr = yield lr * g / (np.sqrt(s) + config.epsilon)


def adam(config: Any) -> Iterator[Array]:
    m, s, largest, t = 0.0, 0.0, 0.0, 0
    g, lr = yield
    while True:
        t += 1
        m = config.beta1 * m + (1 - config.beta1) * g
        s = config.beta2 * s + (1 - config.beta2) * g**2
        largest = np.maximum(largest, s)
        corrected_m = m / (1 - config.beta1**t)
        corrected_s = (largest if config.amsgrad else s) / (1 - config.beta2**t)
        g, lr = yield lr * corrected_m / (np.sqrt(corrected_s) + config.epsilon)


def nadam(config: Any) -> Iterator[Array]:
    m, s, t, product = 0.0, 0.0, 0, 1.0
    g, lr = yield
    while True:
        t += 1
        now, following = (
            config.beta1 * (1 - 0.96 ** (i * config.momentum_decay) / 2) for i in (t, t + 1)
        )
        product *= now
        m = config.beta1 * m + (1 - config.beta1) * g
        s = config.beta2 * s + (1 - config.beta2) * g**2
        n = (1 - now) * g / (1 - product) + following * m / (1 - product * following)
        g, lr = yield lr * n / (np.sqrt(s / (1 - config.beta2**t)) + config.epsilon)


def lion(config: Any) -> Iterator[Array]:
    m = 0.0
    g, lr = yield
    while True:
        direction = np.sign(config.beta1 * m + (1 - config.beta1) * g)
        m = config.beta2 * m + (1 - config.beta2) * g
        g, lr = yield lr * direction


RULES: dict[str, Rule] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adam,
    "nadam": nadam,
    "lion": lion,
}
UNUSUAL: list[tuple[str, dict[str, float]]] = [
    ("momentum", {"momentum": 0.0}),
    ("nesterov", {"momentum": 0.5}),
    ("rmsprop", {"rho": 0.3, "epsilon": 0.1}),
    ("rmsprop", {"momentum": 0.6}),
    ("rmsprop", {"centered": True, "epsilon": 0.1}),
    ("rmsprop", {"rho": 0.9, "momentum": 0.6, "centered": True, "epsilon": 0.1}),
    ("adagrad", {"epsilon": 0.1}),
    ("adadelta", {"rho": 0.3, "epsilon": 0.1}),
    ("adam", {"beta1": 0.0, "beta2": 0.5, "epsilon": 0.1}),
    ("adam", {"beta2": 0.5, "amsgrad": True}),
    ("nadam", {"beta1": 0.5, "beta2": 0.5, "momentum_decay": 0.5}),
    ("lion", {"beta1": 0.2, "beta2": 0.5}),
]


def test_every_optimizer_of_the_schema_has_a_formula() -> None:
    elsewhere = {"muon", "schedule_free_sgd", "schedule_free_adamw"}  # tested in separate files
    assert set(VARIANTS["optimizer"]) == set(RULES) | elsewhere
    assert set(OPTIMIZERS) == set(RULES)


@pytest.mark.parametrize(("name", "changes"), [*((name, {}) for name in RULES), *UNUSUAL])
def test_twenty_steps_of_optimizer_equal_formula(
    make_config: Callable[..., Config], name: str, changes: dict[str, float]
) -> None:
    changed = {f"optimizer.{key}": value for key, value in changes.items()}
    whole = make_config(optimizer=name, **changed)
    config = whole.optimizer
    rng = np.random.default_rng(3)
    shapes = [(4, 3), (5,)]
    expected = [rng.standard_normal(shape) for shape in shapes]
    parameters = [nn.Parameter(torch.tensor(w)) for w in expected]
    optimizer = build_optimizer(parameters, parameters[:1], whole)
    rules = [RULES[name](config) for _ in shapes]
    for rule in rules:
        next(rule)
    for step in range(20):
        lr = 0.05 * (1 + math.cos(step))  # optimizers use this lr, not the configured lr
        set_learning_rate(optimizer, lr)
        for k, rule in enumerate(rules):
            g = rng.standard_normal(shapes[k]) * (step != 7)  # in step 7, all gradients are zero
            parameters[k].grad = torch.tensor(g)
            expected[k] -= rule.send((g, lr))
        optimizer.step()
        for parameter, w in zip(parameters, expected, strict=True):
            assert_allclose(parameter.detach(), w, rtol=1e-12, atol=1e-14)

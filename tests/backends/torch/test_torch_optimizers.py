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
    s = 0.0
    g, lr = yield
    while True:
        s = config.rho * s + (1 - config.rho) * g**2
        g, lr = yield lr * g / (np.sqrt(s) + config.epsilon)


def adagrad(config: Any) -> Iterator[Array]:
    s = 0.0
    g, lr = yield
    while True:
        s = s + g**2
        g, lr = yield lr * g / (np.sqrt(s) + config.epsilon)


def adam(config: Any) -> Iterator[Array]:
    m, s, t = 0.0, 0.0, 0
    g, lr = yield
    while True:
        t += 1
        m = config.beta1 * m + (1 - config.beta1) * g
        s = config.beta2 * s + (1 - config.beta2) * g**2
        corrected_m, corrected_s = m / (1 - config.beta1**t), s / (1 - config.beta2**t)
        g, lr = yield lr * corrected_m / (np.sqrt(corrected_s) + config.epsilon)


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
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adam,
    "lion": lion,
}
UNUSUAL = {
    "momentum": {"optimizer.momentum": 0.0},
    "nesterov": {"optimizer.momentum": 0.5},
    "rmsprop": {"optimizer.rho": 0.3, "optimizer.epsilon": 0.1},
    "adagrad": {"optimizer.epsilon": 0.1},
    "adam": {"optimizer.beta1": 0.0, "optimizer.beta2": 0.5, "optimizer.epsilon": 0.1},
    "lion": {"optimizer.beta1": 0.2, "optimizer.beta2": 0.5},
}


def test_every_optimizer_of_the_schema_has_a_formula() -> None:
    elsewhere = {"muon", "schedule_free_sgd", "schedule_free_adamw"}  # tested in separate files
    assert set(VARIANTS["optimizer"]) == set(RULES) | elsewhere
    assert set(OPTIMIZERS) == set(RULES)


@pytest.mark.parametrize(
    ("name", "changes"), [(name, {}) for name in RULES] + list(UNUSUAL.items())
)
def test_twenty_steps_of_optimizer_equal_formula(
    make_config: Callable[..., Config], name: str, changes: dict[str, float]
) -> None:
    whole = make_config(optimizer=name, **changes)
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

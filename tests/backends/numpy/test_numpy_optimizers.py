"""A hundred steps of every NumPy optimizer in float64, compared with torch.optim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from nnopt import schema
from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.optimizers import Optimizer
from nnopt.backends.numpy.threads import ThreadPool
from nnopt.backends.numpy.update_rules import OPTIMIZERS, Update, rmsprop

SIZE, DECAYED, STEPS = 23, 14, 100
LR = 0.05

CONFIGS: dict[str, tuple[schema.OptimizerVariant, Any]] = {
    "sgd": (schema.SgdConfig("sgd", LR), lambda p: torch.optim.SGD(p, LR)),
    "momentum": (
        schema.MomentumConfig("momentum", LR, 0.8),
        lambda p: torch.optim.SGD(p, LR, momentum=0.8),
    ),
    "momentum 0": (
        schema.MomentumConfig("momentum", LR, 0.0),
        lambda p: torch.optim.SGD(p, LR, momentum=0.0),
    ),
    "nesterov": (
        schema.MomentumConfig("nesterov", LR, 0.8),
        lambda p: torch.optim.SGD(p, LR, momentum=0.8, nesterov=True),
    ),
    "rmsprop": (
        schema.RmspropConfig("rmsprop", LR, 0.9, 1e-3, 0.0, False),
        lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, eps=1e-3),
    ),
    "rmsprop, momentum": (
        schema.RmspropConfig("rmsprop", LR, 0.9, 1e-3, 0.7, False),
        lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, eps=1e-3, momentum=0.7),
    ),
    "rmsprop, centered": (
        schema.RmspropConfig("rmsprop", LR, 0.9, 1e-3, 0.0, True),
        lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, eps=1e-3, centered=True),
    ),
    "rmsprop, momentum and centered": (
        schema.RmspropConfig("rmsprop", LR, 0.9, 1e-3, 0.7, True),
        lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, eps=1e-3, momentum=0.7, centered=True),
    ),
    "adadelta": (
        schema.AdadeltaConfig("adadelta", LR, 0.8, 1e-3),
        lambda p: torch.optim.Adadelta(p, LR, rho=0.8, eps=1e-3),
    ),
    "adagrad": (
        schema.AdagradConfig("adagrad", LR, 1e-3),
        lambda p: torch.optim.Adagrad(p, LR, eps=1e-3),
    ),
    "adam": (
        schema.AdamConfig("adam", LR, 0.8, 0.95, 1e-3, False),
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.95), eps=1e-3),
    ),
    "adamw": (
        schema.AdamConfig("adamw", LR, 0.8, 0.95, 1e-3, False),
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.95), eps=1e-3),
    ),
    "adam, amsgrad": (
        schema.AdamConfig("adam", LR, 0.8, 0.95, 1e-3, True),
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.95), eps=1e-3, amsgrad=True),
    ),
    "nadam": (
        schema.NadamConfig("nadam", LR, 0.8, 0.95, 1e-3, 0.04),
        lambda p: torch.optim.NAdam(p, LR, betas=(0.8, 0.95), eps=1e-3, momentum_decay=0.04),
    ),
}


@pytest.fixture(autouse=True)
def _scalars_in_float64() -> Iterator[None]:
    """Let PyTorch store scalars in float64, such as the product of NAdam's momenta."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_every_optimizer_has_a_case() -> None:
    assert {config.name for config, _ in CONFIGS.values()} == set(OPTIMIZERS)
    of_torch = get_args(schema.TorchOptimizer)
    known = schema.VARIANTS["optimizer"].items()
    assert set(OPTIMIZERS) == {name for name, record in known if record not in of_torch}


def curvature() -> np.ndarray:
    """Return a positive definite matrix A.

    Each entry of the gradient of ½ wᵀ A w depends on all entries of w.
    """
    root = np.random.default_rng(0).standard_normal((SIZE, SIZE)) / SIZE**0.5
    return np.asarray(root @ root.T + 0.1 * np.eye(SIZE))


def noise(step: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(step).standard_normal(SIZE)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("name", CONFIGS)
def test_optimizer_trajectory_equals_torch(
    monkeypatch: pytest.MonkeyPatch, name: str, chunk: int, weight_decay: float
) -> None:
    monkeypatch.setattr(tuning, "UPDATE_CHUNK_ELEMENTS", chunk)
    config, build = CONFIGS[name]
    matrix = curvature()
    ours = np.random.default_rng(1).standard_normal(SIZE)
    theirs = torch.nn.Parameter(torch.tensor(ours))
    gradient = np.empty(SIZE)
    optimizer = Optimizer(config, ours, gradient, slice(DECAYED), weight_decay)
    reference = build([theirs])
    for step in range(STEPS):
        lr = LR * (1 + step % 4)
        gradient[:] = matrix @ ours + noise(step)
        before = gradient.copy()
        optimizer.step(lr)
        assert_array_equal(gradient, before)

        values = theirs.detach().numpy()
        theirs.grad = torch.tensor(matrix @ values + noise(step))
        with torch.no_grad():
            theirs[:DECAYED] *= 1 - lr * weight_decay
        reference.param_groups[0]["lr"] = lr
        reference.step()
        assert_allclose(ours, theirs.detach().numpy(), rtol=1e-11, atol=1e-13)


DECOUPLED: dict[str, tuple[schema.OptimizerVariant, Any]] = {
    "adamw": (
        schema.AdamConfig("adamw", LR, 0.8, 0.95, 1e-3, False),
        lambda p: torch.optim.AdamW(p, LR, betas=(0.8, 0.95), eps=1e-3),
    ),
    "adamw, amsgrad": (
        schema.AdamConfig("adamw", LR, 0.8, 0.95, 1e-3, True),
        lambda p: torch.optim.AdamW(p, LR, betas=(0.8, 0.95), eps=1e-3, amsgrad=True),
    ),
    "nadam": (
        schema.NadamConfig("nadam", LR, 0.8, 0.95, 1e-3, 0.04),
        lambda p: torch.optim.NAdam(
            p,
            LR,
            betas=(0.8, 0.95),
            eps=1e-3,
            momentum_decay=0.04,
            decoupled_weight_decay=True,
        ),
    ),
}
"""Optimizers for which PyTorch has decoupled weight decay."""


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("name", DECOUPLED)
def test_trajectory_with_decoupled_decay_equals_torch(
    monkeypatch: pytest.MonkeyPatch, name: str, chunk: int
) -> None:
    monkeypatch.setattr(tuning, "UPDATE_CHUNK_ELEMENTS", chunk)
    config, build = DECOUPLED[name]
    matrix = curvature()
    ours = np.random.default_rng(1).standard_normal(SIZE)
    start = torch.tensor(ours)
    decayed, exempt = (torch.nn.Parameter(part) for part in (start[:DECAYED], start[DECAYED:]))
    reference = build(
        [{"params": [decayed], "weight_decay": 0.3}, {"params": [exempt], "weight_decay": 0.0}]
    )
    gradient = np.empty(SIZE)
    optimizer = Optimizer(config, ours, gradient, slice(DECAYED), 0.3)
    for step in range(STEPS):
        gradient[:] = matrix @ ours + noise(step)
        optimizer.step(LR)
        values = torch.cat([decayed, exempt]).detach().numpy()
        slope = torch.tensor(matrix @ values + noise(step))
        decayed.grad, exempt.grad = slope[:DECAYED].clone(), slope[DECAYED:].clone()
        reference.step()
        theirs = torch.cat([decayed, exempt]).detach().numpy()
        assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", CONFIGS)
def test_optimizer_after_reset_equals_new_optimizer(name: str) -> None:
    config, _ = CONFIGS[name]
    start = np.random.default_rng(1).standard_normal(SIZE)
    used, new = start.copy(), start.copy()
    gradient = np.empty(SIZE)
    optimizers = [Optimizer(config, w, gradient, slice(DECAYED), 0.1) for w in (used, new)]
    for step in range(5):
        gradient[:] = noise(step)
        optimizers[0].step(LR)
    optimizers[0].reset()
    used[:] = start
    for step in range(5):
        gradient[:] = noise(10 + step)
        for optimizer in optimizers:
            optimizer.step(LR)
    assert_array_equal(used, new)


@pytest.mark.parametrize("name", CONFIGS)
def test_optimizer_float32_keeps_dtype_and_is_near_float64(name: str) -> None:
    config, _ = CONFIGS[name]
    matrix = curvature()
    wide = np.random.default_rng(1).standard_normal(SIZE)
    narrow = wide.astype(np.float32)
    wide_gradient, narrow_gradient = np.empty_like(wide), np.empty_like(narrow)
    exact = Optimizer(config, wide, wide_gradient, slice(0), 0.0)
    rounded = Optimizer(config, narrow, narrow_gradient, slice(0), 0.0)
    for step in range(STEPS):
        wide_gradient[:] = matrix @ wide + noise(step)
        exact.step(LR)
        narrow_gradient[:] = matrix @ narrow.astype(np.float64) + noise(step)
        rounded.step(LR)
    assert narrow.dtype == np.float32
    assert all(vector.dtype == np.float32 for vector in rounded.vectors.values())
    assert_allclose(narrow, wide, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_optimizer_in_chunks_gives_same_bits_on_one_and_three_threads(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tuning, "UPDATE_CHUNK_ELEMENTS", 7)
    monkeypatch.setattr(tuning, "UPDATE_THREADING_MIN_ELEMENTS", 1)
    ends = []
    for threads in (1, 3):
        parameters = np.random.default_rng(1).standard_normal(SIZE)
        gradient = np.empty(SIZE)
        optimizer = Optimizer(
            CONFIGS[name][0], parameters, gradient, slice(DECAYED), 0.1, ThreadPool(threads)
        )
        for step in range(5):
            gradient[:] = noise(step)
            optimizer.step(LR)
        ends.append(parameters)
    assert_array_equal(*ends)


def test_centered_rmsprop_with_constant_gradient_stays_finite() -> None:
    """In float32, rounding makes s - m² negative after about 1,200 updates."""
    s, m, change, scratch = (np.zeros(64, np.float32) for _ in range(4))
    g = np.linspace(0.1, 3, 64, dtype=np.float32)
    config = schema.RmspropConfig("rmsprop", 0.001, 0.99, 1e-8, 0.0, True)
    u = Update(config, g, g, [s, m], change, scratch, None)
    for t in range(1, 5001):
        rmsprop(u, 0.001, t)
        assert np.isfinite(change).all()

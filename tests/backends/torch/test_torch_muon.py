"""Muon compared with the published formula in NumPy, and the singular values of its updates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from nnopt.backends.torch.muon import Muon, orthogonalize
from nnopt.backends.torch.network import TorchNetwork
from nnopt.backends.torch.optimizers import build_optimizer, set_learning_rate
from nnopt.schema import Config, MuonConfig

Array = np.ndarray


def polynomial(x: Array) -> Array:
    """Apply the polynomial of Muon's iteration five times to singular values."""
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return x


def newton_schulz(matrix: Array) -> Array:
    """Apply the five published steps to a matrix, without transposing tall matrices.

    Transposing would not change the result, because X (XᵀX) = (XXᵀ) X.
    """
    x = matrix / (np.sqrt((matrix**2).sum()) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (1, 4), (4, 1)])
def test_orthogonalization_applies_polynomial_to_singular_values(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    expected = (u * polynomial(s / np.linalg.norm(matrix))) @ vt
    assert_allclose(orthogonalize(torch.tensor(matrix), 5), expected, atol=1e-6)


def test_orthogonalization_gives_singular_values_between_0_68_and_1_21() -> None:
    values = np.geomspace(0.002, 0.5, 12)
    u, v = (np.linalg.qr(random(12, 12, seed=seed))[0] for seed in (1, 2))
    norm = np.linalg.norm(values)
    assert values[0] / norm > 0.002
    for kind, slack in ((torch.float64, 0.0), (torch.float32, 1e-3)):
        near_one = orthogonalize(torch.tensor((u * values) @ v).to(kind), 5)
        found = np.linalg.svd(near_one.double().numpy(), compute_uv=False)
        assert found.min() > 0.68 - slack
        assert found.max() < 1.21 + slack
    x = np.linspace(0.002, 1, 100_000)
    assert polynomial(x).min() > 0.68
    assert polynomial(x).max() < 1.21


def test_orthogonalized_stack_equals_orthogonalized_matrices() -> None:
    stack = torch.tensor(random(3, 4, 2))
    stack[1] = 0
    together = orthogonalize(stack, 5)
    for one, of_stack in zip(stack, together, strict=True):
        assert_allclose(of_stack, orthogonalize(one, 5), rtol=1e-12, atol=1e-14)
    assert not together[1].any()


SHAPES = [(6, 2, 3, 3), (6,), (4, 6, 1, 1), (12, 5), (12,), (5, 12), (12, 5), (3, 12), (3,)]
"""Convolution kernels, matrices and biases. The last matrix is the output layer's weight."""


@pytest.mark.parametrize("input_layer", ["muon", "adam"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_twenty_steps_of_muon_equal_formula(
    make_config: Callable[..., Config], input_layer: str, memory_format: torch.memory_format
) -> None:
    changes = {"optimizer.input_layer": input_layer, "optimizer.adam_lr_ratio": 0.3}
    config = make_config(optimizer="muon", **changes)
    muon = config.optimizer
    assert isinstance(muon, MuonConfig)
    rng = np.random.default_rng(3)
    expected = [rng.standard_normal(shape) for shape in SHAPES]
    parameters = [
        nn.Parameter(
            torch.tensor(w).contiguous(memory_format=memory_format)
            if w.ndim == 4
            else torch.tensor(w)
        )
        for w in expected
    ]
    optimizer = build_optimizer(parameters, [p for p in parameters if p.ndim > 1], config)
    by_muon = {0, 2, 3, 5, 6} - ({0} if input_layer == "adam" else set())
    m, s = [0.0 * w for w in expected], [0.0 * w for w in expected]
    for t in range(1, 21):
        lr = 0.05 * (1 + math.cos(t))  # optimizers use this lr, not the configured lr
        set_learning_rate(optimizer, lr)
        for k, w in enumerate(expected):
            g = rng.standard_normal(w.shape) * 10.0 ** rng.integers(-3, 3)
            gradient = torch.empty_like(parameters[k])  # the memory layout that autograd uses
            parameters[k].grad = gradient.copy_(torch.tensor(g))
            if k in by_muon:
                m[k] = 0.95 * m[k] + 0.05 * g
                matrix = (0.95 * m[k] + 0.05 * g).reshape(len(g), -1)
                rows, columns = matrix.shape
                direction = newton_schulz(matrix) * max(1, rows / columns) ** 0.5
                w -= lr * direction.reshape(w.shape)
            else:
                m[k] = 0.9 * m[k] + 0.1 * g
                s[k] = 0.95 * s[k] + 0.05 * g**2
                corrected = np.sqrt(s[k] / (1 - 0.95**t)) + 1e-10
                w -= 0.3 * lr * m[k] / (1 - 0.9**t) / corrected
        optimizer.step()
        for parameter, w in zip(parameters, expected, strict=True):
            assert_allclose(parameter.detach(), w, rtol=1e-9, atol=1e-9)


def test_weight_decay_uses_the_learning_rate_of_the_parameter_group(
    make_network: Callable[..., TorchNetwork],
) -> None:
    """The output layer's parameter group has Adam's learning rate. The weights' gradients are 0."""
    hidden = [{"dense": {"units": units, "bias": False}} for units in (5, 4)]
    overrides = {"regularizer.weight_decay": 2.0, "optimizer.adam_lr_ratio": 0.25}
    network = make_network("torch", [*hidden, {"dense": "classes"}], optimizer="muon", **overrides)
    before = network.arrays()
    x, y = torch.zeros(4, 6, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    network.train_step(x, y, 0.1, 0)
    after = network.arrays()
    for name, kept in {"dense1": 1 - 0.2, "dense2": 1 - 0.2, "dense3": 1 - 0.25 * 0.2}.items():
        key = f"{name}.weight"
        assert_allclose(after[key], kept * before[key], rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9")
def test_muon_equals_torch_optim_muon(make_config: Callable[..., Config]) -> None:
    """torch.optim.Muon computes in bfloat16, so only two or three digits of the direction agree."""
    muon = make_config(optimizer="muon").optimizer
    assert isinstance(muon, MuonConfig)
    ours, theirs = (nn.Parameter(torch.tensor(random(12, 5)).float()) for _ in range(2))
    head = nn.Parameter(torch.zeros(2, 12))
    first = Muon([ours, head], [ours, head], muon)
    set_learning_rate(first, 0.02)
    second = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)
    for step in range(5):
        for p in (ours, theirs):
            p.grad = torch.tensor(random(12, 5, seed=step)).float()
        first.step()
        second.step()
    moved = ours.detach() - torch.tensor(random(12, 5)).float()
    assert float((ours - theirs).detach().norm() / moved.norm()) < 0.02

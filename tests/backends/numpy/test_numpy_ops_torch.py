"""NumPy's operations of dense networks, forward and backward, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from all_gradients import all_gradients
from numpy.testing import assert_allclose
from operations import ACTIVATION_CASES
from torch import Tensor
from torch.nn import functional as F

from nnopt.backends.numpy.ops import Op
from nnopt.backends.numpy.ops.dense import DENSE
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.linear_units import PRELU
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY, FOCAL, HINGE, MSE
from nnopt.backends.numpy.ops.normalization import BATCH_NORM, LAYER_NORM
from nnopt.backends.numpy.ops.shape import ADD, FLATTEN

N, D, UNITS = 7, 5, 3
LABELS = np.array([0, 4, 2, 2, 1, 3, 0])
MIXTURES = np.random.default_rng(2).dirichlet(np.ones(D), N)
KEEP = np.random.default_rng(0).random((N, D)) < 0.5

Case = tuple[Op, list[tuple[int, ...]], dict[str, Any], Callable[..., Tensor]]


def weighted_cross_entropy(z: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return the cross-entropy with the factor (1 - p)^γ for each class."""
    p = torch.softmax(z, 1)
    return -(target * (1 - p) ** gamma * torch.log(p)).sum(1).mean()


CASES: dict[str, Case] = {
    "dense": (DENSE, [(N, D), (UNITS, D), (UNITS,)], {}, F.linear),
    "dense without bias": (DENSE, [(N, D), (UNITS, D)], {}, F.linear),
    **{name: (x.op, [(N, D)], dict(x.options), x.torch) for name, x in ACTIVATION_CASES.items()},
    "prelu": (PRELU, [(N, D), (1,)], {}, F.prelu),
    "prelu per feature": (PRELU, [(N, D), (D,)], {}, F.prelu),
    "dropout": (
        DROPOUT,
        [(N, D)],
        {"keep_mask": KEEP, "scale": 2.0},
        lambda x: x * torch.tensor(KEEP) * 2,
    ),
    "batch norm": (
        BATCH_NORM,
        [(N, D), (D,), (D,)],
        {"epsilon": 1e-5},
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=1e-5),
    ),
    "layer norm": (
        LAYER_NORM,
        [(N, D), (D,), (D,)],
        {"epsilon": 1e-5},
        lambda x, w, b: F.layer_norm(x, (D,), w, b, 1e-5),
    ),
    "cross entropy": (
        CROSS_ENTROPY,
        [(N, D)],
        {"labels": LABELS},
        lambda z: F.cross_entropy(z, torch.tensor(LABELS)),
    ),
    "cross entropy, smoothing": (
        CROSS_ENTROPY,
        [(N, D)],
        {"labels": LABELS, "label_smoothing": 0.2},
        lambda z: F.cross_entropy(z, torch.tensor(LABELS), label_smoothing=0.2),
    ),
    "cross entropy, mixture": (
        CROSS_ENTROPY,
        [(N, D)],
        {"labels": MIXTURES},
        lambda z: F.cross_entropy(z, torch.tensor(MIXTURES)),
    ),
    "cross entropy, mixture, smoothing": (
        CROSS_ENTROPY,
        [(N, D)],
        {"labels": MIXTURES, "label_smoothing": 0.2},
        lambda z: F.cross_entropy(z, torch.tensor(MIXTURES), label_smoothing=0.2),
    ),
    "hinge": (
        HINGE,
        [(N, D)],
        {"labels": LABELS},
        lambda z: F.multi_margin_loss(z, torch.tensor(LABELS)) * D,
    ),
    "mean squared error": (
        MSE,
        [(N, D)],
        {"labels": LABELS},
        lambda z: F.mse_loss(z, F.one_hot(torch.tensor(LABELS), D).double()),
    ),
    "mean squared error, mixture, smoothing": (
        MSE,
        [(N, D)],
        {"labels": MIXTURES, "label_smoothing": 0.2},
        lambda z: F.mse_loss(z, torch.tensor(0.8 * MIXTURES + 0.2 / D)),
    ),
    "focal": (
        FOCAL,
        [(N, D)],
        {"labels": LABELS, "gamma": 2.0},
        lambda z: weighted_cross_entropy(z, torch.tensor(np.eye(D)[LABELS]), 2.0),
    ),
    "focal, mixture, smoothing": (
        FOCAL,
        [(N, D)],
        {"labels": MIXTURES, "label_smoothing": 0.2, "gamma": 0.5},
        lambda z: weighted_cross_entropy(z, torch.tensor(0.8 * MIXTURES + 0.2 / D), 0.5),
    ),
    "flatten": (FLATTEN, [(2, 3, N, 4)], {}, lambda x: x.permute(2, 3, 0, 1).flatten(1)),
    "flatten of flat samples": (FLATTEN, [(N, D)], {}, lambda x: x.flatten(1)),
    "add": (ADD, [(N, D), (N, D)], {}, torch.add),
}


@pytest.mark.parametrize("zeros", [False, True], ids=["random", "with zeros"])
@pytest.mark.parametrize("name", CASES)
def test_op_outputs_and_gradients_equal_torch(name: str, zeros: bool) -> None:
    op, shapes, options, reference = CASES[name]
    rtol = 1e-12 if op is CROSS_ENTROPY else 1e-10
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(shape) for shape in shapes]
    if zeros:  # a ReLU has a kink at zero
        inputs[0][::2] = 0
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = reference(*tensors)
    y, saved = op.forward(*inputs, **options)
    assert_allclose(y, expected.detach().numpy(), rtol=rtol, atol=1e-13)
    g = rng.standard_normal(np.shape(y))
    ours = all_gradients(op, np.array(g), saved, len(inputs))
    theirs = torch.autograd.grad(expected, tensors, torch.tensor(g))
    for by_hand, by_torch in zip(ours, theirs, strict=True):
        assert_allclose(by_hand, by_torch.numpy(), rtol=rtol, atol=1e-12)

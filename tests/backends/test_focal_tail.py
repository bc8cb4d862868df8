"""Focal loss and squared error of extreme logits, compared with references of 60 digits.

For a confident right prediction, 1 - p is a small difference of numbers near 1. Its power (1 - p)^γ
with γ < 1 would enlarge the rounding error of a subtraction.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from numpy.typing import NDArray

from nnopt.backends.numpy.ops.losses import FOCAL, MSE
from nnopt.backends.torch.losses import focal as torch_focal
from nnopt.backends.torch.losses import targets

Array = NDArray[np.floating]

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
LEADS = [0.0, 1.0, 3.0, 8.0, 15.0, 20.0, 40.0]
"""Differences between the third logit and the largest other logit."""


def logits_of(lead: float, dtype: str) -> Array:
    """Return logits (1, 4). The third logit exceeds the largest other logit by ``lead``."""
    return np.array([[0.5, -1.0, 0.5 + lead, 0.25]], dtype)


def exact(logits: Array, targets: list[float], gamma: float) -> tuple[float, list[float]]:
    """Return the loss of one sample, and its gradient t_k u_k - p_k Σ t_j u_j with u = p df/dp."""
    with mpmath.workdps(60):
        powers = [mpmath.exp(mpf(float(z))) for z in logits[0]]
        total = mpmath.fsum(powers)
        p = [x / total for x in powers]
        q = [mpmath.fsum(powers[:k] + powers[k + 1 :]) / total for k in range(len(p))]
        pairs = list(zip(p, q, targets, strict=True))
        loss = mpmath.fsum(-t * b**gamma * mpmath.log(a) for a, b, t in pairs)
        u = [t * (gamma * b ** (gamma - 1) * a * mpmath.log(a) - b**gamma) for a, b, t in pairs]
        gradient = []
        for k in range(len(p)):
            others = mpmath.fsum(u[:k] + u[k + 1 :])
            gradient.append(float(u[k] * q[k] - p[k] * others))
        return float(loss), gradient


def numpy_focal(z: Array, labels: Array, gamma: float, **options: Any) -> tuple[float, Array]:
    loss, saved = FOCAL.forward(z, labels=labels, gamma=gamma, **options)
    (d_logits,) = FOCAL.backward(z.dtype.type(1), saved)
    assert d_logits is not None
    return float(loss), d_logits


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("label", [1, 2])
@pytest.mark.parametrize("form", ["label", "one-hot row"])
def test_focal_loss_of_confident_prediction_equals_reference(
    form: str, label: int, lead: float, gamma: float, dtype: str
) -> None:
    z, one_hot = logits_of(lead, dtype), [float(k == label) for k in range(4)]
    labels = np.array([label]) if form == "label" else np.array([one_hot], dtype)
    with np.errstate(all="raise", under="ignore"):
        loss, d_logits = numpy_focal(z, labels, gamma)
    expected, gradient = exact(z, one_hot, gamma)
    np.testing.assert_allclose(loss, expected, rtol=TOLERANCE[dtype], atol=1e-36)
    np.testing.assert_allclose(d_logits[0], gradient, rtol=TOLERANCE[dtype], atol=1e-36)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("lead", [1.0, 15.0])
def test_focal_loss_of_mixed_labels_equals_reference(
    lead: float, smoothing: float, gamma: float
) -> None:
    z, labels = logits_of(lead, "float32"), [0.75, 0.0, 0.25, 0.0]
    found = numpy_focal(z, np.array([labels], np.float32), gamma, label_smoothing=smoothing)
    mixture = [(1 - smoothing) * t + smoothing / 4 for t in labels]
    expected, gradient = exact(z, mixture, gamma)
    np.testing.assert_allclose(found[0], expected, rtol=2e-6)
    np.testing.assert_allclose(found[1][0], gradient, rtol=2e-6, atol=2e-7)


def compute(
    backend: str, loss: str, z: Array, labels: Array, **options: Any
) -> tuple[float, Array]:
    """Return a loss and its gradient in a backend."""
    if backend == "torch":
        inputs, y = torch.tensor(z, requires_grad=True), torch.tensor(labels)
        if loss == "mse":
            value = torch.nn.functional.mse_loss(inputs, targets(inputs, y, 0.0))
        else:
            value = torch_focal(inputs, y, options["gamma"], 0.0)
        value.backward()
        assert inputs.grad is not None
        return float(value.detach()), inputs.grad.numpy()
    op = MSE if loss == "mse" else FOCAL
    with np.errstate(all="ignore"):
        value, saved = op.forward(z, labels=labels, **options)
        (d_logits,) = op.backward(z.dtype.type(1), saved)
    assert d_logits is not None
    return float(value), d_logits


LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("mse", {}),
    *[("focal", {"gamma": gamma}) for gamma in (0.0, 0.5, 2.0)],
]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize(("loss", "options"), LOSSES)
@pytest.mark.parametrize("form", ["label", "mixture"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_loss_with_nan_or_infinite_logit_is_not_finite(
    backend: str, form: str, loss: str, options: dict[str, Any], place: int, bad: float
) -> None:
    z = np.zeros((3, 4), np.float32)
    z[1, place] = bad
    labels = np.zeros(3, np.int64) if form == "label" else np.full((3, 4), 0.25, np.float32)
    value, d_logits = compute(backend, loss, z, labels, **options)
    assert not math.isfinite(value)
    assert not np.isfinite(d_logits[1]).all()
    assert np.isfinite(d_logits[[0, 2]]).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("logits", [[[1e4, -1e4, 0]], [[-1e4, 1e4, 1e4]], [[7, 7, 7]], [[5]]])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_focal_loss_of_extreme_logits_is_finite(
    backend: str, logits: list[list[float]], gamma: float
) -> None:
    z = np.array(logits, np.float32)
    value, d_logits = compute(backend, "focal", z, np.zeros(1, np.int64), gamma=gamma)
    assert math.isfinite(value)
    assert np.isfinite(d_logits).all()
    if z.shape[1] == 1:
        assert value == 0
        assert d_logits == 0


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_squared_error_that_overflows_is_infinite(backend: str) -> None:
    z = np.array([[1e30, 0.0]], np.float32)
    assert compute(backend, "mse", z, np.zeros(1, np.int64))[0] == math.inf

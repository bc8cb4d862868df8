"""Values and slopes of activations for inputs far from zero, compared with 40-digit references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from numpy.typing import NDArray
from torch import nn

from nnopt.architecture import layers as records
from nnopt.backends.numpy.modules import ACTIVATIONS
from nnopt.backends.numpy.ops.activations import LEAKY_RELU
from nnopt.backends.numpy.ops.gated import CUBIC
from nnopt.backends.numpy.ops.linear_units import SELU_ALPHA, SELU_SCALE
from nnopt.backends.protocol import Network
from nnopt.backends.torch.modules import WITHOUT_OPTIONS

Array = NDArray[np.floating]
Real = Callable[[mpf], mpf]

TOLERANCE = {"float32": 1.5e-6, "float64": 1e-12}
"""Maximum error for each dtype, relative to the ``scales`` in ``check``."""

SMALLEST = {"float32": 1e-36, "float64": 1e-306}
"""Absolute error that is allowed in addition, because smaller results may become zero."""


def logistic(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))


def normal(x: mpf) -> mpf:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def x_times_density(x: mpf) -> mpf:
    return x * mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)


def second_slope_term(record: type, x: mpf) -> mpf:
    """Return the second term of the slope, which is x σ(x) σ(-x) for SiLU and x φ(x) for GELU."""
    return x * logistic(x) * logistic(-x) if record is records.SiLU else x_times_density(x)


def softplus(x: mpf) -> mpf:
    return mpmath.log1p(mpmath.exp(x))


def mish_terms(x: mpf) -> tuple[mpf, mpf]:
    return mpmath.tanh(softplus(x)), x * mpmath.sech(softplus(x)) ** 2 * logistic(x)


def cubic(x: mpf) -> mpf:
    """Return v, where x σ(v) is the approximation of GELU by tanh."""
    return 2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpf(CUBIC) * x**3)


def gelu_tanh_terms(x: mpf) -> tuple[mpf, mpf]:
    v = cubic(x)
    slope = 2 * mpmath.sqrt(2 / mpmath.pi) * (1 + 3 * mpf(CUBIC) * x**2)
    return logistic(v), x * logistic(v) * logistic(-v) * slope


def hard_gate(x: mpf) -> mpf:
    return min(max(x + 3, mpf(0)), mpf(6)) / 6


@dataclass(frozen=True)
class Reference:
    """An activation, and two terms whose sum is its slope.

    For gated activations x · gate(x), the terms have opposite signs if x < 0. ``exponent`` is the
    argument of an exponential that is rounded before the exponential is computed. Its absolute
    rounding error is a relative error of the result.
    """

    value: Real
    terms: Callable[[mpf], tuple[mpf, mpf]]
    exponent: Real = field(default=lambda x: mpf(0))


def elu_reference(scale: float, alpha: float) -> Reference:
    def value(x: mpf) -> mpf:
        return mpf(scale) * (x if x > 0 else mpf(alpha) * mpmath.expm1(x))

    def slope(x: mpf) -> mpf:
        return mpf(scale) * (mpf(1) if x > 0 else mpf(alpha) * mpmath.exp(x))

    return Reference(value, lambda x: (slope(x), mpf(0)))


REFERENCES = {
    records.Sigmoid: Reference(logistic, lambda x: (logistic(x) * logistic(-x), mpf(0))),
    records.Tanh: Reference(mpmath.tanh, lambda x: (mpmath.sech(x) ** 2, mpf(0))),
    records.SiLU: Reference(
        lambda x: x * logistic(x), lambda x: (logistic(x), second_slope_term(records.SiLU, x))
    ),
    records.GELU: Reference(
        lambda x: x * normal(x), lambda x: (normal(x), second_slope_term(records.GELU, x))
    ),
    records.SELU: elu_reference(SELU_SCALE, SELU_ALPHA),
    records.Softplus: Reference(softplus, lambda x: (logistic(x), mpf(0))),
    records.Mish: Reference(lambda x: x * mpmath.tanh(softplus(x)), mish_terms),
    records.HardSwish: Reference(
        lambda x: x * hard_gate(x), lambda x: (hard_gate(x), x / 6 if abs(x) < 3 else mpf(0))
    ),
    records.GELUTanh: Reference(lambda x: x * logistic(cubic(x)), gelu_tanh_terms, cubic),
}


def grid(dtype: str) -> Array:
    """Return inputs of both signs: zeros, denormal numbers, tails and extreme values."""
    info = np.finfo(dtype)
    small = [0, info.smallest_subnormal, info.tiny / 3, info.tiny, 1e-30, 1e-10, 1e-5]
    tails = [*np.geomspace(1e-4, 60, 150), *np.linspace(0.05, 40, 250)]
    edges = [86, 87.5, 88.7, 89, 95, 103.9, 104, 200, 700, 709.5, 745.1, 746, 1e4]
    positive = np.array([*small, *tails, *edges], dtype)
    return np.concatenate([-positive[::-1], positive])


def compute(backend: str, record: type, x: Array) -> tuple[Array, Array]:
    """Return the activation and its slope at x."""
    if backend == "torch":
        inputs = torch.tensor(x, requires_grad=True)
        y = WITHOUT_OPTIONS[record]()(inputs)
        y.sum().backward()
        assert inputs.grad is not None
        return y.detach().numpy(), inputs.grad.numpy()
    op = ACTIVATIONS[record]
    value, saved = op.forward(x[None])
    value = value.copy()
    (slope,) = op.backward(np.ones_like(x[None]), saved)
    assert slope is not None
    return value[0], slope[0]


def check(computed: Array, x: Array, expected: list[mpf], scales: list[mpf]) -> None:
    dtype = str(x.dtype)
    for number, at, value, scale in zip(computed, x, expected, scales, strict=True):
        error = abs(mpf(float(number)) - value)
        limit = TOLERANCE[dtype] * abs(scale) + SMALLEST[dtype]
        assert error <= limit, f"{number} at {at}, not {mpmath.nstr(value, 10)}"


ACCURATE_TAILS = [
    (record, backend)
    for record in REFERENCES
    for backend in ("numpy", "torch")
    if backend == "numpy" or record not in (records.GELU, records.GELUTanh)
]
"""All pairs of an activation and a backend, except PyTorch's GELUs: their relative error is large.
"""


def test_tail_of_every_activation_without_options_is_checked() -> None:
    assert set(REFERENCES) | {records.ReLU} == set(ACTIVATIONS)
    assert set(ACTIVATIONS) < set(WITHOUT_OPTIONS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("record", "backend"), ACCURATE_TAILS)
def test_activation_tail_has_small_relative_error(record: type, backend: str, dtype: str) -> None:
    x, reference = grid(dtype), REFERENCES[record]
    with mpmath.workdps(40), np.errstate(over="raise", divide="raise", invalid="raise"):
        points = [mpf(float(number)) for number in x]
        value, slope = compute(backend, record, x)
        factors = [1 + abs(reference.exponent(point)) / 4 for point in points]
        expected = [reference.value(point) for point in points]
        check(value, x, expected, [a * b for a, b in zip(expected, factors, strict=True)])
        terms = [reference.terms(point) for point in points]
        scales = [(abs(a) + abs(b)) * c for (a, b), c in zip(terms, factors, strict=True)]
        check(slope, x, [a + b for a, b in terms], scales)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("record", [records.GELU, records.GELUTanh], ids=lambda x: x.__name__)
def test_torch_gelu_has_small_absolute_error(record: type, dtype: str) -> None:
    """GELU is x Φ(x). docs/backends.md allows Φ(x) an error of four machine epsilons.

    The error depends on the processor. The largest measured error is one epsilon on an AMD EPYC
    and three on an Intel Xeon. The approximation by tanh replaces Φ(x) by σ(v). Its slope has a
    larger error, up to ten machine epsilons, where x (1 - t²) is large.
    """
    x = grid(dtype)
    x = x[np.abs(x) < 100]
    rounding = float(np.finfo(dtype).eps)
    with mpmath.workdps(40):
        value, slope = compute("torch", record, x)
        for number, computed, its_slope in zip(x, value, slope, strict=True):
            point = mpf(float(number))
            limit = 4 * rounding * max(1, abs(float(number)))
            assert abs(mpf(float(computed)) - REFERENCES[record].value(point)) <= limit
            limit = (4 if record is records.GELU else 16) * rounding
            assert abs(mpf(float(its_slope)) - sum(REFERENCES[record].terms(point))) <= limit


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("record", REFERENCES, ids=lambda x: x.__name__)
def test_activation_of_nan_is_nan(record: type, backend: str) -> None:
    value, slope = compute(backend, record, np.array([np.nan, 1.0], np.float32))
    assert np.isnan(value[0])
    # PyTorch's slope is 1 for these two. The NaN in the value makes the loss and its gradient NaN.
    if backend == "numpy" or record not in (records.SELU, records.HardSwish):
        assert np.isnan(slope[0])
    assert np.isfinite([value[1], slope[1]]).all()


LIMITS: dict[type, tuple[float, float]] = {records.Sigmoid: (0, 1), records.Tanh: (-1, 1)}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("record", LIMITS, ids=lambda x: x.__name__)
def test_activation_of_infinite_input_equals_limit(record: type, backend: str) -> None:
    value, slope = compute(backend, record, np.array([-np.inf, np.inf], np.float32))
    assert tuple(value) == LIMITS[record]
    assert (slope == 0).all()


@pytest.mark.parametrize("record", [records.Sigmoid, records.Tanh])
def test_activation_slope_in_bfloat16_is_near_float64(record: type) -> None:
    module: nn.Module = WITHOUT_OPTIONS[record]()
    x = torch.linspace(-8, 8, 97).bfloat16().requires_grad_()
    exact = x.detach().double().requires_grad_()
    for inputs in (x, exact):
        module(inputs).sum().backward()
    assert x.grad is not None
    assert exact.grad is not None
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=3e-2, atol=1e-4)


def test_leaky_relu_tail_is_exact() -> None:
    options: dict[str, Any] = {"slope": 0.01}
    x = np.array([[-3e38, -1e-30, 0, 1e-40, 3e38]], np.float32)
    value, saved = LEAKY_RELU.forward(x, **options)
    (slope,) = LEAKY_RELU.backward(np.ones_like(x), saved)
    np.testing.assert_allclose(value, np.where(x > 0, x, x * np.float32(0.01)), rtol=1e-6)
    np.testing.assert_allclose(slope, np.where(x > 0, 1, 0.01), rtol=1e-6)


def losses_from(network: Network, backend: str, bias: float) -> Array:
    """Return the losses of 20 steps; the first layer starts with the given bias."""
    random = np.random.default_rng(0)
    arrays = {
        name: 0.5 * random.standard_normal(array.shape).astype(np.float32)
        for name, array in network.arrays().items()
    }
    arrays["dense1.bias"][:] = bias
    network.load(arrays)
    y: Any = np.arange(32) % 2
    x: Any = (random.standard_normal((32, 4)) + y[:, None]).astype(np.float32)
    if backend == "torch":
        x, y = torch.tensor(x), torch.tensor(y)
    for step in range(20):
        network.train_step(x, y, 0.1, step)
    return network.read_steps().losses


@pytest.mark.parametrize(
    ("activation", "bias"),
    [("sigmoid", -18), ("sigmoid", -14), ("silu", -20), ("tanh", 8), ("tanh", -10)],
)
def test_training_with_saturated_units_has_equal_losses_in_both_backends(
    make_network: Callable[..., Network], activation: str, bias: float
) -> None:
    layers = [{"dense": 4}, activation, {"dense": "classes"}]
    options = {"optimizer": "adam", "backend.dtype": "float32"}
    losses = [
        losses_from(make_network(backend, layers, (4,), 2, **options), backend, bias)
        for backend in ("numpy", "torch")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-6)

"""Activations: element-wise functions. x, y and the gradients have the same shape.

Backward functions overwrite g = dL/dy with dL/dx. ``linear_units`` and ``gated`` contain further
activations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, new
from nnopt.backends.numpy.ops.chunked import chunked


def relu_naive_forward(x: Array) -> Array:
    """Compute y = max(x, 0)."""
    return np.maximum(x, 0)


def relu_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g · [x > 0]."""
    return (g * (x > 0),)


def leaky_relu_naive_forward(x: Array, *, slope: float) -> Array:
    """Compute y = x for x > 0, else slope · x."""
    return np.where(x > 0, x, slope * x)


def leaky_relu_naive_backward(g: Array, x: Array, *, slope: float) -> tuple[Array]:
    """dL/dx = g for x > 0, else slope · g."""
    return (np.where(x > 0, g, slope * g),)


def tanh_naive_forward(x: Array) -> Array:
    """Compute y = tanh x."""
    return np.tanh(x)


def tanh_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g / cosh² x."""
    return (g / np.cosh(x) ** 2,)


def sigmoid_naive_forward(x: Array) -> Array:
    """Compute y = σ(x) = 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-x)))


def sigmoid_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g σ(x) (1 - σ(x))."""
    y = sigmoid_naive_forward(x)
    return (g * y * (1 - y),)


def softplus_naive_forward(x: Array) -> Array:
    """Compute y = log(1 + exp x)."""
    return np.logaddexp(0, x)


def softplus_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g σ(x)."""
    return (g * sigmoid_naive_forward(x),)


def silu_naive_forward(x: Array) -> Array:
    """Compute y = x σ(x)."""
    return x * sigmoid_naive_forward(x)


def silu_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g (σ + x σ (1 - σ)), σ = σ(x)."""
    sigmoid = sigmoid_naive_forward(x)
    return (g * (sigmoid + x * sigmoid * (1 - sigmoid)),)


def gelu_naive_forward(x: Array) -> Array:
    """Compute y = x Φ(x), where Φ(x) = erfc(-x/√2) / 2 is the normal distribution function."""
    from scipy.special import erfc

    return np.asarray(x * erfc(-x / math.sqrt(2)) / 2)


def gelu_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g (Φ(x) + x φ(x)), where φ(x) = exp(-x²/2) / √(2π)."""
    from scipy.special import erfc

    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return (g * (erfc(-x / math.sqrt(2)) / 2 + x * density),)


def relu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """Compute y = max(x, 0) (Nair and Hinton 2010)."""
    zeros = np.zeros(x.shape[-1:], x.dtype)  # NumPy's maximum with a scalar is not vectorized
    y = np.maximum(x, zeros, out=buffer("y", x.shape, x.dtype))
    return y, y


def relu_backward(g: Array, y: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g where y > 0, else 0. At x = 0, the derivative is 0."""
    positive = np.greater(y, 0, out=buffer("positive", y.shape, bool))
    return (np.multiply(g, positive, out=g),)


def leaky_relu_forward(
    x: Array, *, slope: float, buffer: Buffer = new
) -> tuple[Array, tuple[Array, float]]:
    """Compute y = max(x, slope · x), for 0 <= slope < 1 (Maas et al. 2013)."""
    y = np.multiply(x, slope, out=buffer("y", x.shape, x.dtype))
    np.maximum(x, y, out=y)
    return y, (x, slope)


def leaky_relu_backward(
    g: Array, saved: tuple[Array, float], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (slope + (1 - slope) · [x > 0])."""
    x, slope = saved
    positive = np.greater(x, 0, out=buffer("positive", x.shape, bool))
    slopes = np.multiply(positive, x.dtype.type(1 - slope), out=buffer("slopes", x.shape, x.dtype))
    np.add(slopes, slope, out=slopes)
    return (np.multiply(g, slopes, out=g),)


def tanh_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """Compute y = tanh x."""
    return np.tanh(x, out=buffer("y", x.shape, x.dtype)), x


def tanh_backward(g: Array, x: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g / cosh² x = g · 4 s (1 - s), s = σ(-2|x|).

    1 - tanh² x would lose all digits to cancellation for large |x|.
    """
    tail, slope = (buffer(name, x.shape, x.dtype) for name in ("tail", "slope"))
    logistic_tail(x, 2, tail, slope)
    logistic_slope(tail, slope)
    np.multiply(slope, 4, out=slope)
    return (np.multiply(g, slope, out=g),)


def logistic_tail(x: Array, steepness: float, out: Array, scratch: Array) -> Array:
    """Compute s = σ(-k|x|) = e / (1 + e), e = exp(-k|x|), for a steepness k, without overflow."""
    np.abs(x, out=out)
    np.multiply(out, -steepness, out=out)
    np.exp(out, out=out)
    return np.divide(out, np.add(out, 1, out=scratch), out=out)


def logistic_slope(tail: Array, out: Array) -> Array:
    """Compute σ' = s (1 - s) from a tail s = σ(-k|x|). s ≤ 1/2, so 1 - s loses no digits."""
    np.subtract(1, tail, out=out)
    return np.multiply(out, tail, out=out)


def from_tail(x: Array, tail: Array, out: Array) -> Array:
    """Compute F(x) = |[x > 0] - F(-|x|)| from F(-|x|), for a function with F(-x) = 1 - F(x)."""
    np.greater(x, 0, out=out)
    np.subtract(out, tail, out=out)
    return np.abs(out, out=out)


def sigmoid_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """Compute y = σ(x) = 1 / (1 + exp(-x)) from σ(-|x|), and save σ(-|x|)."""
    y, tail = (buffer(name, x.shape, x.dtype) for name in ("y", "tail"))
    logistic_tail(x, 1, tail, y)
    return from_tail(x, tail, y), tail


def sigmoid_backward(g: Array, tail: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · s (1 - s), s = σ(-|x|)."""
    slope = logistic_slope(tail, buffer("slope", tail.shape, tail.dtype))
    return (np.multiply(g, slope, out=g),)


def softplus_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array]]:
    """Compute y = max(x, 0) + log(1 + e), e = exp(-|x|) (Dugas et al. 2001).

    With u = 1 + e, rounded, log(1 + e) = log u + (e - (u - 1)) / u: the second term restores the
    digits of a small e that u has lost. NumPy's log1p is several times slower on some processors.
    """
    y, tail, rest = (buffer(name, x.shape, x.dtype) for name in ("y", "tail", "rest"))
    np.abs(x, out=tail)
    np.exp(np.negative(tail, out=tail), out=tail)
    np.add(tail, 1, out=y)  # u
    np.subtract(tail, np.subtract(y, 1, out=rest), out=rest)
    np.divide(rest, y, out=rest)
    np.divide(tail, y, out=tail)  # σ(-|x|)
    np.add(np.log(y, out=y), rest, out=y)
    return np.add(y, np.maximum(x, 0, out=rest), out=y), (x, tail)


def softplus_backward(
    g: Array, saved: tuple[Array, Array], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g σ(x)."""
    x, tail = saved
    slope = from_tail(x, tail, buffer("slope", x.shape, x.dtype))
    return (np.multiply(g, slope, out=g),)


def silu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array, Array]]:
    """Compute y = x σ(x) (Elfwing et al. 2018; called swish by Ramachandran et al. 2017)."""
    y = buffer("y", x.shape, x.dtype)
    tail = logistic_tail(x, 1, buffer("tail", x.shape, x.dtype), y)
    sigmoid = from_tail(x, tail, buffer("sigmoid", x.shape, x.dtype))
    return np.multiply(x, sigmoid, out=y), (x, sigmoid, tail)


def silu_backward(
    g: Array, saved: tuple[Array, Array, Array], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (σ + x σ'), σ' = s (1 - s), s = σ(-|x|)."""
    x, sigmoid, tail = saved
    slope = logistic_slope(tail, buffer("slope", x.shape, x.dtype))
    np.multiply(slope, x, out=slope)
    np.add(slope, sigmoid, out=slope)
    return (np.multiply(g, slope, out=g),)


def _bell(x: Array, out: Array, rest: Array, scratch: Array) -> Array:
    """Compute exp(-x²/2) as exp(-h²/2) · exp(-(x - h)(x + h)/2).

    h has the leading half of the digits of x, so h² is exact. Computing x² instead would cause a
    relative error of u x²/2, with the unit roundoff u.
    """
    integer, mask = LEADING_HALF[x.dtype]
    np.bitwise_and(x.view(integer), mask, out=out.view(integer))
    np.subtract(x, out, out=rest)
    np.multiply(rest, np.add(x, out, out=scratch), out=rest)
    np.multiply(out, out, out=out)
    for exponent in (out, rest):
        np.multiply(exponent, -0.5, out=exponent)
        np.exp(exponent, out=exponent)
    return np.multiply(out, rest, out=out)


LEADING_HALF: dict[np.dtype[Any], tuple[Any, Any]] = {
    np.dtype(np.float32): (np.int32, np.int32(-1 << 12)),
    np.dtype(np.float64): (np.int64, np.int64(-1 << 27)),
}
"""Float type -> integer type of the same size, and a mask that keeps at most half of the digits."""


def gelu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array]]:
    """Compute y = x Φ(x) without approximation (Hendrycks and Gimpel 2016)."""
    from scipy.special import ndtr

    cdf = buffer("cdf", x.shape, x.dtype)
    ndtr(x, out=cdf)  # for x < 0, (1 + erf(x/√2)) / 2 would lose digits
    y = np.multiply(x, cdf, out=buffer("y", x.shape, x.dtype))
    return y, (x, cdf)


def gelu_backward(g: Array, saved: tuple[Array, Array], *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · (Φ(x) + x φ(x)), φ(x) = exp(-x²/2) / √(2π)."""
    x, cdf = saved
    slope, *scratch = (buffer(name, x.shape, x.dtype) for name in ("slope", "rest", "sum"))
    _bell(x, slope, *scratch)
    np.multiply(slope, 1 / math.sqrt(2 * math.pi), out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, cdf, out=slope)
    return (np.multiply(g, slope, out=g),)


RELU = chunked(relu_forward, relu_backward)
LEAKY_RELU = chunked(leaky_relu_forward, leaky_relu_backward)
TANH = chunked(tanh_forward, tanh_backward)
SIGMOID = chunked(sigmoid_forward, sigmoid_backward)
SOFTPLUS = chunked(softplus_forward, softplus_backward)
SILU = chunked(silu_forward, silu_backward)
GELU = chunked(gelu_forward, gelu_backward)

"""Gated activations y = x · gate(x), where the gate rises from 0 to 1.

SiLU and the exact GELU, which are gated too, are in ``activations``.
"""

from __future__ import annotations

import math

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, new
from nnopt.backends.numpy.ops.activations import from_tail, logistic_slope, logistic_tail
from nnopt.backends.numpy.ops.chunked import chunked

CUBIC = 0.044715
"""The coefficient of x³ in the approximation of GELU (Hendrycks and Gimpel 2016, section 2)."""

STEEPNESS = 2 * math.sqrt(2 / math.pi)

SATURATED = 40.0
"""In float64, the gates of Mish and of the approximate GELU are 1 for x > 40. The gate of the
approximate GELU is 0 for x < -40."""


def hard_swish_naive_forward(x: Array) -> Array:
    """Compute y = x · min(max(x + 3, 0), 6) / 6."""
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6)


def hard_swish_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = 0 for x <= -3, g for x >= 3, else g · (2x + 3) / 6."""
    return (g * np.where(np.abs(x) < 3, (2 * x + 3) / 6, x > 0),)


def mish_naive_forward(x: Array) -> Array:
    """Compute y = x · tanh(softplus(x)), softplus(x) = log(1 + exp x)."""
    return x * np.tanh(np.logaddexp(0, x))


def mish_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g · (t + x (1 - t²) σ(x)), t = tanh(softplus(x)), σ(x) = 1 / (1 + exp(-x))."""
    t = np.tanh(np.logaddexp(0, x))
    return (g * (t + x * (1 - t**2) / (1 + np.exp(-x))),)


def gelu_tanh_naive_forward(x: Array) -> Array:
    """Compute y = x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    return np.asarray(x / 2 * (1 + np.tanh(STEEPNESS / 2 * (x + CUBIC * x**3))))


def gelu_tanh_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g/2 · (1 + t + x (1 - t²) √(2/π) (1 + 3 · 0.044715 x²)), with the tanh t of y."""
    t = np.tanh(STEEPNESS / 2 * (x + CUBIC * x**3))
    inner = STEEPNESS / 2 * (1 + 3 * CUBIC * x**2)
    return (g / 2 * (1 + t + x * (1 - t**2) * inner),)


def hard_swish_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array]]:
    """Compute y = x · gate, gate = min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, section 5.2)."""
    gate = np.add(x, 3, out=buffer("gate", x.shape, x.dtype))
    np.clip(gate, 0, 6, out=gate)
    np.multiply(gate, 1 / 6, out=gate)
    return np.multiply(x, gate, out=buffer("y", x.shape, x.dtype)), (x, gate)


def hard_swish_backward(
    g: Array, saved: tuple[Array, Array], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (gate + x/6 · [|x| < 3])."""
    x, gate = saved
    slope = np.abs(x, out=buffer("slope", x.shape, x.dtype))
    np.less(slope, 3, out=slope)
    np.multiply(slope, 1 / 6, out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, gate, out=slope)
    return (np.multiply(g, slope, out=g),)


def mish_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array, Array]]:
    """Compute y = x · gate, gate = tanh(log(1 + w)) = n / (n + 2), w = exp x (Misra 2019).

    tanh u = (exp(2u) - 1) / (exp(2u) + 1) with exp u = 1 + w has the numerator n = w (w + 2). This
    is precise for small w. x is limited, so that n does not overflow.
    """
    y, w, gate = (buffer(name, x.shape, x.dtype) for name in ("y", "w", "gate"))
    np.exp(np.minimum(x, SATURATED, out=w), out=w)
    np.multiply(np.add(w, 2, out=y), w, out=y)
    np.divide(y, np.add(y, 2, out=gate), out=gate)
    return np.multiply(x, gate, out=y), (x, w, gate)


def mish_backward(
    g: Array, saved: tuple[Array, Array, Array], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (gate + x · 4 w (1 + w) / (n + 2)²), n = w (w + 2).

    This is t + x (1 - t²) σ(x), with 1 - t² = 4 (1 + w)² / (n + 2)² and σ(x) = w / (1 + w).
    """
    x, w, gate = saved
    slope, denominator = (buffer(name, x.shape, x.dtype) for name in ("slope", "denominator"))
    np.multiply(np.add(w, 2, out=denominator), w, out=denominator)
    np.add(denominator, 2, out=denominator)
    np.multiply(np.add(w, 1, out=slope), w, out=slope)
    np.divide(slope, denominator, out=slope)
    np.divide(slope, denominator, out=slope)  # the square of the denominator could overflow
    np.multiply(slope, 4, out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, gate, out=slope)
    return (np.multiply(g, slope, out=g),)


def gelu_tanh_forward(
    x: Array, *, buffer: Buffer = new
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Compute y = x σ(v), v = 2 √(2/π) (x + 0.044715 x³) (Hendrycks and Gimpel 2016, section 2).

    (1 + tanh(v/2)) / 2 = σ(v), which does not lose the digits of a small result. σ(v) is computed
    from s = σ(-|v|). x is limited in v, so that x³ does not overflow.
    """
    y, tail, gate = (buffer(name, x.shape, x.dtype) for name in ("y", "tail", "gate"))
    np.clip(x, -SATURATED, SATURATED, out=y)
    np.multiply(np.multiply(y, y, out=gate), STEEPNESS * CUBIC, out=gate)
    np.multiply(np.add(gate, STEEPNESS, out=gate), y, out=y)
    logistic_tail(y, 1, tail, gate)
    from_tail(x, tail, gate)
    return np.multiply(x, gate, out=y), (x, gate, tail)


def gelu_tanh_backward(
    g: Array, saved: tuple[Array, Array, Array], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (σ + x s (1 - s) dv/dx), dv/dx = 2 √(2/π) (1 + 3 · 0.044715 x²)."""
    x, gate, tail = saved
    inner, slope = (buffer(name, x.shape, x.dtype) for name in ("inner", "slope"))
    np.clip(x, -SATURATED, SATURATED, out=inner)
    np.multiply(inner, inner, out=inner)
    np.multiply(inner, 3 * CUBIC * STEEPNESS, out=inner)
    np.add(inner, STEEPNESS, out=inner)
    np.multiply(logistic_slope(tail, slope), inner, out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, gate, out=slope)
    return (np.multiply(g, slope, out=g),)


HARD_SWISH = chunked(hard_swish_forward, hard_swish_backward)
MISH = chunked(mish_forward, mish_backward)
GELU_TANH = chunked(gelu_tanh_forward, gelu_tanh_backward)

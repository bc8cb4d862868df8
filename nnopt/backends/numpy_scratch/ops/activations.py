"""Activations: functions of each element on its own; x, y and their gradients share a shape."""

from __future__ import annotations

import math

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, new

Wanted = tuple[bool, ...]


def relu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = max(x, 0) (Nair and Hinton 2010)."""
    zeros = np.zeros(x.shape[-1:], x.dtype)  # a row: NumPy has no vector code for a scalar maximum
    y = np.maximum(x, zeros, out=buffer("y", x.shape, x.dtype))
    return y, y


def relu_backward(g: Array, y: Array, wanted: Wanted, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g where y > 0, else 0; in particular 0 at x = 0."""
    positive = np.greater(y, 0, out=buffer("positive", y.shape, bool))
    return (np.multiply(g, positive, out=g),)


def leaky_relu_forward(
    x: Array, *, slope: float, buffer: Buffer = new
) -> tuple[Array, tuple[Array, float]]:
    """y = max(x, slope · x), for 0 <= slope < 1 (Maas et al. 2013)."""
    y = np.multiply(x, slope, out=buffer("y", x.shape, x.dtype))
    np.maximum(x, y, out=y)
    return y, (x, slope)


def leaky_relu_backward(
    g: Array, saved: tuple[Array, float], wanted: Wanted, *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g where x > 0, else slope · g, which is g · (slope + (1 - slope) · [x > 0])."""
    x, slope = saved
    positive = np.greater(x, 0, out=buffer("positive", x.shape, bool))
    d_x = buffer("d_x", x.shape, x.dtype)
    np.multiply(positive, x.dtype.type(1 - slope), out=d_x)
    np.add(d_x, slope, out=d_x)
    return (np.multiply(d_x, g, out=d_x),)


def tanh_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = tanh x."""
    y = np.tanh(x, out=buffer("y", x.shape, x.dtype))
    return y, y


def tanh_backward(g: Array, y: Array, wanted: Wanted, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · (1 - y²)."""
    d_x = np.multiply(y, y, out=buffer("d_x", y.shape, y.dtype))
    np.subtract(1, d_x, out=d_x)
    return (np.multiply(d_x, g, out=d_x),)


def _sigmoid(x: Array, out: Array) -> Array:
    """σ(x) = 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2; the second form cannot overflow."""
    np.multiply(x, 0.5, out=out)
    np.tanh(out, out=out)
    np.add(out, 1, out=out)
    return np.multiply(out, 0.5, out=out)


def sigmoid_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = σ(x)."""
    y = _sigmoid(x, buffer("y", x.shape, x.dtype))
    return y, y


def sigmoid_backward(g: Array, y: Array, wanted: Wanted, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · y (1 - y)."""
    d_x = np.subtract(1, y, out=buffer("d_x", y.shape, y.dtype))
    np.multiply(d_x, y, out=d_x)
    return (np.multiply(d_x, g, out=d_x),)


def silu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array, Array]]:
    """y = x σ(x) (Elfwing et al. 2018; "swish" in Ramachandran et al. 2017)."""
    sigmoid = _sigmoid(x, buffer("sigmoid", x.shape, x.dtype))
    y = np.multiply(x, sigmoid, out=buffer("y", x.shape, x.dtype))
    return y, (x, y, sigmoid)


def silu_backward(
    g: Array, saved: tuple[Array, Array, Array], wanted: Wanted, *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (σ + x σ (1 - σ)) = g · (σ + y (1 - σ))."""
    x, y, sigmoid = saved
    d_x = np.subtract(1, sigmoid, out=buffer("d_x", x.shape, x.dtype))
    np.multiply(d_x, y, out=d_x)
    np.add(d_x, sigmoid, out=d_x)
    return (np.multiply(d_x, g, out=d_x),)


def gelu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array]]:
    """y = x Φ(x), Φ(x) = (1 + erf(x / √2)) / 2, exact (Hendrycks and Gimpel 2016)."""
    from scipy.special import erf

    cdf = np.multiply(x, 1 / math.sqrt(2), out=buffer("cdf", x.shape, x.dtype))
    erf(cdf, out=cdf)
    np.add(cdf, 1, out=cdf)
    np.multiply(cdf, 0.5, out=cdf)
    y = np.multiply(x, cdf, out=buffer("y", x.shape, x.dtype))
    return y, (x, cdf)


def gelu_backward(
    g: Array, saved: tuple[Array, Array], wanted: Wanted, *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (Φ(x) + x φ(x)), φ(x) = exp(-x²/2) / √(2π)."""
    x, cdf = saved
    d_x = np.multiply(x, x, out=buffer("d_x", x.shape, x.dtype))
    np.multiply(d_x, -0.5, out=d_x)
    np.exp(d_x, out=d_x)
    np.multiply(d_x, 1 / math.sqrt(2 * math.pi), out=d_x)
    np.multiply(d_x, x, out=d_x)
    np.add(d_x, cdf, out=d_x)
    return (np.multiply(d_x, g, out=d_x),)


RELU = Op(relu_forward, relu_backward, ("x",))
LEAKY_RELU = Op(leaky_relu_forward, leaky_relu_backward, ("x",))
TANH = Op(tanh_forward, tanh_backward, ("x",))
SIGMOID = Op(sigmoid_forward, sigmoid_backward, ("x",))
SILU = Op(silu_forward, silu_backward, ("x",))
GELU = Op(gelu_forward, gelu_backward, ("x",))

"""Activations: functions of each element on its own; x, y and their gradients share a shape.

The gradient of x takes the place of the gradient of y. Images, and large batches of flat samples,
are cut into blocks of rows that stay in a core's cache, and the blocks dealt out to threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, lanes, new
from nnopt.backends.numpy_scratch.threads import ALONE, Workers

Wanted = tuple[bool, ...]


def _in_blocks(
    forward: Callable[..., tuple[Array, Any]], backward: Callable[..., tuple[Array]]
) -> Op:
    """An activation whose ``forward`` takes ``workers`` too, made of functions of a block."""

    def forward_in_blocks(
        x: Array, *, workers: Workers = ALONE, buffer: Buffer = new, **options: Any
    ) -> tuple[Array, Any]:
        if _is_one_block(x):
            return forward(x, buffer=buffer, **options)
        rows = _rows(x)
        blocks = lanes.row_blocks(len(rows), rows.shape[1], lanes.PIECE)
        saved: list[Any] = [None] * len(blocks)
        y = buffer("y", rows.shape, x.dtype)

        def of_block(worker: int, number: int) -> None:
            def of_this(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
                if name == "y":
                    return y[blocks[number]]
                return buffer(f"{name} of block {number}", shape, dtype)

            _, saved[number] = forward(rows[blocks[number]], buffer=of_this, **options)

        lanes.sharing(workers, x.size).share(of_block, len(blocks))
        return y.reshape(x.shape), (blocks, saved, workers)

    def backward_in_blocks(
        g: Array, saved: Any, wanted: Wanted, *, buffer: Buffer = new
    ) -> tuple[Array]:
        if _is_one_block(g):
            return backward(g, saved, wanted, buffer=buffer)
        blocks, saved_of, workers = saved
        rows = _rows(g)

        def of_block(worker: int, number: int) -> None:
            backward(rows[blocks[number]], saved_of[number], wanted, buffer=workers.space)

        lanes.sharing(workers, g.size).share(of_block, len(blocks))
        return (rows.reshape(g.shape),)

    return Op(forward_in_blocks, backward_in_blocks, ("x",))


def _is_one_block(x: Array) -> bool:
    return x.ndim == 2 and x.size < lanes.SHARED_FROM


def _rows(x: Array) -> Array:
    return x if x.ndim == 2 else lanes.by_position(x)


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
    slopes = np.multiply(positive, x.dtype.type(1 - slope), out=buffer("slopes", x.shape, x.dtype))
    np.add(slopes, slope, out=slopes)
    return (np.multiply(g, slopes, out=g),)


def tanh_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = tanh x."""
    y = np.tanh(x, out=buffer("y", x.shape, x.dtype))
    return y, y


def tanh_backward(g: Array, y: Array, wanted: Wanted, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · (1 - y²)."""
    slope = np.multiply(y, y, out=buffer("slope", y.shape, y.dtype))
    np.subtract(1, slope, out=slope)
    return (np.multiply(g, slope, out=g),)


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
    slope = np.subtract(1, y, out=buffer("slope", y.shape, y.dtype))
    np.multiply(slope, y, out=slope)
    return (np.multiply(g, slope, out=g),)


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
    slope = np.subtract(1, sigmoid, out=buffer("slope", x.shape, x.dtype))
    np.multiply(slope, y, out=slope)
    np.add(slope, sigmoid, out=slope)
    return (np.multiply(g, slope, out=g),)


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
    slope = np.multiply(x, x, out=buffer("slope", x.shape, x.dtype))
    np.multiply(slope, -0.5, out=slope)
    np.exp(slope, out=slope)
    np.multiply(slope, 1 / math.sqrt(2 * math.pi), out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, cdf, out=slope)
    return (np.multiply(g, slope, out=g),)


RELU = _in_blocks(relu_forward, relu_backward)
LEAKY_RELU = _in_blocks(leaky_relu_forward, leaky_relu_backward)
TANH = _in_blocks(tanh_forward, tanh_backward)
SIGMOID = _in_blocks(sigmoid_forward, sigmoid_backward)
SILU = _in_blocks(silu_forward, silu_backward)
GELU = _in_blocks(gelu_forward, gelu_backward)

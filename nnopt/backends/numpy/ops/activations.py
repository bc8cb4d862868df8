"""Activations: functions of each element on its own; x, y and their gradients share a shape.

The gradient of x takes the place of the gradient of y. Images, and large batches of flat samples,
are cut into blocks of rows that stay in a core's cache, and the blocks dealt out to threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, lanes, new
from nnopt.backends.numpy.threads import SERIAL, ThreadPool


def _in_blocks(
    forward: Callable[..., tuple[Array, Any]], backward: Callable[..., tuple[Array]]
) -> Op:
    """An activation whose ``forward`` takes ``workers`` too, made of functions of a block."""

    def forward_in_blocks(
        x: Array, *, workers: ThreadPool = SERIAL, buffer: Buffer = new, **options: Any
    ) -> tuple[Array, Any]:
        if _is_one_block(x):
            return forward(x, buffer=buffer, **options)
        rows = _rows(x)
        blocks = lanes.row_blocks(len(rows), rows.shape[1], tuning.IMAGE_CHUNK_ELEMENTS)
        saved: list[Any] = [None] * len(blocks)
        y = buffer("y", rows.shape, x.dtype)

        def of_block(worker: int, number: int) -> None:
            def of_this(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
                if name == "y":
                    return y[blocks[number]]
                return buffer(f"{name} of block {number}", shape, dtype)

            _, saved[number] = forward(rows[blocks[number]], buffer=of_this, **options)

        lanes.sharing(workers, x.size).map(of_block, len(blocks))
        return y.reshape(x.shape), (blocks, saved, workers)

    def backward_in_blocks(g: Array, saved: Any, *, buffer: Buffer = new) -> tuple[Array]:
        if _is_one_block(g):
            return backward(g, saved, buffer=buffer)
        blocks, saved_of, workers = saved
        rows = _rows(g)

        def of_block(worker: int, number: int) -> None:
            backward(rows[blocks[number]], saved_of[number], buffer=workers.scratch)

        lanes.sharing(workers, g.size).map(of_block, len(blocks))
        return (rows.reshape(g.shape),)

    return Op(forward_in_blocks, backward_in_blocks, ("x",))


def _is_one_block(x: Array) -> bool:
    return x.ndim == 2 and x.size < tuning.THREADING_MIN_ELEMENTS


def _rows(x: Array) -> Array:
    return x if x.ndim == 2 else lanes.by_position(x)


def relu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = max(x, 0) (Nair and Hinton 2010)."""
    zeros = np.zeros(x.shape[-1:], x.dtype)  # a row: NumPy has no vector code for a scalar maximum
    y = np.maximum(x, zeros, out=buffer("y", x.shape, x.dtype))
    return y, y


def relu_backward(g: Array, y: Array, *, buffer: Buffer = new) -> tuple[Array]:
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
    g: Array, saved: tuple[Array, float], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g where x > 0, else slope · g, which is g · (slope + (1 - slope) · [x > 0])."""
    x, slope = saved
    positive = np.greater(x, 0, out=buffer("positive", x.shape, bool))
    slopes = np.multiply(positive, x.dtype.type(1 - slope), out=buffer("slopes", x.shape, x.dtype))
    np.add(slopes, slope, out=slopes)
    return (np.multiply(g, slopes, out=g),)


def tanh_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = tanh x."""
    return np.tanh(x, out=buffer("y", x.shape, x.dtype)), x


def tanh_backward(g: Array, x: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g / cosh² x = g · 4 s (1 - s), s = σ(-2|x|). For large |x|
    1 - tanh² x would cancel."""
    tail, slope = (buffer(name, x.shape, x.dtype) for name in ("tail", "slope"))
    _logistic_tail(x, 2, tail, slope)
    _logistic_slope(tail, slope)
    np.multiply(slope, 4, out=slope)
    return (np.multiply(g, slope, out=g),)


def _logistic_tail(x: Array, steepness: float, out: Array, space: Array) -> Array:
    """Compute σ(-k|x|) = e / (1 + e), e = exp(-k|x|), for a steepness k. It is at most 1/2: nothing
    overflows, and nothing cancels."""
    np.abs(x, out=out)
    np.multiply(out, -steepness, out=out)
    np.exp(out, out=out)
    return np.divide(out, np.add(out, 1, out=space), out=out)


def _logistic_slope(tail: Array, out: Array) -> Array:
    """Compute σ' = s (1 - s), which is the same for s = σ(x) and s = σ(-x): the smaller one, the
    tail, loses no digits in 1 - s."""
    np.subtract(1, tail, out=out)
    return np.multiply(out, tail, out=out)


def _from_tail(x: Array, tail: Array, out: Array) -> Array:
    """Compute F(x) from F(-|x|) where F(-x) = 1 - F(x): 1 - F(-|x|) for x > 0, else F(-|x|), which
    is |[x > 0] - F(-|x|)|."""
    np.greater(x, 0, out=out)
    np.subtract(out, tail, out=out)
    return np.abs(out, out=out)


def sigmoid_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """y = σ(x) = 1 / (1 + exp(-x)), by σ(-|x|). Saved: σ(-|x|)."""
    y, tail = (buffer(name, x.shape, x.dtype) for name in ("y", "tail"))
    _logistic_tail(x, 1, tail, y)
    return _from_tail(x, tail, y), tail


def sigmoid_backward(g: Array, tail: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · s (1 - s), s = σ(-|x|)."""
    slope = _logistic_slope(tail, buffer("slope", tail.shape, tail.dtype))
    return (np.multiply(g, slope, out=g),)


def silu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array, Array]]:
    """y = x σ(x) (Elfwing et al. 2018; "swish" in Ramachandran et al. 2017)."""
    y = buffer("y", x.shape, x.dtype)
    tail = _logistic_tail(x, 1, buffer("tail", x.shape, x.dtype), y)
    sigmoid = _from_tail(x, tail, buffer("sigmoid", x.shape, x.dtype))
    return np.multiply(x, sigmoid, out=y), (x, sigmoid, tail)


def silu_backward(
    g: Array, saved: tuple[Array, Array, Array], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (σ + x σ'), σ' = s (1 - s), s = σ(-|x|)."""
    x, sigmoid, tail = saved
    slope = _logistic_slope(tail, buffer("slope", x.shape, x.dtype))
    np.multiply(slope, x, out=slope)
    np.add(slope, sigmoid, out=slope)
    return (np.multiply(g, slope, out=g),)


def _bell(x: Array, out: Array, space: Array, more: Array) -> Array:
    """Compute exp(-x²/2) as exp(-h²/2) · exp(-(x - h)(x + h)/2), where h is the leading half of the
    digits of x, so that h² is exact. The rounding u x² of x² would become a relative error of
    u x²/2, u being the rounding of a number."""
    integer, mask = LEADING_HALF[x.dtype]
    np.bitwise_and(x.view(integer), mask, out=out.view(integer))
    np.subtract(x, out, out=space)
    np.multiply(space, np.add(x, out, out=more), out=space)
    np.multiply(out, out, out=out)
    for exponent in (out, space):
        np.multiply(exponent, -0.5, out=exponent)
        np.exp(exponent, out=exponent)
    return np.multiply(out, space, out=out)


LEADING_HALF: dict[np.dtype[Any], tuple[Any, Any]] = {
    np.dtype(np.float32): (np.int32, np.int32(-1 << 12)),
    np.dtype(np.float64): (np.int64, np.int64(-1 << 27)),
}
"""The integers of a number type's size, and a mask that keeps at most half of the digits."""


def gelu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, Array]]:
    """y = x Φ(x), exact (Hendrycks and Gimpel 2016). Φ(x) is erfc(-x/√2) / 2 for x < 0, where
    (1 + erf(x/√2)) / 2 would cancel; ``ndtr`` sees to that."""
    from scipy.special import ndtr

    cdf = buffer("cdf", x.shape, x.dtype)
    ndtr(x, out=cdf)
    y = np.multiply(x, cdf, out=buffer("y", x.shape, x.dtype))
    return y, (x, cdf)


def gelu_backward(g: Array, saved: tuple[Array, Array], *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · (Φ(x) + x φ(x)), φ(x) = exp(-x²/2) / √(2π)."""
    x, cdf = saved
    slope, *space = (buffer(name, x.shape, x.dtype) for name in ("slope", "rest", "sum"))
    _bell(x, slope, *space)
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

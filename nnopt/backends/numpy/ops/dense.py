"""The dense (fully connected) layer, optionally followed by a ReLU."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, new
from nnopt.backends.numpy.ops.activations import RELU

Saved = tuple[Array, Array, bool, Any]


def dense_naive_forward(x: Array, weight: Array, bias: Array) -> Array:
    """Compute y = x Wᵀ + b.

    x: (N, in), weight W: (out, in), bias b: (out,), y: (N, out).
    """
    return np.asarray(x @ weight.T + bias)


def dense_naive_backward(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """With g = dL/dy of shape (N, out): dL/dx = g W, dL/dW = gᵀ x, dL/db = Σₙ gₙ."""
    return g @ weight, g.T @ x, g.sum(axis=0)


def dense_forward(
    x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False, buffer: Buffer = new
) -> tuple[Array, Saved]:
    """Compute ``dense_naive_forward``, then max(y, 0) in place if ``relu``."""
    y = product = buffer("y", (len(x), len(weight)), x.dtype)
    if weight.size < tuning.DENSE_TRANSPOSED_BELOW_ELEMENTS:
        np.matmul(x, weight.T, out=y)
    else:
        product = np.matmul(weight, x.T, out=buffer("y_transposed", y.shape[::-1], x.dtype)).T
    if bias is not None:
        np.add(product, bias, out=y)
    elif product is not y:
        np.copyto(y, product)
    rectified = None
    if relu:
        y, rectified = RELU.forward(y, buffer=buffer)  # in place: the output buffer is "y" again
    return y, (x, weight, bias is not None, rectified)


def dense_backward(
    g: Array, saved: Saved, requires_grad: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array | None, ...]:
    """Compute ``dense_naive_backward``; with ``relu``, g is first set to 0 where y is 0."""
    x, weight, has_bias, rectified = saved
    if rectified is not None:
        RELU.backward(g, rectified, buffer=buffer)
    d_x = None
    if requires_grad[0]:
        d_x = np.matmul(g, weight, out=buffer("d_x", x.shape, x.dtype))
    d_weight = np.matmul(g.T, x, out=buffer("d_weight", weight.shape, x.dtype))
    if not has_bias:
        return d_x, d_weight
    d_bias = np.add.reduce(g, axis=0, out=buffer("d_bias", g.shape[1:], x.dtype))
    return d_x, d_weight, d_bias


def weight_view(vector: Array, shape: tuple[int, int]) -> Array:
    """Return a flat vector as a weight (out, in). A small weight is stored as (in, out)."""
    is_small = vector.size < tuning.DENSE_TRANSPOSED_BELOW_ELEMENTS
    return vector.reshape(shape[::-1]).T if is_small else vector.reshape(shape)


DENSE = Op(dense_forward, dense_backward, ("x", "weight", "bias"), takes_requires_grad=True)

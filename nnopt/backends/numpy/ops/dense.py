"""The dense (fully connected) layer, and a ReLU after it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, new
from nnopt.backends.numpy.ops.activations import RELU
from nnopt.backends.numpy.threads import SERIAL, ThreadPool

Saved = tuple[Array, Array, bool, Any]


def weight_in(vector: Array, shape: tuple[int, int]) -> Array:
    """A part of a flat vector as a weight (out, in), which lies there as (in, out) unless it is
    large. OpenBLAS computes x Wᵀ and xᵀ g, the gradient turned round, a tenth to a third faster so,
    which is more than g W loses. But a large W comes from memory at every step; then W xᵀ is the
    faster product, as it reads W in the order in which it lies, and y is turned round instead."""
    if vector.size < tuning.DENSE_TRANSPOSED_BELOW_ELEMENTS:
        return vector.reshape(shape[::-1]).T
    return vector.reshape(shape)


def dense_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    relu: bool = False,
    workers: ThreadPool = SERIAL,
    buffer: Buffer = new,
) -> tuple[Array, Saved]:
    """y = x Wᵀ + b, for each row of x; with ``relu`` max(y, 0), in the same place.

    x: (N, in), weight W: (out, in), bias b: (out,), y: (N, out).
    """
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
        _, rectified = RELU.forward(y, workers=workers, buffer=lambda name, shape, dtype: y)
    return y, (x, weight, bias is not None, rectified)


def dense_backward(
    g: Array, saved: Saved, requires_grad: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array | None, ...]:
    """With g = dL/dy of shape (N, out), with ``relu`` 0 first where y is:

    dL/dx = g W  (N, in)      dL/dW = gᵀ x  (out, in)      dL/db = Σₙ gₙ  (out,)
    """
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


DENSE = Op(dense_forward, dense_backward, ("x", "weight", "bias"), takes_requires_grad=True)

"""Inverted dropout."""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, Op, new


def dropout_naive_forward(x: Array, *, keep_mask: Array, scale: float) -> Array:
    """Compute y = x · m, where m is ``scale`` for kept units and 0 for dropped units."""
    return np.asarray(x * (keep_mask * scale))


def dropout_naive_backward(g: Array, *, keep_mask: Array, scale: float) -> tuple[Array]:
    """dL/dx = g · m, with the factor m of ``dropout_naive_forward``."""
    return (g * (keep_mask * scale),)


def dropout_forward(
    x: Array, *, keep_mask: Array, scale: float, buffer: Buffer = new
) -> tuple[Array, Array]:
    """Compute ``dropout_naive_forward`` for x (N, D) or (H, W, N, C) (Srivastava et al. 2014).

    The boolean ``keep_mask`` is broadcast to the shape of x. A mask (N, C) drops whole channels
    (Tompson et al. 2015, section 3.2). A mask (N, 1) drops whole samples, for stochastic depth
    (Huang et al. 2016, section 3). ``scale`` = 1 / P(keep) keeps the expected value of x.
    """
    mask = np.multiply(keep_mask, x.dtype.type(scale), out=buffer("mask", keep_mask.shape, x.dtype))
    return np.multiply(x, mask, out=buffer("y", x.shape, x.dtype)), mask


def dropout_backward(g: Array, mask: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """Compute ``dropout_naive_backward``."""
    return (np.multiply(g, mask, out=buffer("d_x", g.shape, g.dtype)),)


DROPOUT = Op(dropout_forward, dropout_backward, ("x",))

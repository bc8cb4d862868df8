"""Inverted dropout."""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, Op, new


def dropout_forward(
    x: Array, *, keep_mask: Array, scale: float, buffer: Buffer = new
) -> tuple[Array, Array]:
    """y = x · m, where m = scale for the units kept and 0 for the others (Srivastava et al. 2014,
    in the inverted form: scale = 1 / P(keep), so evaluation needs no change).

    x, y: (N, D) or (H, W, N, C). keep: bool, in the shape of x or broadcast to it: (N, C) drops
    whole channels of a sample's image (Tompson et al. 2015, section 3.2), (N, 1) whole samples, as
    stochastic depth does at the end of a residual branch (Huang et al. 2016, section 3).
    """
    mask = np.multiply(keep_mask, x.dtype.type(scale), out=buffer("mask", keep_mask.shape, x.dtype))
    return np.multiply(x, mask, out=buffer("y", x.shape, x.dtype)), mask


def dropout_backward(g: Array, mask: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx = g · m."""
    return (np.multiply(g, mask, out=buffer("d_x", g.shape, g.dtype)),)


DROPOUT = Op(dropout_forward, dropout_backward, ("x",))

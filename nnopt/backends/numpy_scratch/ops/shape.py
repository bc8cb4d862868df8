"""Operations that only move or join arrays: flatten, and the sum of a residual connection."""

from __future__ import annotations

import math

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, new


def flatten_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[int, ...]]:
    """(N, C, H, W) to (N, C·H·W), without a copy."""
    return x.reshape(len(x), math.prod(x.shape[1:])), x.shape


def flatten_backward(
    g: Array, shape: tuple[int, ...], wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx is g in the shape of x."""
    return (g.reshape(shape),)


def add_forward(x: Array, branch: Array, *, buffer: Buffer = new) -> tuple[Array, None]:
    """y = x + branch, elementwise (He et al. 2016, eq. 1)."""
    return np.add(x, branch, out=buffer("y", x.shape, x.dtype)), None


def add_backward(
    g: Array, saved: None, wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array, Array]:
    """dL/dx = g, dL/dbranch = g. Two arrays, since each path may add to or work in its own."""
    d_branch = buffer("d_branch", g.shape, g.dtype)
    np.copyto(d_branch, g)
    return g, d_branch


FLATTEN = Op(flatten_forward, flatten_backward, ("x",))
ADD = Op(add_forward, add_backward, ("x", "branch"))

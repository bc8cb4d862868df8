"""Operations that only move or add arrays: layout changes and the sum of a residual connection.

Images have the layout (N, C, H, W) outside this backend and (H, W, N, C) inside. In the latter
layout, the values of all samples and channels at one position are contiguous, so padding, windows
and strides are operations on large contiguous blocks of memory.
"""

from __future__ import annotations

import math

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, Shape, new


def channels_last_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, None]:
    """Return (N, C, H, W) as a view (H, W, N, C). The next operation copies it if necessary."""
    return x.transpose(2, 3, 0, 1), None


def channels_last_backward(g: Array, saved: None, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx is g with the axes permuted back: (H, W, N, C) to (N, C, H, W)."""
    return (g.transpose(2, 3, 0, 1),)  # the same permutation is also the inverse


def flatten_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, Shape]:
    """Return (H, W, N, C) as (N, C·H·W), in PyTorch's order; (N, D) stays unchanged."""
    if x.ndim == 2:
        return x, x.shape
    y = moved = x.transpose(2, 3, 0, 1)
    if not moved.flags.c_contiguous:
        y = buffer("y", moved.shape, x.dtype)
        _copy_by_sample(moved, y)
    return y.reshape(len(y), math.prod(y.shape[1:])), x.shape


def flatten_backward(g: Array, shape: Shape, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dx is g in the layout of x."""
    if len(shape) == 2:
        return (g,)
    height, width, samples, channels = shape
    d_x = buffer("d_x", shape, g.dtype)
    _copy_by_sample(g.reshape(samples, channels, height, width), d_x.transpose(2, 3, 0, 1))
    return (d_x,)


def _copy_by_sample(source: Array, target: Array) -> None:
    """Copy images (N, C, H, W) to another memory layout, a few samples at a time."""
    for first in range(0, len(source), tuning.FLATTEN_CHUNK_SAMPLES):
        chunk = slice(first, first + tuning.FLATTEN_CHUNK_SAMPLES)
        np.copyto(target[chunk], source[chunk])


def add_forward(x: Array, branch: Array, *, buffer: Buffer = new) -> tuple[Array, None]:
    """Compute y = x + branch (He et al. 2016, eq. 1)."""
    return np.add(x, branch, out=buffer("y", x.shape, x.dtype)), None


def add_backward(g: Array, saved: None, *, buffer: Buffer = new) -> tuple[Array, Array]:
    """dL/dx = g and dL/dbranch = g, in two arrays because each path may overwrite its gradient."""
    d_branch = buffer("d_branch", g.shape, g.dtype)
    np.copyto(d_branch, g)
    return g, d_branch


CHANNELS_LAST = Op(channels_last_forward, channels_last_backward, ("x",))
FLATTEN = Op(flatten_forward, flatten_backward, ("x",))
ADD = Op(add_forward, add_backward, ("x", "branch"))

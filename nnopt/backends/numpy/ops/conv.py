"""Two-dimensional convolution, which in neural networks is correlation: the kernel is not turned.

Images are (H, W, N, C) inside this backend, weights (O, C / groups, kh, kw) as in PyTorch. Three
ways to compute it: by loops over the positions of the output, to be read; as a product of matrices
(``im2col``); by minimal filtering (``winograd``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, new
from nnopt.backends.numpy.ops.im2col import (
    im2col_forward,
    im2col_input_gradient,
    im2col_parameter_gradients,
    padded_images,
)
from nnopt.backends.numpy.ops.winograd import winograd_backward, winograd_forward
from nnopt.backends.numpy.threads import SERIAL, ThreadPool
from nnopt.schema import ConvAlgorithm


class Saved(NamedTuple):
    """What backward needs."""

    x: Array  # (H, W, N, C); by im2col padded, (H + 2p, W + 2p, C, N)
    weight: Array
    stride: int
    padding: int
    groups: int
    algorithm: ConvAlgorithm
    workers: ThreadPool


def conv2d_naive_forward(
    x: Array, weight: Array, bias: Array | None, stride: int, padding: int
) -> Array:
    """y[h, w, n, o] = b[o] + Σ_{i,j,c} x[s h + i - p, s w + j - p, n, c] w[o, c, i, j].

    x: (H, W, N, C), weight: (O, C, kh, kw), bias: (O,), stride s, padding p, y: (H', W', N, O) with
    H' = ⌊(H + 2p - kh) / s⌋ + 1.
    """
    kh, kw = weight.shape[2:]
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0), (0, 0)))
    height, width = (padded.shape[0] - kh) // stride + 1, (padded.shape[1] - kw) // stride + 1
    y = np.zeros((height, width, x.shape[2], len(weight)), x.dtype)
    for h in range(height):
        for w in range(width):
            window = padded[stride * h : stride * h + kh, stride * w : stride * w + kw]
            y[h, w] = np.einsum("ijnc,ocij->no", window, weight)
    return y if bias is None else y + bias


def conv2d_naive_backward(
    g: Array, x: Array, weight: Array, stride: int, padding: int
) -> tuple[Array, Array, Array]:
    """With g = dL/dy of shape (H', W', N, O):

    dL/dx[s h + i - p, s w + j - p, n, c] += Σ_o g[h, w, n, o] w[o, c, i, j]  for all h, w, i, j
    dL/dw[o, c, i, j] = Σ_{h,w,n} g[h, w, n, o] x[s h + i - p, s w + j - p, n, c]
    dL/db[o] = Σ_{h,w,n} g[h, w, n, o]
    """
    kh, kw = weight.shape[2:]
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0), (0, 0)))
    d_padded, d_weight = np.zeros_like(padded), np.zeros_like(weight)
    for h in range(g.shape[0]):
        for w in range(g.shape[1]):
            place = slice(stride * h, stride * h + kh), slice(stride * w, stride * w + kw)
            d_padded[place] += np.einsum("no,ocij->ijnc", g[h, w], weight)
            d_weight += np.einsum("no,ijnc->ocij", g[h, w], padded[place])
    inside = slice(padding, padding + x.shape[0]), slice(padding, padding + x.shape[1])
    return d_padded[inside], d_weight, g.sum(axis=(0, 1, 2))


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    algorithm: ConvAlgorithm = "auto",
    workers: ThreadPool = SERIAL,
    buffer: Buffer = new,
) -> tuple[Array, Saved]:
    """The convolution by the algorithm asked for, or the fastest one; Winograd's method is for 3x3
    kernels of stride 1, the others fall back to im2col. Of several groups, each takes its share of
    the inputs to its share of the outputs, one after another (Krizhevsky et al. 2012, section 3.2).
    """
    algorithm = _choose(algorithm, weight, stride, padding, groups)
    if algorithm == "im2col":
        x = padded_images(x, padding, workers, buffer)
    else:
        x = _contiguous(x, "x", buffer)
    saved = Saved(x, weight, stride, padding, groups, algorithm, workers)
    if groups == 1:
        return _forward(saved, x, weight, bias, buffer), saved
    parts = [
        _forward(saved, _part_of_x(saved, i, buffer), w, b, _within(buffer, i))
        for i, (w, b) in enumerate(_split(weight, bias, groups))
    ]
    shape = (*parts[0].shape[:3], len(weight))
    return np.concatenate(parts, axis=3, out=buffer("all_y", shape, x.dtype)), saved


def conv2d_backward(
    g: Array, saved: Saved, requires_grad: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array | None, ...]:
    """The gradients: those of ``conv2d_naive_backward``."""
    weight, groups = saved.weight, saved.groups
    g = _contiguous(g, "g", buffer)
    if groups == 1:
        return _backward(saved, g, saved.x, weight, requires_grad, buffer)
    parts = [
        _backward(
            saved,
            _part(g, i, groups, _within(buffer, i)),
            _part_of_x(saved, i, buffer),
            w,
            requires_grad,
            _within(buffer, i),
        )
        for i, (w, _) in enumerate(_split(weight, None, groups))
    ]
    of_x, of_weight, *of_bias = [
        [part for part in of_groups if part is not None] for of_groups in zip(*parts, strict=True)
    ]
    gradients: list[Array | None] = [None] * len(requires_grad)
    if of_x:
        shape = *of_x[0].shape[:3], weight.shape[1] * groups
        gradients[0] = np.concatenate(of_x, axis=3, out=buffer("d_x", shape, g.dtype))
    if of_weight:
        d_weight = buffer("d_weight", weight.shape, weight.dtype)
        gradients[1] = np.concatenate(of_weight, out=d_weight)
    if of_bias and of_bias[0]:
        d_bias = buffer("d_bias", (len(weight),), weight.dtype)
        gradients[2] = np.concatenate(of_bias[0], out=d_bias)
    return tuple(gradients)


def _choose(
    algorithm: ConvAlgorithm, weight: Array, stride: int, padding: int, groups: int
) -> ConvAlgorithm:
    """The algorithm to use."""
    possible = weight.shape[2:] == (3, 3) and stride == 1 and padding <= 2
    if algorithm == "auto":
        channels = min(len(weight) // groups, weight.shape[1])
        worth_it = possible and channels >= tuning.WINOGRAD_MIN_CHANNELS
        return "winograd" if worth_it else "im2col"
    return "im2col" if algorithm == "winograd" and not possible else algorithm


def _forward(s: Saved, x: Array, weight: Array, bias: Array | None, buffer: Buffer) -> Array:
    if s.algorithm == "winograd":
        return winograd_forward(x, weight, bias, s.padding, s.workers, buffer)
    if s.algorithm == "im2col":
        return im2col_forward(x, weight, bias, s.stride, s.workers, buffer)
    return conv2d_naive_forward(x, weight, bias, s.stride, s.padding)


def _backward(
    s: Saved, g: Array, x: Array, weight: Array, requires_grad: tuple[bool, ...], buffer: Buffer
) -> tuple[Array | None, ...]:
    """The gradients, None in place of those that are not requires_grad."""
    if s.algorithm == "winograd":
        return winograd_backward(g, x, weight, s.padding, requires_grad, s.workers, buffer)
    if s.algorithm == "naive":
        gradients = conv2d_naive_backward(g, x, weight, s.stride, s.padding)
        return tuple([d if w else None for d, w in zip(gradients, requires_grad, strict=False)])
    d_x = None
    if requires_grad[0]:
        shape = _unpadded(x.shape, s.padding)
        d_x = im2col_input_gradient(g, shape, weight, s.stride, s.padding, s.workers, buffer)
    rest = requires_grad[1], requires_grad[2:] == (True,)
    of_rest = im2col_parameter_gradients(g, x, weight, s.stride, rest, s.workers, buffer)
    return (d_x, *of_rest)[: len(requires_grad)]


def _unpadded(shape: tuple[int, ...], padding: int) -> tuple[int, ...]:
    """(H + 2p, W + 2p, C, N) to (H, W, N, C)."""
    height, width, channels, images = shape
    return height - 2 * padding, width - 2 * padding, images, channels


def _split(weight: Array, bias: Array | None, groups: int) -> list[tuple[Array, Array | None]]:
    """Weight and bias of each group."""
    size = len(weight) // groups
    rows = [slice(i * size, (i + 1) * size) for i in range(groups)]
    return [(weight[r], None if bias is None else bias[r]) for r in rows]


def _contiguous(x: Array, name: str, buffer: Buffer) -> Array:
    """x, copied if its elements do not lie in order: what follows merges axes, or strides along."""
    if x.flags.c_contiguous:
        return x
    copy = buffer(name, x.shape, x.dtype)
    np.copyto(copy, x)
    return copy


def _part(x: Array, group: int, groups: int, buffer: Buffer) -> Array:
    """A group's channels of x, copied: what follows needs them side by side."""
    channels = x.shape[3] // groups
    part = buffer(f"part{group}", (*x.shape[:3], channels), x.dtype)
    np.copyto(part, x[..., group * channels : (group + 1) * channels])
    return part


def _part_of_x(s: Saved, group: int, buffer: Buffer) -> Array:
    """The same of x; a view if it is padded, where channels are an axis of slabs."""
    if s.algorithm != "im2col":
        return _part(s.x, group, s.groups, buffer)
    channels = s.x.shape[2] // s.groups
    return s.x[:, :, group * channels : (group + 1) * channels]


def _within(buffer: Buffer, group: int) -> Buffer:
    """The buffer for one group, names apart from those of the others."""
    return lambda name, shape, dtype: buffer(f"group{group}.{name}", shape, dtype)


CONV2D = Op(conv2d_forward, conv2d_backward, ("x", "weight", "bias"), takes_requires_grad=True)

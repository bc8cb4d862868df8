"""Two-dimensional convolution, which in neural networks is correlation: the kernel is not flipped.

Images are (H, W, N, C) and weights (O, C / groups, kh, kw). The algorithms are ``naive`` (loops
over output positions), ``im2col`` (matrix products) and ``winograd`` (minimal filtering).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, new
from nnopt.backends.numpy.ops.im2col import im2col_backward, im2col_forward, padded_images
from nnopt.backends.numpy.ops.winograd import winograd_backward, winograd_forward
from nnopt.schema import ConvAlgorithm


class Saved(NamedTuple):
    """The values that the backward function needs."""

    x: Array  # (H, W, N, C), or for im2col the padded images (H + 2p, W + 2p, C, N)
    weight: Array
    stride: int
    padding: int
    algorithm: ConvAlgorithm


def conv2d_naive_forward(
    x: Array, weight: Array, bias: Array | None, stride: int, padding: int
) -> Array:
    """Compute y[u, v, n, o] = b[o] + Σ_{i,j,c} x[s u + i - p, s v + j - p, n, c] w[o, c, i, j].

    x: (H, W, N, C), weight w: (O, C, kh, kw), bias b: (O,), stride s, padding p,
    y: (H', W', N, O), with H' = ⌊(H + 2p - kh) / s⌋ + 1.
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
    """Compute dL/dx, dL/dw and dL/db from g = dL/dy of shape (H', W', N, O).

    dL/dx[s u + i - p, s v + j - p, n, c] += Σ_o g[u, v, n, o] w[o, c, i, j]  for all u, v, i, j
    dL/dw[o, c, i, j] = Σ_{u,v,n} g[u, v, n, o] x[s u + i - p, s v + j - p, n, c]
    dL/db[o] = Σ_{u,v,n} g[u, v, n, o]
    """
    kh, kw = weight.shape[2:]
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0), (0, 0)))
    d_padded, d_weight = np.zeros_like(padded), np.zeros_like(weight)
    for h in range(g.shape[0]):
        for w in range(g.shape[1]):
            window = slice(stride * h, stride * h + kh), slice(stride * w, stride * w + kw)
            d_padded[window] += np.einsum("no,ocij->ijnc", g[h, w], weight)
            d_weight += np.einsum("no,ijnc->ocij", g[h, w], padded[window])
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
    buffer: Buffer = new,
) -> tuple[Array, list[Saved]]:
    """Compute ``conv2d_naive_forward`` for each group of channels.

    ``auto`` selects the fastest algorithm. ``winograd`` requires 3x3 kernels, stride 1 and padding
    of at most 2; otherwise ``im2col`` replaces it. Each group maps a part of the input channels to
    a part of the output channels (Krizhevsky et al. 2012, section 3.2).
    """
    algorithm = _choose(algorithm, weight, stride, padding, groups)
    is_im2col = algorithm == "im2col"
    x = padded_images(x, padding, buffer) if is_im2col else _contiguous(x, "x", buffer)
    saved = Saved(x, weight, stride, padding, algorithm)
    if groups == 1:
        return _forward(saved, bias, buffer), [saved]
    parts, outputs = [], []
    inputs, kernels = np.split(x, groups, axis=2 if is_im2col else 3), np.split(weight, groups)
    biases = [None] * groups if bias is None else np.split(bias, groups)
    for number in range(groups):
        part_buffer, part_x = buffer.part(number), inputs[number]
        part_x = part_x if is_im2col else _contiguous(part_x, "x", part_buffer)
        parts.append(saved._replace(x=part_x, weight=kernels[number]))
        outputs.append(_forward(parts[number], biases[number], part_buffer))
    return _concatenate("all_y", outputs, 3, buffer), parts


def conv2d_backward(
    g: Array, parts: list[Saved], requires_grad: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array | None, ...]:
    """Compute those gradients in ``conv2d_naive_backward`` that are required."""
    g = _contiguous(g, "g", buffer)
    if len(parts) == 1:
        return _backward(parts[0], g, requires_grad, buffer)
    gradients = []
    for number, part_g in enumerate(np.split(g, len(parts), axis=3)):
        part_buffer = buffer.part(number)
        part_g = _contiguous(part_g, "g", part_buffer)
        gradients.append(_backward(parts[number], part_g, requires_grad, part_buffer))
    names = ("d_x", 3), ("d_weight", 0), ("d_bias", 0)
    return tuple(
        None if arrays[0] is None else _concatenate(name, arrays, axis, buffer)
        for (name, axis), *arrays in zip(names, *gradients, strict=False)
    )


def _choose(
    algorithm: ConvAlgorithm, weight: Array, stride: int, padding: int, groups: int
) -> ConvAlgorithm:
    is_possible = weight.shape[2:] == (3, 3) and stride == 1 and padding <= 2
    if algorithm == "auto":
        channels = min(len(weight) // groups, weight.shape[1])
        is_faster = is_possible and channels >= tuning.WINOGRAD_MIN_CHANNELS
        return "winograd" if is_faster else "im2col"
    return "im2col" if algorithm == "winograd" and not is_possible else algorithm


def _forward(s: Saved, bias: Array | None, buffer: Buffer) -> Array:
    match s.algorithm:
        case "winograd":
            return winograd_forward(s.x, s.weight, bias, s.padding, buffer)
        case "im2col":
            return im2col_forward(s.x, s.weight, bias, s.stride, buffer)
    return conv2d_naive_forward(s.x, s.weight, bias, s.stride, s.padding)


def _backward(
    s: Saved, g: Array, requires_grad: tuple[bool, ...], buffer: Buffer
) -> tuple[Array | None, ...]:
    """Return the required gradients, and None in place of gradients that are not required."""
    match s.algorithm:
        case "winograd":
            return winograd_backward(g, s.x, s.weight, s.padding, requires_grad, buffer)
        case "im2col":
            return im2col_backward(g, s.x, s.weight, s.stride, s.padding, requires_grad, buffer)
    gradients = conv2d_naive_backward(g, s.x, s.weight, s.stride, s.padding)
    return tuple([d if r else None for d, r in zip(gradients, requires_grad, strict=False)])


def _contiguous(x: Array, name: str, buffer: Buffer) -> Array:
    """Return x if it is C-contiguous, else a copy, because the algorithms merge axes."""
    if x.flags.c_contiguous:
        return x
    copy = buffer(name, x.shape, x.dtype)
    np.copyto(copy, x)
    return copy


def _concatenate(name: str, arrays: Sequence[Array], axis: int, buffer: Buffer) -> Array:
    shape = list(arrays[0].shape)
    shape[axis] *= len(arrays)
    return np.concatenate(arrays, axis=axis, out=buffer(name, tuple(shape), arrays[0].dtype))


CONV2D = Op(conv2d_forward, conv2d_backward, ("x", "weight", "bias"), takes_requires_grad=True)

"""Batch and layer normalization of flat samples (N, D), batch and group normalization of images.

For flat samples the code is the formula. For images it is the same formula rearranged into one
scale and one shift of x: it then reads and writes the images as few times as can be. For the same
reason these can take the ReLU that often follows along.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, Op, lanes, new
from nnopt.backends.numpy.threads import SERIAL, ThreadPool

Saved = tuple[Array, Array, Array]

FAR = 4
"""Channels whose mean is farther from zero, in units of √(σ² + ε), are moved there first."""


def batch_norm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    epsilon: float,
    relu: bool = False,
    workers: ThreadPool = SERIAL,
    buffer: Buffer = new,
) -> tuple[Array, tuple[Any, ...]]:
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over the batch, of images also over the
    positions (Ioffe and Szegedy 2015, algorithm 1 and section 3.2). Of images, ``relu`` gives
    max(y, 0) instead.

    x, y: (N, D), weight γ and bias β: (D,); or x, y: (H, W, N, C), γ and β: (C,). Saved, last of
    all and for the running statistics: μ and the biased σ², each in the shape of γ.
    """
    if x.ndim == 2:
        assert not relu, "only after norms of images"
        return _flat_batch_norm_forward(x, weight, bias, epsilon, buffer)
    values, shift, mean, variance = _moments(x, x.shape[2:], 0, epsilon, workers, buffer)
    inverse_std = 1 / np.sqrt(variance + epsilon)
    scale = weight * inverse_std
    by_lane = _to_lanes(x.shape, scale, bias - mean * scale)
    y = buffer("y", x.shape, x.dtype)
    lanes.scale_and_shift(values, by_lane[0], by_lane[1], lanes.by_position(y), workers, relu)
    rectified = y if relu else None
    return y, (values, mean, inverse_std, weight, rectified, workers, shift + mean, variance)


def batch_norm_backward(
    g: Array, saved: tuple[Any, ...], *, buffer: Buffer = new
) -> tuple[Array, Array, Array]:
    """With g = dL/dy, sums over the M = N or N · H · W rows, μ and σ² being functions of x too:

    dL/dβ = Σ g      dL/dγ = Σ g x̂      dL/dx = γ/√(σ² + ε) · (g - dL/dβ / M - x̂ · dL/dγ / M)

    With ``relu``, g is 0 first where y is.
    """
    if g.ndim == 2:
        return _flat_batch_norm_backward(g, saved, buffer)
    x, mean, inverse_std, weight, rectified, workers, _, _ = saved
    shape, count, gradient = g.shape, g.size // len(weight), lanes.by_position(g)
    of_g, of_product = lanes.sums(gradient, x, workers, buffer, _where(rectified)).reshape(
        2, *shape[2:]
    )
    d_bias = np.add.reduce(of_g, axis=0, out=buffer("d_bias", weight.shape, g.dtype))
    d_weight = np.add.reduce(of_product, axis=0, out=buffer("d_weight", weight.shape, g.dtype))
    np.subtract(d_weight, mean * d_bias, out=d_weight)  # Σ g (x - μ)
    np.multiply(d_weight, inverse_std, out=d_weight)
    a = weight * inverse_std
    b = a * inverse_std * d_weight / -count
    c = a * d_bias / -count - b * mean
    a, b, c = _to_lanes(shape, a, b, c)
    d_x = lanes.combine(gradient, x, a, b, c, workers)
    return d_x.reshape(shape), d_weight, d_bias


class Moments(NamedTuple):
    """Of images (H, W, N, C), by channel or by sample and group."""

    values: Array  # (H·W, N·C): the images, what is far from zero moved by a shift
    shift: Array  # what was subtracted there
    mean: Array  # of the values, so without the shift
    variance: Array  # biased


def _moments(
    x: Array, shape: tuple[int, ...], axis: int, epsilon: float, workers: ThreadPool, buffer: Buffer
) -> Moments:
    """μ = Σx / M and σ² = Σx² / M - μ² of images x (H, W, N, C), whose lanes N · C have the shape
    given. M are the positions and the numbers along this ``axis`` of the shape, which has length 1
    in the results, or is gone if it is the first.

    Where μ is large the difference loses digits to cancellation: σ² is wrong by some u μ², u being
    the rounding of a number. What is far from zero is therefore moved by its mean, with all images
    in an array of their own, and the sums are taken again.
    """

    def of_values(values: Array) -> tuple[Array, Array]:
        sums = lanes.sums(values, values, workers, buffer).reshape(2, *shape)
        count = len(values) * shape[axis]
        mean, square = np.sum(sums, axis=axis + 1, keepdims=axis > 0) / count
        variance = np.maximum(square - mean * mean, 0)
        variance[variance == np.inf] = np.nan  # or x / σ would be 0, and nobody would notice
        return mean, variance

    values = lanes.by_position(x)
    mean, variance = of_values(values)
    far = mean * mean > FAR**2 * (variance + epsilon)
    if not far.any():
        return Moments(values, np.zeros_like(mean), mean, variance)
    shift = np.where(far, mean, 0)
    moved = buffer("moved", values.shape, x.dtype)
    np.subtract(values, np.broadcast_to(shift, shape).reshape(-1), out=moved)
    return Moments(moved, shift, *of_values(moved))


def _where(rectified: Array | None) -> Array | None:
    """What a ReLU gave, by position."""
    return None if rectified is None else lanes.by_position(rectified)


def _inverse_std(variance: Array, epsilon: float, out: Array, space: Array) -> Array:
    """Compute 1 / √(σ² + ε). It is NaN where σ² has overflowed: 0 would make x̂ a plausible 0."""
    np.add(variance, epsilon, out=out)
    np.sqrt(out, out=out)
    np.reciprocal(out, out=out)
    return np.add(out, np.multiply(variance, 0, out=space), out=out)


def _flat_batch_norm_forward(
    x: Array, weight: Array, bias: Array, epsilon: float, buffer: Buffer
) -> tuple[Array, tuple[Array, Array, Array, Array, Array]]:
    count = x.shape[0]
    mean = np.add.reduce(x, axis=0, out=buffer("mean", weight.shape, x.dtype))
    np.divide(mean, count, out=mean)
    normalized = np.subtract(x, mean, out=buffer("normalized", x.shape, x.dtype))
    y = np.multiply(normalized, normalized, out=buffer("y", x.shape, x.dtype))
    variance = np.add.reduce(y, axis=0, out=buffer("variance", weight.shape, x.dtype))
    np.divide(variance, count, out=variance)
    space = [buffer(name, weight.shape, x.dtype) for name in ("inverse_std", "zero")]
    inverse_std = _inverse_std(variance, epsilon, *space)
    np.multiply(normalized, inverse_std, out=normalized)
    np.multiply(normalized, weight, out=y)
    np.add(y, bias, out=y)
    return y, (normalized, inverse_std, weight, mean, variance)


def _flat_batch_norm_backward(
    g: Array, saved: tuple[Any, ...], buffer: Buffer
) -> tuple[Array, Array, Array]:
    normalized, inverse_std, weight, _, _ = saved
    count = g.shape[0]
    d_x = np.multiply(g, normalized, out=buffer("d_x", g.shape, g.dtype))
    d_weight = np.add.reduce(d_x, axis=0, out=buffer("d_weight", weight.shape, g.dtype))
    d_bias = np.add.reduce(g, axis=0, out=buffer("d_bias", weight.shape, g.dtype))
    of_one = buffer("of_one", weight.shape, g.dtype)
    np.multiply(normalized, np.divide(d_weight, -count, out=of_one), out=d_x)
    np.add(d_x, g, out=d_x)
    np.subtract(d_x, np.divide(d_bias, count, out=of_one), out=d_x)
    np.multiply(d_x, np.multiply(weight, inverse_std, out=of_one), out=d_x)
    return d_x, d_weight, d_bias


def batch_norm_evaluate(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    epsilon: float,
    *,
    relu: bool = False,
    workers: ThreadPool = SERIAL,
) -> Array:
    """y = γ (x - μ) / √(σ² + ε) + β with the running statistics: one scale and shift for each
    feature of (N, D) or channel of (H, W, N, C). Of images, ``relu`` gives max(y, 0) instead."""
    space = [np.empty_like(running_var) for _ in range(2)]
    inverse_std = _inverse_std(running_var, epsilon, *space)
    scale = weight * inverse_std
    shift = bias - running_mean * scale
    y = new("y", x.shape, x.dtype)
    if x.ndim == 2:
        np.multiply(x, scale, out=y)
        np.add(y, shift, out=y)
        return y
    scale, shift = _to_lanes(x.shape, scale, shift)
    lanes.scale_and_shift(lanes.by_position(x), scale, shift, lanes.by_position(y), workers, relu)
    return y


def _to_lanes(shape: tuple[int, ...], *of_channels: Array) -> Array:
    """What each channel has, k times (C,), for every lane of images of this shape: (k, N · C)."""
    of_lanes = np.empty((len(of_channels), *shape[2:]), of_channels[0].dtype)
    for of_lane, of_channel in zip(of_lanes, of_channels, strict=True):
        of_lane[:] = of_channel
    return of_lanes.reshape(len(of_channels), -1)


def layer_norm_forward(
    x: Array, weight: Array, bias: Array, *, epsilon: float, buffer: Buffer = new
) -> tuple[Array, Saved]:
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over each sample's features (Ba et al.
    2016, eq. 3 and 4).

    x, y: (N, D), weight γ and bias β: (D,).
    """
    features = x.shape[1]
    mean = np.add.reduce(x, axis=1, keepdims=True, out=buffer("mean", (len(x), 1), x.dtype))
    np.divide(mean, features, out=mean)
    normalized = np.subtract(x, mean, out=buffer("normalized", x.shape, x.dtype))
    y = np.multiply(normalized, normalized, out=buffer("y", x.shape, x.dtype))
    variance = np.add.reduce(y, axis=1, keepdims=True, out=buffer("variance", mean.shape, x.dtype))
    np.divide(variance, features, out=variance)
    inverse_std = _inverse_std(
        variance, epsilon, *(buffer(name, mean.shape, x.dtype) for name in ("inverse_std", "zero"))
    )
    np.multiply(normalized, inverse_std, out=normalized)
    np.multiply(normalized, weight, out=y)
    np.add(y, bias, out=y)
    return y, (normalized, inverse_std, weight)


def layer_norm_backward(
    g: Array, saved: Saved, *, buffer: Buffer = new
) -> tuple[Array, Array, Array]:
    """With g = dL/dy and h = g γ, means over the features of each sample:

    dL/dβ = Σₙ gₙ      dL/dγ = Σₙ gₙ x̂ₙ      dL/dx = (h - mean(h) - x̂ · mean(h x̂)) / √(σ² + ε)
    """
    normalized, inverse_std, weight = saved
    features = g.shape[1]
    product = np.multiply(g, normalized, out=buffer("product", g.shape, g.dtype))
    d_weight = np.add.reduce(product, axis=0, out=buffer("d_weight", weight.shape, g.dtype))
    d_bias = np.add.reduce(g, axis=0, out=buffer("d_bias", weight.shape, g.dtype))
    d_x = np.multiply(g, weight, out=buffer("d_x", g.shape, g.dtype))
    mean = buffer("mean_of_gradient", inverse_std.shape, g.dtype)
    np.multiply(d_x, normalized, out=product)
    np.add.reduce(product, axis=1, keepdims=True, out=mean)
    np.divide(mean, features, out=mean)
    np.multiply(normalized, mean, out=product)
    np.add.reduce(d_x, axis=1, keepdims=True, out=mean)
    np.divide(mean, features, out=mean)
    np.subtract(d_x, mean, out=d_x)
    np.subtract(d_x, product, out=d_x)
    np.multiply(d_x, inverse_std, out=d_x)
    return d_x, d_weight, d_bias


def group_norm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    groups: int,
    epsilon: float,
    relu: bool = False,
    workers: ThreadPool = SERIAL,
    buffer: Buffer = new,
) -> tuple[Array, tuple[Any, ...]]:
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over the positions and the channels of a
    group, for each sample on its own (Wu and He 2018, eq. 1, 2 and 7). One group makes it the layer
    norm of images, a group for each channel instance norm (Ulyanov et al. 2016). ``relu`` gives
    max(y, 0) instead.

    x, y: (H, W, N, C), weight γ and bias β: (C,); the G groups are C / G channels in a row each.
    """
    samples, channels = x.shape[2:]
    grouped = (samples, groups, channels // groups)
    values, _, mean, variance = _moments(x, grouped, 2, epsilon, workers, buffer)
    inverse_std = 1 / np.sqrt(variance + epsilon)
    scale = weight.reshape(grouped[1:]) * inverse_std
    shift = bias.reshape(grouped[1:]) - mean * scale
    y = buffer("y", x.shape, x.dtype)
    lanes.scale_and_shift(
        values, scale.reshape(-1), shift.reshape(-1), lanes.by_position(y), workers, relu
    )
    return y, (values, mean, inverse_std, weight, y if relu else None, workers)


def group_norm_backward(
    g: Array, saved: tuple[Any, ...], *, buffer: Buffer = new
) -> tuple[Array, Array, Array]:
    """With g = dL/dy and h = g γ, means over the positions and channels of a sample's group:

    dL/dβ = Σ g      dL/dγ = Σ g x̂      dL/dx = (h - mean(h) - x̂ · mean(h x̂)) / √(σ² + ε)

    With ``relu``, g is 0 first where y is.
    """
    x, mean, inverse_std, weight, rectified, workers = saved
    shape = g.shape
    grouped = (shape[2], inverse_std.shape[1], shape[3] // inverse_std.shape[1])
    count = shape[0] * shape[1] * grouped[2]
    gradient = lanes.by_position(g)
    sums = lanes.sums(gradient, x, workers, buffer, _where(rectified))
    of_gradient, of_product = sums.reshape(2, *grouped)
    of_product = (of_product - mean * of_gradient) * inverse_std  # Σ g x̂ over the positions
    d_bias, d_weight = (
        np.add.reduce(part.reshape(shape[2:]), axis=0, out=buffer(name, weight.shape, g.dtype))
        for name, part in (("d_bias", of_gradient), ("d_weight", of_product))
    )
    by_group = weight.reshape(grouped[1:])
    mean_of_h = np.sum(of_gradient * by_group, axis=2, keepdims=True) / count
    mean_of_product = np.sum(of_product * by_group, axis=2, keepdims=True) / count
    of_g = by_group * inverse_std
    of_x = -mean_of_product * inverse_std**2
    shift = -mean_of_h * inverse_std - of_x * mean
    a, b, c = [np.broadcast_to(factor, grouped).reshape(-1) for factor in (of_g, of_x, shift)]
    d_x = lanes.combine(gradient, x, a, b, c, workers)
    return d_x.reshape(shape), d_weight, d_bias


BATCH_NORM = Op(batch_norm_forward, batch_norm_backward, ("x", "weight", "bias"))
LAYER_NORM = Op(layer_norm_forward, layer_norm_backward, ("x", "weight", "bias"))
GROUP_NORM = Op(group_norm_forward, group_norm_backward, ("x", "weight", "bias"))

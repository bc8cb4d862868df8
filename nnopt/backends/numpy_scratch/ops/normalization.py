"""Batch and layer normalization of flat samples (N, D), batch and group normalization of images.

For flat samples the code is the formula. For images it is the same formula rearranged into one
scale and one shift of x: it then reads and writes the images as few times as can be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, lanes, new
from nnopt.backends.numpy_scratch.threads import ALONE, Workers

Saved = tuple[Array, Array, Array]


def batch_norm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    epsilon: float,
    workers: Workers = ALONE,
    buffer: Buffer = new,
) -> tuple[Array, tuple[Any, ...]]:
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over the batch, of images also over the
    positions (Ioffe and Szegedy 2015, algorithm 1 and section 3.2).

    x, y: (N, D), weight γ and bias β: (D,); or x, y: (H, W, N, C), γ and β: (C,). Saved, last of
    all and for the running statistics: μ and the biased σ², each in the shape of γ.
    """
    if x.ndim == 2:
        return _flat_batch_norm_forward(x, weight, bias, epsilon, buffer)
    positions = lanes.by_position(x)
    means, variances = lanes.moments(positions, x.shape[2:], workers, buffer)
    mean, variance = lanes.of_equal_parts(means, variances, axis=0)
    inverse_std = 1 / np.sqrt(variance + epsilon)
    scale = weight * inverse_std
    y = buffer("y", x.shape, x.dtype)
    lanes.scale_and_shift(
        positions,
        _to_lanes(scale, x.shape),
        _to_lanes(bias - mean * scale, x.shape),
        lanes.by_position(y),
        workers,
    )
    return y, (x, inverse_std, weight, workers, mean, variance)


def batch_norm_backward(
    g: Array, saved: tuple[Any, ...], wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array, Array, Array]:
    """With g = dL/dy, sums over the M = N or N · H · W rows, μ and σ² being functions of x too:

    dL/dβ = Σ g      dL/dγ = Σ g x̂      dL/dx = γ/√(σ² + ε) · (g - dL/dβ / M - x̂ · dL/dγ / M)
    """
    if g.ndim == 2:
        return _flat_batch_norm_backward(g, saved, buffer)
    x, inverse_std, weight, workers, mean, _ = saved
    shape, count = g.shape, g.size // len(weight)
    positions, gradient = lanes.by_position(x), lanes.by_position(g)
    mean_of_lanes = _to_lanes(mean, shape)
    of_lanes = lanes.gradient_sums(gradient, positions, mean_of_lanes, workers, buffer)
    d_bias, d_weight = (
        np.add.reduce(sums.reshape(shape[2:]), axis=0, out=buffer(name, weight.shape, g.dtype))
        for name, sums in zip(("d_bias", "d_weight"), of_lanes, strict=True)
    )
    np.multiply(d_weight, inverse_std, out=d_weight)
    of_g = weight * inverse_std
    of_x = of_g * inverse_std * d_weight / -count
    shift = of_g * d_bias / -count - of_x * mean
    a, b, c = [_to_lanes(factor, shape) for factor in (of_g, of_x, shift)]
    d_x = lanes.combine(gradient, positions, a, b, c, workers)
    return d_x.reshape(shape), d_weight, d_bias


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
    inverse_std = np.add(variance, epsilon, out=buffer("inverse_std", weight.shape, x.dtype))
    np.sqrt(inverse_std, out=inverse_std)
    np.reciprocal(inverse_std, out=inverse_std)
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
    workers: Workers = ALONE,
) -> Array:
    """y = γ (x - μ) / √(σ² + ε) + β with the running statistics: one scale and shift for each
    feature of (N, D) or channel of (H, W, N, C)."""
    scale = weight / np.sqrt(running_var + epsilon)
    shift = bias - running_mean * scale
    y = new("y", x.shape, x.dtype)
    if x.ndim == 2:
        np.multiply(x, scale, out=y)
        return np.add(y, shift, out=y)
    scale, shift = _to_lanes(scale, x.shape), _to_lanes(shift, x.shape)
    lanes.scale_and_shift(lanes.by_position(x), scale, shift, lanes.by_position(y), workers)
    return y


def _to_lanes(of_channels: Array, shape: tuple[int, ...]) -> Array:
    """What each channel has, (C,), for every lane of images of this shape, (N · C,)."""
    return np.broadcast_to(of_channels, shape[2:]).reshape(-1)


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
    inverse_std = buffer("inverse_std", (len(x), 1), x.dtype)
    np.add.reduce(y, axis=1, keepdims=True, out=inverse_std)
    np.divide(inverse_std, features, out=inverse_std)
    np.add(inverse_std, epsilon, out=inverse_std)
    np.sqrt(inverse_std, out=inverse_std)
    np.reciprocal(inverse_std, out=inverse_std)
    np.multiply(normalized, inverse_std, out=normalized)
    np.multiply(normalized, weight, out=y)
    np.add(y, bias, out=y)
    return y, (normalized, inverse_std, weight)


def layer_norm_backward(
    g: Array, saved: Saved, wanted: tuple[bool, ...], *, buffer: Buffer = new
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
    workers: Workers = ALONE,
    buffer: Buffer = new,
) -> tuple[Array, tuple[Any, ...]]:
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over the positions and the channels of a
    group, for each sample on its own (Wu and He 2018, eq. 1, 2 and 7). One group makes it the layer
    norm of images, a group for each channel instance norm (Ulyanov et al. 2016).

    x, y: (H, W, N, C), weight γ and bias β: (C,); the G groups are C / G channels in a row each.
    """
    positions = lanes.by_position(x)
    samples, channels = x.shape[2:]
    grouped = (samples, groups, channels // groups)
    means, variances = lanes.moments(positions, grouped, workers, buffer)
    mean, variance = [part[:, :, None] for part in lanes.of_equal_parts(means, variances, axis=2)]
    inverse_std = 1 / np.sqrt(variance + epsilon)
    scale = weight.reshape(grouped[1:]) * inverse_std
    shift = bias.reshape(grouped[1:]) - mean * scale
    y = buffer("y", x.shape, x.dtype)
    lanes.scale_and_shift(
        positions, scale.reshape(-1), shift.reshape(-1), lanes.by_position(y), workers
    )
    return y, (x, inverse_std, weight, mean, workers)


def group_norm_backward(
    g: Array, saved: tuple[Any, ...], wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array, Array, Array]:
    """With g = dL/dy and h = g γ, means over the positions and channels of a sample's group:

    dL/dβ = Σ g      dL/dγ = Σ g x̂      dL/dx = (h - mean(h) - x̂ · mean(h x̂)) / √(σ² + ε)
    """
    x, inverse_std, weight, mean, workers = saved
    shape = g.shape
    grouped = (shape[2], inverse_std.shape[1], shape[3] // inverse_std.shape[1])
    count = shape[0] * shape[1] * grouped[2]
    positions, gradient = lanes.by_position(x), lanes.by_position(g)
    mean_of_lanes = np.broadcast_to(mean, grouped).reshape(-1)
    sums = lanes.gradient_sums(gradient, positions, mean_of_lanes, workers, buffer)
    of_gradient, of_product = [of_lanes.reshape(grouped) for of_lanes in sums]
    np.multiply(of_product, inverse_std, out=of_product)  # Σ g x̂ over the positions
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
    d_x = lanes.combine(gradient, positions, a, b, c, workers)
    return d_x.reshape(shape), d_weight, d_bias


BATCH_NORM = Op(batch_norm_forward, batch_norm_backward, ("x", "weight", "bias"))
LAYER_NORM = Op(layer_norm_forward, layer_norm_backward, ("x", "weight", "bias"))
GROUP_NORM = Op(group_norm_forward, group_norm_backward, ("x", "weight", "bias"))

"""Normalization: batch and layer norm of flat samples (N, D), batch and group norm of images.

For flat samples, the fast versions compute the formula step by step. For images, they compute one
scale and one shift of x for each channel of each sample (a lane, see ``lanes``), so that the images
are read and written fewer times. A ReLU after the normalization can be included.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, Op, Shape, lanes, new

Saved = tuple[Any, ...]
Gradients = tuple[Array, Array, Array]  # gradients of x, the weight and the bias


def batch_norm_naive_forward(x: Array, weight: Array, bias: Array, *, epsilon: float) -> Array:
    """Compute y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over all axes but the last.

    x, y: (N, D) or (H, W, N, C), weight γ and bias β: (D,) or (C,).
    """
    x_hat, _ = _naive_normalize(x, tuple(range(x.ndim - 1)), epsilon)
    return weight * x_hat + bias


def batch_norm_naive_backward(g: Array, x: Array, weight: Array, *, epsilon: float) -> Gradients:
    """Compute dL/dx, dL/dγ = Σ g x̂ and dL/dβ = Σ g, summed over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    x_hat, std = _naive_normalize(x, axes, epsilon)
    return _naive_input_gradient(g * weight, x_hat, std, axes), (g * x_hat).sum(axes), g.sum(axes)


def layer_norm_naive_forward(x: Array, weight: Array, bias: Array, *, epsilon: float) -> Array:
    """Compute y = γ x̂ + β, with μ and σ² over the features of each sample.

    x, y: (N, D), weight γ and bias β: (D,).
    """
    x_hat, _ = _naive_normalize(x, (1,), epsilon)
    return weight * x_hat + bias


def layer_norm_naive_backward(g: Array, x: Array, weight: Array, *, epsilon: float) -> Gradients:
    """Compute dL/dx (with means over the features), dL/dγ = Σₙ gₙ x̂ₙ and dL/dβ = Σₙ gₙ."""
    x_hat, std = _naive_normalize(x, (1,), epsilon)
    return _naive_input_gradient(g * weight, x_hat, std, (1,)), (g * x_hat).sum(0), g.sum(0)


def group_norm_naive_forward(
    x: Array, weight: Array, bias: Array, *, groups: int, epsilon: float
) -> Array:
    """Compute y = γ x̂ + β, with μ and σ² over all values of a group of channels in a sample.

    x, y: (H, W, N, C), weight γ and bias β: (C,). C / groups consecutive channels are a group.
    """
    x_hat, _ = _naive_normalize(x.reshape(*x.shape[:3], groups, -1), (0, 1, 4), epsilon)
    return weight * x_hat.reshape(x.shape) + bias


def group_norm_naive_backward(
    g: Array, x: Array, weight: Array, *, groups: int, epsilon: float
) -> Gradients:
    """Compute dL/dγ = Σ g x̂, dL/dβ = Σ g, and dL/dx with means over each group of a sample."""
    grouped = *x.shape[:3], groups, -1
    x_hat, std = _naive_normalize(x.reshape(grouped), (0, 1, 4), epsilon)
    d_x = _naive_input_gradient((g * weight).reshape(grouped), x_hat, std, (0, 1, 4))
    rows = (0, 1, 2)
    return d_x.reshape(x.shape), (g * x_hat.reshape(x.shape)).sum(rows), g.sum(rows)


def _naive_normalize(x: Array, axes: Shape, epsilon: float) -> tuple[Array, Array]:
    """Return x̂ = (x - μ) / σ and σ = √(variance + ε), with moments over ``axes``."""
    std = np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return (x - x.mean(axes, keepdims=True)) / std, std


def _naive_input_gradient(h: Array, x_hat: Array, std: Array, axes: Shape) -> Array:
    """dL/dx = (h - mean(h) - x̂ · mean(h x̂)) / σ, with h = g γ and means over ``axes``."""
    mean_h = h.mean(axes, keepdims=True)
    return np.asarray((h - mean_h - x_hat * (h * x_hat).mean(axes, keepdims=True)) / std)


def batch_norm_forward(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    epsilon: float,
    relu: bool = False,
    buffer: Buffer = new,
) -> tuple[Array, Saved]:
    """Compute ``batch_norm_naive_forward`` (Ioffe and Szegedy 2015, algorithm 1, section 3.2).

    With ``relu`` (images only), return max(y, 0). The last two saved values are μ and the
    biased σ², in the shape of γ, for the running statistics.
    """
    if x.ndim == 2:
        assert not relu, "only images"
        return _flat_forward(x, weight, bias, 0, epsilon, buffer)
    return _image_forward(x, weight, bias, x.shape[2:], 0, epsilon, relu, buffer)


def batch_norm_backward(g: Array, saved: Saved, *, buffer: Buffer = new) -> Gradients:
    """Compute ``batch_norm_naive_backward``; with ``relu``, g is first set to 0 where y is 0.

    The means of h = g γ and h x̂ over M = N or N · H · W values follow from dL/dβ and dL/dγ:

        dL/dx = γ/√(σ² + ε) · (g - dL/dβ / M - x̂ · dL/dγ / M)
    """
    if g.ndim == 2:
        return _flat_batch_norm_backward(g, saved, buffer)
    x, mean, inverse_std, weight, rectified, *_ = saved
    gradient = lanes.by_position(g)
    g_sums, product_sums = lanes.sums(gradient, x, buffer, rectified).reshape(2, *g.shape[2:])
    d_bias = np.add.reduce(g_sums, axis=0, out=buffer("d_bias", weight.shape, g.dtype))
    d_weight = np.add.reduce(product_sums, axis=0, out=buffer("d_weight", weight.shape, g.dtype))
    np.subtract(d_weight, mean * d_bias, out=d_weight)  # Σ g (x - μ)
    np.multiply(d_weight, inverse_std, out=d_weight)
    count = g.size // len(weight)
    a = weight * inverse_std
    b = a * inverse_std * d_weight / -count
    c = a * d_bias / -count - b * mean
    a, b, c = lanes.to_lanes(g.shape[2:], a, b, c)
    d_x = lanes.combine(gradient, x, a, b, c, buffer)
    return d_x.reshape(g.shape), d_weight, d_bias


def batch_norm_evaluate(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    epsilon: float,
    relu: bool = False,
    buffer: Buffer = new,
) -> Array:
    """Compute y = γ (x - μ) / √(σ² + ε) + β with the running statistics, as a scale and a shift.

    With ``relu`` (images only), return max(y, 0).
    """
    scratch = [np.empty_like(running_var) for _ in range(2)]
    inverse_std = _inverse_std(running_var, epsilon, *scratch)
    scale = weight * inverse_std
    shift = bias - running_mean * scale
    y = buffer("y", x.shape, x.dtype)
    if x.ndim == 2:
        np.multiply(x, scale, out=y)
        np.add(y, shift, out=y)
        return y
    scale, shift = lanes.to_lanes(x.shape[2:], scale, shift)
    lanes.scale_and_shift(lanes.by_position(x), scale, shift, lanes.by_position(y), buffer, relu)
    return y


def layer_norm_forward(
    x: Array, weight: Array, bias: Array, *, epsilon: float, buffer: Buffer = new
) -> tuple[Array, Saved]:
    """Compute ``layer_norm_naive_forward`` (Ba et al. 2016, eq. 3 and 4)."""
    return _flat_forward(x, weight, bias, 1, epsilon, buffer)


def layer_norm_backward(g: Array, saved: Saved, *, buffer: Buffer = new) -> Gradients:
    """Compute ``layer_norm_naive_backward``."""
    normalized, inverse_std, weight, *_ = saved
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
    buffer: Buffer = new,
) -> tuple[Array, Saved]:
    """Compute ``group_norm_naive_forward`` (Wu and He 2018, eq. 1, 2 and 7), then ReLU if ``relu``.

    One group gives layer norm. One group per channel gives instance norm (Ulyanov et al. 2016).
    """
    grouped = (x.shape[2], groups, x.shape[3] // groups)
    return _image_forward(x, weight, bias, grouped, 2, epsilon, relu, buffer)


def group_norm_backward(g: Array, saved: Saved, *, buffer: Buffer = new) -> Gradients:
    """Compute ``group_norm_naive_backward``; with ``relu``, g is first set to 0 where y is 0."""
    x, mean, inverse_std, weight, rectified, *_ = saved
    height, width, samples, channels = g.shape
    grouped = (samples, inverse_std.shape[1], channels // inverse_std.shape[1])
    count = height * width * grouped[2]
    gradient = lanes.by_position(g)
    g_sums, product_sums = lanes.sums(gradient, x, buffer, rectified).reshape(2, *grouped)
    product_sums = (product_sums - mean * g_sums) * inverse_std  # Σ g x̂ over the positions
    d_bias, d_weight = (
        np.add.reduce(part.reshape(g.shape[2:]), axis=0, out=buffer(name, weight.shape, g.dtype))
        for name, part in (("d_bias", g_sums), ("d_weight", product_sums))
    )
    group_weight = weight.reshape(grouped[1:])
    mean_h = np.sum(g_sums * group_weight, axis=2, keepdims=True) / count
    mean_product = np.sum(product_sums * group_weight, axis=2, keepdims=True) / count
    a = group_weight * inverse_std
    b = -mean_product * inverse_std**2
    c = -mean_h * inverse_std - b * mean
    a, b, c = lanes.to_lanes(grouped, a, b, c)
    d_x = lanes.combine(gradient, x, a, b, c, buffer)
    return d_x.reshape(g.shape), d_weight, d_bias


def _flat_forward(
    x: Array, weight: Array, bias: Array, axis: int, epsilon: float, buffer: Buffer
) -> tuple[Array, Saved]:
    """Normalize samples (N, D) over an axis. The saved values are x̂, 1 / σ, γ, μ and biased σ²."""
    count, keepdims = x.shape[axis], axis == 1
    shape = (len(x), 1) if keepdims else weight.shape
    mean = np.add.reduce(x, axis=axis, keepdims=keepdims, out=buffer("mean", shape, x.dtype))
    np.divide(mean, count, out=mean)
    normalized = np.subtract(x, mean, out=buffer("normalized", x.shape, x.dtype))
    y = np.multiply(normalized, normalized, out=buffer("y", x.shape, x.dtype))
    variance = buffer("variance", shape, x.dtype)
    np.add.reduce(y, axis=axis, keepdims=keepdims, out=variance)
    np.divide(variance, count, out=variance)
    scratch = [buffer(name, shape, x.dtype) for name in ("inverse_std", "zero")]
    inverse_std = _inverse_std(variance, epsilon, *scratch)
    np.multiply(normalized, inverse_std, out=normalized)
    np.multiply(normalized, weight, out=y)
    np.add(y, bias, out=y)
    return y, (normalized, inverse_std, weight, mean, variance)


def _inverse_std(variance: Array, epsilon: float, out: Array, scratch: Array) -> Array:
    """Compute 1 / √(σ² + ε), or NaN if σ² is infinite, because 0 would hide the overflow."""
    np.add(variance, epsilon, out=out)
    np.sqrt(out, out=out)
    np.reciprocal(out, out=out)
    return np.add(out, np.multiply(variance, 0, out=scratch), out=out)


def _flat_batch_norm_backward(g: Array, saved: Saved, buffer: Buffer) -> Gradients:
    normalized, inverse_std, weight, *_ = saved
    count = g.shape[0]
    d_x = np.multiply(g, normalized, out=buffer("d_x", g.shape, g.dtype))
    d_weight = np.add.reduce(d_x, axis=0, out=buffer("d_weight", weight.shape, g.dtype))
    d_bias = np.add.reduce(g, axis=0, out=buffer("d_bias", weight.shape, g.dtype))
    scratch = buffer("scratch", weight.shape, g.dtype)
    np.multiply(normalized, np.divide(d_weight, -count, out=scratch), out=d_x)
    np.add(d_x, g, out=d_x)
    np.subtract(d_x, np.divide(d_bias, count, out=scratch), out=d_x)
    np.multiply(d_x, np.multiply(weight, inverse_std, out=scratch), out=d_x)
    return d_x, d_weight, d_bias


def _image_forward(
    x: Array,
    weight: Array,
    bias: Array,
    shape: Shape,
    axis: int,
    epsilon: float,
    relu: bool,
    buffer: Buffer,
) -> tuple[Array, Saved]:
    """Normalize images over all positions and over ``axis`` of the N·C lanes, viewed as ``shape``.

    The saved values are: the images (H·W, N·C), shifted if ``lanes.moments`` shifts them; their
    mean; 1 / σ; γ; the outputs (H·W, N·C) if ``relu``; μ, the mean of x; and the biased σ².
    """
    values, shift, mean, variance = lanes.moments(x, shape, axis, epsilon, buffer)
    inverse_std = 1 / np.sqrt(variance + epsilon)
    scale = weight.reshape(shape[1:]) * inverse_std
    offset = bias.reshape(shape[1:]) - mean * scale
    y = buffer("y", x.shape, x.dtype)
    rows = lanes.by_position(y)
    scale, offset = lanes.to_lanes(shape, scale, offset)
    lanes.scale_and_shift(values, scale, offset, rows, buffer, relu)
    return y, (values, mean, inverse_std, weight, rows if relu else None, shift + mean, variance)


BATCH_NORM = Op(batch_norm_forward, batch_norm_backward, ("x", "weight", "bias"))
LAYER_NORM = Op(layer_norm_forward, layer_norm_backward, ("x", "weight", "bias"))
GROUP_NORM = Op(group_norm_forward, group_norm_backward, ("x", "weight", "bias"))

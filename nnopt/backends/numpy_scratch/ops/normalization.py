"""Batch and layer normalization of flat samples (N, D)."""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, new

Saved = tuple[Array, Array, Array]


def batch_norm_forward(
    x: Array, weight: Array, bias: Array, *, epsilon: float, buffer: Buffer = new
) -> tuple[Array, tuple[Array, Array, Array, Array, Array]]:
    """y = γ x̂ + β, x̂ = (x - μ) / √(σ² + ε), with μ and σ² over the batch (Ioffe and Szegedy 2015,
    algorithm 1).

    x, y: (N, D), weight γ and bias β: (D,). Saved: x̂, 1/√(σ² + ε), γ, and for the running
    statistics μ and the biased σ².
    """
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


def batch_norm_backward(
    g: Array,
    saved: tuple[Array, Array, Array, Array, Array],
    wanted: tuple[bool, ...],
    *,
    buffer: Buffer = new,
) -> tuple[Array, Array, Array]:
    """With g = dL/dy, and μ and σ² being functions of x too:

    dL/dβ = Σₙ gₙ      dL/dγ = Σₙ gₙ x̂ₙ      dL/dx = γ/√(σ² + ε) · (g - dL/dβ / N - x̂ · dL/dγ / N)
    """
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
) -> Array:
    """y = γ (x - μ) / √(σ² + ε) + β with the running statistics: one scale and shift a feature."""
    scale = weight / np.sqrt(running_var + epsilon)
    y: Array = x * scale
    y += bias - running_mean * scale
    return y


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


BATCH_NORM = Op(batch_norm_forward, batch_norm_backward, ("x", "weight", "bias"))
LAYER_NORM = Op(layer_norm_forward, layer_norm_backward, ("x", "weight", "bias"))

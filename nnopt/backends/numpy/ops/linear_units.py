"""Activations that are linear for x > 0: ELU, SELU, PReLU.

ELU and SELU are functions of x. PReLU has a learned slope.
"""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Array, Buffer, Op, lanes, new
from nnopt.backends.numpy.ops.chunked import chunked, rows_of

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
"""α and λ of SELU. If the inputs have mean 0 and variance 1, so have the outputs (Klambauer et al.
2017, eq. 14, with more digits)."""


def elu_naive_forward(x: Array, *, alpha: float) -> Array:
    """Compute y = x for x > 0, else α (exp(x) - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_naive_backward(g: Array, x: Array, *, alpha: float) -> tuple[Array]:
    """dL/dx = g for x > 0, else g α exp(x)."""
    return (np.where(x > 0, g, g * alpha * np.exp(np.minimum(x, 0))),)


def selu_naive_forward(x: Array) -> Array:
    """Compute y = λ x for x > 0, else λ α (exp(x) - 1)."""
    return SELU_SCALE * elu_naive_forward(x, alpha=SELU_ALPHA)


def selu_naive_backward(g: Array, x: Array) -> tuple[Array]:
    """dL/dx = g λ for x > 0, else g λ α exp(x)."""
    return elu_naive_backward(SELU_SCALE * g, x, alpha=SELU_ALPHA)


def prelu_naive_forward(x: Array, weight: Array) -> Array:
    """Compute y = x for x > 0, else a x.

    x, y: (N, D) or (H, W, N, C), weight a: (1,), or (D,) or (C,) with a slope for each channel.
    """
    return np.where(x > 0, x, weight * x)


def prelu_naive_backward(g: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """dL/dx = g for x > 0, else a g. dL/da = Σ g · min(x, 0), over all values that share a."""
    d_weight = (g * np.minimum(x, 0)).sum(axis=tuple(range(x.ndim - 1)))
    if weight.size == 1:
        d_weight = d_weight.sum(keepdims=True)
    return np.where(x > 0, g, weight * g), d_weight


def elu_forward(
    x: Array, *, alpha: float, buffer: Buffer = new
) -> tuple[Array, tuple[Array, float, float]]:
    """Compute y = max(x, 0) + α (exp(n) - 1), n = min(x, 0) (Clevert et al. 2016)."""
    return _elu(x, 1.0, alpha, buffer), (x, 1.0, alpha)


def selu_forward(x: Array, *, buffer: Buffer = new) -> tuple[Array, tuple[Array, float, float]]:
    """Compute y = λ max(x, 0) + λ α (exp(n) - 1), n = min(x, 0) (Klambauer et al. 2017, eq. 2)."""
    scale, alpha = SELU_SCALE, SELU_SCALE * SELU_ALPHA
    return _elu(x, scale, alpha, buffer), (x, scale, alpha)


def _elu(x: Array, scale: float, alpha: float, buffer: Buffer) -> Array:
    """Compute scale · max(x, 0) + alpha · (exp(n) - 1), n = min(x, 0).

    exp(n) - 1 is computed as 2 t / (1 - t), t = tanh(n/2), without cancellation. NumPy's expm1 is
    several times slower on some processors.
    """
    y, rest = (buffer(name, x.shape, x.dtype) for name in ("y", "rest"))
    np.minimum(x, 0, out=y)
    np.tanh(np.multiply(y, 0.5, out=y), out=y)
    np.divide(y, np.subtract(1, y, out=rest), out=y)
    np.multiply(y, 2 * alpha, out=y)
    np.maximum(x, 0, out=rest)
    if scale != 1:
        np.multiply(rest, scale, out=rest)
    return np.add(y, rest, out=y)


def elu_backward(
    g: Array, saved: tuple[Array, float, float], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dx = g · (α exp(n) + (λ - α) [x > 0]), n = min(x, 0).

    λ is the slope for x > 0, and α that at x = 0: 1 and α for ELU, λ and λ α for SELU.
    """
    x, scale, alpha = saved
    slope = np.minimum(x, 0, out=buffer("slope", x.shape, x.dtype))
    np.exp(slope, out=slope)
    if alpha != 1:
        np.multiply(slope, alpha, out=slope)
    if alpha != scale:
        step = np.greater(x, 0, out=buffer("step", x.shape, x.dtype))
        np.add(slope, np.multiply(step, scale - alpha, out=step), out=slope)
    return (np.multiply(g, slope, out=g),)


def prelu_forward(
    x: Array, weight: Array, *, buffer: Buffer = new
) -> tuple[Array, tuple[Array, Array, bool]]:
    """Compute y = max(x, 0) + a · min(x, 0) (He et al. 2015, section 2.1).

    x, y: (N, D) or (H, W, N, C), weight a: (1,), or (D,) or (C,) with a slope for each channel.
    """
    rows = rows_of(x)
    slopes = np.tile(weight, rows.shape[1] // weight.size)  # of all lanes
    y = buffer("y", rows.shape, x.dtype)

    def task(worker: int, chunk: slice) -> None:
        part, x_part = y[chunk], rows[chunk]
        negative = buffer.workers.scratch("negative", part.shape, part.dtype)
        np.minimum(x_part, 0, out=negative)
        np.multiply(negative, slopes, out=negative)
        np.maximum(x_part, 0, out=part)
        np.add(part, negative, out=part)

    chunks = lanes.row_chunks(len(rows), rows.shape[1], tuning.IMAGE_CHUNK_ELEMENTS)
    lanes.workers_for(x, buffer).map(task, chunks)
    return y.reshape(x.shape), (rows, slopes, weight.size == 1)


def prelu_backward(
    g: Array, saved: tuple[Array, Array, bool], *, buffer: Buffer = new
) -> tuple[Array, Array]:
    """dL/dx = g · (a + (1 - a) [x > 0]). dL/da = Σ g · min(x, 0), over all values that share a.

    The sum is computed for each lane of each chunk, and then over lanes and chunks.
    """
    x, slopes, is_shared = saved
    rows, steps = rows_of(g), 1 - slopes
    chunks = lanes.row_chunks(len(x), x.shape[1], tuning.IMAGE_CHUNK_ELEMENTS)
    sums = buffer("sums", (len(chunks), len(slopes)), x.dtype)

    def task(worker: int, number: int) -> None:
        part, x_part = rows[chunks[number]], x[chunks[number]]
        slope = buffer.workers.scratch("slope", part.shape, part.dtype)
        np.minimum(x_part, 0, out=slope)
        np.einsum("ij,ij->j", part, slope, out=sums[number])
        np.greater(x_part, 0, out=slope)
        np.multiply(slope, steps, out=slope)
        np.add(slope, slopes, out=slope)
        np.multiply(part, slope, out=part)

    lanes.workers_for(x, buffer).map(task, range(len(chunks)))
    by_lane = np.add.reduce(sums, axis=0)
    size = 1 if is_shared else g.shape[-1]
    terms = by_lane.reshape(size, -1) if is_shared else by_lane.reshape(-1, size).T
    d_weight = buffer("d_weight", (size,), x.dtype)
    return rows.reshape(g.shape), np.add.reduce(terms, axis=1, out=d_weight)


ELU = chunked(elu_forward, elu_backward)
SELU = chunked(selu_forward, elu_backward)
PRELU = Op(prelu_forward, prelu_backward, ("x", "weight"))

"""Losses: logits (N, K) and labels (N,) to the mean loss of the batch, a 0-d array.

The number of classes K is small, and NumPy reduces a short last axis slowly; so both losses work on
the transposed logits (K, N), where a reduction over the classes runs along whole rows.
"""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, new

Saved = tuple[Array, Array, float]


def _label_positions(labels: Array, count: int, buffer: Buffer) -> Array:
    """Where the entries (label of n, n) lie in a flattened (K, N) array: label · N + n."""
    positions = buffer("positions", (count,), np.int64)
    np.multiply(labels, count, out=positions)
    return np.add(positions, np.arange(count), out=positions)


def cross_entropy_forward(
    logits: Array, *, labels: Array, label_smoothing: float = 0.0, buffer: Buffer = new
) -> tuple[Array, tuple[Array, Array, float]]:
    """L = -(1/N) Σₙ Σₖ tₙₖ log pₙₖ, p = softmax(z), t = (1 - ε) y + ε/K (Szegedy et al. 2016,
    section 7), through log p = z - max z - log Σ exp(z - max z), which cannot overflow.

    logits z: (N, K), labels y: (N,) in 0..K-1, standing for one-hot rows, or mixtures (N, K), whose
    rows sum to one.
    """
    count, classes = logits.shape
    dtype = logits.dtype
    p = buffer("p", (classes, count), dtype)
    row = buffer("row", (count,), dtype)
    np.subtract(logits.T, np.maximum.reduce(logits.T, axis=0, out=row), out=p)
    if labels.ndim == 1:
        target = _label_positions(labels, count, buffer)
        right = p.ravel().take(target, out=buffer("right", (count,), dtype), mode="clip")
        loss = (label_smoothing - 1) * np.add.reduce(right)
    else:
        target = buffer("target", p.shape, dtype)
        np.multiply(labels.T, dtype.type(1 - label_smoothing), out=target)
        loss = -np.dot(target.ravel(), p.ravel())
    if label_smoothing:
        loss -= label_smoothing / classes * np.add.reduce(p, axis=None)
    np.exp(p, out=p)
    np.add.reduce(p, axis=0, out=row)
    np.divide(p, row, out=p)
    loss += np.add.reduce(np.log(row, out=row))
    return loss / count, (p, target, label_smoothing)


def cross_entropy_backward(
    g: Array, saved: Saved, wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dz = g (p - t) / N."""
    p, target, label_smoothing = saved
    classes, count = p.shape
    if label_smoothing:
        np.subtract(p, label_smoothing / classes, out=p)
    if target.ndim == 1:
        p.ravel()[target] -= p.dtype.type(1 - label_smoothing)
    else:
        np.subtract(p, target, out=p)
    d_logits = buffer("d_logits", (count, classes), p.dtype)
    return (np.multiply(p.T, g / p.dtype.type(count), out=d_logits),)


def hinge_forward(
    logits: Array, *, labels: Array, buffer: Buffer = new
) -> tuple[Array, tuple[Array, Array, float]]:
    """The multiclass support vector machine's loss (Weston and Watkins 1999):
    L = (1/N) Σₙ Σ_{k ≠ yₙ} max(0, sₙₖ - sₙ,yₙ + 1).

    logits s: (N, K), labels y: (N,) in 0..K-1.
    """
    count, classes = logits.shape
    margins = buffer("margins", (classes, count), logits.dtype)
    np.copyto(margins, logits.T)
    positions = _label_positions(labels, count, buffer)
    flat = margins.ravel()
    np.subtract(margins, flat[positions] - 1, out=margins)
    np.maximum(margins, 0, out=margins)
    flat[positions] = 0
    return np.add.reduce(margins, axis=None) / count, (margins, positions, 0.0)


def hinge_backward(
    g: Array, saved: Saved, wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dsₙₖ = g/N · [margin > 0] for k ≠ yₙ; dL/dsₙ,yₙ = -g/N · (number of margins > 0)."""
    margins, positions, _ = saved
    classes, count = margins.shape
    np.sign(margins, out=margins)
    margins.ravel()[positions] = -np.add.reduce(margins, axis=0)
    d_logits = buffer("d_logits", (count, classes), margins.dtype)
    return (np.multiply(margins.T, g / margins.dtype.type(count), out=d_logits),)


CROSS_ENTROPY = Op(cross_entropy_forward, cross_entropy_backward, ("logits",))
HINGE = Op(hinge_forward, hinge_backward, ("logits",))

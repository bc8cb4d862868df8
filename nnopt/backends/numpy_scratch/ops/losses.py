"""Losses: logits (N, K) and labels (N,) to the mean loss of the batch, a 0-d array.

The number of classes K is small, and NumPy reduces a short last axis slowly; so both losses work on
the transposed logits (K, N), where a reduction over the classes runs along whole rows.
"""

from __future__ import annotations

import numpy as np

from nnopt.backends.numpy_scratch.ops import Array, Buffer, Op, new


def cross_entropy_forward(
    logits: Array, *, labels: Array, label_smoothing: float = 0.0, buffer: Buffer = new
) -> tuple[Array, tuple[Array, Array]]:
    """L = -(1/N) Σₙ Σₖ tₙₖ log pₙₖ, p = softmax(z), t = (1 - ε) y + ε/K (Szegedy et al. 2016,
    section 7), through log p = z - max z - log Σ exp(z - max z), which cannot overflow.

    logits z: (N, K), labels y: (N,) in 0..K-1, standing for one-hot rows, or mixtures (N, K), whose
    rows sum to one.
    """
    count, classes = logits.shape
    dtype = logits.dtype
    p, target = buffer("p", (classes, count), dtype), buffer("target", (classes, count), dtype)
    row = buffer("row", (count,), dtype)
    share = label_smoothing / classes
    if labels.ndim == 1:
        right = labels, np.arange(count)
        target.fill(share)
        target[right] = 1 - label_smoothing + share
    else:
        np.multiply(labels.T, dtype.type(1 - label_smoothing), out=target)
        np.add(target, share, out=target)
    np.copyto(p, logits.T)
    np.subtract(p, np.maximum.reduce(p, axis=0, out=row), out=p)
    if labels.ndim == 1 and not label_smoothing:
        loss = -np.add.reduce(p[right])  # where t is 0, log p may be -inf
    else:
        loss = -np.dot(target.ravel(), p.ravel())
    np.exp(p, out=p)
    np.add.reduce(p, axis=0, out=row)
    np.divide(p, row, out=p)
    loss += np.add.reduce(np.log(row, out=row))
    return loss / count, (p, target)


def cross_entropy_backward(
    g: Array, saved: tuple[Array, Array], wanted: tuple[bool, ...], *, buffer: Buffer = new
) -> tuple[Array]:
    """dL/dz = g (p - t) / N."""
    p, target = saved
    classes, count = p.shape
    np.subtract(p, target, out=p)
    d_logits = buffer("d_logits", (count, classes), p.dtype)
    return (np.multiply(p.T, g / p.dtype.type(count), out=d_logits),)


def hinge_forward(
    logits: Array, *, labels: Array, buffer: Buffer = new
) -> tuple[Array, tuple[Array, tuple[Array, Array]]]:
    """The multiclass support vector machine's loss (Weston and Watkins 1999):
    L = (1/N) Σₙ Σ_{k ≠ yₙ} max(0, sₙₖ - sₙ,yₙ + 1).

    logits s: (N, K), labels y: (N,) in 0..K-1. If a logit is not finite, the loss is NaN, since a
    margin of -∞ would count as none.
    """
    count, classes = logits.shape
    margins = buffer("margins", (classes, count), logits.dtype)
    np.copyto(margins, logits.T)
    right = labels, np.arange(count)
    np.subtract(margins, margins[right], out=margins)
    np.add(margins, 1, out=margins)
    zero_or_nan = 0 * np.add.reduce(margins, axis=None)
    np.maximum(margins, zero_or_nan, out=margins)
    margins[right] -= 1  # 0 now
    return np.add.reduce(margins, axis=None) / count, (margins, right)


def hinge_backward(
    g: Array,
    saved: tuple[Array, tuple[Array, Array]],
    wanted: tuple[bool, ...],
    *,
    buffer: Buffer = new,
) -> tuple[Array]:
    """dL/dsₙₖ = g/N · [margin > 0] for k ≠ yₙ; dL/dsₙ,yₙ = -g/N · (number of margins > 0)."""
    margins, right = saved
    classes, count = margins.shape
    np.sign(margins, out=margins)
    margins[right] = -np.add.reduce(margins, axis=0)
    d_logits = buffer("d_logits", (count, classes), margins.dtype)
    return (np.multiply(margins.T, g / margins.dtype.type(count), out=d_logits),)


CROSS_ENTROPY = Op(cross_entropy_forward, cross_entropy_backward, ("logits",))
HINGE = Op(hinge_forward, hinge_backward, ("logits",))

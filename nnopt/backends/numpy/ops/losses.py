"""Losses: logits (N, K) and labels (N,) to the mean loss of the batch, a 0-d array.

The number of classes K is small, and NumPy reduces a short last axis slowly; so both losses work on
the transposed logits (K, N), where a reduction over the classes runs along whole rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, Op, new


def cross_entropy_forward(
    logits: Array, *, labels: Array, label_smoothing: float = 0.0, buffer: Buffer = new
) -> tuple[Array, Array]:
    """L = -(1/N) Σₙ Σₖ tₙₖ log pₙₖ, p = softmax(z), t = (1 - ε) y + ε/K (Szegedy et al. 2016,
    section 7), through log p = z - max z - log Σ exp(z - max z), which cannot overflow.

    logits z: (N, K), labels y: (N,) in 0..K-1, standing for one-hot rows, or mixtures (N, K), whose
    rows sum to one. Saved: p - t, (K, N).

    As the label's p nears 1, all digits of p - 1 and of log Σ would cancel. Both are computed from
    the sum r of the other exponentials instead: p - 1 = -r / Σ, and log Σ = log(1 + (r + eᵈ - 1)),
    where d is z - max z of the label. For a mixture, the class with the largest share is the label.
    """
    count, classes = logits.shape
    dtype = logits.dtype
    p, row = buffer("p", (classes, count), dtype), buffer("row", (count,), dtype)
    is_one_hot = labels.ndim == 1 and not label_smoothing
    flat = p.reshape(-1)  # indexed several times faster than p
    right = _label_positions(labels if labels.ndim == 1 else labels.argmax(axis=1))
    np.copyto(p, logits.T)
    np.subtract(p, np.maximum.reduce(p, axis=0, out=row), out=p)
    of_label = flat[right]
    if is_one_hot:
        loss = -np.add.reduce(of_label)  # where t is 0, log p may be -inf
    else:
        target = _targets(labels, label_smoothing, buffer("target", (classes, count), dtype))
        loss = -np.dot(target, flat)
    np.exp(p, out=p)
    total = flat[right]
    flat[right] = 0
    rest = np.add.reduce(p, axis=0, out=row)
    np.add(rest, total, out=total)
    np.add(rest, np.expm1(of_label, out=of_label), out=of_label)
    loss += np.add.reduce(np.log1p(of_label, out=of_label))
    flat[right] = np.negative(rest, out=rest)  # p - 1 of the label, times Σ
    np.divide(p, total, out=p)
    if not is_one_hot:
        target[right] -= 1
        np.subtract(flat, target, out=flat)
    return loss / count, p


def _label_positions(labels: Array) -> Array:
    """Return where each label's entry of a (K, N) array is in memory."""
    return labels * len(labels) + _arange(len(labels))


@cache
def _arange(count: int) -> Array:
    """Return np.arange(count): a batch has one of few sizes."""
    return np.arange(count)


def _targets(labels: Array, label_smoothing: float, out: Array) -> Array:
    """Return t = (1 - ε) y + ε/K, (K, N), as a flat array."""
    share, flat = label_smoothing / len(out), out.reshape(-1)
    if labels.ndim == 1:
        flat.fill(share)
        flat[_label_positions(labels)] = 1 - label_smoothing + share
    else:
        np.multiply(labels.T, out.dtype.type(1 - label_smoothing), out=out)
        np.add(flat, share, out=flat)
    return flat


def cross_entropy_backward(g: Array, difference: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dz = g (p - t) / N."""
    classes, count = difference.shape
    d_logits = buffer("d_logits", (count, classes), difference.dtype)
    return (np.multiply(difference.T, g / difference.dtype.type(count), out=d_logits),)


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

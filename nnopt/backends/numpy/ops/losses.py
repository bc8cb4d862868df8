"""Losses: the mean loss of a batch as a 0-d array, for logits (N, K) and labels.

NumPy reduces a short last axis slowly, and the number of classes K is small. The fast versions
therefore use transposed logits (K, N), where a reduction over the classes adds whole rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from nnopt.backends.numpy.ops import Array, Buffer, Op, new


def cross_entropy_naive_forward(
    logits: Array, *, labels: Array, label_smoothing: float = 0.0
) -> Array:
    """Compute L = -(1/N) Σₙ Σₖ tₙₖ log pₙₖ, with p = softmax(z) and t = (1 - ε) y + ε/K.

    z are the ``logits``, and ε is the ``label_smoothing``. y contains the class fractions of each
    sample, which are one-hot if ``labels`` are classes (N,).
    """
    target = _naive_targets(labels, logits.shape[1], label_smoothing)
    return np.asarray(-np.sum(target * _naive_log_softmax(logits)) / len(logits))


def cross_entropy_naive_backward(
    g: Array, logits: Array, *, labels: Array, label_smoothing: float = 0.0
) -> tuple[Array]:
    """dL/dz = g (p - t) / N."""
    target = _naive_targets(labels, logits.shape[1], label_smoothing)
    return (g * (np.exp(_naive_log_softmax(logits)) - target) / len(logits),)


def _naive_log_softmax(logits: Array) -> Array:
    """Compute log p = z - max z - log Σ exp(z - max z), which cannot overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _naive_targets(labels: Array, classes: int, label_smoothing: float) -> Array:
    one_hot = np.eye(classes)[labels] if labels.ndim == 1 else labels
    return (1 - label_smoothing) * one_hot + label_smoothing / classes


def hinge_naive_forward(logits: Array, *, labels: Array) -> Array:
    """Compute L = (1/N) Σₙ Σ_{k ≠ yₙ} max(0, s[n, k] - s[n, yₙ] + 1) for logits s, labels y."""
    return np.asarray(np.maximum(0, _naive_margins(logits, labels)).sum() / len(logits))


def hinge_naive_backward(g: Array, logits: Array, *, labels: Array) -> tuple[Array]:
    """dL/ds[n, k] = g/N · [margin > 0], k ≠ yₙ; dL/ds[n, yₙ] = -g/N · (number of margins > 0)."""
    is_positive = 1.0 * (_naive_margins(logits, labels) > 0)
    is_positive[np.arange(len(labels)), labels] = -is_positive.sum(axis=1)
    return (g * is_positive / len(logits),)


def _naive_margins(logits: Array, labels: Array) -> Array:
    """Return the margins of logits s: s[n, k] - s[n, yₙ] + 1 for k ≠ yₙ, and 0 for k = yₙ."""
    rows = np.arange(len(labels))
    margins = logits - logits[rows, labels][:, None] + 1
    margins[rows, labels] = 0
    return np.asarray(margins)


def cross_entropy_forward(
    logits: Array, *, labels: Array, label_smoothing: float = 0.0, buffer: Buffer = new
) -> tuple[Array, Array]:
    """Compute the softmax cross-entropy with label smoothing (Szegedy et al. 2016, section 7).

    ``logits`` are z, (N, K). ``labels`` are classes (N,) or class fractions y (N, K), whose rows
    sum to one. The saved value is p - t, (K, N): softmax minus smoothed class fractions.

    Let Σ be the sum of exp(z - max z) over a sample's classes, and r the sum without the label.
    If the label's probability p is near 1, p - 1 and log Σ would lose all digits to cancellation.
    They are computed as p - 1 = -r / Σ and log Σ = log(1 + (r + eᵈ - 1)), where d is the label's
    z - max z. For class fractions, the label is the class with the largest fraction.
    """
    count, classes = logits.shape
    dtype = logits.dtype
    p, row = buffer("p", (classes, count), dtype), buffer("row", (count,), dtype)
    is_one_hot = labels.ndim == 1 and not label_smoothing
    flat = p.reshape(-1)  # indexing a flat array is several times faster
    label_index = _flat_label_index(labels if labels.ndim == 1 else labels.argmax(axis=1))
    np.copyto(p, logits.T)
    np.subtract(p, np.maximum.reduce(p, axis=0, out=row), out=p)
    at_label = flat[label_index]
    if is_one_hot:
        loss = -np.add.reduce(at_label)  # a dot product would give NaN: 0 · log 0
    else:
        target = _targets(labels, label_smoothing, buffer("target", (classes, count), dtype))
        loss = -np.dot(target, flat)
    np.exp(p, out=p)
    total = flat[label_index]
    flat[label_index] = 0
    rest = np.add.reduce(p, axis=0, out=row)
    np.add(rest, total, out=total)
    np.add(rest, np.expm1(at_label, out=at_label), out=at_label)
    loss += np.add.reduce(np.log1p(at_label, out=at_label))
    flat[label_index] = np.negative(rest, out=rest)  # (p - 1) · Σ for the label
    np.divide(p, total, out=p)
    if not is_one_hot:
        target[label_index] -= 1
        np.subtract(flat, target, out=flat)
    return loss / count, p


def _flat_label_index(labels: Array) -> Array:
    """Return, for each sample, the flat index of the label's entry in a (K, N) array."""
    return labels * len(labels) + _arange(len(labels))


_arange: Callable[[int], Array] = cache(np.arange)  # there are few different batch sizes


def _targets(labels: Array, label_smoothing: float, out: Array) -> Array:
    """Return t = (1 - ε) y + ε/K, (K, N), as a flat array."""
    uniform, flat = label_smoothing / len(out), out.reshape(-1)
    if labels.ndim == 1:
        flat.fill(uniform)
        flat[_flat_label_index(labels)] = 1 - label_smoothing + uniform
    else:
        np.multiply(labels.T, out.dtype.type(1 - label_smoothing), out=out)
        np.add(flat, uniform, out=flat)
    return flat


def cross_entropy_backward(g: Array, difference: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dz = g (p - t) / N, where ``difference`` is p - t, (K, N)."""
    classes, count = difference.shape
    d_logits = buffer("d_logits", (count, classes), difference.dtype)
    return (np.multiply(difference.T, g / difference.dtype.type(count), out=d_logits),)


def hinge_forward(
    logits: Array, *, labels: Array, buffer: Buffer = new
) -> tuple[Array, tuple[Array, tuple[Array, Array]]]:
    """Compute the loss of the multiclass support vector machine (Weston and Watkins 1999).

    The loss is NaN if a logit is not finite, although a margin of -∞ would add 0 to the loss.
    """
    count, classes = logits.shape
    margins = buffer("margins", (classes, count), logits.dtype)
    np.copyto(margins, logits.T)
    label_index = labels, np.arange(count)
    np.subtract(margins, margins[label_index], out=margins)
    np.add(margins, 1, out=margins)
    zero_or_nan = 0 * np.add.reduce(margins, axis=None)
    np.maximum(margins, zero_or_nan, out=margins)
    margins[label_index] -= 1  # the margin of the label becomes 0
    return np.add.reduce(margins, axis=None) / count, (margins, label_index)


def hinge_backward(
    g: Array, saved: tuple[Array, tuple[Array, Array]], *, buffer: Buffer = new
) -> tuple[Array]:
    """Compute ``hinge_naive_backward``."""
    margins, label_index = saved
    classes, count = margins.shape
    np.sign(margins, out=margins)
    margins[label_index] = -np.add.reduce(margins, axis=0)
    d_logits = buffer("d_logits", (count, classes), margins.dtype)
    return (np.multiply(margins.T, g / margins.dtype.type(count), out=d_logits),)


CROSS_ENTROPY = Op(cross_entropy_forward, cross_entropy_backward, ("logits",))
HINGE = Op(hinge_forward, hinge_backward, ("logits",))

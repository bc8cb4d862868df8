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
    target = smoothed_targets(labels, logits.shape[1], label_smoothing)
    return np.asarray(-np.sum(target * _naive_log_softmax(logits)) / len(logits))


def cross_entropy_naive_backward(
    g: Array, logits: Array, *, labels: Array, label_smoothing: float = 0.0
) -> tuple[Array]:
    """dL/dz = g (p - t) / N."""
    target = smoothed_targets(labels, logits.shape[1], label_smoothing)
    return (g * (np.exp(_naive_log_softmax(logits)) - target) / len(logits),)


def _naive_log_softmax(logits: Array) -> Array:
    """Compute log p = z - max z - log Σ exp(z - max z), which cannot overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def smoothed_targets(labels: Array, classes: int, label_smoothing: float) -> Array:
    """Return t = (1 - ε) y + ε/K, (N, K), for labels (N,) or class fractions y (N, K)."""
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


def mse_naive_forward(logits: Array, *, labels: Array, label_smoothing: float = 0.0) -> Array:
    """Compute L = 1/(N K) Σₙ Σₖ (zₙₖ - tₙₖ)² for logits z, with the t of cross-entropy."""
    target = smoothed_targets(labels, logits.shape[1], label_smoothing)
    return np.asarray(np.mean((logits - target) ** 2))


def mse_naive_backward(
    g: Array, logits: Array, *, labels: Array, label_smoothing: float = 0.0
) -> tuple[Array]:
    """dL/dz = 2 g (z - t) / (N K)."""
    target = smoothed_targets(labels, logits.shape[1], label_smoothing)
    return (2 * g * (logits - target) / logits.size,)


def focal_naive_forward(
    logits: Array, *, labels: Array, gamma: float, label_smoothing: float = 0.0
) -> Array:
    """Compute L = -(1/N) Σₙ Σₖ tₙₖ (1 - pₙₖ)^γ log pₙₖ, with the p and t of cross-entropy."""
    target = smoothed_targets(labels, logits.shape[1], label_smoothing)
    log_p = _naive_log_softmax(logits)
    return np.asarray(-np.sum(target * (1 - np.exp(log_p)) ** gamma * log_p) / len(logits))


def focal_naive_backward(
    g: Array, logits: Array, *, labels: Array, gamma: float, label_smoothing: float = 0.0
) -> tuple[Array]:
    """dL/dzₙₖ = g/N (uₙₖ - pₙₖ Σⱼ uₙⱼ), u = t ((1 - p)^(γ-1) γ p log p - (1 - p)^γ)."""
    target = smoothed_targets(labels, logits.shape[1], label_smoothing)
    log_p = _naive_log_softmax(logits)
    p, q = np.exp(log_p), np.maximum(1 - np.exp(log_p), np.finfo(logits.dtype).tiny)
    u = target * (q ** (gamma - 1) * gamma * p * log_p - q**gamma)
    return (g * (u - p * u.sum(axis=1, keepdims=True)) / len(logits),)


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


def mse_forward(
    logits: Array, *, labels: Array, label_smoothing: float = 0.0, buffer: Buffer = new
) -> tuple[Array, Array]:
    """Compute the mean squared error of logits, without softmax (Hui and Belkin 2021).

    ``labels`` and ``label_smoothing`` are those of cross-entropy. The mean is over samples and
    classes, as in PyTorch's ``mse_loss``. The saved value is z - t, (N, K).
    """
    difference = buffer("difference", logits.shape, logits.dtype)
    uniform, rest = label_smoothing / logits.shape[1], 1 - label_smoothing
    if labels.ndim == 1:
        np.subtract(logits, uniform, out=difference)
        difference[_arange(len(labels)), labels] -= rest
    else:
        np.multiply(labels, logits.dtype.type(rest), out=difference)
        np.add(difference, uniform, out=difference)
        np.subtract(logits, difference, out=difference)
    flat = difference.reshape(-1)
    return np.dot(flat, flat) / logits.dtype.type(logits.size), difference


def mse_backward(g: Array, difference: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dz = 2 g (z - t) / (N K), where ``difference`` is z - t."""
    factor = g * difference.dtype.type(2 / difference.size)
    d_logits = buffer("d_logits", difference.shape, difference.dtype)
    return (np.multiply(difference, factor, out=d_logits),)


def focal_forward(
    logits: Array,
    *,
    labels: Array,
    gamma: float,
    label_smoothing: float = 0.0,
    buffer: Buffer = new,
) -> tuple[Array, Array]:
    """Compute the focal loss Σ t (1 - p)^γ (-log p), with the softmax p (Lin et al. 2017, eq. 4).

    ``labels`` and ``label_smoothing`` are those of cross-entropy, to which the loss is equal for
    γ = 0. The saved value is N · dL/dz, (K, N).

    Only the largest p of a sample can be near 1. If r is the sum of exp(z - max z) over the other
    classes, this p is 1 / (1 + r), and q = 1 - p is r / (1 + r), which does not lose the digits of
    a small q. The targets of most classes are 0 if they are one-hot, so only the label's p and q
    are used then.
    """
    count, classes = logits.shape
    shape, dtype = (classes, count), logits.dtype
    p, q, nll = (buffer(name, shape, dtype) for name in ("p", "q", "nll"))
    row = buffer("row", (count,), dtype)
    largest = _flat_label_index(logits.argmax(axis=1))
    np.copyto(nll, logits.T)
    np.subtract(np.maximum.reduce(nll, axis=0, out=row), nll, out=nll)
    np.exp(np.negative(nll, out=p), out=p)
    p.reshape(-1)[largest] = 0
    rest = np.add.reduce(p, axis=0, out=row)
    np.add(nll, np.log1p(rest), out=nll)  # -log p
    p.reshape(-1)[largest] = 1
    np.divide(p, rest + 1, out=p)
    np.subtract(1, p, out=q)
    q.reshape(-1)[largest] = rest / (rest + 1)
    if labels.ndim == 1 and not label_smoothing:
        label_index = _flat_label_index(labels)
        q_label = q.reshape(-1)[label_index]
        chosen = p.reshape(-1)[label_index], q_label, nll.reshape(-1)[label_index]
        terms, u = _focal_terms(*chosen, gamma)
        np.multiply(p, np.negative(u), out=p)
        p.reshape(-1)[label_index] = u * q_label
        return np.add.reduce(terms) / dtype.type(count), p
    target = _targets(labels, label_smoothing, buffer("target", shape, dtype))
    terms, u = _focal_terms(p, q, nll, gamma)
    loss = np.dot(target, terms.reshape(-1)) / dtype.type(count)
    np.multiply(u, target.reshape(shape), out=u)
    sums, u_largest = np.add.reduce(u, axis=0, out=row), u.reshape(-1)[largest]
    at_largest = u_largest * q.reshape(-1)[largest] - p.reshape(-1)[largest] * (sums - u_largest)
    np.subtract(u, np.multiply(p, sums, out=p), out=p)
    p.reshape(-1)[largest] = at_largest
    return loss, p


def _focal_terms(p: Array, q: Array, nll: Array, gamma: float) -> tuple[Array, Array]:
    """Return f = q^γ (-log p) and u = p df/dp = -q^γ (1 + γ p (-log p) / q), with q = 1 - p."""
    power = q**gamma
    factor = np.maximum(q, np.finfo(q.dtype).tiny)
    np.divide(p, factor, out=factor)
    np.multiply(factor, nll, out=factor)
    np.add(np.multiply(factor, gamma, out=factor), 1, out=factor)
    return power * nll, np.negative(np.multiply(factor, power, out=factor), out=factor)


def focal_backward(g: Array, gradient: Array, *, buffer: Buffer = new) -> tuple[Array]:
    """dL/dz = g (u_k - p_k Σⱼ uⱼ) / N, u = t p df/dp, f = (1 - p)^γ (-log p)."""
    return cross_entropy_backward(g, gradient, buffer=buffer)


CROSS_ENTROPY = Op(cross_entropy_forward, cross_entropy_backward, ("logits",))
HINGE = Op(hinge_forward, hinge_backward, ("logits",))
MSE = Op(mse_forward, mse_backward, ("logits",))
FOCAL = Op(focal_forward, focal_backward, ("logits",))

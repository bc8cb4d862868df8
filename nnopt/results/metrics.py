"""Losses and scores of logits, in NumPy and float64, the same for both backends.

The backends train on their own losses; what stands in the tables is computed here. A logit that is
NaN or +inf gives a loss that is not finite, without a warning: the loop calls that diverged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]

METRICS = (
    "test_loss",
    "test_accuracy",
    "best_validation_loss",
    "best_validation_accuracy",
    "best_epoch",
    "averaged_epochs",
    "final_train_loss",
    "final_train_accuracy",
    "epochs",
    "steps",
    "stopped_early",
    "suggested_lr",
    "parameters",
    "flops_per_sample",
    "train_seconds",
    "total_seconds",
    "peak_memory_mb",
    "peak_device_memory_mb",
)
"""The outcome of a run: keys of ``summary.json`` and columns of a sweep's ``results.csv``."""


def better_direction(metric: str) -> Literal["higher", "lower"] | None:
    """Which values of a metric are the better ones; None where neither is, as of ``best_epoch``."""
    if metric.endswith("accuracy"):
        return "higher"
    costs = ("loss", "seconds", "_mb", "parameters", "flops_per_sample")
    return "lower" if metric.endswith(costs) else None


def softmax(logits: Array) -> Floats:
    """Probabilities (N, K) of logits (N, K): pₖ = exp(sₖ) / Σⱼ exp(sⱼ)."""
    return np.exp(_log_softmax(logits))


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> float:
    """Mean of -Σₖ qₖ log pₖ over the samples, p = softmax(logits), q the smoothed label.

    logits: (N, K)   labels: (N,) in 0..K-1, N >= 1
    q = (1 - ε) onehot(label) + ε / K, ε = label_smoothing (Szegedy et al. 2016, section 7)
    """
    log_p = _log_softmax(logits)
    loss = -log_p[np.arange(len(labels)), labels].mean()
    if label_smoothing > 0:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean()
    return float(loss) + 0.0  # no minus zero, of one class


def hinge(logits: Array, labels: Array) -> float:
    """Mean multiclass SVM loss Σ_{j≠y} max(0, sⱼ - s_y + 1) (Weston and Watkins 1999). NaN unless
    all logits are finite, as in training: a margin of -∞ would count as none.

    logits: (N, K)   labels: (N,) in 0..K-1, N >= 1
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores).all():
        return math.nan
    correct = scores[np.arange(len(labels)), labels, None]
    with np.errstate(invalid="ignore", over="ignore"):
        margins = np.maximum(0, scores - correct + 1).sum(axis=1) - 1  # j = y added exactly 1
        return float(margins.mean())


def accuracy(logits: Array, labels: Array) -> float:
    """The share of samples whose largest logit (the first of equals) is the label's. A sample with
    a logit that is NaN counts as wrong."""
    scores = np.asarray(logits)
    predicted = scores.argmax(axis=1)  # the first NaN, if there is one
    is_number = ~np.isnan(scores[np.arange(len(scores)), predicted])
    return float(np.mean((predicted == labels) & is_number))


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> NDArray[np.int64]:
    """Counts (K, K) of samples by true class (row) and predicted class (column)."""
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def penalty(weights: Iterable[Array], l1: float, l2: float) -> float:
    """λ₁ Σ|w| + ½ λ₂ Σw² over all the weights given."""
    total = 0.0
    with np.errstate(over="ignore"):
        for weight in weights if l1 or l2 else ():
            w = np.asarray(weight, dtype=np.float64).ravel()
            total += l1 * float(np.abs(w).sum()) if l1 else 0.0
            total += 0.5 * l2 * float(np.square(w).sum()) if l2 else 0.0
    return total


def _log_softmax(logits: Array) -> Floats:
    """log pₖ = (sₖ - m) - log Σⱼ exp(sⱼ - m), m the largest: no exponential can overflow. The sum
    is 1 + r, with r that of all but the largest: log(1 + r) keeps the digits of a small r."""
    scores = np.asarray(logits, dtype=np.float64)
    largest = np.arange(len(scores)), scores.argmax(axis=1)  # the first NaN, if there is one
    with np.errstate(invalid="ignore", under="ignore", over="ignore"):
        shifted = scores - scores[largest][:, None]
        others = np.exp(shifted)
        others[largest] = 0
        return np.asarray(shifted - np.log1p(others.sum(axis=1, keepdims=True)))

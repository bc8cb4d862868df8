"""Losses and accuracy of logits, computed with NumPy in float64 for both backends.

The backends compute the training loss themselves. This module computes the validation and test
losses. If a logit is NaN or +inf, the loss is not finite, and there is no warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnopt.schema import Config
from nnopt.schema.tables import filled

Floats = NDArray[np.float64]
Array = NDArray[Any]

METRICS = (
    "test_loss",
    "test_accuracy",
    "test_top5_accuracy",
    "test_macro_f1",
    "test_calibration_error",
    "train_loss",
    "train_accuracy",
    "generalization_gap",
    "best_validation_loss",
    "best_validation_accuracy",
    "best_epoch",
    "averaged_epochs",
    "final_train_loss",
    "final_train_accuracy",
    "epochs",
    "steps",
    "stopped_early",
    "target_reached",
    "steps_to_target",
    "epochs_to_target",
    "seconds_to_target",
    "suggested_lr",
    "parameters",
    "flops_per_sample",
    "sparsity",
    "compression_ratio",
    "theoretical_speedup",
    "measured_step_speedup",
    "measured_predict_speedup",
    "train_seconds",
    "total_seconds",
    "peak_memory_mb",
    "peak_device_memory_mb",
)
"""Metrics of a run: keys of ``summary.json`` and columns of a sweep's ``results.csv``."""

FLAGS = ("stopped_early", "target_reached")
"""The metrics that are true or false."""

CENSORED = {
    "steps_to_target": "steps",
    "epochs_to_target": "epochs",
    "seconds_to_target": "train_seconds",
}
"""Times to a target -> the metric with the length of the training in the same unit.

A run whose configuration has a target, but which did not reach it, has no such time. Its time is
censored: it is longer than the training.
"""

LOSS_KEYS = ("loss", "focal_gamma")
"""Keys that determine the meaning of a loss. Losses with other values are not comparable."""

AFTER_TRAINING = (
    *("test_loss", "test_accuracy", "test_top5_accuracy", "test_macro_f1"),
    *("test_calibration_error", "train_loss", "train_accuracy", "generalization_gap"),
)
"""The metrics that are measured after training, with the weights that ``test_weights`` selects."""


UNITS = {"seconds": "s", "mb": "MiB"}
"""Last word of a metric's name -> unit of its values in ``summary.json``."""


def unit_of(metric: str) -> str:
    """Return the unit of a metric in ``summary.json``; empty if it has none."""
    return UNITS.get(metric.removesuffix("_to_target").rpartition("_")[2], "")


def is_fraction_metric(metric: str) -> bool:
    """Return whether the values of a metric, and so its differences, are between -1 and 1."""
    return metric.endswith(("accuracy", "macro_f1", "calibration_error", "gap", "sparsity"))


def better_direction(metric: str) -> Literal["higher", "lower"] | None:
    """Return whether higher or lower values are better; None if neither is."""
    if metric.endswith(("accuracy", "macro_f1", "compression_ratio", "speedup")):
        return "higher"
    costs = ("_to_target", "loss", "error", "seconds", "_mb", "parameters", "flops_per_sample")
    return "lower" if metric.endswith(costs) else None


def softmax(logits: Array) -> Floats:
    """Return the probabilities (N, K) of logits s (N, K): pₖ = exp(sₖ) / Σⱼ exp(sⱼ)."""
    return np.exp(_log_softmax(logits))


def cross_entropy(logits: Array, labels: Array) -> float:
    """Return the mean over the samples of -log p_label, with p = softmax(logits).

    logits: (N, K)   labels: (N,) in 0..K-1, N >= 1
    """
    loss = -_log_softmax(logits)[np.arange(len(labels)), labels].mean()
    return float(loss) + 0.0  # -0.0, the loss of a single class, becomes 0.0


def hinge(logits: Array, labels: Array) -> float:
    """Return the mean multiclass SVM loss Σ_{j≠y} max(0, sⱼ - s_y + 1) (Weston and Watkins 1999).

    If a logit is not finite, the loss is NaN, as in training, although max(0, -∞) is finite.

    logits: s, (N, K)   labels: y, (N,) in 0..K-1, N >= 1
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores).all():
        return math.nan
    correct = scores[np.arange(len(labels)), labels, None]
    with np.errstate(invalid="ignore", over="ignore"):
        margins = np.maximum(0, scores - correct + 1).sum(axis=1) - 1  # j = y contributes exactly 1
        return float(margins.mean())


def mse(logits: Array, labels: Array) -> float:
    """Return the mean of (zₖ - tₖ)² over samples and classes, with one-hot targets t.

    logits: z, (N, K)   labels: (N,) in 0..K-1, N >= 1
    """
    difference = np.array(logits, dtype=np.float64)
    difference[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.square(difference)))


def focal(logits: Array, labels: Array, gamma: float) -> float:
    """Return the mean over the samples of -(1 - p)^γ log p, with p the softmax at the label.

    logits: (N, K)   labels: (N,) in 0..K-1, N >= 1   Source: Lin et al. 2017, eq. 4
    """
    log_p = _log_softmax(logits)[np.arange(len(labels)), labels]
    with np.errstate(invalid="ignore"):
        return float(np.mean((-np.expm1(log_p)) ** gamma * -log_p)) + 0.0


def loss_of(config: Config, logits: Array, labels: Array) -> float:
    """Return the configured loss without label smoothing. logits: (N, K), labels: (N,)."""
    return LOSSES[config.loss](config, logits, labels)


LOSSES: dict[str, Callable[[Config, Array, Array], float]] = filled(
    "loss/evaluation",
    {
        "cross_entropy": lambda config, logits, labels: cross_entropy(logits, labels),
        "hinge": lambda config, logits, labels: hinge(logits, labels),
        "mse": lambda config, logits, labels: mse(logits, labels),
        "focal": lambda config, logits, labels: focal(logits, labels, config.focal_gamma),
    },
)
"""Value of the key ``loss`` -> function of configuration, logits (N, K) and labels (N,)."""


def accuracy(logits: Array, labels: Array) -> float:
    """Return the fraction of samples for which the label has the largest logit.

    Of equal logits, the first counts as the largest. A sample with a NaN logit counts as wrong.
    """
    scores = np.asarray(logits)
    predicted = scores.argmax(axis=1)  # argmax returns the first NaN, if there is one
    is_number = ~np.isnan(scores[np.arange(len(scores)), predicted])
    return float(np.mean((predicted == labels) & is_number))


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> NDArray[np.int64]:
    """Count samples by true class (rows) and predicted class (columns), in an array (K, K)."""
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predictions, dtype=np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def penalty(weights: Iterable[Array], l1: float, l2: float) -> float:
    """Return l1 Σ|w| + ½ l2 Σw² over all weights w."""
    total = 0.0
    with np.errstate(over="ignore"):
        for weight in weights if l1 or l2 else ():
            w = np.asarray(weight, dtype=np.float64).ravel()
            total += l1 * float(np.abs(w).sum()) if l1 else 0.0
            total += 0.5 * l2 * float(np.square(w).sum()) if l2 else 0.0
    return total


def _log_softmax(logits: Array) -> Floats:
    """Return log pₖ = (sₖ - m) - log Σⱼ exp(sⱼ - m) of logits s, where m is the largest logit.

    No exponential can overflow. The largest term of the sum is 1, and r is the sum of the others.
    The logarithm is computed as log1p(r), which preserves the digits of a small r.
    """
    scores = np.asarray(logits, dtype=np.float64)
    largest = np.arange(len(scores)), scores.argmax(axis=1)  # the first NaN, if there is one
    with np.errstate(invalid="ignore", under="ignore", over="ignore"):
        shifted = scores - scores[largest][:, None]
        others = np.exp(shifted)
        others[largest] = 0
        return np.asarray(shifted - np.log1p(others.sum(axis=1, keepdims=True)))

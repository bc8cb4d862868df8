"""Metrics of a classification: per class, of the k best classes, and of the confidence.

They are computed with NumPy in float64 for both backends. Ratios whose denominator is 0 are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.results.metrics import softmax

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALIBRATION_BINS = 15
"""Number of bins of the expected calibration error, as in Guo et al. (2017)."""


@dataclass(frozen=True)
class ClassScores:
    """Metrics of each class, arrays (K,). A ratio is NaN if its denominator is 0.

    Attributes:
        support: Number of samples of the class, TP + FN.
        predicted: Number of samples that are predicted as the class, TP + FP.
        recall: TP / (TP + FN), the accuracy on the samples of the class.
        precision: TP / (TP + FP).
        f1: 2 TP / (2 TP + FP + FN), the harmonic mean of recall and precision.
    """

    support: Ints
    predicted: Ints
    recall: Floats
    precision: Floats
    f1: Floats

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that occur as a label or as a prediction."""
        return float(np.nanmean(self.f1))


def class_scores(counts: Ints) -> ClassScores:
    """Return the metrics of each class.

    Args:
        counts: Samples by true class (rows) and predicted class (columns), (K, K), with at least
            one sample.
    """
    correct, support, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    return ClassScores(
        support=support,
        predicted=predicted,
        recall=_ratio(correct, support),
        precision=_ratio(correct, predicted),
        f1=_ratio(2 * correct, support + predicted),
    )


def top_k_accuracy(logits: Array, labels: Array, k: int) -> float:
    """Return the fraction of samples whose label is among the k largest logits.

    Of equal logits, the first counts as larger, so that k = 1 gives the accuracy.

    logits: (N, K)   labels: (N,) in 0..K-1, N >= 1
    """
    scores = np.asarray(logits)
    of_label = scores[np.arange(len(labels)), labels, None]
    is_earlier = np.arange(scores.shape[1]) < np.asarray(labels)[:, None]
    rank = ((scores > of_label) | ((scores == of_label) & is_earlier)).sum(axis=1)
    return float(np.mean(rank < k))


def calibration_error(logits: Array, labels: Array, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error Σₘ |Bₘ|/N · |acc(Bₘ) - conf(Bₘ)|.

    The confidence of a sample is its largest probability softmax(logits). Bin m contains the
    samples with a confidence in ((m-1)/M, m/M]. acc and conf are the accuracy and the mean
    confidence of a bin (Guo et al. 2017, "On calibration of modern neural networks", equations 2
    and 3).

    Args:
        logits: Finite logits, (N, K).
        labels: Labels (N,) in 0..K-1, N >= 1.
        bins: M, the number of bins.
    """
    confidence = softmax(logits).max(axis=1)
    is_correct = np.asarray(logits).argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    bin_of = np.searchsorted(inner_edges, confidence, side="left")
    gaps = np.bincount(bin_of, is_correct - confidence, minlength=bins)  # |B| (acc - conf)
    return float(np.abs(gaps).sum() / len(confidence))


def _ratio(numerator: Ints, denominator: Ints) -> Floats:
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result

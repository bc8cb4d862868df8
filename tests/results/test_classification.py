"""Metrics of a classification, compared with scikit-learn and with hand calculations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from nnopt.results.classification import calibration_error, class_scores, top_k_accuracy
from nnopt.results.metrics import accuracy, confusion_matrix, softmax


def samples(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, K) and labels (N,) that agree more often than by chance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = 2 * rng.standard_normal((count, classes))
    logits[np.arange(count), labels] += 1
    return logits, labels


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (500, 2), (500, 10), (20, 30)])
def test_class_scores_equal_those_of_scikit_learn(count: int, classes: int) -> None:
    """With 20 samples of 30 classes, some classes do not occur or are never predicted."""
    logits, labels = samples(count, classes)
    predictions = logits.argmax(axis=1)
    found = class_scores(confusion_matrix(labels, predictions, classes))
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predictions, labels=range(classes), zero_division=np.nan
    )
    assert_array_equal(found.support, support)
    assert_array_equal(found.predicted, np.bincount(predictions, minlength=classes))
    assert_allclose(found.recall, recall, rtol=1e-12)
    assert_allclose(found.precision, precision, rtol=1e-12)
    assert_allclose(found.f1, f1, rtol=1e-12)
    macro = reference.f1_score(labels, predictions, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(macro, rel=1e-12)


def test_class_scores_of_hand_calculation() -> None:
    """Class 1 is never predicted, and class 2 has no sample. Class 3 does not occur at all."""
    found = class_scores(np.array([[3, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert_allclose(found.recall, [0.75, 0, np.nan, np.nan])
    assert_allclose(found.precision, [0.6, np.nan, 0, np.nan])
    assert_allclose(found.f1, [2 / 3, 0, 0, np.nan])
    assert found.macro_f1 == pytest.approx(2 / 9)


@pytest.mark.parametrize("classes", [6, 10])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_that_of_scikit_learn(classes: int, k: int) -> None:
    logits, labels = samples(1000, classes)
    expected = reference.top_k_accuracy_score(labels, logits, k=k, labels=range(classes))
    assert 0.1 < expected < 1
    assert top_k_accuracy(logits, labels, k) == pytest.approx(expected, rel=1e-12)


def test_top_k_accuracy_counts_the_first_of_equal_logits_as_larger() -> None:
    logits = np.array([[1.0, 1.0, 1.0, 0.0]] * 4)
    labels = np.arange(4)
    assert [top_k_accuracy(logits, labels, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert top_k_accuracy(logits, labels, 1) == accuracy(logits, labels)


@pytest.mark.parametrize(("count", "classes"), [(1, 3), (50, 2), (5000, 10)])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_equals_that_of_the_calibration_curve_of_scikit_learn(
    count: int, classes: int, bins: int
) -> None:
    logits, labels = samples(count, classes)
    probabilities = softmax(logits)
    confidence, is_correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    sizes = np.array([((confidence > a) & (confidence <= b)).sum() for a, b in pairwise(edges)])
    fractions, means = calibration_curve(is_correct, confidence, pos_label=True, n_bins=bins)
    expected = np.sum(sizes[sizes > 0] * np.abs(fractions - means)) / count
    assert calibration_error(logits, labels, bins) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_of_hand_calculation() -> None:
    """Confidences 0.6 (right), 0.6 (wrong), 0.9 (right) and 0.95 (right) with bins of 0.1."""
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.05, 0.95]])
    found = calibration_error(np.log(probabilities), np.array([0, 1, 1, 1]), bins=10)
    assert found == pytest.approx(2 / 4 * abs(0.5 - 0.6) + 1 / 4 * 0.1 + 1 / 4 * 0.05)


def test_calibration_error_of_extreme_confidence() -> None:
    """A confidence of exactly 1 is in the last bin."""
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert calibration_error(logits, np.array([0, 1])) == 0
    assert calibration_error(logits, np.array([1, 1])) == pytest.approx(0.5)
    assert calibration_error(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == 0

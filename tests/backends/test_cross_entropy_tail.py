"""Cross-entropy of confident predictions, compared with references of 60 digits.

The loss and its derivative with respect to the label's logit are small differences between numbers
near 1. A subtraction of these numbers in float32 would lose all digits below 1e-7, and Adam would
stop or follow noise.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from numpy.typing import NDArray

from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY
from nnopt.results import metrics

Array = NDArray[np.floating]

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}

LEADS = [0.0, 1.0, 3.0, 8.0, 15.0, 20.0, 40.0, 80.0]
"""Differences between the third logit and the largest other logit."""


def logits_of(lead: float, dtype: str) -> Array:
    """Return logits (1, 4). The third logit exceeds the largest other logit by ``lead``."""
    return np.array([[0.5, -1.0, 0.5 + lead, 0.25]], dtype)


def exact(logits: Array, targets: list[float]) -> tuple[float, list[float]]:
    """Return the loss -Σ t log p of one sample, and its gradient p - t.

    t are the targets, and p are the softmax probabilities.
    """
    with mpmath.workdps(60):
        powers = [mpmath.exp(mpf(float(z))) for z in logits[0]]
        p = [x / mpmath.fsum(powers) for x in powers]
        loss = -mpmath.fsum(mpf(t) * mpmath.log(x) for t, x in zip(targets, p, strict=True))
        return float(loss), [float(x - mpf(t)) for x, t in zip(p, targets, strict=True)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("form", ["label", "one-hot row"])
def test_cross_entropy_of_confident_right_prediction_equals_reference(
    form: str, lead: float, dtype: str
) -> None:
    z, one_hot = logits_of(lead, dtype), [0.0, 0.0, 1.0, 0.0]
    labels = np.array([2]) if form == "label" else np.array([one_hot], dtype)
    loss, saved = CROSS_ENTROPY.forward(z, labels=labels)
    (d_logits,) = CROSS_ENTROPY.backward(z.dtype.type(1), saved)
    expected, gradient = exact(z, one_hot)
    np.testing.assert_allclose(loss, expected, rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(d_logits[0], gradient, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("lead", LEADS)
def test_cross_entropy_of_confident_wrong_prediction_equals_reference(lead: float) -> None:
    z = logits_of(lead, "float32")
    loss, saved = CROSS_ENTROPY.forward(z, labels=np.array([1]))
    (d_logits,) = CROSS_ENTROPY.backward(np.float32(1), saved)
    expected, gradient = exact(z, [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(d_logits[0], gradient, rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("labels", [[0.75, 0.0, 0.25, 0.0], [0.0, 0.0, 0.25, 0.75]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_of_mixed_labels_equals_reference(
    labels: list[float], smoothing: float
) -> None:
    z = logits_of(8.0, "float32")
    loss, saved = CROSS_ENTROPY.forward(
        z, labels=np.array([labels], np.float32), label_smoothing=smoothing
    )
    (d_logits,) = CROSS_ENTROPY.backward(np.float32(1), saved)
    targets = [(1 - smoothing) * t + smoothing / 4 for t in labels]
    expected, gradient = exact(z, targets)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(d_logits[0], gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("form", ["label", "mixture", "smoothing"])
def test_cross_entropy_with_nan_or_infinite_logit_is_not_finite(
    form: str, classes: int, place: int, bad: float
) -> None:
    z = np.zeros((3, classes), np.float32)
    z[1, min(place, classes - 1)] = bad
    labels = np.zeros(3, np.int64)
    target = np.eye(classes, dtype=np.float32)[labels] if form == "mixture" else labels
    smoothing = 0.1 if form == "smoothing" else 0.0
    with np.errstate(invalid="ignore"):
        loss, saved = CROSS_ENTROPY.forward(z, labels=target, label_smoothing=smoothing)
        (d_logits,) = CROSS_ENTROPY.backward(np.float32(1), saved)
    assert not np.isfinite(loss)
    assert np.isnan(d_logits[1]).any()
    assert np.isfinite(d_logits[[0, 2]]).all()


@pytest.mark.parametrize("lead", LEADS)
def test_metric_cross_entropy_of_confident_prediction_equals_reference(lead: float) -> None:
    z = logits_of(lead, "float32")
    expected, _ = exact(z, [0.0, 0.0, 1.0, 0.0])
    assert metrics.cross_entropy(z, np.array([2])) == pytest.approx(expected, rel=1e-13)


def test_metric_accuracy_counts_nan_as_wrong() -> None:
    logits = np.array([[np.nan, 0.0], [1.0, 0.0], [0.0, np.nan], [0.0, 1.0]])
    assert metrics.accuracy(logits, np.array([0, 0, 1, 1])) == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_metric_hinge_with_nan_or_infinite_logit_is_nan(bad: float) -> None:
    assert np.isnan(metrics.hinge(np.array([[2.0, bad], [0.0, 2.0]]), np.array([0, 1])))

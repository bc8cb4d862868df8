"""Losses and accuracies equal those of PyTorch and hand calculations, also for huge numbers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nnopt.results.metrics import (
    METRICS,
    accuracy,
    better_direction,
    confusion_matrix,
    cross_entropy,
    focal,
    hinge,
    mse,
    penalty,
    softmax,
)

Case = tuple[NDArray[np.float64], NDArray[np.int64]]


@st.composite
def cases(draw: st.DrawFn, largest: float = 50.0) -> Case:
    samples, classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    logits = draw(hnp.arrays(np.float64, (samples, classes), elements=st.floats(-largest, largest)))
    labels = draw(hnp.arrays(np.int64, samples, elements=st.integers(0, classes - 1)))
    return logits, labels


@given(case=cases())
def test_cross_entropy_equals_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    logits, labels = map(torch.from_numpy, case)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert cross_entropy(*case) == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


@given(case=cases())
def test_hinge_equals_pytorch_times_the_number_of_classes(case: Case) -> None:
    """PyTorch divides the sum over the wrong classes by the number of classes."""
    torch = pytest.importorskip("torch")
    logits, labels = map(torch.from_numpy, case)
    expected = torch.nn.functional.multi_margin_loss(logits, labels) * logits.shape[1]
    assert hinge(*case) == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


@given(case=cases())
def test_mean_squared_error_equals_pytorch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    logits, labels = map(torch.from_numpy, case)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    expected = torch.nn.functional.mse_loss(logits, one_hot.double())
    assert mse(*case) == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


@given(case=cases(), gamma=st.floats(0, 5))
def test_focal_loss_is_at_most_cross_entropy_and_equal_for_gamma_0(
    case: Case, gamma: float
) -> None:
    assert focal(*case, 0.0) == pytest.approx(cross_entropy(*case), rel=1e-12, abs=1e-300)
    assert 0 <= focal(*case, gamma) <= cross_entropy(*case) * (1 + 1e-12)


def test_focal_loss_equals_hand_calculation() -> None:
    """Lin et al. 2017 (section 3.2): with γ = 2, p = 0.9 has 1/100 of the cross-entropy."""
    logits = np.log([[0.9, 0.1]])
    assert focal(logits, np.array([0]), 2.0) == pytest.approx(-math.log(0.9) / 100, rel=1e-13)
    assert focal(logits, np.array([1]), 0.5) == pytest.approx(-math.log(0.1) * 0.9**0.5, rel=1e-13)


def test_focal_loss_of_confident_prediction_is_precise() -> None:
    """With p = 1 - q and a small q, the loss is q^γ · q (1 + q/2 + ...)."""
    q = math.exp(-30)
    found = focal(np.array([[30.0, 0.0]]), np.array([0]), 0.5)
    assert found == pytest.approx(q**1.5, rel=1e-12)


def test_cross_entropy_equals_hand_calculation() -> None:
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    expected = -(math.log(0.5) + math.log(0.7)) / 2
    assert cross_entropy(logits, np.array([0, 2])) == pytest.approx(expected, rel=1e-14)


def test_hinge_equals_hand_calculation() -> None:
    """Each wrong class adds max(0, its score - the score of the right class + 1).

    The scores follow the CS231n notes, but the first row has 12.5 instead of 11.
    """
    assert hinge(np.array([[13.0, -7.0, 12.5]]), np.array([0])) == pytest.approx(0.5)
    assert hinge(np.array([[3.2, 5.1, -1.7]]), np.array([0])) == pytest.approx(2.9)
    assert hinge(np.array([[5.0, 0.0, 0.0]]), np.array([0])) == 0.0


@given(case=cases(largest=1e4))
def test_losses_of_large_logits_are_finite(case: Case) -> None:
    with np.errstate(all="raise", under="ignore"):
        assert math.isfinite(cross_entropy(*case))
        assert math.isfinite(hinge(*case))
        assert math.isfinite(mse(*case))
        assert math.isfinite(focal(*case, 2.0))
        assert np.isfinite(softmax(case[0])).all()


def test_cross_entropy_of_largest_logits_equals_hand_calculation() -> None:
    logits = np.array([[1e4, -1e4], [1e4, -1e4]])
    assert cross_entropy(logits, np.array([0, 1])) == 1e4  # (0 + 2e4) / 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_of_diverged_logits_are_not_finite(bad: float) -> None:
    logits, labels = np.array([[0.0, 1.0], [bad, 0.0]], dtype=np.float32), np.array([1, 0])
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        assert not math.isfinite(cross_entropy(logits, labels))
        assert not math.isfinite(hinge(logits, labels))
        assert not math.isfinite(mse(logits, labels))
        assert not math.isfinite(focal(logits, labels, 2.0))


@given(case=cases(), shift=st.floats(-100, 100))
def test_softmax_sums_to_one_and_ignores_shifts(case: Case, shift: float) -> None:
    p = softmax(case[0])
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(softmax(case[0] + shift), p, rtol=1e-9, atol=1e-300)
    assert p.dtype == np.float64


def test_cross_entropy_of_float32_is_summed_in_float64() -> None:
    """A float32 sum of 100,000 equal losses would have an error in the fifth digit."""
    logits = np.zeros((100_000, 10), dtype=np.float32)
    labels = np.zeros(100_000, dtype=np.int64)
    assert cross_entropy(logits, labels) == pytest.approx(math.log(10), rel=1e-13)


def test_accuracy_of_ties_uses_the_first_class() -> None:
    logits = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0], [3.0, 2.0]])
    assert accuracy(logits, np.array([0, 1, 1, 1])) == 0.5


@given(
    classes=st.integers(1, 5),
    data=st.data(),
)
def test_confusion_matrix_counts_pairs_of_label_and_prediction(
    classes: int, data: st.DataObject
) -> None:
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), max_size=20)
    )
    labels, predictions = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    counts = confusion_matrix(labels, predictions.astype(np.uint8), classes)
    assert counts.dtype == np.int64
    assert counts.tolist() == [
        [pairs.count((i, j)) for j in range(classes)] for i in range(classes)
    ]


def test_penalty_equals_hand_calculation() -> None:
    weights = [np.array([[1.0, -2.0]]), np.array([3.0], dtype=np.float32)]
    assert penalty(weights, l1=0.1, l2=0.0) == pytest.approx(0.6)
    assert penalty(weights, l1=0.0, l2=0.1) == pytest.approx(0.7)
    assert penalty(weights, l1=1.0, l2=2.0) == pytest.approx(20.0)
    assert penalty(weights, l1=0.0, l2=0.0) == 0.0
    assert penalty([], l1=1.0, l2=1.0) == 0.0


def test_penalty_is_infinite_only_above_the_range_of_float64() -> None:
    assert penalty([np.array([1e200])], l1=0.0, l2=1.0) == math.inf
    assert penalty([np.array([3e38, 3e38], np.float32)], l1=1.0, l2=0.0) == pytest.approx(6e38)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        *(("train_accuracy", "higher"), ("test_top5_accuracy", "higher")),
        *(("test_macro_f1", "higher"), ("train_loss", "lower")),
        *(("test_calibration_error", "lower"), ("steps_to_target", "lower")),
        *(("epochs_to_target", "lower"), ("seconds_to_target", "lower")),
        *(("generalization_gap", None), ("best_epoch", None), ("steps", None)),
    ],
)
def test_better_direction_of_metrics(metric: str, direction: str | None) -> None:
    assert metric in METRICS
    assert better_direction(metric) == direction

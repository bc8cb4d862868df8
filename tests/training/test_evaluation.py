"""Evaluation: all batches in order, and the configured loss."""

from __future__ import annotations

import numpy as np
import pytest

from nnopt.training.evaluation import evaluate


class Echo:
    """A network whose logits are its inputs."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x


LOGITS = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.5], [1.0, 0.0, 0.2]])
LABELS = np.array([0, 2, 2])


@pytest.mark.parametrize("cuts", [[3], [1, 1, 1], [2, 1]])
def test_loss_and_accuracy_of_evaluation_do_not_depend_on_batch_size(cuts: list[int]) -> None:
    batches = np.split(LOGITS, np.cumsum(cuts)[:-1])
    found = evaluate(Echo(), batches, LABELS, "cross_entropy")  # type: ignore[arg-type]
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(p[[0, 1, 2], LABELS]).mean())
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.logits.tolist() == LOGITS.tolist()


def test_evaluation_of_hinge_equals_hand_calculation() -> None:
    found = evaluate(Echo(), [LOGITS], LABELS, "hinge")  # type: ignore[arg-type]
    # The first sample has no positive margin. The second sample has the margin 2 - 1.5 + 1.
    # The third sample has the margins 1 - 0.2 + 1 and 0 - 0.2 + 1.
    assert found.loss == pytest.approx((0 + 1.5 + 2.6) / 3)

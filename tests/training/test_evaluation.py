"""Evaluation: all batches in order, and the configured loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nnopt.schema import Config
from nnopt.training.evaluation import evaluate


class Echo:
    """A network whose logits are its inputs."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x


MakeConfig = Callable[..., Config]

LOGITS = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.5], [1.0, 0.0, 0.2]])
LABELS = np.array([0, 2, 2])


@pytest.mark.parametrize("cuts", [[3], [1, 1, 1], [2, 1]])
def test_loss_and_accuracy_of_evaluation_do_not_depend_on_batch_size(
    make_config: MakeConfig, cuts: list[int]
) -> None:
    batches = np.split(LOGITS, np.cumsum(cuts)[:-1])
    found = evaluate(Echo(), batches, LABELS, make_config())  # type: ignore[arg-type]
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(p[[0, 1, 2], LABELS]).mean())
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.logits.tolist() == LOGITS.tolist()


def test_evaluation_of_hinge_equals_hand_calculation(make_config: MakeConfig) -> None:
    found = evaluate(Echo(), [LOGITS], LABELS, make_config(loss="hinge"))  # type: ignore[arg-type]
    # The first sample has no positive margin. The second sample has the margin 2 - 1.5 + 1.
    # The third sample has the margins 1 - 0.2 + 1 and 0 - 0.2 + 1.
    assert found.loss == pytest.approx((0 + 1.5 + 2.6) / 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_evaluation_of_mean_squared_error_ignores_smoothing(
    make_config: MakeConfig, smoothing: float
) -> None:
    config = make_config(loss="mse", **{"regularizer.label_smoothing": smoothing})
    found = evaluate(Echo(), [LOGITS], LABELS, config)  # type: ignore[arg-type]
    # The squared distances from the one-hot targets are 4 + 1, 4 + 0.25 and 1 + 0.64.
    assert found.loss == pytest.approx((5 + 4.25 + 1.64) / 9)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_evaluation_of_focal_loss_uses_gamma(make_config: MakeConfig, gamma: float) -> None:
    config = make_config(loss="focal", focal_gamma=gamma)
    found = evaluate(Echo(), [LOGITS], LABELS, config)  # type: ignore[arg-type]
    p = (np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True))[[0, 1, 2], LABELS]
    assert found.loss == pytest.approx(np.mean(-((1 - p) ** gamma) * np.log(p)))

"""The warning about a training accuracy at chance level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config
from nnopt.training.chance import chance_level_warning

TEN = (
    np.arange(10_000) % 10
)  # ten classes of equal size; the accuracy has a standard error of 0.003
SKEWED = np.array([0] * 9_500 + [1] * 500)


def row(accuracy: float, step: int = 500) -> EpochRow:
    values = dict.fromkeys(EpochRow.__dataclass_fields__, 1.0)
    return EpochRow(**{**values, "train_accuracy": accuracy, "step": step})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "accuracy", "is_near"),
    [
        (TEN, 0.1, True),
        (TEN, 0.0, True),
        (TEN, 0.1059, True),
        (TEN, 0.1061, False),
        (TEN, 0.2, False),
        (SKEWED, 0.95, True),
        (SKEWED, 0.96, False),
        (np.zeros(1000, np.int64), 1.0, False),
    ],
)
def test_chance_level_is_the_fraction_of_the_most_frequent_class(
    make_config: Callable[..., Config], labels: np.ndarray, accuracy: float, is_near: bool
) -> None:
    warning = chance_level_warning(make_config(), labels, row(accuracy), 100)
    assert (warning is not None) is is_near


@pytest.mark.parametrize(("step", "steps_per_epoch"), [(99, 10), (499, 500)])
def test_chance_level_after_short_training_gives_no_warning(
    make_config: Callable[..., Config], step: int, steps_per_epoch: int
) -> None:
    assert chance_level_warning(make_config(), TEN, row(0.1, step), steps_per_epoch) is None


def test_chance_level_message_has_numbers_and_advice(make_config: Callable[..., Config]) -> None:
    warning = chance_level_warning(make_config(), TEN, row(0.1), 100)
    assert warning is not None
    for fragment in (
        "0.1000",
        "10,000 samples",
        "optimizer.lr than 0.01",
        "normalization=standard",
    ):
        assert fragment in warning

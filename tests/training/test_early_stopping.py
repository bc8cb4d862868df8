"""Early stopping: improvements of the best value, and the end of patience."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from nnopt.schema import EarlyStoppingConfig
from nnopt.training.early_stopping import EarlyStopping


def stopping(
    patience: int | None = None,
    unit: Literal["epochs", "steps"] = "epochs",
    least: float = 0.0,
    monitor: Literal["loss", "accuracy"] = "loss",
) -> EarlyStopping:
    return EarlyStopping(EarlyStoppingConfig(patience, unit, None, least, monitor))


def updates(follower: EarlyStopping, values: list[float]) -> list[bool]:
    return [follower.update(value, epoch, 10 * epoch) for epoch, value in enumerate(values, 1)]


def test_update_with_smaller_value_is_an_improvement() -> None:
    follower = stopping()
    assert updates(follower, [3, 2, 2, 2.5, 1]) == [True, True, False, False, True]
    assert (follower.best_epoch, follower.best_step) == (5, 50)


def test_monitored_value_depends_on_the_monitor() -> None:
    assert stopping(monitor="loss").monitored_value(0.3, 0.9) == 0.3
    assert stopping(monitor="accuracy").monitored_value(0.3, 0.9) == -0.9


def test_update_measures_min_delta_from_the_best_value() -> None:
    follower = stopping(least=0.1)
    # At first, the best value is 1, and an improvement must be below 0.9.
    # After the improvement to 0.89, the next improvement must be below 0.79.
    assert updates(follower, [1, 0.95, 0.91, 0.89, 0.8]) == [True, False, False, True, False]


def test_update_with_first_value_is_an_improvement() -> None:
    assert updates(stopping(least=10.0), [5, 4]) == [True, False]


@pytest.mark.parametrize("values", [[math.nan, 2, math.nan, 1], [math.nan, math.nan, 5, math.nan]])
def test_update_with_nan_is_no_improvement(values: list[float]) -> None:
    found = updates(stopping(), values)
    assert not any(best for best, value in zip(found, values, strict=True) if math.isnan(value))
    assert any(found)


def test_early_stopping_counts_nan_as_no_improvement() -> None:
    follower = stopping(patience=2)
    updates(follower, [1, math.nan, math.nan])
    assert follower.should_stop(3, 30)


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_early_stopping_without_patience_never_stops(value: float) -> None:
    follower = stopping(None)
    updates(follower, [value] * 5)
    assert not follower.should_stop(10**6, 10**7)


@pytest.mark.parametrize(
    ("unit", "patience", "stop"), [("epochs", 3, (4, 40)), ("steps", 25, (4, 35))]
)
def test_early_stopping_stops_after_patience_in_epochs_or_steps(
    unit: Any, patience: int, stop: Any
) -> None:
    follower = stopping(patience, unit)
    updates(follower, [1.0])  # at epoch 1, step 10
    epoch, step = stop
    assert follower.should_stop(epoch, step)
    assert not follower.should_stop(epoch - 1, step - 1)


def test_patience_counts_from_the_last_improvement() -> None:
    follower = stopping(2)
    updates(follower, [3, 3, 2])
    assert not follower.should_stop(4, 40)
    assert follower.should_stop(5, 50)


def test_update_with_infinity_is_no_improvement() -> None:
    assert updates(stopping(), [math.inf, 5.0, math.inf]) == [False, True, False]

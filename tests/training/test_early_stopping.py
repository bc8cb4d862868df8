"""Early stopping: the best value, the start of the patience and its end."""

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
    mode: Literal["absolute", "relative"] = "absolute",
) -> EarlyStopping:
    return EarlyStopping(EarlyStoppingConfig(patience, unit, None, least, mode, monitor))


def updates(follower: EarlyStopping, values: list[float]) -> list[bool]:
    return [follower.update(value, epoch, 10 * epoch) for epoch, value in enumerate(values, 1)]


def starts(follower: EarlyStopping, values: list[float]) -> list[int]:
    """Return the number of each value, counted from 1, at which the patience starts."""
    found = []
    for epoch, value in enumerate(values, 1):
        follower.update(value, epoch, 10 * epoch)
        if follower.state()["epoch"] == epoch:
            assert follower.state()["step"] == 10 * epoch
            found.append(epoch)
    return found


def test_update_with_smaller_value_is_the_best() -> None:
    assert updates(stopping(), [3, 2, 2, 2.5, 1]) == [True, True, False, False, True]
    assert starts(stopping(), [3, 2, 2, 2.5, 1]) == [1, 2, 5]


def test_monitored_value_depends_on_the_monitor() -> None:
    assert stopping(monitor="loss").monitored_value(0.3, 0.9) == 0.3
    assert stopping(monitor="accuracy").monitored_value(0.3, 0.9) == -0.9


VALUES = [1, 0.95, 0.91, 0.89, 0.8, 0.9, 0.78]


def test_best_value_does_not_depend_on_min_delta() -> None:
    for mode in ("absolute", "relative"):
        found = updates(stopping(least=0.1, mode=mode), VALUES)
        assert found == [True, True, True, True, True, False, True]


def test_patience_starts_again_at_an_improvement_above_min_delta() -> None:
    """The reference is 1 at first, so an improvement must be below 0.9, and after 0.89 below 0.79.

    The improvements to 0.95, 0.91 and 0.8 are smaller, but add up.
    """
    assert starts(stopping(least=0.1), VALUES) == [1, 4, 7]


def test_relative_min_delta_is_a_fraction_of_the_last_improvement() -> None:
    """The first improvement must be below 10 - 1, the next below 8 - 0.8."""
    follower = stopping(least=0.1, mode="relative")
    assert starts(follower, [10, 9.5, 9, 8, 7.3, 7.1]) == [1, 4, 6]


def test_relative_min_delta_of_accuracy_is_a_fraction_of_the_last_improvement() -> None:
    """The accuracy must exceed 0.5 + 0.05, and then 0.6 + 0.06. Monitored values are negative."""
    follower = stopping(least=0.1, mode="relative", monitor="accuracy")
    assert starts(follower, [-0.5, -0.54, -0.6, -0.65, -0.67]) == [1, 3, 5]


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_first_finite_value_starts_the_patience(mode: Any) -> None:
    assert starts(stopping(least=0.9, mode=mode), [math.inf, math.nan, 5, 4.9]) == [3]


def test_training_stops_if_improvements_are_too_small_but_keeps_the_best_value() -> None:
    follower = stopping(patience=3, least=0.01, mode="relative")
    assert updates(follower, [1, 0.999, 0.998, 0.997]) == [True, True, True, True]
    assert follower.should_stop(4, 40)


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

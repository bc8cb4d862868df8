"""The target of a run: the first evaluation that reaches it, in every case in which it counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nnopt.results.metrics_file import EpochRow
from nnopt.schema import TargetConfig
from nnopt.training.target import Target

ROW = EpochRow(1, 10, 0.1, 1.0, 0.5, 1.25, 0.4, 0.0, 2.5, 2.0)


def after(target: Target, *rows: EpochRow) -> Target:
    for number, row in enumerate(rows):
        target.after_epoch(row, rows[:number])
    return target


def epochs(**columns: list[float]) -> list[EpochRow]:
    """Return rows of epochs of 10 steps and 2 seconds with these values of columns."""
    values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [
        replace(ROW, epoch=number, step=10 * number, **row)
        for number, row in enumerate(values, start=1)
    ]


@pytest.mark.parametrize("metric", ["validation_accuracy", "train_accuracy"])
def test_accuracy_reaches_target_at_the_first_value_that_is_at_least_the_target(
    metric: str,
) -> None:
    target = Target(TargetConfig(metric, 0.75))  # type: ignore[arg-type]
    assert target.is_reached is False
    after(target, *epochs(**{metric: [0.5, 0.749, 0.75, 0.6, 0.9]}))
    assert (target.is_reached, target.step, target.seconds) == (True, 30, 6.0)


@pytest.mark.parametrize("metric", ["validation_loss", "train_loss"])
def test_loss_reaches_target_at_the_first_value_that_is_at_most_the_target(metric: str) -> None:
    target = Target(TargetConfig(metric, 0.5))  # type: ignore[arg-type]
    after(target, *epochs(**{metric: [0.9, 0.5000001, 0.5, 0.6]}))
    assert (target.is_reached, target.step, target.seconds) == (True, 30, 6.0)


def test_target_that_is_not_reached_differs_from_no_target() -> None:
    missed = after(Target(TargetConfig("train_accuracy", 0.75)), ROW)
    without = after(Target(TargetConfig(None, None)), ROW)
    assert (missed.is_reached, missed.step, missed.seconds) == (False, None, None)
    assert (without.is_reached, without.step, without.seconds) == (None, None, None)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_accuracy_with_non_finite_loss_does_not_reach_target(loss: float) -> None:
    target = Target(TargetConfig("validation_accuracy", 0.1))
    after(target, replace(ROW, validation_loss=loss), replace(ROW, epoch=2, step=20))
    assert target.step == 20


def test_evaluation_within_an_epoch_reaches_target_of_validation_only() -> None:
    found = []
    for metric in ("validation_loss", "train_loss"):
        target = Target(TargetConfig(metric, 1.25))  # type: ignore[arg-type]
        target.within_epoch(1.0, 0.5, 4, [replace(ROW, seconds=2.5)], 0.75)
        found.append((target.step, target.seconds))
    assert found == [(4, 3.25), (None, None)]


def test_evaluation_that_misses_target_reads_no_earlier_rows() -> None:
    """The time of an evaluation does not depend on the number of epochs before it."""

    class Unreadable(list[EpochRow]):
        def __iter__(self) -> Iterator[EpochRow]:
            raise AssertionError("the rows are read")

    for config in (TargetConfig(None, None), TargetConfig("validation_loss", 1e-9)):
        target = Target(config)
        target.after_epoch(ROW, Unreadable())
        target.within_epoch(1.0, 0.5, 4, Unreadable(), 0.75)
        assert target.step is None


def test_epoch_without_validation_does_not_reach_target_of_validation() -> None:
    row = replace(ROW, validation_loss=None, validation_accuracy=None)
    assert after(Target(TargetConfig("validation_loss", 9.0)), row).step is None


def test_restored_target_equals_saved_target() -> None:
    config = TargetConfig("train_loss", 2.0)
    saved, restored = after(Target(config), ROW), Target(config)
    restored.load_state(saved.state())
    assert after(restored, replace(ROW, epoch=2, step=20)).state() == {"step": 10, "seconds": 2.0}

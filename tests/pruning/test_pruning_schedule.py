"""The steps of prunings and their sparsities, compared with the published formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pruning_cases import WEIGHT_PRUNING

from nnopt.pruning.schedule import (
    Pruning,
    gradual_sparsity,
    iterative_sparsity,
    prunings,
    schedule_problems,
)
from nnopt.schema import NoPruningConfig, WeightPruningConfig


def make(**changes: Any) -> WeightPruningConfig:
    return replace(WEIGHT_PRUNING, **changes)


def test_no_pruning_has_no_prunings() -> None:
    assert prunings(NoPruningConfig("none"), 10, 7) == ()


@pytest.mark.parametrize(("start", "step"), [(None, 35), (0, 0), (0.5, 4), (9.9, 69)])
def test_one_shot_schedule_prunes_once(start: float | None, step: int) -> None:
    assert prunings(make(start=start), 10, 7) == (Pruning(step, 0.8),)


def test_iterative_schedule_keeps_the_same_fraction_in_each_round() -> None:
    """Frankle and Carbin 2019 keep 80 % of the weights in each round: 80, 64, 51.2, ... %."""
    config = make(schedule="iterative", sparsity=1 - 0.8**3, start=2, interval=3, rounds=3)
    found = prunings(config, 10, 100)
    assert [x.step for x in found] == [200, 500, 800]
    assert [1 - x.sparsity for x in found] == pytest.approx([0.8, 0.64, 0.512])
    assert found[-1].sparsity == config.sparsity


def test_iterative_schedule_by_default_repeats_the_first_training() -> None:
    found = prunings(make(schedule="iterative", start=2), 8, 10)
    assert [x.step for x in found] == [20, 40, 60]


def test_gradual_schedule_follows_the_cubic_of_zhu_and_gupta() -> None:
    found = prunings(make(schedule="gradual", start=1, end=5, interval=1), 10, 10)
    assert [x.step for x in found] == [20, 30, 40, 50]
    expected = [0.8 + (0 - 0.8) * (1 - (t - 10) / (4 * 10)) ** 3 for t in (20, 30, 40, 50)]
    assert [x.sparsity for x in found] == pytest.approx(expected)
    assert found[-1].sparsity == 0.8


def test_gradual_schedule_with_prunings_at_the_same_step_performs_the_last() -> None:
    found = prunings(make(schedule="gradual", start=0, end=1, interval=0.1), 4, 5)
    assert [x.step for x in found] == sorted({round(k * 0.5) for k in range(1, 11)})
    assert found[-1] == Pruning(5, 0.8)


def test_sparsity_formulas_at_their_ends() -> None:
    assert gradual_sparsity(0.9, 0) == 0
    assert gradual_sparsity(0.9, 1) == 0.9
    assert iterative_sparsity(0.9, 0, 5) == 0
    assert iterative_sparsity(0.9, 5, 5) == 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 10}, "leaves no step of the 10 epochs"),
        ({"start": 12, "schedule": "iterative"}, "the last pruning, after 12 epochs"),
        ({"schedule": "gradual", "start": 5, "end": 4}, "pruning.end = 4 is not after"),
        ({"schedule": "gradual", "start": 1, "end": 2, "interval": 3}, "set at most 1"),
        ({"schedule": "iterative", "start": 2, "interval": 3, "rounds": 4}, "the last pruning"),
        ({"end": 3}, "pruning.end = 3 has no effect with pruning.schedule = 'one_shot'"),
        ({"schedule": "gradual", "rounds": 3}, "pruning.rounds = 3 has no effect"),
        ({"start": 2, "rewind": 3}, "pruning.rewind = 3 is after pruning.start = 2"),
        ({"start": 2, "rewind_schedule": True}, "so 2 epochs must follow each pruning, not 8"),
        (
            {"start": 4, "rewind": 2, "rewind_schedule": True},
            "from epoch 2 to epoch 4 after each pruning, so 2 epochs must follow",
        ),
        ({"start": 0, "rewind_schedule": True}, "so 0 epochs must follow each pruning, not 10"),
        (
            {"schedule": "iterative", "start": 2, "interval": 3, "rewind_schedule": True},
            "so 2 epochs must follow each pruning, not 3, 2",
        ),
        ({"schedule": "iterative", "start": 2, "interval": 0.1}, "shorter than a step; set at"),
        ({"schedule": "gradual", "start": 2, "interval": 1e-9}, "at least 0.143"),
        ({"gradient_batches": 3}, "has no effect with pruning.name = 'magnitude'"),
        ({"name": "random", "control": "random_mask"}, "has no effect with pruning.name = 'ran"),
        (
            {"schedule": "gradual", "start": 2, "control": "random_mask"},
            "would keep weights that an earlier pruning has set to zero",
        ),
    ],
)
def test_impossible_schedule_is_refused(changes: dict[str, Any], message: str) -> None:
    problems = list(schedule_problems(make(**changes), 10, 7, 70))
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize("schedule", ["one_shot", "iterative", "gradual"])
def test_default_schedule_is_accepted(schedule: str) -> None:
    for epochs in (2, 3, 10, 60):
        assert list(schedule_problems(make(schedule=schedule), epochs, 9, 9 * epochs)) == []


def test_pruning_after_a_shorter_last_epoch_is_refused() -> None:
    """With 7 steps an epoch, 10 steps are 1.43 epochs. A pruning takes place before a step."""
    (problem,) = schedule_problems(make(start=1.5), 2, 7, 10)
    assert "after 1.5 epochs, leaves no step of the 1.42857 epochs" in problem
    assert list(schedule_problems(make(start=1.3), 2, 7, 10)) == []


def test_repeated_schedule_needs_phases_of_equal_length() -> None:
    """The default start is half of the epochs."""
    for changes in (
        {},
        {"rewind": "initial"},
        {"start": 6, "rewind": 2},
        {"schedule": "iterative", "start": 2, "rewind": "initial"},
    ):
        assert list(schedule_problems(make(rewind_schedule=True, **changes), 10, 7, 70)) == []

"""Learning-rate schedules: formulas, warm-up, bounds."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnopt import schema
from nnopt.schema import ScheduleVariant
from nnopt.training.schedules import (
    Plateau,
    Schedule,
    build_schedule,
    schedule_notes,
    schedule_problems,
)

LR, PER_EPOCH, STEPS = 0.2, 7, 70


def learning_rates(schedule: Schedule, steps: int) -> NDArray[np.float64]:
    return np.array([schedule(step) for step in range(steps)])


def rates(config: ScheduleVariant, per_epoch: int = PER_EPOCH, steps: int = STEPS) -> np.ndarray:
    return learning_rates(build_schedule(config, LR, per_epoch, steps), steps)


def epochs(steps: int = STEPS) -> np.ndarray:
    return np.arange(steps) / PER_EPOCH


def test_constant_schedule_keeps_the_learning_rate() -> None:
    assert set(rates(schema.ConstantConfig("constant", 0))) == {LR}


def test_step_schedule_equals_formula() -> None:
    found = rates(schema.StepConfig("step", 0, 3, 0.5))
    assert found == pytest.approx(LR * 0.5 ** np.floor(epochs() / 3))
    assert len(set(found)) == 4


@pytest.mark.parametrize("per_epoch", [3, 7, 10, 49, 469])
@pytest.mark.parametrize("tenths", [1, 3, 7, 12])
def test_step_schedule_of_fractional_epochs_is_exact(per_epoch: int, tenths: int) -> None:
    """Three intervals of 0.1 epochs end after 0.3 epochs.

    In floating point, however, 0.3 / 0.1 is 2.9999999999999996.
    """
    actual = rates(schema.StepConfig("step", 0, tenths / 10, 0.5), per_epoch, 5 * per_epoch)
    expected = [LR * 0.5 ** (10 * step // (tenths * per_epoch)) for step in range(5 * per_epoch)]
    assert actual == pytest.approx(expected)


def test_exponential_schedule_equals_formula() -> None:
    found = rates(schema.ExponentialConfig("exponential", 0, 0.9))
    assert found == pytest.approx(LR * 0.9 ** epochs())


def test_inverse_time_schedule_equals_formula() -> None:
    found = rates(schema.InverseTimeConfig("inverse_time", 0, 0.3))
    assert found == pytest.approx(LR / (1 + 0.3 * epochs()))


def test_cosine_schedule_equals_formula() -> None:
    found = rates(schema.CosineConfig("cosine", 0, 0.1))
    share = np.arange(STEPS) / STEPS
    assert found == pytest.approx(LR * (0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2))
    assert found[0] == LR


def test_multistep_schedule_equals_formula() -> None:
    found = rates(schema.MultistepConfig("multistep", 0, (2.0, 2.5, 7.0), 0.1))
    passed = sum((epochs() >= milestone - 1e-9).astype(int) for milestone in (2.0, 2.5, 7.0))
    assert found == pytest.approx(LR * 0.1**passed)
    assert len(set(found)) == 4


@pytest.mark.parametrize("per_epoch", [3, 6, 21, 468])
def test_multistep_schedule_accepts_milestones_rounded_to_eleven_digits(per_epoch: int) -> None:
    config = schema.MultistepConfig("multistep", 0, (0.33333333333, 0.66666666667), 0.5)
    actual = rates(config, per_epoch, per_epoch)
    assert actual == pytest.approx([LR * 0.5 ** (3 * x // per_epoch) for x in range(per_epoch)])


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_polynomial_schedule_equals_formula(power: float) -> None:
    found = rates(schema.PolynomialConfig("polynomial", 0, power, 0.1))
    rest = 1 - np.arange(STEPS) / STEPS
    assert found == pytest.approx(LR * (0.1 + 0.9 * rest**power))


@pytest.mark.parametrize(
    ("first", "factor", "starts"),
    [
        (2, 1, [0, 2, 4, 6, 8, 10]),
        (1, 2, [0, 1, 3, 7, 15]),
        (0.4, 1.5, [0, 0.4, 1.0, 1.9, 3.25, 5.275, 8.3125, 12.86875]),
        (1, 1 + 1e-12, range(11)),
        (10, 2, [0, 10]),
        (1000, 7, [0, 1000]),
    ],
)
def test_cosine_restarts_schedule_equals_formula(
    first: float, factor: float, starts: list[float]
) -> None:
    found = rates(schema.CosineRestartsConfig("cosine_restarts", 0, first, factor, 0.1))
    for lr, t in zip(found, epochs(), strict=True):
        number = max(n for n, start in enumerate(starts) if start <= t + 1e-9)
        share = (t - starts[number]) / (first * factor**number)
        assert lr == pytest.approx(LR * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2), rel=1e-6)


@pytest.mark.parametrize("per_epoch", [3, 7, 10, 49, 469])
@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 3.0])
def test_cosine_restarts_return_to_lr_at_the_exact_step(per_epoch: int, factor: float) -> None:
    config = schema.CosineRestartsConfig("cosine_restarts", 0, 2.0, factor, 0.0)
    found = rates(config, per_epoch, 60 * per_epoch)
    step, period = 0.0, 2.0 * per_epoch
    while step < len(found):
        if step.is_integer():
            assert found[int(step)] == pytest.approx(LR, rel=1e-12)
        if step and (step - 1).is_integer():
            assert found[int(step) - 1] < LR / 2
        step, period = step + period, period * factor


def test_one_cycle_schedule_rises_and_falls() -> None:
    found = rates(schema.OneCycleConfig("one_cycle", 0, 0.3, 0.04, 0.001))
    peak = int(found.argmax())
    assert peak == 0.3 * STEPS - 1
    assert found[peak] == pytest.approx(LR)
    assert found[0] == pytest.approx(0.04 * LR)
    assert found[-1] == pytest.approx(0.001 * LR)
    assert (np.diff(found[: peak + 1]) > 0).all()
    assert (np.diff(found[peak:]) < 0).all()


SCHEDULES: list[ScheduleVariant] = [
    schema.ConstantConfig("constant", 0),
    schema.StepConfig("step", 0, 2, 0.5),
    schema.ExponentialConfig("exponential", 0, 0.9),
    schema.InverseTimeConfig("inverse_time", 0, 0.3),
    schema.MultistepConfig("multistep", 0, (1.0, 4.0), 0.1),
    schema.PolynomialConfig("polynomial", 0, 2.0, 0.1),
    schema.CosineConfig("cosine", 0, 0.1),
    schema.CosineRestartsConfig("cosine_restarts", 0, 1.0, 2.0, 0.1),
    schema.OneCycleConfig("one_cycle", 0, 0.3, 0.04, 0.001),
    schema.PlateauConfig("plateau", 0, 2, 0.5, 0.0, "absolute"),
]


@pytest.mark.parametrize("config", SCHEDULES, ids=lambda config: config.name)
@pytest.mark.parametrize("warmup", [2, 1.5, 1 / PER_EPOCH])
def test_warmup_rises_linearly_before_the_schedule(config: ScheduleVariant, warmup: float) -> None:
    count = round(warmup * PER_EPOCH)
    warmed = type(config)(**{**vars(config), "warmup_epochs": warmup})
    found = rates(warmed)
    assert found[:count] == pytest.approx(LR * np.arange(1, count + 1) / count)
    assert found[count - 1] == LR
    assert found[count:] == pytest.approx(rates(config, steps=STEPS - count))


def test_warmup_can_last_the_whole_training() -> None:
    found = rates(schema.CosineConfig("cosine", 10, 0.1))
    assert found == pytest.approx(LR * np.arange(1, STEPS + 1) / STEPS)


shares = st.floats(0, 1)
open_shares = st.floats(1e-6, 1 - 1e-6)
warmups = st.floats(0, 3)
SCHEDULE_STRATEGY = st.one_of(
    st.builds(schema.ConstantConfig, st.just("constant"), warmups),
    st.builds(schema.StepConfig, st.just("step"), warmups, st.floats(1e-3, 20), st.floats(1e-9, 1)),
    st.builds(schema.ExponentialConfig, st.just("exponential"), warmups, st.floats(1e-300, 1)),
    st.builds(schema.InverseTimeConfig, st.just("inverse_time"), warmups, st.floats(0, 1e300)),
    st.builds(schema.CosineConfig, st.just("cosine"), warmups, shares),
    st.builds(
        schema.OneCycleConfig,
        st.just("one_cycle"),
        warmups,
        open_shares,
        st.floats(1e-9, 1),
        shares,
    ),
    st.builds(
        schema.PlateauConfig,
        st.just("plateau"),
        warmups,
        st.just(1),
        st.just(0.5),
        st.just(0.0),
        st.just("absolute"),
    ),
    st.builds(
        schema.MultistepConfig,
        st.just("multistep"),
        warmups,
        st.lists(st.floats(1e-3, 20), min_size=1, unique=True).map(sorted).map(tuple),
        st.floats(1e-9, 1),
    ),
    st.builds(
        schema.PolynomialConfig, st.just("polynomial"), warmups, st.floats(1e-3, 100), shares
    ),
    st.builds(
        schema.CosineRestartsConfig,
        st.just("cosine_restarts"),
        warmups,
        st.floats(1e-3, 100),
        st.one_of(st.just(1.0), st.floats(1, 1 + 1e-9), st.floats(1, 1000)),
        shares,
    ),
)


@given(
    config=SCHEDULE_STRATEGY,
    lr=st.floats(0, 1e6),
    per_epoch=st.integers(1, 30),
    steps=st.integers(1, 90),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_schedule_rates_are_between_zero_and_lr(
    config: ScheduleVariant, lr: float, per_epoch: int, steps: int
) -> None:
    found = learning_rates(build_schedule(config, lr, per_epoch, steps), steps)
    assert found.shape == (steps,)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= lr * (1 + 1e-12)).all()


def plateau(
    patience: int = 2, min_delta: float = 0.0, mode: Literal["absolute", "relative"] = "absolute"
) -> Plateau:
    return Plateau(schema.PlateauConfig("plateau", 0, patience, 0.5, min_delta, mode))


def factors(follower: Plateau, values: list[float]) -> list[float]:
    found = []
    for value in values:
        follower.update(value)
        found.append(follower.factor)
    return found


def test_plateau_reduces_rate_after_patience_and_restarts_count() -> None:
    assert factors(plateau(), [1, 1, 1, 1, 1, 1, 1]) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert factors(plateau(), [4, 3, 3, 3, 2, 2, 2, 2]) == [1] * 7 + [0.5]


def test_plateau_with_patience_zero_reduces_rate_immediately() -> None:
    assert factors(plateau(0), [1, 1, 0.5, 0.7]) == [1, 0.5, 0.5, 0.25]


def test_plateau_counts_change_below_min_delta_as_no_improvement() -> None:
    assert factors(plateau(0, 0.1), [1, 0.95, 0.85]) == [1, 0.5, 0.5]


def test_plateau_with_relative_min_delta_needs_a_fraction_of_the_best_value() -> None:
    assert factors(plateau(0, 0.1, "relative"), [10, 9.1, 8.9]) == [1, 0.5, 0.5]
    assert factors(plateau(0, 0.1, "relative"), [-0.5, -0.54, -0.56]) == [1, 0.5, 0.5]


def test_plateau_counts_nan_as_no_improvement() -> None:
    assert factors(plateau(1), [math.nan, math.nan, 1.0, math.nan, math.nan]) == [
        1,
        0.5,
        0.5,
        0.5,
        0.25,
    ]


def test_plateau_factor_of_other_schedules_is_one() -> None:
    follower = Plateau(schema.ConstantConfig("constant", 0))
    assert factors(follower, [1.0] * 50) == [1.0] * 50


def notes(config: ScheduleVariant, epochs: int) -> list[str]:
    return list(schedule_notes(config, PER_EPOCH, epochs * PER_EPOCH))


def test_note_about_cosine_restarts_reports_only_an_incomplete_last_period() -> None:
    config = schema.CosineRestartsConfig("cosine_restarts", 0, 20.0, 2.0, 0.0)
    assert notes(config, 20) == notes(config, 60) == notes(config, 140) == []
    (note,) = notes(config, 40)
    assert "is incomplete: 50% of it has passed when the schedule ends after 40 epochs" in note


def test_note_about_milestones_reports_those_after_the_end() -> None:
    config = schema.MultistepConfig("multistep", 0, (30.0, 45.0), 0.1)
    assert notes(config, 46) == []
    (note,) = notes(config, 45)
    assert "the milestone 45 in schedule.milestones has no effect" in note
    (note,) = notes(config, 1)
    assert note.endswith("the schedule lasts 1 epoch")


@pytest.mark.parametrize(
    "config",
    [
        schema.MultistepConfig("multistep", 0, (30.0, 45.0), 0.1),
        schema.CosineRestartsConfig("cosine_restarts", 0, 20.0, 2.0, 0.0),
    ],
)
def test_long_schedule_is_accepted_only_by_a_training_of_at_most_one_epoch(
    config: ScheduleVariant,
) -> None:
    assert list(schedule_problems(config, PER_EPOCH, PER_EPOCH)) == []
    assert len(list(schedule_problems(config, PER_EPOCH, 2 * PER_EPOCH))) == 1


def test_periods_of_one_step_are_refused() -> None:
    config = schema.CosineRestartsConfig("cosine_restarts", 0, 1 / PER_EPOCH, 1.0, 0.0)
    (problem,) = schedule_problems(config, PER_EPOCH, STEPS)
    assert "the learning rate is constant" in problem

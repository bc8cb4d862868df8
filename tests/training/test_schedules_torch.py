"""Learning rates of every step, compared with torch.optim.lr_scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.optim import lr_scheduler

from nnopt import schema
from nnopt.schema import ScheduleVariant
from nnopt.training.schedules import Plateau, Schedule, build_schedule

LR, PER_EPOCH, STEPS = 0.2, 7, 70

Build = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def learning_rates(schedule: Schedule, steps: int) -> NDArray[np.float64]:
    return np.array([schedule(step) for step in range(steps)])


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], LR)


def rates_of_torch(build: Build) -> list[float]:
    stepped = optimizer()
    schedule = build(stepped)
    found = []
    for step in range(STEPS):
        found.append(stepped.param_groups[0]["lr"])
        stepped.step()
        if step < STEPS - 1:
            schedule.step()
    return found


CASES: dict[str, tuple[ScheduleVariant, Build]] = {
    "step": (
        schema.StepConfig("step", 0, 3, 0.3),
        lambda o: lr_scheduler.StepLR(o, 3 * PER_EPOCH, 0.3),
    ),
    "exponential": (
        schema.ExponentialConfig("exponential", 0, 0.8),
        lambda o: lr_scheduler.ExponentialLR(o, 0.8 ** (1 / PER_EPOCH)),
    ),
    "multistep": (
        schema.MultistepConfig("multistep", 0, (2.0, 3.0, 8.0), 0.3),
        lambda o: lr_scheduler.MultiStepLR(o, [2 * PER_EPOCH, 3 * PER_EPOCH, 8 * PER_EPOCH], 0.3),
    ),
    "multistep after a warm-up": (
        schema.MultistepConfig("multistep", 2, (3.0,), 0.1),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 1 / (2 * PER_EPOCH), 1.0, 2 * PER_EPOCH - 1),
                lr_scheduler.MultiStepLR(o, [3 * PER_EPOCH], 0.1),
            ],
            [2 * PER_EPOCH],
        ),
    ),
    "linear": (
        schema.PolynomialConfig("polynomial", 0, 1.0, 0.0),
        lambda o: lr_scheduler.PolynomialLR(o, STEPS),
    ),
    "polynomial": (
        schema.PolynomialConfig("polynomial", 0, 2.5, 0.0),
        lambda o: lr_scheduler.PolynomialLR(o, STEPS, 2.5),
    ),
    "cosine restarts": (
        schema.CosineRestartsConfig("cosine_restarts", 0, 1.0, 1.0, 0.1),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, PER_EPOCH, 1, 0.1 * LR),
    ),
    "cosine restarts, longer periods": (
        schema.CosineRestartsConfig("cosine_restarts", 0, 1.0, 2.0, 0.0),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, PER_EPOCH, 2),
    ),
    "cosine restarts, first period of a fraction": (
        schema.CosineRestartsConfig("cosine_restarts", 0, 3 / PER_EPOCH, 3.0, 0.2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 3, 0.2 * LR),
    ),
    "cosine": (
        schema.CosineConfig("cosine", 0, 0.0),
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    ),
    "cosine with an end": (
        schema.CosineConfig("cosine", 0, 0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.1 * LR),
    ),
    "one cycle": (
        schema.OneCycleConfig("one_cycle", 0, 0.3, 0.04, 4e-6),
        lambda o: lr_scheduler.OneCycleLR(o, LR, STEPS, cycle_momentum=False),
    ),
    "one cycle, other shape": (
        schema.OneCycleConfig("one_cycle", 0, 0.45, 0.2, 0.01),
        lambda o: lr_scheduler.OneCycleLR(
            o,
            LR,
            STEPS,
            pct_start=0.45,
            div_factor=5,
            final_div_factor=20,
            cycle_momentum=False,
        ),
    ),
    "cosine after a warm-up": (
        schema.CosineConfig("cosine", 2, 0.0),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 1 / (2 * PER_EPOCH), 1.0, 2 * PER_EPOCH - 1),
                lr_scheduler.CosineAnnealingLR(o, STEPS - 2 * PER_EPOCH),
            ],
            [2 * PER_EPOCH],
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_schedules_equal_pytorch(name: str) -> None:
    config, build = CASES[name]
    ours = learning_rates(build_schedule(config, LR, PER_EPOCH, STEPS), STEPS)
    assert ours == pytest.approx(rates_of_torch(build), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("least", [0.0, 0.05])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
@pytest.mark.parametrize("sign", [1, -1], ids=["loss", "accuracy"])
def test_plateau_equals_pytorch(
    patience: int, least: float, mode: Literal["absolute", "relative"], sign: int
) -> None:
    """A monitored accuracy has a negative sign, so that lower is better."""
    stepped = optimizer()
    theirs = lr_scheduler.ReduceLROnPlateau(
        stepped,
        mode="min" if sign == 1 else "max",
        factor=0.5,
        patience=patience,
        threshold=least,
        threshold_mode="abs" if mode == "absolute" else "rel",
        eps=0,
    )
    ours = Plateau(schema.PlateauConfig("plateau", 0, patience, 0.5, least, mode))
    rng = np.random.default_rng(0)
    values = 1.5 + sign / np.arange(1, 41) + 0.1 * rng.standard_normal(40)
    values[[5, 6, 20]] = np.nan
    for value in values:
        ours.update(sign * float(value))
        theirs.step(float(value))
        assert LR * ours.factor == pytest.approx(stepped.param_groups[0]["lr"], rel=1e-12)
    assert ours.factor < 1

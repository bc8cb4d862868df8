"""A schedule: the learning rate decays with the inverse square root of the time in epochs."""

import math
from dataclasses import dataclass
from typing import Annotated

from nnopt import Range, Registry, ScheduleConfig


@dataclass(frozen=True)
class InverseSquareRootConfig(ScheduleConfig):
    """The key of the schedule, in addition to ``schedule.warmup_epochs``."""

    decay_rate: Annotated[float, Range(minimum=0)] = 1.0


def factor(config: InverseSquareRootConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    return 1 / math.sqrt(1 + config.decay_rate * step / steps_per_epoch)


def register(registry: Registry) -> None:
    registry.schedule("inverse_square_root", InverseSquareRootConfig, factor)

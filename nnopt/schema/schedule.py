"""The keys of ``conf/schedule/``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range


@dataclass(frozen=True)
class ScheduleConfig:
    """The keys of every schedule. The warm-up precedes the schedule."""

    name: str
    warmup_epochs: Annotated[float, Range(minimum=0)]


@dataclass(frozen=True)
class ConstantConfig(ScheduleConfig):
    """A constant learning rate."""

    name: Literal["constant"]


@dataclass(frozen=True)
class StepConfig(ScheduleConfig):
    """The learning rate is multiplied by ``gamma`` every ``step_size`` epochs."""

    name: Literal["step"]
    step_size: Annotated[float, Range(above=0)]
    gamma: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class MultistepConfig(ScheduleConfig):
    """The learning rate is multiplied by ``gamma`` at each of ``milestones``, in epochs."""

    name: Literal["multistep"]
    milestones: Annotated[tuple[float, ...], Range(above=0)]
    gamma: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class ExponentialConfig(ScheduleConfig):
    """``lr(t) = lr * gamma^t``, with the time t in epochs."""

    name: Literal["exponential"]
    gamma: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class InverseTimeConfig(ScheduleConfig):
    """``lr(t) = lr / (1 + decay_rate * t)``, with the time t in epochs."""

    name: Literal["inverse_time"]
    decay_rate: Annotated[float, Range(minimum=0)]


@dataclass(frozen=True)
class PolynomialConfig(ScheduleConfig):
    """A power of the remaining time, from ``lr`` to ``final_factor * lr``."""

    name: Literal["polynomial"]
    power: Annotated[float, Range(above=0, maximum=100)]
    final_factor: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class CosineConfig(ScheduleConfig):
    """A cosine from ``lr`` to ``final_factor * lr``."""

    name: Literal["cosine"]
    final_factor: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class CosineRestartsConfig(ScheduleConfig):
    """Cosines from ``lr`` to ``final_factor * lr``.

    Each period is ``period_factor`` times as long as the previous one.
    """

    name: Literal["cosine_restarts"]
    first_period: Annotated[float, Range(above=0)]  # in epochs
    period_factor: Annotated[float, Range(minimum=1, maximum=1000)]
    final_factor: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class OneCycleConfig(ScheduleConfig):
    """A cosine from ``initial_factor * lr`` to ``lr``, then to ``final_factor * lr``."""

    name: Literal["one_cycle"]
    pct_start: Annotated[float, Range(above=0, below=1)]
    initial_factor: Annotated[float, Range(above=0, maximum=1)]
    final_factor: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class PlateauConfig(ScheduleConfig):
    """The rate is multiplied by ``gamma`` after more than ``patience`` epochs without progress.

    In the mode ``relative``, ``min_delta`` is a fraction of the best value.
    """

    name: Literal["plateau"]
    patience: Annotated[int, Range(minimum=0)]
    gamma: Annotated[float, Range(above=0, below=1)]
    min_delta: Annotated[float, Range(minimum=0)]
    min_delta_mode: Literal["absolute", "relative"]


ScheduleVariant = (
    ConstantConfig
    | StepConfig
    | MultistepConfig
    | ExponentialConfig
    | InverseTimeConfig
    | PolynomialConfig
    | CosineConfig
    | CosineRestartsConfig
    | OneCycleConfig
    | PlateauConfig
)

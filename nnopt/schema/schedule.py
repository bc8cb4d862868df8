"""``conf/schedule/``: the course of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    warmup_epochs: Annotated[float, Range(minimum=0)]


@dataclass(frozen=True)
class StepConfig:
    name: Literal["step"]
    warmup_epochs: Annotated[float, Range(minimum=0)]
    step_size: Annotated[float, Range(above=0)]
    gamma: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class ExponentialConfig:
    name: Literal["exponential"]
    warmup_epochs: Annotated[float, Range(minimum=0)]
    gamma: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class InverseTimeConfig:
    name: Literal["inverse_time"]
    warmup_epochs: Annotated[float, Range(minimum=0)]
    decay_rate: Annotated[float, Range(minimum=0)]


@dataclass(frozen=True)
class CosineConfig:
    name: Literal["cosine"]
    warmup_epochs: Annotated[float, Range(minimum=0)]
    final_factor: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class OneCycleConfig:
    name: Literal["one_cycle"]
    warmup_epochs: Annotated[float, Range(minimum=0)]
    pct_start: Annotated[float, Range(above=0, below=1)]
    initial_factor: Annotated[float, Range(above=0, maximum=1)]
    final_factor: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class PlateauConfig:
    name: Literal["plateau"]
    warmup_epochs: Annotated[float, Range(minimum=0)]
    patience: Annotated[int, Range(minimum=0)]
    gamma: Annotated[float, Range(above=0, below=1)]
    min_delta: Annotated[float, Range(minimum=0)]


ScheduleVariant = (
    ConstantConfig
    | StepConfig
    | ExponentialConfig
    | InverseTimeConfig
    | CosineConfig
    | OneCycleConfig
    | PlateauConfig
)

SCHEDULES: Mapping[str, type] = {
    "constant": ConstantConfig,
    "step": StepConfig,
    "exponential": ExponentialConfig,
    "inverse_time": InverseTimeConfig,
    "cosine": CosineConfig,
    "one_cycle": OneCycleConfig,
    "plateau": PlateauConfig,
}
"""Value of ``name`` -> the dataclass of its keys."""

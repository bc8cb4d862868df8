"""``conf/schedule/``: the course of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    warmup: Annotated[float, Range(minimum=0)]


@dataclass(frozen=True)
class StepConfig:
    name: Literal["step"]
    warmup: Annotated[float, Range(minimum=0)]
    every: Annotated[float, Range(above=0)]
    factor: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class ExponentialConfig:
    name: Literal["exponential"]
    warmup: Annotated[float, Range(minimum=0)]
    factor: Annotated[float, Range(above=0, maximum=1)]


@dataclass(frozen=True)
class InverseTimeConfig:
    name: Literal["inverse_time"]
    warmup: Annotated[float, Range(minimum=0)]
    rate: Annotated[float, Range(minimum=0)]


@dataclass(frozen=True)
class CosineConfig:
    name: Literal["cosine"]
    warmup: Annotated[float, Range(minimum=0)]
    final: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class OneCycleConfig:
    name: Literal["one_cycle"]
    warmup: Annotated[float, Range(minimum=0)]
    rise: Annotated[float, Range(above=0, below=1)]
    start: Annotated[float, Range(above=0, maximum=1)]
    final: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class PlateauConfig:
    name: Literal["plateau"]
    warmup: Annotated[float, Range(minimum=0)]
    patience: Annotated[int, Range(minimum=0)]
    factor: Annotated[float, Range(above=0, below=1)]
    min_improvement: Annotated[float, Range(minimum=0)]


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

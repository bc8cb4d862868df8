"""``conf/optimizer/``: the rules of an update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range

LearningRate = Annotated[float | Literal["auto"], Range(minimum=0)]
"""auto: found before training, by ``nnopt.recipe.auto_lr``."""


@dataclass(frozen=True)
class SgdConfig:
    name: Literal["sgd"]
    lr: LearningRate


@dataclass(frozen=True)
class MomentumConfig:
    name: Literal["momentum", "nesterov"]
    lr: LearningRate
    momentum: Annotated[float, Range(minimum=0, below=1)]


@dataclass(frozen=True)
class RmspropConfig:
    name: Literal["rmsprop"]
    lr: LearningRate
    rho: Annotated[float, Range(minimum=0, below=1)]
    epsilon: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class AdagradConfig:
    name: Literal["adagrad"]
    lr: LearningRate
    epsilon: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class AdamConfig:
    name: Literal["adam", "adamw"]
    lr: LearningRate
    beta1: Annotated[float, Range(minimum=0, below=1)]
    beta2: Annotated[float, Range(minimum=0, below=1)]
    epsilon: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class LionConfig:
    name: Literal["lion"]
    lr: LearningRate
    beta1: Annotated[float, Range(minimum=0, below=1)]
    beta2: Annotated[float, Range(minimum=0, below=1)]


@dataclass(frozen=True)
class MuonConfig:
    """The betas and epsilon are those of Adam, for the parameters that Muon is not made for."""

    name: Literal["muon"]
    lr: LearningRate
    momentum: Annotated[float, Range(minimum=0, below=1)]
    newton_schulz_steps: Annotated[int, Range(minimum=1, maximum=100)]
    input_layer: Literal["muon", "adam"]
    adam_lr_ratio: Annotated[float, Range(minimum=0)]
    beta1: Annotated[float, Range(minimum=0, below=1)]
    beta2: Annotated[float, Range(minimum=0, below=1)]
    epsilon: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class ScheduleFreeSgdConfig:
    name: Literal["schedule_free_sgd"]
    lr: LearningRate
    momentum: Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class ScheduleFreeAdamwConfig:
    name: Literal["schedule_free_adamw"]
    lr: LearningRate
    beta1: Annotated[float, Range(above=0, below=1)]
    beta2: Annotated[float, Range(minimum=0, below=1)]
    epsilon: Annotated[float, Range(above=0)]


SharedOptimizer = SgdConfig | MomentumConfig | RmspropConfig | AdagradConfig | AdamConfig

ScheduleFreeConfig = ScheduleFreeSgdConfig | ScheduleFreeAdamwConfig

TorchOptimizer = LionConfig | MuonConfig | ScheduleFreeConfig
"""Those that the NumPy backend does not have."""

OptimizerVariant = SharedOptimizer | TorchOptimizer

OPTIMIZERS: Mapping[str, type] = {
    "sgd": SgdConfig,
    "momentum": MomentumConfig,
    "nesterov": MomentumConfig,
    "rmsprop": RmspropConfig,
    "adagrad": AdagradConfig,
    "adam": AdamConfig,
    "adamw": AdamConfig,
    "lion": LionConfig,
    "muon": MuonConfig,
    "schedule_free_sgd": ScheduleFreeSgdConfig,
    "schedule_free_adamw": ScheduleFreeAdamwConfig,
}
"""Value of ``name`` -> the dataclass of its keys."""

"""The whole configuration of a point, and which dataclass goes with which file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.architecture import ARCHITECTURES, ArchitectureVariant
from nnopt.schema.backend import BACKENDS, BackendVariant
from nnopt.schema.dataset import DATASETS, DataConfig, DatasetVariant
from nnopt.schema.initializer import InitializerConfig
from nnopt.schema.optimizer import OPTIMIZERS, OptimizerVariant
from nnopt.schema.range import LARGEST_SEED, Range
from nnopt.schema.regularizer import RegularizerConfig
from nnopt.schema.schedule import SCHEDULES, ScheduleVariant


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """``monitor`` also says which epoch is the best one; ``patience: null`` never stops early."""

    patience: Annotated[int | None, Range(minimum=1)]
    unit: Literal["epochs", "steps"]
    validate_every: Annotated[int | None, Range(minimum=1)]
    min_delta: Annotated[float, Range(minimum=0)]
    monitor: Literal["loss", "accuracy"]


@dataclass(frozen=True)
class Config:
    """One point: everything that decides what a run computes."""

    name: str
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]
    epochs: Annotated[int, Range(minimum=1, maximum=10_000_000)]
    max_steps: Annotated[int | None, Range(minimum=1)]
    batch_size: Annotated[int, Range(minimum=1, maximum=1_000_000_000)]
    accumulation_steps: Annotated[int, Range(minimum=1, maximum=1_000_000_000)]
    drop_last: bool
    loss: Literal["cross_entropy", "hinge"]
    test_weights: Literal["best", "last"]
    plots: bool | Literal["auto", "sweep"]
    layer_statistics: bool
    tensorboard: bool
    progress: Literal["bar", "curves", "none"]
    dataset: DatasetVariant
    data: DataConfig
    backend: BackendVariant
    architecture: ArchitectureVariant
    regularizer: RegularizerConfig
    optimizer: OptimizerVariant
    schedule: ScheduleVariant
    initializer: InitializerConfig
    early_stopping: EarlyStoppingConfig


VARIANTS: Mapping[str, Mapping[str, type]] = {
    "dataset": DATASETS,
    "backend": BACKENDS,
    "architecture": ARCHITECTURES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""Group -> value of its ``name`` key -> the dataclass of that value's keys."""

WITHOUT_EFFECT = ("name", "plots", "layer_statistics", "tensorboard", "progress", "data")
"""Top-level keys that cannot change what a run computes: no part of a point's id."""


def weight_decay(config: Config) -> float:
    """The decoupled decay λ: as configured, or the optimizer's own default."""
    if config.regularizer.weight_decay is not None:
        return config.regularizer.weight_decay
    return 0.01 if config.optimizer.name == "adamw" else 0.0


def draws_plots(config: Config) -> bool:
    """Are the run's own pictures drawn? What auto comes to in a sweep is decided when it begins."""
    return config.plots in (True, "auto")


def learning_rate(config: Config) -> float:
    """η as a number. Raises ValueError if it is yet to be found."""
    rate = config.optimizer.lr
    if isinstance(rate, str):
        raise ValueError(
            f"optimizer.lr = {rate!r}: nnopt.recipe.auto_lr finds the number before training"
        )
    return rate

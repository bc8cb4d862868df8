"""The configuration of a point."""

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
    """Early stopping, if ``patience`` is set. ``monitor`` also determines the best epoch."""

    patience: Annotated[int | None, Range(minimum=1)]
    unit: Literal["epochs", "steps"]
    validate_every: Annotated[int | None, Range(minimum=1)]
    min_delta: Annotated[float, Range(minimum=0)]
    monitor: Literal["loss", "accuracy"]


@dataclass(frozen=True)
class Config:
    """The configuration of a point."""

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
"""Group -> value of its ``name`` -> the dataclass of its keys."""

WITHOUT_EFFECT = ("name", "plots", "layer_statistics", "tensorboard", "progress", "data")
"""Top-level keys that cannot change the results, so a point's id does not depend on them."""


def weight_decay(config: Config) -> float:
    """Return the decoupled weight decay λ, or the optimizer's default if the key is null."""
    if config.regularizer.weight_decay is not None:
        return config.regularizer.weight_decay
    return 0.01 if config.optimizer.name == "adamw" else 0.0


def draws_plots(config: Config) -> bool:
    """Return whether the plots of the run are drawn. A sweep replaces ``auto`` before it starts."""
    return config.plots in (True, "auto")


def learning_rate(config: Config) -> float:
    """Return the learning rate. Raises ValueError for ``auto``."""
    rate = config.optimizer.lr
    if isinstance(rate, str):
        raise ValueError(
            f"optimizer.lr = {rate!r}: nnopt.recipe.auto_lr determines it before training"
        )
    return rate

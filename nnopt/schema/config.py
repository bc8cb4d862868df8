"""The configuration of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from nnopt.schema.architecture import ArchitectureVariant
from nnopt.schema.backend import BackendVariant
from nnopt.schema.dataset import DataConfig, DatasetVariant
from nnopt.schema.initializer import InitializerConfig
from nnopt.schema.launcher import LauncherConfig
from nnopt.schema.optimizer import OptimizerVariant
from nnopt.schema.plugin import PluginConfig
from nnopt.schema.pruning import PruningVariant
from nnopt.schema.range import LARGEST_SEED, Names, Range
from nnopt.schema.regularizer import RegularizerConfig
from nnopt.schema.schedule import ScheduleVariant
from nnopt.schema.sweeper import SweeperConfig
from nnopt.schema.tables import filled

Loss = Literal["cross_entropy", "hinge", "mse", "focal"]
"""Names of nnopt's own losses."""

filled("loss", dict.fromkeys(get_args(Loss)))


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Early stopping, if ``patience`` is set. ``monitor`` also determines the best epoch.

    The patience restarts only if the improvement exceeds ``min_delta``. In the mode ``relative``,
    ``min_delta`` is a fraction of the last value that restarted the patience.
    """

    patience: Annotated[int | None, Range(minimum=1)]
    unit: Literal["epochs", "steps"]
    validate_every: Annotated[int | None, Range(minimum=1)]
    min_delta: Annotated[float, Range(minimum=0)]
    min_delta_mode: Literal["absolute", "relative"]
    monitor: Literal["loss", "accuracy"]


@dataclass(frozen=True)
class TargetConfig:
    """A value of a metric. A run records when its training has reached the value."""

    metric: Literal["validation_accuracy", "validation_loss", "train_accuracy", "train_loss"] | None
    value: Annotated[float | None, Range(minimum=0)]


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluations after training, and files with their results."""

    train: bool
    predictions: bool
    metrics: Annotated[tuple[str, ...], Names("metric")] = ()  # metrics of plug-ins


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints, at least ``interval`` seconds apart. ``keep`` keeps the last one after training.

    With an ``interval`` of 0, every epoch ends with a checkpoint. With None, there are none.
    """

    interval: Annotated[float | None, Range(minimum=0)]
    keep: bool


@dataclass(frozen=True)
class Config:
    """The configuration of a run, either a single run or a point of a sweep."""

    name: str
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]
    epochs: Annotated[int, Range(minimum=1, maximum=10_000_000)]
    max_steps: Annotated[int | None, Range(minimum=1)]
    max_time: Annotated[float | None, Range(above=0)]
    batch_size: Annotated[int, Range(minimum=1, maximum=1_000_000_000)]
    accumulation_steps: Annotated[int, Range(minimum=1, maximum=1_000_000_000)]
    drop_last: bool
    loss: Annotated[Loss, Names("loss")]
    focal_gamma: Annotated[float, Range(minimum=0, maximum=100)]
    test_weights: Literal["best", "last"]
    plots: bool | Literal["auto", "sweep"]
    layer_statistics: bool
    tensorboard: bool
    progress: Literal["bar", "curves", "none"]
    plugins: tuple[PluginConfig, ...] = field(default=(), kw_only=True)
    dataset: DatasetVariant
    data: DataConfig
    backend: BackendVariant
    architecture: ArchitectureVariant
    regularizer: RegularizerConfig
    pruning: PruningVariant
    optimizer: OptimizerVariant
    schedule: ScheduleVariant
    initializer: InitializerConfig
    early_stopping: EarlyStoppingConfig
    target: TargetConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig


def _by_name(union: Any) -> dict[str, type]:
    """Return name -> dataclass, from the ``Literal`` of the key ``name`` in each dataclass."""
    return {name: x for x in get_args(union) for name in get_args(x.__annotations__["name"])}


VARIANTS: Mapping[str, Mapping[str, type]] = {
    "dataset": filled("dataset", _by_name(DatasetVariant)),
    "backend": _by_name(BackendVariant),
    "architecture": _by_name(ArchitectureVariant),
    "pruning": _by_name(PruningVariant),
    "optimizer": filled("optimizer", _by_name(OptimizerVariant)),
    "schedule": filled("schedule", _by_name(ScheduleVariant)),
}
"""Group -> value of the group's key ``name`` -> dataclass that contains the group's keys."""

PLUGINS: Mapping[str, Mapping[str, type]] = {
    "hydra.sweeper": _by_name(SweeperConfig),
    "hydra.launcher": _by_name(LauncherConfig),
}
"""The same as ``VARIANTS``, for the groups that contain settings of a sweep."""

WITHOUT_EFFECT = (
    *("name", "max_time", "plots", "layer_statistics", "tensorboard", "progress", "data"),
    *("checkpoint", "evaluation"),
)
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

"""The configuration: one frozen dataclass per config group, with the range of every value.

The YAML files under ``conf/`` hold the values and explain the keys to the user; this file holds the
types and ranges. A group whose files differ in their keys (a spiral has points, MNIST does not) has
one dataclass per file, found by its ``name``. ``nnopt.validate`` reads YAML into these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Number = int | float


def ranged(
    *,
    minimum: Number | None = None,
    above: Number | None = None,
    maximum: Number | None = None,
    below: Number | None = None,
) -> Any:
    """A field whose value (or every item, for a list) lies in a range: closed ends are minimum and
    maximum, open ends are above and below."""
    bounds = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    return field(metadata={key: value for key, value in bounds.items() if value is not None})


LARGEST_SEED = 2**63 - 1

# dataset/ -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validation:
    """Where validation samples come from: a fraction of the training or the test part, the
    dataset's own validation part (CINIC-10), or nowhere."""

    source: Literal["train", "test", "own", "none"]
    fraction: float = ranged(above=0, below=1)


@dataclass(frozen=True)
class DatasetConfig:
    """What all datasets share."""

    name: str
    subset: int | None = ranged(minimum=1)
    normalization: Literal["unit", "standard", "none"] = field()
    validation: Validation = field()


@dataclass(frozen=True)
class SpiralConfig(DatasetConfig):
    """Interleaved spiral arms, one per class."""

    name: Literal["spiral"]
    classes: int = ranged(minimum=2, maximum=100)
    points: int = ranged(minimum=2, maximum=1_000_000)
    noise: float = ranged(minimum=0)
    seed: int = ranged(minimum=0, maximum=LARGEST_SEED)


@dataclass(frozen=True)
class TwoClassConfig(DatasetConfig):
    """Two half moons, or two concentric circles."""

    name: Literal["moons", "circles"]
    points: int = ranged(minimum=2, maximum=1_000_000)
    noise: float = ranged(minimum=0)
    seed: int = ranged(minimum=0, maximum=LARGEST_SEED)


@dataclass(frozen=True)
class ImageConfig(DatasetConfig):
    """A published image dataset; ``classes`` keeps some of its classes, by name or number."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cinic10"]
    classes: tuple[int | str, ...] | None = field()


@dataclass(frozen=True)
class CsvConfig(DatasetConfig):
    """Rows of a CSV file: one label column, the others features or pixels."""

    name: Literal["csv"]
    classes: tuple[int | str, ...] | None = field()
    train: str = field()
    test: str | None = field()
    test_fraction: float = ranged(above=0, below=1)
    label: str = field()
    shape: tuple[int, ...] | None = ranged(minimum=1)


@dataclass(frozen=True)
class DataConfig:
    """Where data files lie; may they be downloaded."""

    root: str
    cache: str
    download: bool


# backend/ -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumpyConfig:
    name: Literal["numpy"]
    dtype: Literal["float32", "float64"]
    device: Literal["cpu"]
    threads: int | None = ranged(minimum=1, maximum=1024)
    shared_masks: bool = field()


@dataclass(frozen=True)
class TorchConfig:
    name: Literal["torch"]
    dtype: Literal["float32", "float64"]
    device: str
    threads: int | None = ranged(minimum=1, maximum=1024)
    shared_masks: bool = field()


# architecture/ ------------------------------------------------------------------------------------

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "silu"]


@dataclass(frozen=True)
class MlpConfig:
    name: Literal["mlp"]
    hidden: tuple[int, ...] = ranged(minimum=1, maximum=1_000_000)
    activation: Activation = field()


@dataclass(frozen=True)
class LayersConfig:
    """A literal list of layers; ``nnopt.architecture.layers`` reads its items."""

    name: Literal["layers"]
    layers: tuple[Any, ...]


# regularizer/, optimizer/, schedule/, initializer/ ------------------------------------------------


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training images: crop is the padding in pixels, 0 is off."""

    crop: int = ranged(minimum=0, maximum=64)
    flip: bool = field()


@dataclass(frozen=True)
class RegularizerConfig:
    """All regularizers in one flat record; zero or none means off."""

    l1: float = ranged(minimum=0)
    l2: float = ranged(minimum=0)
    weight_decay: float | None = ranged(minimum=0)
    dropout: float = ranged(minimum=0, below=1)
    norm: Literal["none", "batch", "layer"] = field()
    label_smoothing: float = ranged(minimum=0, below=1)
    grad_clip: float = ranged(minimum=0)
    decay_all: bool = field()
    augmentation: AugmentationConfig = field()


@dataclass(frozen=True)
class SgdConfig:
    name: Literal["sgd"]
    lr: float = ranged(minimum=0)


@dataclass(frozen=True)
class MomentumConfig:
    name: Literal["momentum", "nesterov"]
    lr: float = ranged(minimum=0)
    momentum: float = ranged(minimum=0, below=1)


@dataclass(frozen=True)
class RmspropConfig:
    name: Literal["rmsprop"]
    lr: float = ranged(minimum=0)
    rho: float = ranged(minimum=0, below=1)
    epsilon: float = ranged(above=0)


@dataclass(frozen=True)
class AdagradConfig:
    name: Literal["adagrad"]
    lr: float = ranged(minimum=0)
    epsilon: float = ranged(above=0)


@dataclass(frozen=True)
class AdamConfig:
    name: Literal["adam", "adamw"]
    lr: float = ranged(minimum=0)
    beta1: float = ranged(minimum=0, below=1)
    beta2: float = ranged(minimum=0, below=1)
    epsilon: float = ranged(above=0)


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    warmup: float = ranged(minimum=0)


@dataclass(frozen=True)
class StepConfig:
    name: Literal["step"]
    warmup: float = ranged(minimum=0)
    every: float = ranged(above=0)
    factor: float = ranged(above=0, maximum=1)


@dataclass(frozen=True)
class ExponentialConfig:
    name: Literal["exponential"]
    warmup: float = ranged(minimum=0)
    factor: float = ranged(above=0, maximum=1)


@dataclass(frozen=True)
class InverseTimeConfig:
    name: Literal["inverse_time"]
    warmup: float = ranged(minimum=0)
    rate: float = ranged(minimum=0)


@dataclass(frozen=True)
class CosineConfig:
    name: Literal["cosine"]
    warmup: float = ranged(minimum=0)
    final: float = ranged(minimum=0, maximum=1)


@dataclass(frozen=True)
class OneCycleConfig:
    name: Literal["one_cycle"]
    warmup: float = ranged(minimum=0)
    rise: float = ranged(above=0, below=1)
    start: float = ranged(above=0, maximum=1)
    final: float = ranged(minimum=0, maximum=1)


@dataclass(frozen=True)
class PlateauConfig:
    name: Literal["plateau"]
    warmup: float = ranged(minimum=0)
    patience: int = ranged(minimum=0)
    factor: float = ranged(above=0, below=1)
    min_improvement: float = ranged(minimum=0)


Initializer = Literal[
    "he_normal",
    "he_uniform",
    "glorot_normal",
    "glorot_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "uniform",
    "zeros",
]


@dataclass(frozen=True)
class InitializerConfig:
    """The distribution of the first weights, for hidden layers and for the output layer."""

    hidden: Initializer
    output: Initializer


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """``monitor`` also says which epoch is the best one; ``patience: null`` never stops early."""

    patience: int | None = ranged(minimum=1)
    unit: Literal["epochs", "steps"] = field()
    check_every: int | None = ranged(minimum=1)
    min_improvement: float = ranged(minimum=0)
    monitor: Literal["loss", "accuracy"] = field()


DatasetVariant = SpiralConfig | TwoClassConfig | ImageConfig | CsvConfig
BackendVariant = NumpyConfig | TorchConfig
ArchitectureVariant = MlpConfig | LayersConfig
OptimizerVariant = SgdConfig | MomentumConfig | RmspropConfig | AdagradConfig | AdamConfig
ScheduleVariant = (
    ConstantConfig
    | StepConfig
    | ExponentialConfig
    | InverseTimeConfig
    | CosineConfig
    | OneCycleConfig
    | PlateauConfig
)


@dataclass(frozen=True)
class Config:
    """One point: everything that decides what a run computes."""

    name: str
    seed: int = ranged(minimum=0, maximum=LARGEST_SEED)
    epochs: int = ranged(minimum=1, maximum=10_000_000)
    steps: int | None = ranged(minimum=1)
    batch_size: int = ranged(minimum=1, maximum=1_000_000_000)
    last_batch: Literal["keep", "drop"] = field()
    loss: Literal["cross_entropy", "hinge"] = field()
    test_weights: Literal["best", "last"] = field()
    plots: bool = field()
    dataset: DatasetVariant = field()
    data: DataConfig = field()
    backend: BackendVariant = field()
    architecture: ArchitectureVariant = field()
    regularizer: RegularizerConfig = field()
    optimizer: OptimizerVariant = field()
    schedule: ScheduleVariant = field()
    initializer: InitializerConfig = field()
    early_stopping: EarlyStoppingConfig = field()


VARIANTS: Mapping[str, Mapping[str, type]] = {
    "dataset": {
        "spiral": SpiralConfig,
        "moons": TwoClassConfig,
        "circles": TwoClassConfig,
        "mnist": ImageConfig,
        "fashion_mnist": ImageConfig,
        "cifar10": ImageConfig,
        "cinic10": ImageConfig,
        "csv": CsvConfig,
    },
    "backend": {"numpy": NumpyConfig, "torch": TorchConfig},
    "architecture": {"mlp": MlpConfig, "layers": LayersConfig},
    "optimizer": {
        "sgd": SgdConfig,
        "momentum": MomentumConfig,
        "nesterov": MomentumConfig,
        "rmsprop": RmspropConfig,
        "adagrad": AdagradConfig,
        "adam": AdamConfig,
        "adamw": AdamConfig,
    },
    "schedule": {
        "constant": ConstantConfig,
        "step": StepConfig,
        "exponential": ExponentialConfig,
        "inverse_time": InverseTimeConfig,
        "cosine": CosineConfig,
        "one_cycle": OneCycleConfig,
        "plateau": PlateauConfig,
    },
}
"""Group -> value of its ``name`` key -> the dataclass of that value's keys."""

"""The configuration: one frozen dataclass per config group, with the range of every value.

The YAML files under ``conf/`` hold the values and explain the keys to the user; this file holds the
types and ranges. A group whose files differ in their keys (a spiral has points, MNIST does not) has
one dataclass per file, found by its ``name``. ``nnopt.validate`` reads YAML into these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

Number = int | float


@dataclass(frozen=True)
class Range:
    """Where a number lies, or every number of a list: minimum and maximum are closed ends, above
    and below open ones; None is no bound."""

    minimum: Number | None = None
    above: Number | None = None
    maximum: Number | None = None
    below: Number | None = None


LARGEST_SEED = 2**63 - 1

# dataset/ -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validation:
    """Where validation samples come from: a fraction of the training or the test part, the
    dataset's own validation part (CINIC-10), or nowhere."""

    source: Literal["train", "test", "own", "none"]
    fraction: Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class DatasetConfig:
    """What all datasets share."""

    name: str
    subset: Annotated[int | None, Range(minimum=1)]
    normalization: Literal["unit", "standard", "none"]
    validation: Validation


@dataclass(frozen=True)
class SpiralConfig(DatasetConfig):
    """Interleaved spiral arms, one per class."""

    name: Literal["spiral"]
    classes: Annotated[int, Range(minimum=2, maximum=100)]
    points: Annotated[int, Range(minimum=2, maximum=1_000_000)]
    noise: Annotated[float, Range(minimum=0, maximum=1000)]
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]


@dataclass(frozen=True)
class TwoClassConfig(DatasetConfig):
    """Two half moons, or two concentric circles."""

    name: Literal["moons", "circles"]
    points: Annotated[int, Range(minimum=2, maximum=1_000_000)]
    noise: Annotated[float, Range(minimum=0, maximum=1000)]
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]


@dataclass(frozen=True)
class ImageConfig(DatasetConfig):
    """A published image dataset; ``classes`` keeps some of its classes, by name or number."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cinic10"]
    classes: tuple[int | str, ...] | None


@dataclass(frozen=True)
class CsvConfig(DatasetConfig):
    """Rows of a CSV file: one label column, the others features or pixels."""

    name: Literal["csv"]
    classes: tuple[int | str, ...] | None
    train: str
    test: str | None
    test_fraction: Annotated[float, Range(above=0, below=1)]
    label: str
    shape: Annotated[tuple[int, ...] | None, Range(minimum=1)]


@dataclass(frozen=True)
class DataConfig:
    """Where data files lie; may they be downloaded."""

    root: str
    cache: str
    download: bool


# backend/ -----------------------------------------------------------------------------------------


ConvAlgorithm = Literal["auto", "naive", "im2col", "winograd"]


@dataclass(frozen=True)
class NumpyConfig:
    """``conv`` chooses how convolutions are computed; auto: by their shape."""

    name: Literal["numpy"]
    dtype: Literal["float32", "float64"]
    device: str
    threads: Annotated[int | None, Range(minimum=1, maximum=1024)]
    shared_masks: bool
    conv: ConvAlgorithm


@dataclass(frozen=True)
class TorchConfig:
    """``precision``: of products and convolutions, weights staying in ``dtype``."""

    name: Literal["torch"]
    dtype: Literal["float32", "float64"]
    device: str
    threads: Annotated[int | None, Range(minimum=1, maximum=1024)]
    shared_masks: bool
    precision: Literal["full", "bf16", "fp16"]
    compile: Literal["off", "default", "max-autotune"]
    deterministic: bool


# architecture/ ------------------------------------------------------------------------------------

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "silu"]


@dataclass(frozen=True)
class MlpConfig:
    name: Literal["mlp"]
    hidden: Annotated[tuple[int, ...], Range(minimum=1, maximum=1_000_000)]
    activation: Activation


@dataclass(frozen=True)
class ThreeLayerConvConfig:
    """One convolution, one hidden dense layer."""

    name: Literal["three_layer_conv"]
    channels: Annotated[int, Range(minimum=1, maximum=100_000)]
    kernel: Annotated[int, Range(minimum=1, maximum=1000)]
    hidden: Annotated[int, Range(minimum=1, maximum=1_000_000)]
    activation: Activation


@dataclass(frozen=True)
class VggConfig:
    """Blocks of 3x3 convolutions, one width each; ``hidden: 0`` leaves the dense layer out."""

    name: Literal["vgg"]
    widths: Annotated[tuple[int, ...], Range(minimum=1, maximum=100_000)]
    convs: Annotated[int, Range(minimum=1, maximum=100)]
    hidden: Annotated[int, Range(minimum=0, maximum=1_000_000)]
    activation: Activation


@dataclass(frozen=True)
class ResnetConfig:
    """Residual networks for small images; ``width: null`` is the published one."""

    name: Literal["resnet"]
    depth: Literal[9, 18, 20]
    width: Annotated[int | None, Range(minimum=1, maximum=100_000)]


@dataclass(frozen=True)
class TorchvisionConfig:
    """A classification model of torchvision, by its name there; ``backend=torch`` only."""

    name: Literal["torchvision"]
    model: str
    small_images: bool
    pretrained: bool


@dataclass(frozen=True)
class LayersConfig:
    """A literal list of layers; ``nnopt.architecture.layers`` reads its items."""

    name: Literal["layers"]
    layers: tuple[Any, ...]


# regularizer/, optimizer/, schedule/, initializer/ ------------------------------------------------


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training samples, zero being off. Pixels: crop is the padding, cutout the
    side of the hidden square. mixup, cutmix: α of the Beta distribution of the mixing weight.
    policy_operations, policy_magnitude: of RandAugment."""

    crop: Annotated[int, Range(minimum=0, maximum=64)]
    flip: bool
    policy: Literal["none", "rand_augment", "trivial_augment"]
    policy_operations: Annotated[int, Range(minimum=1, maximum=100)]
    policy_magnitude: Annotated[int, Range(minimum=0, maximum=30)]
    cutout: Annotated[int, Range(minimum=0, maximum=1024)]
    mixup: Annotated[float, Range(minimum=0, maximum=1000)]
    cutmix: Annotated[float, Range(minimum=0, maximum=1000)]


@dataclass(frozen=True)
class RegularizerConfig:
    """All regularizers in one flat record; zero or none means off."""

    l1: Annotated[float, Range(minimum=0)]
    l2: Annotated[float, Range(minimum=0)]
    weight_decay: Annotated[float | None, Range(minimum=0)]
    dropout: Annotated[float, Range(minimum=0, below=1)]
    stochastic_depth: Annotated[float, Range(minimum=0, below=1)]
    norm: Literal["none", "batch", "layer", "group"]
    label_smoothing: Annotated[float, Range(minimum=0, below=1)]
    grad_clip: Annotated[float, Range(minimum=0)]
    max_norm: Annotated[float, Range(minimum=0)]
    decay_all: bool
    ema: Annotated[float, Range(minimum=0, below=1)]
    swa: Annotated[float, Range(minimum=0, below=1)]
    test_flip: bool
    augmentation: AugmentationConfig


LearningRate = Annotated[float | Literal["auto"], Range(minimum=0)]
"""auto: found before training, by ``nnopt.auto_lr``."""


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
    adam_ratio: Annotated[float, Range(minimum=0)]
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
    """The distribution of the first weights, for hidden layers and for the output layer; ``input:
    whitening`` takes those of the first layer from the training images."""

    hidden: Initializer
    output: Initializer
    input: Literal["whitening"] | None


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """``monitor`` also says which epoch is the best one; ``patience: null`` never stops early."""

    patience: Annotated[int | None, Range(minimum=1)]
    unit: Literal["epochs", "steps"]
    check_every: Annotated[int | None, Range(minimum=1)]
    min_improvement: Annotated[float, Range(minimum=0)]
    monitor: Literal["loss", "accuracy"]


DatasetVariant = SpiralConfig | TwoClassConfig | ImageConfig | CsvConfig
BackendVariant = NumpyConfig | TorchConfig
ArchitectureVariant = (
    MlpConfig | ThreeLayerConvConfig | VggConfig | ResnetConfig | TorchvisionConfig | LayersConfig
)
SharedOptimizer = SgdConfig | MomentumConfig | RmspropConfig | AdagradConfig | AdamConfig
ScheduleFreeConfig = ScheduleFreeSgdConfig | ScheduleFreeAdamwConfig
TorchOptimizer = LionConfig | MuonConfig | ScheduleFreeConfig
"""Those that the NumPy backend does not have."""
OptimizerVariant = SharedOptimizer | TorchOptimizer
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
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]
    epochs: Annotated[int, Range(minimum=1, maximum=10_000_000)]
    steps: Annotated[int | None, Range(minimum=1)]
    batch_size: Annotated[int, Range(minimum=1, maximum=1_000_000_000)]
    accumulation: Annotated[int, Range(minimum=1, maximum=1_000_000_000)]
    last_batch: Literal["keep", "drop"]
    loss: Literal["cross_entropy", "hinge"]
    test_weights: Literal["best", "last"]
    plots: bool
    layer_statistics: bool
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
    "architecture": {
        "mlp": MlpConfig,
        "three_layer_conv": ThreeLayerConvConfig,
        "vgg": VggConfig,
        "resnet": ResnetConfig,
        "torchvision": TorchvisionConfig,
        "layers": LayersConfig,
    },
    "optimizer": {
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


def weight_decay(config: Config) -> float:
    """The decoupled decay λ: as configured, or the optimizer's own default."""
    if config.regularizer.weight_decay is not None:
        return config.regularizer.weight_decay
    return 0.01 if config.optimizer.name == "adamw" else 0.0


def learning_rate(config: Config) -> float:
    """η as a number. Raises ValueError if it is yet to be found."""
    rate = config.optimizer.lr
    if isinstance(rate, str):
        raise ValueError(f"optimizer.lr = {rate!r}: nnopt.auto_lr finds the number before training")
    return rate

"""The keys of ``conf/optimizer/``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range

LearningRate = Annotated[float | Literal["auto"], Range(minimum=0)]
"""A number, or ``auto``. ``nnopt.recipe.auto_lr`` replaces ``auto`` before training."""

DecayRate = Annotated[float, Range(minimum=0, below=1)]
"""The decay rate of an exponential moving average of gradients, or of their squares."""

Epsilon = Annotated[float, Range(above=0)]
"""A small number that is added to a denominator."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The keys of every optimizer."""

    name: str
    lr: LearningRate


@dataclass(frozen=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    name: Literal["sgd"]


@dataclass(frozen=True)
class MomentumConfig(OptimizerConfig):
    """SGD with momentum, or with Nesterov's momentum."""

    name: Literal["momentum", "nesterov"]
    momentum: DecayRate


@dataclass(frozen=True)
class RmspropConfig(OptimizerConfig):
    """RMSprop."""

    name: Literal["rmsprop"]
    rho: DecayRate
    epsilon: Epsilon
    momentum: DecayRate
    centered: bool  # divide by the standard deviation of the gradient


@dataclass(frozen=True)
class AdagradConfig(OptimizerConfig):
    """Adagrad."""

    name: Literal["adagrad"]
    epsilon: Epsilon


@dataclass(frozen=True)
class AdadeltaConfig(OptimizerConfig):
    """Adadelta."""

    name: Literal["adadelta"]
    rho: DecayRate
    epsilon: Epsilon


@dataclass(frozen=True)
class AdamConfig(OptimizerConfig):
    """Adam, or AdamW with decoupled weight decay."""

    name: Literal["adam", "adamw"]
    beta1: DecayRate
    beta2: DecayRate
    epsilon: Epsilon
    amsgrad: bool  # divide by the largest average of squared gradients so far


@dataclass(frozen=True)
class NadamConfig(OptimizerConfig):
    """NAdam, which is Adam with Nesterov's momentum."""

    name: Literal["nadam"]
    beta1: DecayRate
    beta2: DecayRate
    epsilon: Epsilon
    momentum_decay: Annotated[float, Range(minimum=0, maximum=1)]


@dataclass(frozen=True)
class LionConfig(OptimizerConfig):
    """Lion."""

    name: Literal["lion"]
    beta1: DecayRate
    beta2: DecayRate


@dataclass(frozen=True)
class MuonConfig(OptimizerConfig):
    """Muon for hidden weights, Adam for the other parameters."""

    name: Literal["muon"]
    momentum: DecayRate
    newton_schulz_steps: Annotated[int, Range(minimum=1, maximum=100)]
    input_layer: Literal["muon", "adam"]
    adam_lr_ratio: Annotated[float, Range(minimum=0)]  # learning rate of Adam divided by lr
    beta1: DecayRate
    beta2: DecayRate
    epsilon: Epsilon


@dataclass(frozen=True)
class ScheduleFreeSgdConfig(OptimizerConfig):
    """Schedule-free SGD."""

    name: Literal["schedule_free_sgd"]
    momentum: Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class ScheduleFreeAdamwConfig(OptimizerConfig):
    """Schedule-free AdamW."""

    name: Literal["schedule_free_adamw"]
    beta1: Annotated[float, Range(above=0, below=1)]
    beta2: DecayRate
    epsilon: Epsilon


SharedOptimizer = (
    SgdConfig
    | MomentumConfig
    | RmspropConfig
    | AdagradConfig
    | AdadeltaConfig
    | AdamConfig
    | NadamConfig
)
"""The optimizers of both backends."""

ScheduleFreeConfig = ScheduleFreeSgdConfig | ScheduleFreeAdamwConfig

TorchOptimizer = LionConfig | MuonConfig | ScheduleFreeConfig
"""The optimizers of PyTorch only."""

OptimizerVariant = SharedOptimizer | TorchOptimizer

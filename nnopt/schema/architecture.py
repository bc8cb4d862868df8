"""The keys of ``conf/architecture/``."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nnopt.schema.range import Names, Range

Activation = Literal[
    "relu",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "tanh",
    "sigmoid",
    "silu",
    "softplus",
    "mish",
    "hard_swish",
]
"""Names of layers in ``nnopt.architecture.activations``, which are used with default arguments."""


@dataclass(frozen=True)
class MlpConfig:
    """A multilayer perceptron with hidden layers of the widths ``hidden``."""

    name: Literal["mlp"]
    hidden: Annotated[tuple[int, ...], Range(minimum=1, maximum=1_000_000)]
    activation: Annotated[Activation, Names("activation")]


@dataclass(frozen=True)
class ThreeLayerConvConfig:
    """A convolution, a hidden dense layer and the output layer."""

    name: Literal["three_layer_conv"]
    channels: Annotated[int, Range(minimum=1, maximum=100_000)]
    kernel: Annotated[int, Range(minimum=1, maximum=1000)]
    hidden: Annotated[int, Range(minimum=1, maximum=1_000_000)]
    activation: Annotated[Activation, Names("activation")]


@dataclass(frozen=True)
class VggConfig:
    """Blocks of ``convs`` convolutions (3x3), then a hidden dense layer unless ``hidden`` is 0."""

    name: Literal["vgg"]
    widths: Annotated[tuple[int, ...], Range(minimum=1, maximum=100_000)]
    convs: Annotated[int, Range(minimum=1, maximum=100)]
    hidden: Annotated[int, Range(minimum=0, maximum=1_000_000)]
    activation: Annotated[Activation, Names("activation")]


@dataclass(frozen=True)
class ResnetConfig:
    """A residual network for small images. A ``width`` of None selects the published width."""

    name: Literal["resnet"]
    depth: Literal[9, 18, 20]
    width: Annotated[int | None, Range(minimum=1, maximum=100_000)]


@dataclass(frozen=True)
class TorchvisionConfig:
    """A classification model of torchvision, for ``backend=torch`` only."""

    name: Literal["torchvision"]
    model: str
    small_images: bool
    pretrained: bool


@dataclass(frozen=True)
class LayersConfig:
    """A list of layers, which ``nnopt.architecture.parse`` reads."""

    name: Literal["layers"]
    layers: tuple[Any, ...]


ArchitectureVariant = (
    MlpConfig | ThreeLayerConvConfig | VggConfig | ResnetConfig | TorchvisionConfig | LayersConfig
)

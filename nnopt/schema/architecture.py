"""``conf/architecture/``: the networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nnopt.schema.range import Range

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


ArchitectureVariant = (
    MlpConfig | ThreeLayerConvConfig | VggConfig | ResnetConfig | TorchvisionConfig | LayersConfig
)

ARCHITECTURES: Mapping[str, type] = {
    "mlp": MlpConfig,
    "three_layer_conv": ThreeLayerConvConfig,
    "vgg": VggConfig,
    "resnet": ResnetConfig,
    "torchvision": TorchvisionConfig,
    "layers": LayersConfig,
}
"""Value of ``name`` -> the dataclass of its keys."""

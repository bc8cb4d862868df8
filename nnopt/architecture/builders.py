"""Named architectures: from a few arguments to a list of layer records."""

from __future__ import annotations

import math
from collections.abc import Callable

from nnopt.architecture.inference import Shape
from nnopt.architecture.layers import (
    GELU,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2d,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Tanh,
)
from nnopt.architecture.network import Architecture, place
from nnopt.architecture.parse import parse_layers
from nnopt.schema import (
    ArchitectureVariant,
    LayersConfig,
    MlpConfig,
    RegularizerConfig,
    ResnetConfig,
    ThreeLayerConvConfig,
    TorchvisionConfig,
    VggConfig,
)

Layers = tuple[Layer, ...]

ACTIVATIONS: dict[str, Layer] = {
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(),
    "gelu": GELU(),
    "tanh": Tanh(),
    "sigmoid": Sigmoid(),
    "silu": SiLU(),
}

NORMS: dict[str, Callable[[int], Layers]] = {
    "none": lambda channels: (),
    "batch": lambda channels: (BatchNorm(),),
    "layer": lambda channels: (LayerNorm(),),
    "group": lambda channels: (GroupNorm(math.gcd(GroupNorm().groups, channels)),),
}
"""For so many channels. Group norm takes as many of its groups as the channels can be divided
into."""


def mlp(config: MlpConfig, regularizer: RegularizerConfig) -> Layers:
    """[dense, norm, activation, dropout] for each hidden size, then dense to the classes."""
    layers: list[Layer] = [Flatten()]
    for units in config.hidden:
        layers += _hidden_dense(units, ACTIVATIONS[config.activation], regularizer)
    return (*layers, Dense("classes"))


def three_layer_conv(config: ThreeLayerConvConfig, regularizer: RegularizerConfig) -> Layers:
    """conv, norm, activation, 2x2 max pool, dropout; then one hidden dense layer."""
    activation = ACTIVATIONS[config.activation]
    return (
        *_conv(config.channels, regularizer, kernel=config.kernel),
        activation,
        MaxPool2d(),
        *_dropout(regularizer),
        Flatten(),
        *_hidden_dense(config.hidden, activation, regularizer),
        Dense("classes"),
    )


def vgg(config: VggConfig, regularizer: RegularizerConfig) -> Layers:
    """For each width a block: [conv 3x3, norm, activation] some times, 2x2 max pool, dropout. Then
    one hidden dense layer. After Simonyan and Zisserman 2015 (arXiv:1409.1556), section 2."""
    activation = ACTIVATIONS[config.activation]
    layers: list[Layer] = []
    for width in config.widths:
        layers += (*_conv(width, regularizer), activation) * config.convs
        layers += (MaxPool2d(), *_dropout(regularizer))
    layers.append(Flatten())
    if config.hidden:
        layers += _hidden_dense(config.hidden, activation, regularizer)
    return (*layers, Dense("classes"))


def resnet(config: ResnetConfig, regularizer: RegularizerConfig) -> Layers:
    """Residual networks for images of about 32x32, with dropout before the dense layer.

    9: Page's winner of DAWNBench, "How to train your ResNet", its last max pool made global
    average pooling. 20: He et al. 2016 (arXiv:1512.03385), section 4.2. 18: the same paper's table
    1, its stem made one 3x3 convolution without a pool, since the images are small. Where a basic
    block changes the shape its shortcut is a 1x1 convolution (option B of section 4.1).
    """
    if config.depth == 9:
        layers = _resnet9(config.width or 64, regularizer)
    elif config.depth == 18:
        layers = _basic_blocks(config.width or 64, 4, 2, regularizer)
    else:
        layers = _basic_blocks(config.width or 16, 3, 3, regularizer)
    return (*layers, GlobalAvgPool(), *_dropout(regularizer), Dense("classes"))


def _resnet9(width: int, regularizer: RegularizerConfig) -> list[Layer]:
    """A convolution, then three that are pooled, the first and the third followed by a branch of
    two more."""

    def conv(channels: int) -> Layers:
        return (*_conv(channels, regularizer), ReLU())

    layers: list[Layer] = [*conv(width)]
    for factor in (2, 4, 8):
        layers += (*conv(factor * width), MaxPool2d())
        if factor != 4:
            layers.append(Residual(conv(factor * width) * 2))
    return layers


def _basic_blocks(
    width: int, stages: int, blocks: int, regularizer: RegularizerConfig
) -> list[Layer]:
    """A 3x3 convolution, then stages of blocks of two; each stage but the first doubles the
    channels and halves the image."""
    layers: list[Layer] = [*_conv(width, regularizer), ReLU()]
    for stage in range(stages):
        channels = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            branch = (
                *_conv(channels, regularizer, stride=stride),
                ReLU(),
                *_conv(channels, regularizer),
            )
            shortcut = _conv(channels, regularizer, kernel=1, stride=2) if stride == 2 else ()
            layers += (Residual(branch, shortcut), ReLU())
    return layers


def _conv(
    channels: int, regularizer: RegularizerConfig, kernel: int = 3, stride: int = 1
) -> Layers:
    """A convolution and its norm; without a bias before batch norm, which would subtract it."""
    conv = Conv2d(channels, kernel, stride, bias=regularizer.norm != "batch")
    return (conv, *NORMS[regularizer.norm](channels))


def _hidden_dense(units: int, activation: Layer, regularizer: RegularizerConfig) -> Layers:
    """[dense, norm, activation, dropout].

    A dense layer that batch norm follows has no bias, which the norm would subtract again. Layer
    norm would not: it subtracts one mean over all units, and without a bias the first one would
    see only the direction of a sample, not its length. Group norm is for images; what comes
    nearest to it on flat samples, one group of all units, is layer norm.
    """
    norm = NORMS["layer" if regularizer.norm == "group" else regularizer.norm](units)
    dense = Dense(units, bias=regularizer.norm != "batch")
    return (dense, *norm, activation, *_dropout(regularizer))


def _dropout(regularizer: RegularizerConfig) -> Layers:
    return (Dropout(regularizer.dropout),) if regularizer.dropout else ()


def build(
    config: ArchitectureVariant, regularizer: RegularizerConfig, input_shape: Shape, classes: int
) -> Architecture:
    """The configured network for samples of ``input_shape`` ((C, H, W) or (D,)).

    Raises ConfigError naming the layer at fault.
    """
    match config:
        case LayersConfig():
            layers = parse_layers(config.layers)
        case MlpConfig():
            layers = mlp(config, regularizer)
        case ThreeLayerConvConfig():
            layers = three_layer_conv(config, regularizer)
        case VggConfig():
            layers = vgg(config, regularizer)
        case ResnetConfig():
            layers = resnet(config, regularizer)
        case TorchvisionConfig():
            raise TypeError("nnopt.backends.models.build_architecture builds torchvision's models")
    if len(input_shape) == 1:  # flat samples need no flattening
        layers = tuple(layer for layer in layers if not isinstance(layer, Flatten))
    return place(layers, input_shape, classes, regularizer.stochastic_depth)

"""Named architectures: functions that return the layer records of a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

from nnopt.architecture import layers as records
from nnopt.architecture.inference import Layer, Shape
from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.schema import (
    Activation,
    ArchitectureVariant,
    LayersConfig,
    MlpConfig,
    RegularizerConfig,
    ResnetConfig,
    ThreeLayerConvConfig,
    TorchvisionConfig,
    VggConfig,
)
from nnopt.schema.tables import filled

Layers = tuple[Layer, ...]

ACTIVATIONS: dict[str, Layer] = filled(
    "activation", {name: records.LAYERS[name]() for name in get_args(Activation)}
)
"""Value of the key ``architecture.activation`` -> layer with default arguments."""

NORMS: dict[str, Callable[[int], Layers]] = {
    "none": lambda channels: (),
    "batch": lambda channels: (records.BatchNorm(),),
    "layer": lambda channels: (records.LayerNorm(),),
    "group": lambda channels: (records.GroupNorm(math.gcd(records.GroupNorm().groups, channels)),),
}
"""Name of a norm -> function from the number of channels to the norm's layers. For group
norm, the number of groups is the largest divisor of 8 that divides the number of channels."""


def mlp(config: MlpConfig, regularizer: RegularizerConfig) -> Layers:
    """Return flatten, [dense, norm, activation, dropout] per hidden layer, then an output layer."""
    layers: list[Layer] = [records.Flatten()]
    for units in config.hidden:
        layers += _hidden_dense(units, ACTIVATIONS[config.activation], regularizer)
    return (*layers, records.Dense("classes"))


def three_layer_conv(config: ThreeLayerConvConfig, regularizer: RegularizerConfig) -> Layers:
    """Return conv, norm, activation, max pool, dropout, flatten, hidden dense, output layer."""
    activation = ACTIVATIONS[config.activation]
    return (
        *_conv(config.channels, regularizer, kernel=config.kernel),
        activation,
        records.MaxPool2d(),
        *_dropout(regularizer),
        records.Flatten(),
        *_hidden_dense(config.hidden, activation, regularizer),
        records.Dense("classes"),
    )


def vgg(config: VggConfig, regularizer: RegularizerConfig) -> Layers:
    """Return a block for each width, flatten, at most one hidden dense layer, output layer.

    A block is ``convs`` times [conv 3x3, norm, activation], then 2x2 max pool and dropout.
    Source: Simonyan and Zisserman 2015 (arXiv:1409.1556), section 2.
    """
    activation = ACTIVATIONS[config.activation]
    layers: list[Layer] = []
    for width in config.widths:
        layers += (*_conv(width, regularizer), activation) * config.convs
        layers += (records.MaxPool2d(), *_dropout(regularizer))
    layers.append(records.Flatten())
    if config.hidden:
        layers += _hidden_dense(config.hidden, activation, regularizer)
    return (*layers, records.Dense("classes"))


def resnet(config: ResnetConfig, regularizer: RegularizerConfig) -> Layers:
    """Return a residual network for images of about 32x32, with dropout before the output layer.

    Depth 9 is Page's winner of DAWNBench, "How to train your ResNet", with global average pooling
    in place of the last max pool. Depth 20 is He et al. 2016 (arXiv:1512.03385), section 4.2. Depth
    18 is table 1 of the same paper, with one 3x3 convolution and no pool as the stem. If a basic
    block changes the shape, its shortcut is a 1x1 convolution (option B of section 4.1).
    """
    if config.depth == 9:
        layers = _resnet9(config.width or 64, regularizer)
    elif config.depth == 18:
        layers = _basic_blocks(config.width or 64, 4, 2, regularizer)
    else:
        layers = _basic_blocks(config.width or 16, 3, 3, regularizer)
    return (*layers, records.GlobalAvgPool(), *_dropout(regularizer), records.Dense("classes"))


def _resnet9(width: int, regularizer: RegularizerConfig) -> list[Layer]:
    """Return conv, conv, max pool, residual, conv, max pool, conv, max pool, residual."""

    def conv(channels: int) -> Layers:
        return (*_conv(channels, regularizer), records.ReLU())

    layers: list[Layer] = [*conv(width)]
    for factor in (2, 4, 8):
        layers += (*conv(factor * width), records.MaxPool2d())
        if factor != 4:
            layers.append(records.Residual(conv(factor * width) * 2))
    return layers


def _basic_blocks(
    width: int, stages: int, blocks: int, regularizer: RegularizerConfig
) -> list[Layer]:
    """Return a 3x3 convolution and stages of basic blocks, which have two convolutions each.

    Each stage except the first doubles the channels and halves the sides of the image.
    """
    layers: list[Layer] = [*_conv(width, regularizer), records.ReLU()]
    for stage in range(stages):
        channels = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            first, second = (
                _conv(channels, regularizer, stride=stride),
                _conv(channels, regularizer),
            )
            branch = (*first, records.ReLU(), *second)
            shortcut = _conv(channels, regularizer, kernel=1, stride=2) if stride == 2 else ()
            layers += (records.Residual(branch, shortcut), records.ReLU())
    return layers


def _conv(
    channels: int, regularizer: RegularizerConfig, kernel: int = 3, stride: int = 1
) -> Layers:
    """Return a convolution and a norm. Before batch norm, a convolution needs no bias."""
    conv = records.Conv2d(channels, kernel, stride, bias=regularizer.norm != "batch")
    return (conv, *NORMS[regularizer.norm](channels))


def _hidden_dense(units: int, activation: Layer, regularizer: RegularizerConfig) -> Layers:
    """Return [dense, norm, activation, dropout].

    Before batch norm, the dense layer has no bias, because batch norm would subtract it. Before
    layer norm, it has a bias: otherwise the output would not depend on the scale of the input.
    Group norm is for images. On flat samples, layer norm replaces group norm.
    """
    norm = NORMS["layer" if regularizer.norm == "group" else regularizer.norm](units)
    dense = records.Dense(units, bias=regularizer.norm != "batch")
    return (dense, *norm, activation, *_dropout(regularizer))


def _dropout(regularizer: RegularizerConfig) -> Layers:
    return (records.Dropout(regularizer.dropout),) if regularizer.dropout else ()


def build(
    config: ArchitectureVariant, regularizer: RegularizerConfig, input_shape: Shape, classes: int
) -> Architecture:
    """Build the configured architecture for samples of ``input_shape``, (C, H, W) or (D,).

    ``nnopt.backends.models`` builds the architectures of torchvision.

    Raises:
        ConfigError: A layer is invalid or does not accept its input.
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
        layers = tuple(layer for layer in layers if not isinstance(layer, records.Flatten))
    return infer_shapes(layers, input_shape, classes, regularizer.stochastic_depth)

"""The layers of convolutional networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nnopt import schema
from nnopt.architecture.builders import build
from nnopt.architecture.initializers import initial_arrays
from nnopt.architecture.layers import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    LayerNorm,
    MaxPool2d,
    ReLU,
    Residual,
    Tanh,
)
from nnopt.architecture.network import Architecture
from nnopt.errors import ConfigError
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)
THREE = schema.ThreeLayerConvConfig("three_layer_conv", 32, 5, 128, "relu")
VGG = schema.VggConfig("vgg", (32, 64, 128), 2, 256, "relu")
VARIANTS: dict[str, schema.ArchitectureVariant] = {
    "three_layer_conv": THREE,
    "vgg": VGG,
    "vgg without a hidden layer": schema.VggConfig("vgg", (8,), 1, 0, "tanh"),
    "resnet 9": schema.ResnetConfig("resnet", 9, 8),
    "resnet 18": schema.ResnetConfig("resnet", 18, 8),
    "resnet 20": schema.ResnetConfig("resnet", 20, None),
}


def built(
    make_config: MakeConfig,
    variant: schema.ArchitectureVariant,
    shape: tuple[int, ...] = CIFAR,
    **regularizer: Any,
) -> Architecture:
    config = make_config(**{f"regularizer.{key}": value for key, value in regularizer.items()})
    return build(variant, config.regularizer, shape, 10)


def records(network: Architecture) -> list[Any]:
    return [layer.record for layer in network.layers]


def test_three_layer_conv_has_the_expected_layers(make_config: MakeConfig) -> None:
    network = built(make_config, THREE)
    head = [Flatten(), Dense(128), ReLU(), Dense("classes")]
    assert records(network) == [Conv2d(32, 5), ReLU(), MaxPool2d(), *head]
    assert network.parameter_count == 32 * 76 + 128 * (32 * 16 * 16 + 1) + 10 * 129


def test_three_layer_conv_has_norm_layers_and_dropout_if_configured(
    make_config: MakeConfig,
) -> None:
    variant = schema.ThreeLayerConvConfig("three_layer_conv", 8, 3, 16, "tanh")
    assert records(built(make_config, variant, norm="batch", dropout=0.2)) == [
        Conv2d(8, 3, bias=False),
        BatchNorm(),
        Tanh(),
        MaxPool2d(),
        Dropout(0.2),
        Flatten(),
        Dense(16, bias=False),
        BatchNorm(),
        Tanh(),
        Dropout(0.2),
        Dense("classes"),
    ]


def test_vgg_has_a_block_for_each_width(make_config: MakeConfig) -> None:
    variant = schema.VggConfig("vgg", (8, 16), 2, 32, "relu")
    assert records(built(make_config, variant, norm="group", dropout=0.1)) == [
        *[Conv2d(8), GroupNorm(8), ReLU(), Conv2d(8), GroupNorm(8), ReLU()],
        *[MaxPool2d(), Dropout(0.1)],
        *[Conv2d(16), GroupNorm(8), ReLU(), Conv2d(16), GroupNorm(8), ReLU()],
        *[MaxPool2d(), Dropout(0.1)],
        *[Flatten(), Dense(32), LayerNorm(), ReLU(), Dropout(0.1), Dense("classes")],
    ]


def test_vgg_without_hidden_layer_has_one_dense_layer(make_config: MakeConfig) -> None:
    variant = schema.VggConfig("vgg", (8,), 1, 0, "relu")
    head = [Flatten(), Dense("classes")]
    assert records(built(make_config, variant)) == [Conv2d(8), ReLU(), MaxPool2d(), *head]


def test_resnet_of_depth_9_has_the_expected_layers(make_config: MakeConfig) -> None:
    def conv(channels: int) -> list[Any]:
        return [Conv2d(channels, bias=False), BatchNorm(), ReLU()]

    variant = schema.ResnetConfig("resnet", 9, None)
    assert records(built(make_config, variant, norm="batch", dropout=0.1)) == [
        *conv(64),
        *[*conv(128), MaxPool2d(), Residual((*conv(128), *conv(128)))],
        *[*conv(256), MaxPool2d()],
        *[*conv(512), MaxPool2d(), Residual((*conv(512), *conv(512)))],
        *[GlobalAvgPool(), Dropout(0.1), Dense("classes")],
    ]


def test_resnet_basic_blocks_have_the_expected_layers(make_config: MakeConfig) -> None:
    """Each of nine blocks has two convolutions.

    The first block of stages 2 and 3 halves the height and width of the images.
    """
    network = built(make_config, schema.ResnetConfig("resnet", 20, None), norm="layer")
    actual = records(network)
    assert actual[:3] == [Conv2d(16), LayerNorm(), ReLU()]
    branch = (Conv2d(16), LayerNorm(), ReLU(), Conv2d(16), LayerNorm())
    assert actual[3:5] == [Residual(branch), ReLU()]
    branch = (Conv2d(32, stride=2), LayerNorm(), ReLU(), Conv2d(32), LayerNorm())
    shortcut = (Conv2d(32, kernel=1, stride=2), LayerNorm())
    assert actual[9:11] == [Residual(branch, shortcut), ReLU()]
    residuals = [layer for layer in network.layers if isinstance(layer.record, Residual)]
    assert [layer.output_shape for layer in residuals] == [
        *[(16, 32, 32)] * 3,
        *[(32, 16, 16)] * 3,
        *[(64, 8, 8)] * 3,
    ]
    assert actual[-2:] == [GlobalAvgPool(), Dense("classes")]


@pytest.mark.parametrize(
    ("depth", "weights"), [(9, 6_568_640), (18, 11_164_352), (20, 270_896)], ids=str
)
def test_resnet_has_the_published_number_of_parameters(
    make_config: MakeConfig, depth: Any, weights: int
) -> None:
    """ResNets of depth 9, 18 and 20 have 6.57, 11.17 and 0.27 million parameters.

    For depth 20, see He et al. 2016, table 6. The depth is the number of convolutions and dense
    layers outside of shortcuts. ``weights`` is the number of parameters that are neither biases nor
    in norm layers.
    """
    network = built(make_config, schema.ResnetConfig("resnet", depth, None), norm="batch")
    arrays = network.parameter_shapes()
    assert len([x for x in weighted(network) if ".shortcut." not in x.name]) == depth
    norms = sum(shape[0] for shape in arrays.values() if len(shape) == 1)
    assert network.parameter_count - norms == weights
    published = {9: 6.57e6, 18: 11.17e6, 20: 0.27e6}[depth]
    assert network.parameter_count == pytest.approx(published, rel=0.01)


def weighted(network: Architecture) -> list[Any]:
    return [layer for layer in network.walk() if len(layer.parameters.get("weight", ())) > 1]


@pytest.mark.parametrize("shape", [CIFAR, MNIST], ids=str)
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_norm_layer_is_accepted_together_with_dropout(
    make_config: MakeConfig, name: str, norm: str, shape: tuple[int, ...]
) -> None:
    network = built(make_config, VARIANTS[name], shape, norm=norm, dropout=0.25)
    layers = list(network.walk())
    kinds = {"batch": BatchNorm, "layer": LayerNorm, "group": GroupNorm}
    for kind, record in kinds.items():
        present = any(isinstance(layer.record, record) for layer in layers)
        assert present is (kind == norm) or (norm == "group" and kind == "layer")
    assert any(layer.record == Dropout(0.25) for layer in layers)
    assert network.layers[-1].output_shape == (10,)
    for layer in layers:
        if isinstance(layer.record, Conv2d):
            assert layer.record.bias is (norm != "batch")
    arrays = initial_arrays(
        network, schema.InitializerConfig("uniform", "zeros", None, 1.0, 1.0, 0.0, 1.0), seed=0
    )
    for layer in weighted(network):
        is_output = layer.name == network.output_layer.name
        assert arrays[f"{layer.name}.weight"].any() is not is_output


def test_vgg_with_too_many_pools_is_refused(make_config: MakeConfig) -> None:
    network = built(make_config, VGG, MNIST)
    pools = [x.output_shape for x in network.layers if isinstance(x.record, MaxPool2d)]
    assert pools == [(32, 14, 14), (64, 7, 7), (128, 3, 3)]
    deep = schema.VggConfig("vgg", (4,) * 5, 1, 0, "relu")
    with pytest.raises(ConfigError, match=r"layer max_pool2d5: .* of 1x1, so its output is 0x0"):
        built(make_config, deep, MNIST)


@pytest.mark.parametrize("name", VARIANTS)
def test_conv_network_for_flat_samples_is_refused(make_config: MakeConfig, name: str) -> None:
    with pytest.raises(ConfigError, match="layer conv2d1: needs images"):
        built(make_config, VARIANTS[name], (2,))


@pytest.mark.parametrize(("width", "groups"), [(16, 8), (12, 4), (6, 2), (5, 1)])
def test_number_of_groups_in_group_norm_divides_number_of_channels(
    make_config: MakeConfig, width: int, groups: int
) -> None:
    network = built(make_config, schema.ResnetConfig("resnet", 20, width), norm="group")
    first = next(x.record for x in network.walk() if isinstance(x.record, GroupNorm))
    assert first.groups == groups

"""The shapes inferred for image layers, and the errors about layers that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from nnopt import schema
from nnopt.architecture.initializers import initial_arrays
from nnopt.architecture.layers import Conv2d, MaxPool2d
from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.errors import ConfigError


def infer(layers: list[Any], shape: tuple[int, ...] = (6, 8, 9), classes: int = 4) -> Architecture:
    return infer_shapes(parse_layers(layers), shape, classes)


def test_inferred_shapes_and_flops_of_conv_network_equal_hand_calculation() -> None:
    network = infer(
        [
            {"conv2d": {"channels": 4, "groups": 2}},
            "batch_norm",
            {"max_pool2d": {"size": 3, "stride": 2, "padding": 1}},
            {
                "residual": {
                    "layers": [
                        {"conv2d": {"channels": 8, "stride": 2, "bias": False}},
                        {"group_norm": 4},
                        {"conv2d": 8},
                    ],
                    "shortcut": [{"conv2d": {"channels": 8, "kernel": 1, "stride": 2}}],
                }
            },
            {"spatial_dropout": 0.5},
            {"avg_pool2d": {"size": 2, "stride": 1}},
            "instance_norm",
            "layer_norm",
            {"conv2d": {"channels": "classes", "kernel": 1}},
            "global_avg_pool",
        ]
    )
    layers = {layer.name: layer for layer in network.walk()}
    shapes = {name: layer.output_shape for name, layer in layers.items()}
    assert shapes == {
        "conv2d1": (4, 8, 9),
        "batch_norm1": (4, 8, 9),
        "max_pool2d1": (4, 4, 5),
        "residual1": (8, 2, 3),
        "residual1.conv2d1": (8, 2, 3),
        "residual1.group_norm1": (8, 2, 3),
        "residual1.conv2d2": (8, 2, 3),
        "residual1.shortcut.conv2d1": (8, 2, 3),
        "spatial_dropout1": (8, 2, 3),
        "avg_pool2d1": (8, 1, 2),
        "instance_norm1": (8, 1, 2),
        "layer_norm1": (8, 1, 2),
        "conv2d2": (4, 1, 2),
        "global_avg_pool1": (4,),
    }
    assert network.parameter_shapes() == {
        "conv2d1.weight": (4, 3, 3, 3),
        "conv2d1.bias": (4,),
        "batch_norm1.weight": (4,),
        "batch_norm1.bias": (4,),
        "residual1.conv2d1.weight": (8, 4, 3, 3),
        "residual1.group_norm1.weight": (8,),
        "residual1.group_norm1.bias": (8,),
        "residual1.conv2d2.weight": (8, 8, 3, 3),
        "residual1.conv2d2.bias": (8,),
        "residual1.shortcut.conv2d1.weight": (8, 4, 1, 1),
        "residual1.shortcut.conv2d1.bias": (8,),
        "instance_norm1.weight": (8,),
        "instance_norm1.bias": (8,),
        "layer_norm1.weight": (8,),
        "layer_norm1.bias": (8,),
        "conv2d2.weight": (4, 8, 1, 1),
        "conv2d2.bias": (4,),
    }
    assert network.statistic_shapes() == {
        "batch_norm1.running_mean": (4,),
        "batch_norm1.running_var": (4,),
    }
    flops = {
        "conv2d1": 4 * 72 * (2 * 27 + 1),
        "batch_norm1": 4 * 288,
        "max_pool2d1": 9 * 80,
        "residual1.conv2d1": 48 * 2 * 36,
        "residual1.group_norm1": 8 * 48,
        "residual1.conv2d2": 48 * (2 * 72 + 1),
        "residual1.shortcut.conv2d1": 48 * (2 * 4 + 1),
        "spatial_dropout1": 48,
        "avg_pool2d1": 4 * 16,
        "instance_norm1": 8 * 16,
        "layer_norm1": 8 * 16,
        "conv2d2": 8 * (2 * 8 + 1),
        "global_avg_pool1": 8,
    }
    inside = sum(count for name, count in flops.items() if name.startswith("residual1."))
    flops["residual1"] = inside + 48  # the addition of the shortcut costs 48 FLOPs
    assert {name: layer.flops for name, layer in layers.items()} == flops
    assert network.flops_per_sample == sum(flops.values()) - inside
    assert network.output_layer.name == "conv2d2"


def test_convolution_as_output_layer_has_output_initializer() -> None:
    """A convolution can be the output layer: no dense layer is needed."""
    network = infer(["relu", {"conv2d": 5}, {"conv2d": "classes"}, "global_avg_pool"])
    arrays = initial_arrays(
        network, schema.InitializerConfig("normal", "zeros", None, 1.0, 1.0, 0.0, 1.0), seed=0
    )
    assert arrays["conv2d1.weight"].any()
    assert not arrays["conv2d2.weight"].any()


def test_fan_in_of_grouped_conv_counts_only_channels_of_one_group() -> None:
    network = infer([{"conv2d": {"channels": 600, "groups": 2}}, "flatten", {"dense": "classes"}])
    variances = {"he_normal": 2 / 27, "lecun_uniform": 1 / 27, "glorot_normal": 2 / (27 + 5400)}
    for name, variance in variances.items():
        config = schema.InitializerConfig(name, "zeros", None, 1.0, 1.0, 0.0, 1.0)  # type: ignore[arg-type]
        weight = initial_arrays(network, config, seed=0)["conv2d1.weight"]
        assert weight.shape == (600, 3, 3, 3)
        assert weight.var() == pytest.approx(variance, rel=0.05)


SIDES = st.integers(1, 12)


@given(SIDES, SIDES, st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_inferred_shapes_of_convolution_and_pooling_equal_pytorch(
    height: int, width: int, window: int, stride: int, pad: int, pool: bool
) -> None:
    """``infer_shapes`` gives PyTorch's shapes, and refuses the options that PyTorch refuses."""
    assume(not pool or 2 * pad <= window)
    record = MaxPool2d(window, stride, pad) if pool else Conv2d(3, window, stride, pad)
    module = (
        nn.MaxPool2d(window, stride, pad)
        if pool
        else nn.Conv2d(2, 3, window, stride, pad, device="meta")
    )
    image = torch.empty(1, 2, height, width, device="meta")
    head = (Conv2d("classes", 1), *parse_layers(["global_avg_pool"]))
    try:
        expected = tuple(module(image).shape[1:])
    except RuntimeError:
        with pytest.raises(ConfigError, match=r"2d1: its .* is larger than its input"):
            infer_shapes((record, *head), (2, height, width), 4)
    else:
        network = infer_shapes((record, *head), (2, height, width), 4)
        assert network.layers[0].output_shape == expected


MISFITS: list[tuple[list[Any], tuple[int, ...], str]] = [
    (
        [{"conv2d": {"channels": 4, "kernel": 9, "padding": 1}}],
        (3, 12, 6),
        "layer conv2d1: its kernel of 9x9 is larger than its input of 12x6 with a padding of "
        "1; set a smaller kernel",
    ),
    (
        [{"conv2d": {"channels": 4, "kernel": 4}}],
        (3, 8, 8),
        "layer conv2d1: padding 'same' needs an odd kernel, got 4",
    ),
    (
        [{"conv2d": {"channels": 4, "groups": 2}}],
        (3, 8, 8),
        "layer conv2d1: its 3 input channels cannot be divided into 2 groups",
    ),
    (
        ["relu", {"residual": [{"conv2d": {"channels": 4, "groups": 3}}]}],
        (3, 8, 8),
        "layer residual1.conv2d1: its 4 output channels cannot be divided into 3 groups",
    ),
    (
        [{"group_norm": 8}],
        (12, 4, 4),
        "layer group_norm1: its 12 channels cannot be divided into 8 groups",
    ),
    (
        ["max_pool2d", "max_pool2d"],
        (3, 2, 3),
        "layer max_pool2d2: its window of 2x2 is larger than its input of 1x1, so its output "
        "is 0x0",
    ),
    (
        [{"avg_pool2d": {"size": 4, "padding": 1}}],
        (3, 1, 9),
        "layer avg_pool2d1: its window of 4x4 is larger than its input of 1x9 with a padding of 1, "
        "so its output is 0x2",
    ),
    (
        [{"max_pool2d": {"size": 3, "padding": 2}}],
        (3, 8, 8),
        "layer max_pool2d1: its padding of 2 is more than half of its window of 3x3; at most 1",
    ),
    (
        ["global_avg_pool", "instance_norm"],
        (3, 8, 8),
        "layer instance_norm1: needs images (C, H, W), but its input is flat (3 numbers)",
    ),
    (
        [{"avg_pool2d": 8}, "instance_norm"],
        (3, 8, 8),
        "layer instance_norm1: its input of 3x1x1 in 3 groups has one number per group",
    ),
    (
        [{"avg_pool2d": 8}, {"conv2d": {"channels": 1, "kernel": 1}}, "layer_norm"],
        (3, 8, 8),
        "layer layer_norm1: its input of 1x1x1 has one number, and normalization would return 0",
    ),
    (
        ["flatten", {"residual": {"layers": [{"dense": 1}, "layer_norm"], "shortcut": ["relu"]}}],
        (3, 8, 8),
        "layer residual1.layer_norm1: its input of 1 has one number",
    ),
    (
        [{"dense": "classes"}],
        (3, 8, 8),
        "layer dense1: needs flat samples (D,), but its input is 3x8x8; put 'flatten' before it",
    ),
    (
        [{"residual": {"layers": [{"conv2d": 4}], "shortcut": [{"conv2d": 5}]}}],
        (3, 8, 8),
        "layer residual1: its branch turns 3x8x8 into 4x8x8 and its shortcut into 5x8x8, so the "
        "two cannot be added; keep the shape, or give the shortcut the same",
    ),
    (
        [{"residual": [{"conv2d": {"channels": 3, "stride": 2}}]}],
        (3, 8, 8),
        "layer residual1: its branch turns 3x8x8 into 3x4x4, so the two cannot be added; keep",
    ),
    (
        [{"conv2d": "classes"}],
        (3, 8, 8),
        "architecture: the last layer, conv2d1, has 4x8x8 outputs per sample, but there "
        "are 4 classes",
    ),
    (
        ["global_avg_pool"],
        (4, 8, 8),
        "architecture.layers: needs at least one dense or conv2d layer",
    ),
]
IMAGES_ONLY = [
    {"conv2d": 3},
    "max_pool2d",
    "avg_pool2d",
    "global_avg_pool",
    {"spatial_dropout": 0.1},
    "group_norm",
    "instance_norm",
]


@pytest.mark.parametrize(("layers", "shape", "message"), MISFITS, ids=lambda x: str(x)[:60])
def test_error_about_shapes_tells_which_layer_does_not_fit(
    layers: list[Any], shape: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        infer(layers, shape)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("layer", IMAGES_ONLY, ids=str)
def test_image_layer_with_flat_input_is_refused(layer: Any) -> None:
    with pytest.raises(ConfigError, match=r": needs images \(C, H, W\), .* flat \(16 numbers\)"):
        infer([layer], (16,))

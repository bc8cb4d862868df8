"""The shapes inferred for dense layers, and the errors about layers that do not fit."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.architecture.network import Architecture, infer_shapes, is_penalized
from nnopt.architecture.parse import parse_layers
from nnopt.errors import ConfigError


def infer(layers: list[Any], shape: tuple[int, ...] = (6,), classes: int = 4) -> Architecture:
    return infer_shapes(parse_layers(layers), shape, classes)


def test_inferred_shapes_and_flops_of_dense_network_equal_hand_calculation() -> None:
    network = infer(
        [
            "flatten",
            {"dense": 5},
            "batch_norm",
            "relu",
            {"dropout": 0.5},
            {"residual": [{"dense": {"units": 5, "bias": False}}, "layer_norm", "tanh"]},
            {"dense": "classes"},
        ],
        shape=(3, 2, 2),
    )
    layers = {layer.name: layer for layer in network.walk()}
    assert list(layers) == [
        "flatten1",
        "dense1",
        "batch_norm1",
        "relu1",
        "dropout1",
        "residual1",
        "residual1.dense1",
        "residual1.layer_norm1",
        "residual1.tanh1",
        "dense2",
    ]
    assert layers["flatten1"].input_shape == (3, 2, 2)
    assert layers["flatten1"].output_shape == (12,)
    assert layers["residual1"].output_shape == (5,)
    assert network.parameter_shapes() == {
        "dense1.weight": (5, 12),
        "dense1.bias": (5,),
        "batch_norm1.weight": (5,),
        "batch_norm1.bias": (5,),
        "residual1.dense1.weight": (5, 5),
        "residual1.layer_norm1.weight": (5,),
        "residual1.layer_norm1.bias": (5,),
        "dense2.weight": (4, 5),
        "dense2.bias": (4,),
    }
    assert network.statistic_shapes() == {
        "batch_norm1.running_mean": (5,),
        "batch_norm1.running_var": (5,),
    }
    assert network.parameter_count == 60 + 5 + 10 + 25 + 10 + 20 + 4
    flops = {
        "flatten1": 0,
        "dense1": 2 * 60 + 5,
        "batch_norm1": 4 * 5,
        "relu1": 5,
        "dropout1": 5,
        "residual1": 50 + 8 * 5 + 8 * 5 + 5,  # the addition of the shortcut costs 5 FLOPs
        "residual1.dense1": 50,
        "residual1.layer_norm1": 40,
        "residual1.tanh1": 40,
        "dense2": 2 * 20 + 4,
    }
    assert {name: layer.flops for name, layer in layers.items()} == flops
    assert network.flops_per_sample == 125 + 20 + 5 + 5 + 135 + 44
    assert network.output_layer.name == "dense2"


def test_output_layer_can_be_in_a_residual_branch() -> None:
    network = infer([{"dense": 4}, {"residual": [{"dense": 4}]}])
    assert network.output_layer.name == "residual1.dense1"


@given(
    sizes=st.lists(st.integers(1, 40), max_size=4),
    features=st.integers(1, 40),
    classes=st.integers(2, 12),
    bias=st.booleans(),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_inferred_shapes_of_dense_layers_equal_formula(
    sizes: list[int], features: int, classes: int, bias: bool
) -> None:
    layers = [{"dense": {"units": size, "bias": bias}} for size in [*sizes, "classes"]]
    network = infer(layers, (features,), classes)
    widths = [features, *sizes, classes]
    pairs = list(itertools.pairwise(widths))
    assert network.parameter_count == sum(a * b + (b if bias else 0) for a, b in pairs)
    assert network.flops_per_sample == sum(2 * a * b + (b if bias else 0) for a, b in pairs)
    assert [layer.output_shape for layer in network.layers] == [(b,) for b in widths[1:]]


MISFITS: list[tuple[list[Any], tuple[int, ...], str]] = [
    (
        [{"dense": 3}, "relu"],
        (6,),
        "architecture: the last layer, relu1, has 3 outputs per sample, but there are 4 "
        "classes; end with {dense: classes}",
    ),
    (["flatten"], (4,), "architecture.layers: needs at least one dense or conv2d layer"),
    (
        [{"dense": "classes"}],
        (1, 28, 28),
        "layer dense1: needs flat samples (D,), but its input is 1x28x28; put 'flatten' before it",
    ),
    (
        ["relu", {"residual": ["relu"]}, {"residual": [{"dense": 5}]}],
        (6,),
        "layer residual2: its branch turns 6 into 5, so the two cannot be added; end the branch "
        "with {dense: 6}",
    ),
    (
        [{"residual": [{"residual": [{"dense": 2}]}]}],
        (6,),
        "layer residual1.residual1: its branch turns 6 into 2",
    ),
    (
        [{"dense": 10**6}, {"dense": 10**6}, {"dense": "classes"}],
        (6,),
        "architecture: 1,000,012,000,004 parameters need 16,000 GB to train; at most",
    ),
]


@pytest.mark.parametrize(("layers", "shape", "message"), MISFITS, ids=lambda x: str(x)[:40])
def test_error_about_shapes_tells_which_layer_does_not_fit(
    layers: list[Any], shape: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        infer(layers, shape)
    assert str(caught.value).startswith(message)


def test_biases_and_norm_parameters_are_penalized_only_if_configured() -> None:
    layers = [
        {"conv2d": 4},
        "batch_norm",
        {"group_norm": 2},
        "instance_norm",
        "layer_norm",
        {"residual": {"layers": ["layer_norm"], "shortcut": [{"conv2d": 4}]}},
        "flatten",
        {"dense": "classes"},
    ]
    shapes = infer(layers, (3, 4, 4)).parameter_shapes()
    weights = {"conv2d1.weight", "residual1.shortcut.conv2d1.weight", "dense1.weight"}
    assert weights < set(shapes)
    for name, shape in shapes.items():
        assert is_penalized(shape, decay_norm_and_bias=False) is (name in weights)
        assert is_penalized(shape, decay_norm_and_bias=True)

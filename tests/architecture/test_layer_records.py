"""Layers in YAML: every valid form, and the messages about invalid forms."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from nnopt.architecture.layers import (
    ELU,
    GELU,
    LAYERS,
    SELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GELUTanh,
    GlobalAvgPool,
    GroupNorm,
    HardSwish,
    InstanceNorm,
    LayerNorm,
    LeakyReLU,
    MaxPool2d,
    Mish,
    PReLU,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Softplus,
    SpatialDropout,
    Tanh,
)
from nnopt.architecture.parse import layer_items, parse_layers
from nnopt.errors import ConfigError

FORMS: list[tuple[Any, Any]] = [
    ({"dense": 64}, Dense(64)),
    ({"dense": "classes"}, Dense("classes")),
    ({"dense": {"units": 3, "bias": False}}, Dense(3, bias=False)),
    ("relu", ReLU()),
    ({"relu": None}, ReLU()),
    ({"relu": {}}, ReLU()),
    ("leaky_relu", LeakyReLU(0.01)),
    ({"leaky_relu": 0.2}, LeakyReLU(0.2)),
    ({"leaky_relu": 0}, LeakyReLU(0)),
    ("gelu", GELU()),
    ("tanh", Tanh()),
    ("sigmoid", Sigmoid()),
    ("silu", SiLU()),
    ("selu", SELU()),
    ("gelu_tanh", GELUTanh()),
    ("softplus", Softplus()),
    ("mish", Mish()),
    ("hard_swish", HardSwish()),
    ("elu", ELU(1.0)),
    ({"elu": 0.5}, ELU(0.5)),
    ("prelu", PReLU(0.25, per_channel=False)),
    ({"prelu": 0}, PReLU(0)),
    ({"prelu": {"init": -1, "per_channel": True}}, PReLU(-1, per_channel=True)),
    ({"dropout": 0.3}, Dropout(0.3)),
    ({"dropout": 0}, Dropout(0)),
    ("batch_norm", BatchNorm(0.1, 1e-5)),
    ({"batch_norm": {"momentum": 0.05}}, BatchNorm(0.05, 1e-5)),
    ({"batch_norm": {"epsilon": 1e-3, "momentum": 1}}, BatchNorm(1, 1e-3)),
    ("layer_norm", LayerNorm(1e-5)),
    ({"layer_norm": 1e-3}, LayerNorm(1e-3)),
    ("flatten", Flatten()),
    ({"residual": [{"dense": 4}, "tanh"]}, Residual((Dense(4), Tanh()))),
    ({"residual": {"layers": ["relu"]}}, Residual((ReLU(),))),
    ({"residual": [{"residual": ["relu"]}]}, Residual((Residual((ReLU(),)),))),
    ({"residual": {"layers": ["relu"], "shortcut": []}}, Residual((ReLU(),), ())),
    ({"residual": {"layers": ["relu"], "shortcut": ["tanh"]}}, Residual((ReLU(),), (Tanh(),))),
    ({"conv2d": 8}, Conv2d(8, 3, 1, "same", 1, True)),
    ({"conv2d": "classes"}, Conv2d("classes")),
    (
        {"conv2d": {"channels": 8, "kernel": 4, "stride": 2, "padding": 0, "groups": 2}},
        Conv2d(8, 4, 2, 0, 2),
    ),
    ({"conv2d": {"channels": 8, "padding": "same", "bias": False}}, Conv2d(8, bias=False)),
    ({"conv2d": {"channels": 8, "frozen": True}}, Conv2d(8, frozen=True)),
    ("max_pool2d", MaxPool2d(2, None, 0)),
    ({"max_pool2d": {"size": 3, "stride": None, "padding": 1}}, MaxPool2d(3, None, 1)),
    ({"avg_pool2d": {"size": 3, "stride": 2}}, AvgPool2d(3, 2)),
    ("global_avg_pool", GlobalAvgPool()),
    ({"spatial_dropout": 0.1}, SpatialDropout(0.1)),
    ("group_norm", GroupNorm(8, 1e-5)),
    ({"group_norm": {"groups": 2, "epsilon": 1e-3}}, GroupNorm(2, 1e-3)),
    ("instance_norm", InstanceNorm(1e-5)),
]


@pytest.mark.parametrize(("item", "expected"), FORMS, ids=str)
def test_every_form_of_a_layer_is_parsed(item: Any, expected: Any) -> None:
    assert parse_layers([item]) == (expected,)


@pytest.mark.parametrize("complete", [False, True])
def test_list_of_records_is_parsed_to_equal_records(complete: bool) -> None:
    """The list also survives JSON, in which ``model.json`` stores it."""
    records = tuple(record for _, record in FORMS)
    items = json.loads(json.dumps(layer_items(records, complete)))
    assert parse_layers(items) == records
    if complete:
        assert all(len(item[x.kind]) == len(fields(x)) for item, x in pairs(items, records))


def pairs(items: Any, records: Any) -> list[Any]:
    """Return the items of layers that have arguments, with their records."""
    return [(item, x) for item, x in zip(items, records, strict=True) if fields(x)]


def test_forms_of_layers_in_yaml_cover_every_layer() -> None:
    assert {type(record) for _, record in FORMS} == set(LAYERS.values())


MISTAKES: list[tuple[Any, str]] = [
    ("rellu", "architecture.layers[0]: unknown layer 'rellu'; did you mean 'relu'?"),
    ("xyz", "architecture.layers[0]: unknown layer 'xyz'; allowed: dense, conv2d,"),
    ({"dens": 3}, "architecture.layers[0]: unknown layer 'dens'; did you mean 'dense'?"),
    (5, "architecture.layers[0] = 5: needs a layer, as a name or {name: arguments}"),
    (None, "architecture.layers[0] = None: needs a layer"),
    ([], "architecture.layers[0] = []: needs a layer"),
    ({}, "architecture.layers[0] = {}: needs a layer"),
    (
        {"dense": 3, "relu": None},
        "architecture.layers[0] = {'dense': 3, 'relu': None}: needs a layer",
    ),
    ("dense", "architecture.layers[0].dense: the argument 'units' is missing"),
    ("dropout", "architecture.layers[0].dropout: the argument 'rate' is missing"),
    ("residual", "architecture.layers[0].residual: the argument 'layers' is missing"),
    ({"relu": 1}, "architecture.layers[0].relu: takes no argument, got 1"),
    (
        {"dense": {"units": 3, "biased": True}},
        "architecture.layers[0].dense: unknown argument 'biased'; allowed: units, bias",
    ),
    ({"relu": {"a": 1}}, "architecture.layers[0].relu: unknown argument 'a'; allowed: none"),
    ({"dense": 0}, "architecture.layers[0].dense.units = 0: needs to be at least 1"),
    ({"dense": -3}, "architecture.layers[0].dense.units = -3: needs to be at least 1"),
    ({"dense": 2.5}, "architecture.layers[0].dense.units = 2.5: needs a whole number or classes"),
    ({"dense": True}, "architecture.layers[0].dense.units = True: needs a whole number"),
    ({"dense": "many"}, "architecture.layers[0].dense.units = 'many': needs a whole number"),
    (
        {"dense": {"units": 3, "bias": "yes"}},
        "architecture.layers[0].dense.bias = 'yes': needs true or false",
    ),
    (
        {"conv2d": {"channels": 3, "frozen": 1}},
        "architecture.layers[0].conv2d.frozen = 1: needs true or false",
    ),
    ({"dropout": 1}, "architecture.layers[0].dropout.rate = 1.0: needs to be at least 0 and below"),
    (
        {"dropout": -0.1},
        "architecture.layers[0].dropout.rate = -0.1: needs to be at least 0 and below",
    ),
    (
        {"dropout": float("nan")},
        "architecture.layers[0].dropout.rate = nan: needs a finite number, at least 0 and below",
    ),
    ({"dropout": "a"}, "architecture.layers[0].dropout.rate = 'a': needs a number"),
    (
        {"leaky_relu": 1.0},
        "architecture.layers[0].leaky_relu.slope = 1.0: needs to be at least 0 and below",
    ),
    ({"elu": 0}, "architecture.layers[0].elu.alpha = 0.0: needs to be above 0"),
    (
        {"prelu": {"init": 11}},
        "architecture.layers[0].prelu.init = 11.0: needs to be at least -10 and at most 10",
    ),
    ({"selu": 1}, "architecture.layers[0].selu: takes no argument, got 1"),
    (
        {"batch_norm": 0},
        "architecture.layers[0].batch_norm.momentum = 0.0: needs to be above 0 and at most 1",
    ),
    (
        {"layer_norm": float("inf")},
        "architecture.layers[0].layer_norm.epsilon = inf: needs a finite number, above 0",
    ),
    (
        {"residual": []},
        "architecture.layers[0].residual.layers = []: needs a list of layers with at least",
    ),
    ({"residual": "relu"}, "architecture.layers[0].residual.layers = 'relu': needs a list"),
    (
        {"residual": {"layers": ["relu"], "shortcut": "relu"}},
        "architecture.layers[0].residual.shortcut = 'relu': needs a list of layers",
    ),
    (
        {"residual": {"layers": ["relu"], "shortcut": ["rellu"]}},
        "architecture.layers[0].residual.shortcut[0]: unknown layer 'rellu'; did you mean 'relu'?",
    ),
    ("conv2d", "architecture.layers[0].conv2d: the argument 'channels' is missing"),
    (
        {"conv2d": 0},
        "architecture.layers[0].conv2d.channels = 0: needs to be at least 1",
    ),
    (
        {"conv2d": {"channels": 8, "kernel": 0}},
        "architecture.layers[0].conv2d.kernel = 0: needs to be at least 1",
    ),
    (
        {"conv2d": {"channels": 8, "kernel": "same"}},
        "architecture.layers[0].conv2d.kernel = 'same': needs a whole number",
    ),
    (
        {"conv2d": {"channels": 8, "stride": None}},
        "architecture.layers[0].conv2d.stride = None: needs a whole number",
    ),
    (
        {"conv2d": {"channels": 8, "padding": -1}},
        "architecture.layers[0].conv2d.padding = -1: needs to be at least 0",
    ),
    (
        {"conv2d": {"channels": 8, "padding": "valid"}},
        "architecture.layers[0].conv2d.padding = 'valid': needs a whole number or same",
    ),
    (
        {"conv2d": {"channels": 8, "groups": 1.5}},
        "architecture.layers[0].conv2d.groups = 1.5: needs a whole number",
    ),
    (
        {"max_pool2d": {"stride": 0}},
        "architecture.layers[0].max_pool2d.stride = 0: needs to be at least 1",
    ),
    (
        {"avg_pool2d": {"padding": "same"}},
        "architecture.layers[0].avg_pool2d.padding = 'same': needs a whole number",
    ),
    ({"max_pool2d": 0}, "architecture.layers[0].max_pool2d.size = 0: needs to be at least 1"),
    ({"global_avg_pool": 2}, "architecture.layers[0].global_avg_pool: takes no argument, got 2"),
    ({"group_norm": 0}, "architecture.layers[0].group_norm.groups = 0: needs to be at least 1"),
    (
        {"spatial_dropout": 1},
        "architecture.layers[0].spatial_dropout.rate = 1.0: needs to be at least 0 and below",
    ),
    (
        {"instance_norm": 0},
        "architecture.layers[0].instance_norm.epsilon = 0.0: needs to be above",
    ),
    (
        {"residual": ["relu", "tanhh"]},
        "architecture.layers[0].residual.layers[1]: unknown layer 'tanhh'; did you mean 'tanh'?",
    ),
]


@pytest.mark.parametrize(("item", "message"), MISTAKES, ids=lambda x: str(x)[:50])
def test_error_about_a_layer_contains_the_location_of_the_layer(item: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layers([item])
    assert str(caught.value).startswith(message)
    assert len(caught.value.problems) == 1


def test_all_problems_of_layers_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layers(
            ["relu", {"dense": {"units": 0, "bias": 1}}, "rellu", {"residual": [7, "tan"]}]
        )
    places = [line.split(" ")[0].rstrip(":") for line in caught.value.problems]
    assert places == [
        "architecture.layers[1].dense.units",
        "architecture.layers[1].dense.bias",
        "architecture.layers[2]",
        "architecture.layers[3].residual.layers[0]",
        "architecture.layers[3].residual.layers[1]",
    ]


@pytest.mark.parametrize(
    ("record", "pad"),
    [(Conv2d(1, 1), 0), (Conv2d(1), 1), (Conv2d(1, 5), 2), (Conv2d(1, 5, padding=0), 0)],
)
def test_same_padding_is_half_the_kernel(record: Conv2d, pad: int) -> None:
    assert record.padding_size == pad


@pytest.mark.parametrize("pool", [MaxPool2d, AvgPool2d])
def test_default_stride_is_the_window_size(pool: type[MaxPool2d | AvgPool2d]) -> None:
    assert (pool(3).stride_size, pool(3, 1).stride_size) == (3, 1)

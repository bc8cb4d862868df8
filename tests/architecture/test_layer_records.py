"""Reading layers from YAML: every form that is right, and what is said about the wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from nnopt.architecture.layers import (
    GELU,
    LAYERS,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Tanh,
    parse_layers,
)
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
]


@pytest.mark.parametrize(("item", "expected"), FORMS, ids=str)
def test_every_form_of_a_layer(item: Any, expected: Any) -> None:
    assert parse_layers([item]) == (expected,)


def test_every_layer_is_tried() -> None:
    assert {type(record) for _, record in FORMS} == set(LAYERS.values())


MISTAKES: list[tuple[Any, str]] = [
    ("rellu", "architecture.layers[0]: unknown layer 'rellu'; did you mean 'relu'?"),
    ("xyz", "architecture.layers[0]: unknown layer 'xyz'; known layers: dense, relu,"),
    ({"dens": 3}, "architecture.layers[0]: unknown layer 'dens'; did you mean 'dense'?"),
    (5, "architecture.layers[0]: 5 is no layer; write a name or {name: arguments}"),
    (None, "architecture.layers[0]: None is no layer"),
    ([], "architecture.layers[0]: [] is no layer"),
    ({}, "architecture.layers[0]: {} is no layer"),
    ({"dense": 3, "relu": None}, "architecture.layers[0]: {'dense': 3, 'relu': None} is no layer"),
    ("dense", "architecture.layers[0].dense: the argument 'units' is missing"),
    ("dropout", "architecture.layers[0].dropout: the argument 'rate' is missing"),
    ("residual", "architecture.layers[0].residual: the argument 'layers' is missing"),
    ({"relu": 1}, "architecture.layers[0].relu: takes no argument, got 1"),
    (
        {"dense": {"units": 3, "biased": True}},
        "architecture.layers[0].dense: unknown argument 'biased'; allowed: units, bias",
    ),
    ({"relu": {"a": 1}}, "architecture.layers[0].relu: unknown argument 'a'; allowed: none"),
    ({"dense": 0}, "architecture.layers[0].dense.units = 0: needs a whole number of at least 1"),
    ({"dense": -3}, "architecture.layers[0].dense.units = -3: needs a whole number"),
    ({"dense": 2.5}, "architecture.layers[0].dense.units = 2.5: needs a whole number"),
    ({"dense": True}, "architecture.layers[0].dense.units = True: needs a whole number"),
    ({"dense": "many"}, "architecture.layers[0].dense.units = 'many': needs a whole number"),
    (
        {"dense": {"units": 3, "bias": "yes"}},
        "architecture.layers[0].dense.bias = 'yes': needs true or false",
    ),
    ({"dropout": 1}, "architecture.layers[0].dropout.rate = 1: needs a number in [0, 1)"),
    ({"dropout": -0.1}, "architecture.layers[0].dropout.rate = -0.1: needs a number in [0, 1)"),
    (
        {"dropout": float("nan")},
        "architecture.layers[0].dropout.rate = nan: needs a number in [0, 1)",
    ),
    ({"dropout": "a"}, "architecture.layers[0].dropout.rate = 'a': needs a number in [0, 1)"),
    ({"leaky_relu": 1.0}, "architecture.layers[0].leaky_relu.slope = 1.0: needs a number in"),
    ({"batch_norm": 0}, "architecture.layers[0].batch_norm.momentum = 0: needs a number in (0, 1]"),
    (
        {"layer_norm": float("inf")},
        "architecture.layers[0].layer_norm.epsilon = inf: needs a number above 0",
    ),
    ({"residual": []}, "architecture.layers[0].residual.layers = []: needs a list of at least one"),
    ({"residual": "relu"}, "architecture.layers[0].residual.layers = 'relu': needs a list"),
    (
        {"residual": ["relu", "tanhh"]},
        "architecture.layers[0].residual.layers[1]: unknown layer 'tanhh'; did you mean 'tanh'?",
    ),
]


@pytest.mark.parametrize(("item", "message"), MISTAKES, ids=lambda x: str(x)[:50])
def test_a_mistake_is_named_with_its_place(item: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layers([item])
    assert str(caught.value).startswith(message)
    assert len(caught.value.problems) == 1


def test_all_mistakes_are_told_at_once() -> None:
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

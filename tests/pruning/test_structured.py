"""Removal of units: the smaller network gives the logits of the network with masked units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt import schema
from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends import load_backend
from nnopt.backends.models import build_architecture
from nnopt.errors import ConfigError
from nnopt.pruning.structured import smaller_arrays, smaller_layers
from nnopt.pruning.units import Units, highest_units, kept_units, removable_units, unit_scores
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

NETWORKS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "dense": ([{"dense": 8}, "relu", {"dense": 6}, "sigmoid", {"dense": "classes"}], (5,)),
    "batch norm": (
        [{"dense": 8}, "batch_norm", "gelu", {"dense": 6}, "batch_norm", {"dense": "classes"}],
        (5,),
    ),
    "prelu": (
        [
            *[{"dense": 8}, "prelu", {"dense": 6}, {"prelu": {"per_channel": True}}],
            {"dense": "classes"},
        ],
        (5,),
    ),
    "conv, prelu": (
        [
            *[{"conv2d": 6}, {"prelu": {"per_channel": True}}, {"conv2d": 4}, "prelu", "flatten"],
            *[{"prelu": {"per_channel": True}}, {"dense": "classes"}],
        ],
        (2, 6, 6),
    ),
    "conv, flatten": (
        [
            {"conv2d": 6},
            "instance_norm",
            "relu",
            {"max_pool2d": 2},
            "flatten",
            {"dense": "classes"},
        ],
        (2, 6, 6),
    ),
    "conv, global pool": (
        [
            *[{"conv2d": 6}, "batch_norm", "silu", {"conv2d": {"channels": 8, "stride": 2}}],
            *["tanh", "global_avg_pool", {"dense": 7}, "relu", {"dense": "classes"}],
        ],
        (3, 8, 8),
    ),
    "residual": (
        [
            {"conv2d": 4},
            {
                "residual": {
                    "layers": [{"conv2d": 6}, "batch_norm", "relu", {"conv2d": 8}],
                    "shortcut": [{"conv2d": {"channels": 8, "kernel": 1}}],
                }
            },
            "batch_norm",
            {"residual": ["batch_norm", "relu", {"conv2d": 5}, "relu", {"conv2d": 8}]},
            *["global_avg_pool", {"dense": 6}, "relu", {"dense": "classes"}],
        ],
        (2, 6, 6),
    ),
}

READERS: dict[str, dict[str, list[str]]] = {
    "residual": {
        "conv2d1": ["residual1.conv2d1", "residual1.shortcut.conv2d1"],
        "residual1.shortcut.conv2d1": ["residual2.conv2d1", "dense1"],
    }
}
"""Network -> name of a layer -> names of the layers that read its units, if not just the next."""


def architecture_of(layers: list[Any], shape: tuple[int, ...]) -> Architecture:
    return infer_shapes(parse_layers(layers), shape, 3)


def random_arrays(architecture: Architecture) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = architecture.parameter_shapes() | architecture.statistic_shapes()
    return {
        name: rng.uniform(0.5, 1.5, shape) if "var" in name else rng.standard_normal(shape)
        for name, shape in shapes.items()
    }


def logits(
    make_config: MakeConfig,
    backend: str,
    architecture: Architecture,
    arrays: dict[str, np.ndarray],
    x: np.ndarray,
    dtype: str,
) -> np.ndarray:
    config = make_config(backend=backend, **{"backend.dtype": dtype})
    network = load_backend(backend).build_network(architecture, config)
    network.load({name: array.astype(dtype) for name, array in arrays.items()})
    x = x.astype(dtype)
    if backend == "torch":
        import torch

        return network.predict(torch.from_numpy(x))
    return network.predict(x)


def masked(
    network: str,
    architecture: Architecture,
    kept: dict[str, np.ndarray],
    arrays: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the arrays with zeros in place of the weights that read removed units."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    weighted = [x.name for x in architecture.walk() if len(x.parameters.get("weight", ())) > 1]
    for name, mask in kept.items():
        after = weighted[weighted.index(name) + 1 :][:1]
        for reader in READERS.get(network, {}).get(name, after):
            weight = arrays[f"{reader}.weight"]
            features = weight.shape[1] // len(mask)
            weight[:, ~np.repeat(mask, features)] = 0
    return arrays


@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("network", NETWORKS)
def test_smaller_network_gives_logits_of_masked_network(
    make_config: MakeConfig, backend: str, network: str, dtype: str, close: float
) -> None:
    """In the residual network, the units of layers whose outputs are added are removed too."""
    layers, shape = NETWORKS[network]
    architecture = architecture_of(layers, shape)
    arrays = random_arrays(architecture)
    found, _ = removable_units(architecture, residual=True)
    weighted = [x for x in architecture.weights if x != architecture.weights[-1]]
    assert sorted(f"{name}.weight" for x in found for name in x.layers) == sorted(weighted)
    kept = {
        name: highest_units(unit_scores(units, arrays, "l2", 0), kept_units(units.count, 0.5))
        for units in found
        for name in units.layers
    }
    smaller = infer_shapes(smaller_layers(architecture, kept), shape, 3)
    assert smaller.parameter_count < architecture.parameter_count
    assert [x.name for x in smaller.walk()] == [x.name for x in architecture.walk()]
    x = np.random.default_rng(1).standard_normal((9, *shape))
    whole = masked(network, architecture, {x.layers[0]: kept[x.layers[0]] for x in found}, arrays)
    expected = logits(make_config, backend, architecture, whole, x, dtype)
    parts = smaller_arrays(architecture, kept, arrays)
    found_logits = logits(make_config, backend, smaller, parts, x, dtype)
    scale = np.abs(expected).max()
    assert_allclose(found_logits / scale, expected / scale, rtol=0, atol=close)


def test_removable_units_leave_out_added_grouped_and_jointly_normalized_outputs() -> None:
    layers: list[Any] = [
        {"conv2d": 8},
        "group_norm",
        {"conv2d": 8},
        {"conv2d": {"channels": 8, "groups": 2}},
        {"conv2d": 6},
        {"residual": [{"conv2d": 4}, "relu", {"conv2d": 6}]},
        *["flatten", {"dense": 5}, "layer_norm", {"dense": 4}, "relu", {"dense": "classes"}],
    ]
    found, reasons = removable_units(architecture_of(layers, (3, 6, 6)))
    assert [units.layers for units in found] == [["residual1.conv2d1"], ["dense2"]]
    assert reasons == {
        "conv2d1": "group_norm1 normalizes several of its units together",
        "conv2d2": "conv2d3, which reads its channels, groups them",
        "conv2d3": "its channels are grouped",
        "conv2d4": "its outputs are added in residual1",
        "residual1.conv2d2": "its outputs are added in residual1",
        "dense1": "layer_norm1 normalizes several of its units together",
        "dense3": "it returns the logits",
    }


@pytest.mark.parametrize(
    ("count", "sparsity", "multiple", "kept"),
    [(300, 0.5, 1, 150), (100, 0.8, 8, 16), (10, 0.99, 1, 1), (6, 0.5, 8, 6), (64, 0.5, 16, 32)],
)
def test_kept_units_are_the_nearest_multiple(
    count: int, sparsity: float, multiple: int, kept: int
) -> None:
    assert kept_units(count, sparsity, multiple) == kept


def test_unit_scores_equal_their_definitions() -> None:
    arrays = {
        "dense1.weight": np.array([[3.0, -4.0], [1.0, 1.0]]),
        "batch_norm1.weight": np.array([-0.5, 0.25]),
    }
    units = Units(2, ["dense1"], ["batch_norm1"])
    assert_array_equal(unit_scores(units, arrays, "l1", 0), [7, 2])
    assert_allclose(unit_scores(units, arrays, "l2", 0), [5, 2**0.5])
    assert_array_equal(unit_scores(units, arrays, "batch_norm", 0), [0.5, 0.25])
    first, other = (unit_scores(units, arrays, "random", seed) for seed in (0, 1))
    assert np.all(first != other)


def test_scores_of_added_units_are_those_of_all_their_weights() -> None:
    arrays = {
        "a.weight": np.array([[3.0], [1.0]]),
        "b.weight": np.array([[[[-4.0]]], [[[1.0]]]]),
        "n.weight": np.array([-0.5, 0.25]),
        "m.weight": np.array([1.0, 2.0]),
    }
    units = Units(2, ["a", "b"], ["n", "m"])
    assert_array_equal(unit_scores(units, arrays, "l1", 0), [7, 2])
    assert_allclose(unit_scores(units, arrays, "l2", 0), [5, 2**0.5])
    assert_array_equal(unit_scores(units, arrays, "batch_norm", 0), [1.5, 2.25])


@pytest.mark.parametrize("depth", [9, 18, 20])
def test_residual_networks_keep_added_units_unless_requested(
    make_config: MakeConfig, depth: int
) -> None:
    config = make_config(
        architecture=schema.ResnetConfig("resnet", depth, None),
        **{"regularizer.norm": "batch"},
    )
    shape = (3, 32, 32)
    architecture = build_architecture(config.architecture, config.regularizer, shape, 10)
    inner, reasons = removable_units(architecture)
    assert inner
    assert all(len(units.layers) == 1 for units in inner)
    assert all("are added in residual" in x or "returns the logits" in x for x in reasons.values())
    both, others = removable_units(architecture, residual=True)
    assert list(others.values()) == ["it returns the logits"]
    assert sum(len(x.layers) for x in both) == len(architecture.weights) - 1
    arrays = {name: np.zeros(x) for name, x in architecture.parameter_shapes().items()}
    arrays |= {name: np.zeros(x) for name, x in architecture.statistic_shapes().items()}
    kept = {name: np.arange(x.count) < x.count // 2 for x in both for name in x.layers}
    smaller = infer_shapes(smaller_layers(architecture, kept), shape, 10)
    shapes = smaller.parameter_shapes() | smaller.statistic_shapes()
    parts = smaller_arrays(architecture, kept, arrays)
    assert {name: array.shape for name, array in parts.items()} == shapes
    assert architecture.flops_per_sample / smaller.flops_per_sample == pytest.approx(4, rel=0.05)


def test_units_added_by_nested_residual_layers_are_one_group() -> None:
    """The inner layer adds a copy of its input to a convolution, and the outer layer does again."""
    inner = {"residual": {"layers": ["relu"], "shortcut": [{"conv2d": 4}]}}
    layers = [{"conv2d": 4}, {"residual": [inner]}, "flatten", {"dense": "classes"}]
    found, reasons = removable_units(architecture_of(layers, (3, 6, 6)), residual=True)
    shortcut = "residual1.residual1.shortcut.conv2d1"
    assert [sorted(units.layers) for units in found] == [sorted(["conv2d1", shortcut])]
    assert list(reasons) == ["dense1"]


def test_units_added_to_the_input_are_kept() -> None:
    layers = [{"residual": [{"dense": 4}, "relu", {"dense": 5}]}, {"dense": "classes"}]
    found, reasons = removable_units(architecture_of(layers, (5,)), residual=True)
    assert [units.layers for units in found] == [["residual1.dense1"]]
    assert reasons["residual1.dense2"] == "its outputs are added to the input"


def test_networks_of_torchvision_are_refused() -> None:
    from nnopt.backends.torch.vision import describe_model

    config = schema.TorchvisionConfig("torchvision", "resnet18", False, False)
    with pytest.raises(ConfigError, match="cannot remove units of a network of torchvision"):
        removable_units(describe_model(config, (3, 32, 32), 10))


def test_highest_units_of_equal_scores_are_the_first() -> None:
    assert_array_equal(highest_units(np.array([1.0, 2.0, 1.0, 1.0]), 2), [True, True, False, False])

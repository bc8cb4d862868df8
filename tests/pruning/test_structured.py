"""Removal of units: the smaller network gives the logits of the network with masked units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends import load_backend
from nnopt.errors import ConfigError
from nnopt.pruning.structured import (
    Units,
    highest_units,
    kept_units,
    removable_units,
    smaller_arrays,
    smaller_layers,
    unit_scores,
)
from nnopt.schema import Config

MakeConfig = Callable[..., Config]

NETWORKS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "dense": ([{"dense": 8}, "relu", {"dense": 6}, "sigmoid", {"dense": "classes"}], (5,)),
    "batch norm": (
        [{"dense": 8}, "batch_norm", "gelu", {"dense": 6}, "batch_norm", {"dense": "classes"}],
        (5,),
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
            {"residual": ["batch_norm", "relu", {"conv2d": 5}, "relu", {"conv2d": 8}]},
            *["global_avg_pool", {"dense": 6}, "relu", {"dense": "classes"}],
        ],
        (2, 6, 6),
    ),
}


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
    architecture: Architecture, kept: dict[str, np.ndarray], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the arrays with zeros in place of the weights that read removed units.

    The readers are found by a change of the inputs, independently of the code under test.
    """
    arrays = {name: array.copy() for name, array in arrays.items()}
    every = list(architecture.walk())
    for name, mask in kept.items():
        index = next(i for i, layer in enumerate(every) if layer.name == name)
        reader = next(x for x in every[index + 1 :] if len(x.parameters.get("weight", ())) > 1)
        weight = arrays[f"{reader.name}.weight"]
        features = weight.shape[1] // len(mask)
        weight[:, ~np.repeat(mask, features)] = 0
    return arrays


@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize(("layers", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_smaller_network_gives_logits_of_masked_network(
    make_config: MakeConfig,
    backend: str,
    layers: list[Any],
    shape: tuple[int, ...],
    dtype: str,
    close: float,
) -> None:
    architecture = architecture_of(layers, shape)
    arrays = random_arrays(architecture)
    found, _ = removable_units(architecture)
    assert found
    kept = {
        units.layer: highest_units(
            unit_scores(units, arrays, "l2", 0), kept_units(units.count, 0.5)
        )
        for units in found
    }
    smaller = infer_shapes(smaller_layers(architecture, kept), shape, 3)
    assert smaller.parameter_count < architecture.parameter_count
    assert [x.name for x in smaller.walk()] == [x.name for x in architecture.walk()]
    x = np.random.default_rng(1).standard_normal((9, *shape))
    expected = logits(
        make_config, backend, architecture, masked(architecture, kept, arrays), x, dtype
    )
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
    assert [units.layer for units in found] == ["dense2", "residual1.conv2d1"]
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
    units = Units("dense1", 2, "batch_norm1")
    assert_array_equal(unit_scores(units, arrays, "l1", 0), [7, 2])
    assert_allclose(unit_scores(units, arrays, "l2", 0), [5, 2**0.5])
    assert_array_equal(unit_scores(units, arrays, "batch_norm", 0), [0.5, 0.25])
    first, other = (unit_scores(units, arrays, "random", seed) for seed in (0, 1))
    assert np.all(first != other)
    with pytest.raises(ConfigError, match="needs a batch norm after dense1"):
        unit_scores(Units("dense1", 2, None), arrays, "batch_norm", 0)


def test_highest_units_of_equal_scores_are_the_first() -> None:
    assert_array_equal(highest_units(np.array([1.0, 2.0, 1.0, 1.0]), 2), [True, True, False, False])

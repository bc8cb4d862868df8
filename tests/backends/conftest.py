"""Fixtures of small networks and batches for both backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends import load_backend
from nnopt.backends.protocol import Network
from nnopt.schema import Config

FEATURES, CLASSES = 6, 4


def random_arrays(architecture: Architecture) -> dict[str, NDArray[np.float64]]:
    """Return random parameters and statistics, the same in every call."""
    rng = np.random.default_rng(1)
    arrays = {}
    for name, shape in (architecture.parameter_shapes() | architecture.statistic_shapes()).items():
        middle = 1.0 if name.endswith("running_var") else 0.0
        spread = 0.2 if name.endswith("running_var") else shape[-1] ** -0.5
        arrays[name] = middle + spread * rng.standard_normal(shape)
    return arrays


@pytest.fixture(scope="session")
def make_network(make_config: Callable[..., Config]) -> Callable[..., Network]:
    """Return a function that builds a network with ``random_arrays``, in float64 by default.

    Example: ``make_network("torch", [{"dense": 8}, "relu", {"dense": "classes"}],
    optimizer="adam")``.
    """

    def make(
        backend: str,
        layers: Sequence[Any],
        input_shape: tuple[int, ...] = (FEATURES,),
        classes: int = CLASSES,
        **overrides: Any,
    ) -> Network:
        config = make_config(backend=backend, **{"backend.dtype": "float64"} | overrides)
        depth = config.regularizer.stochastic_depth
        architecture = infer_shapes(parse_layers(layers), input_shape, classes, depth)
        network = load_backend(backend).build_network(architecture, config)
        network.load(random_arrays(architecture))
        return network

    return make


@pytest.fixture
def batches() -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Return seven batches (N, D) with labels. The last batch is smaller than the others."""
    rng = np.random.default_rng(2)
    sizes = [10] * 6 + [3]
    return [(rng.standard_normal((n, FEATURES)), rng.integers(0, CLASSES, n)) for n in sizes]

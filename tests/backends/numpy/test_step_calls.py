"""A training step calls few Python functions, because calls dominate the time of small networks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

from nnopt.backends.numpy.network import NumpyNetwork

NETWORKS: dict[str, tuple[list[Any], tuple[int, ...], dict[str, str], int]] = {
    "dense, momentum": ([{"dense": 64}, "relu", {"dense": "classes"}], (2,), {}, 55),
    "dense, Adam": (
        [{"dense": 64}, "relu", {"dense": "classes"}],
        (2,),
        {"optimizer": "adam"},
        55,
    ),
    "convolution, batch norm": (
        [
            *({"conv2d": 8}, "batch_norm", "relu", {"max_pool2d": 2}),
            *("flatten", {"dense": "classes"}),
        ],
        (3, 8, 8),
        {},
        302,
    ),
    "convolution, group norm": (
        [{"conv2d": 8}, {"group_norm": 2}, "gelu", "flatten", {"dense": "classes"}],
        (3, 8, 8),
        {},
        246,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_step_calls_few_python_functions(
    make_network: Callable[..., NumpyNetwork], name: str
) -> None:
    layers, shape, overrides, limit = NETWORKS[name]
    network = make_network("numpy", layers, shape, **{"backend.threads": 1}, **overrides)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, *shape)), rng.integers(0, 4, 32)
    for step in range(2):  # these steps allocate the arrays and are not counted
        network.train_step(x, y, 0.01, step)
    calls = []

    def record(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    previous = sys.getprofile()
    sys.setprofile(record)
    try:
        network.train_step(x, y, 0.01, 2)
    finally:
        sys.setprofile(previous)
    assert len(calls) <= limit

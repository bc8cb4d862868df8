"""Convolutional networks in both backends, in float64: single layers and whole networks."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from test_parity_networks import MakeNetwork, assert_equal_after, train

from nnopt.schema import Activation

CLOSE = {"rtol": 1e-9, "atol": 1e-10}

LAYERS: dict[str, list[Any]] = {
    "conv": [{"conv2d": 5}],
    "conv, kernel 5, stride 2": [{"conv2d": {"channels": 5, "kernel": 5, "stride": 2}}],
    "conv without padding or bias": [{"conv2d": {"channels": 5, "padding": 0, "bias": False}}],
    "conv in groups": [{"conv2d": {"channels": 6, "groups": 3}}],
    "depthwise conv": [{"conv2d": {"channels": 6, "groups": 6}}],
    "pointwise conv": [{"conv2d": {"channels": 5, "kernel": 1}}],
    "frozen conv": [{"conv2d": {"channels": 5, "frozen": True}}],
    "frozen conv without bias": [{"conv2d": {"channels": 5, "bias": False, "frozen": True}}],
    "max pool": ["max_pool2d"],
    "max pool, overlapping and padded": [{"max_pool2d": {"size": 3, "stride": 2, "padding": 1}}],
    "max pool of ties": ["relu", {"max_pool2d": {"size": 3, "stride": 1}}],
    "average pool": ["avg_pool2d"],
    "average pool, padded": [{"avg_pool2d": {"size": 3, "stride": 2, "padding": 1}}],
    "global average pool": ["global_avg_pool"],
    "batch norm": ["batch_norm"],
    "layer norm": ["layer_norm"],
    "group norm": [{"group_norm": 2}],
    "instance norm": ["instance_norm"],
    "dropout": [{"dropout": 0.3}],
    "spatial dropout": [{"spatial_dropout": 0.3}],
    **{name: [name] for name in get_args(Activation)},
    "prelu per channel": [{"prelu": {"per_channel": True}}],
    "residual": [{"residual": [{"conv2d": 6}, "batch_norm", "relu", {"conv2d": 6}]}],
    "residual with shortcut": [
        {
            "residual": {
                "layers": [{"conv2d": {"channels": 7, "stride": 2}}, "batch_norm"],
                "shortcut": [{"conv2d": {"channels": 7, "kernel": 1, "stride": 2}}, "batch_norm"],
            }
        }
    ],
}


def image_batches(count: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches of 3 x 9 x 8 images of 4 classes."""
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((6, 3, 9, 8)), rng.integers(0, 4, 6)) for _ in range(count)]


@pytest.mark.parametrize("name", LAYERS)
def test_image_layer_agrees_between_backends(make_network: MakeNetwork, name: str) -> None:
    head = [] if name == "global average pool" else ["flatten"]
    layers = [{"conv2d": 6}, *LAYERS[name], *head, {"dense": "classes"}]
    assert_equal_after(make_network, image_batches(), layers, 1, 2.0, CLOSE, optimizer="sgd")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("bias", [True, False])
def test_frozen_weight_does_not_change(make_network: MakeNetwork, backend: str, bias: bool) -> None:
    """No regularizer or optimizer changes a frozen weight."""
    conv = {"conv2d": {"channels": 5, "bias": bias, "frozen": True}}
    keys = ("l1", "l2", "weight_decay", "max_norm", "grad_clip", "ema_decay")
    options = {f"regularizer.{key}": 0.01 for key in keys} | {
        "regularizer.decay_norm_and_bias": True
    }
    layers = [conv, "relu", {"conv2d": 4}, "flatten", {"dense": "classes"}]
    network = make_network(backend, layers, (3, 9, 8), optimizer="momentum", **options)
    before = network.arrays()
    train(network, backend, image_batches(), steps=3, lr=0.1)
    after = network.arrays()
    assert before.keys() == after.keys()
    same = {name for name in before if (before[name] == after[name]).all()}
    assert same == {"conv2d1.weight"}
    assert network.gradient_arrays().keys() == before.keys() - same


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", {"group_norm": 3}])
def test_image_network_training_agrees_between_backends(
    make_network: MakeNetwork, norm: Any
) -> None:
    block = [{"conv2d": 6}, norm, "relu"]
    layers = [
        *block,
        "max_pool2d",
        {"residual": [*block, {"spatial_dropout": 0.2}, {"conv2d": 6}]},
        "relu",
        {"conv2d": {"channels": 9, "stride": 2}},
        norm,
        "flatten",
        {"dropout": 0.3},
        {"dense": "classes"},
    ]
    options = {"optimizer": "momentum", "regularizer.l2": 0.01}
    assert_equal_after(make_network, image_batches(3), layers, 100, 0.02, CLOSE, **options)

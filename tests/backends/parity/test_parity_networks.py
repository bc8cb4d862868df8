"""Logits, gradients and training are equal in both backends, in float64.

Both backends have the same layers, weights and batches. A step of plain SGD with lr 1 subtracts the
gradient, so one step shows every gradient. A dense layer precedes the tested layer. The gradient of
the dense layer's weight depends on the gradient of the tested layer's input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from nnopt.backends.numpy.update_rules import OPTIMIZERS
from nnopt.backends.protocol import Network, StepRecord
from nnopt.schema import Activation, Config

MakeNetwork = Callable[..., Network]
Batches = list[tuple[np.ndarray, np.ndarray]]

BACKENDS = ("numpy", "torch")
TIGHT = {"rtol": 1e-10, "atol": 1e-12}
LONG = {"rtol": 1e-9, "atol": 1e-12}
"""Tolerance after a hundred steps, in which rounding errors grow."""

LAYERS: dict[str, list[Any]] = {
    "dense": [{"dense": 5}],
    "dense without bias": [{"dense": {"units": 5, "bias": False}}],
    **{name: [name] for name in get_args(Activation)},
    "leaky relu, slope": [{"leaky_relu": 0.3}],
    "leaky relu, slope 0": [{"leaky_relu": 0.0}],
    "elu, alpha": [{"elu": 0.3}],
    "prelu per feature": [{"prelu": {"per_channel": True}}],
    "prelu after prelu": ["prelu", {"dense": 6}, "prelu"],
    "batch norm": ["batch_norm"],
    "batch norm, options": [{"batch_norm": {"momentum": 0.4, "epsilon": 0.1}}],
    "batch norm, momentum 1": [{"batch_norm": {"momentum": 1.0}}],
    "layer norm": ["layer_norm"],
    "layer norm, epsilon": [{"layer_norm": {"epsilon": 0.1}}],
    "dropout": [{"dropout": 0.4}],
    "dropout, rate 0": [{"dropout": 0.0}],
    "flatten of flat samples": ["flatten"],
    "residual": [{"residual": ["relu"]}],
    "residual branch": [{"residual": [{"dense": 5}, "batch_norm", "gelu", {"dense": 8}]}],
    "residual in residual": [{"residual": ["tanh", {"residual": [{"dense": 8}, "silu"]}]}],
}

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "label smoothing": {"regularizer.label_smoothing": 0.1},
    "hinge": {"loss": "hinge"},
    "mean squared error": {"loss": "mse"},
    "mean squared error, smoothing": {"loss": "mse", "regularizer.label_smoothing": 0.1},
    "focal": {"loss": "focal"},
    "focal, gamma 0.5": {"loss": "focal", "focal_gamma": 0.5},
    "focal, gamma 0": {"loss": "focal", "focal_gamma": 0.0},
    "focal, smoothing": {"loss": "focal", "regularizer.label_smoothing": 0.1},
    "l1": {"regularizer.l1": 0.01},
    "l2": {"regularizer.l2": 0.05},
    "weight decay": {"regularizer.weight_decay": 0.1},
    "everything penalized": {
        "regularizer.l1": 0.01,
        "regularizer.l2": 0.05,
        "regularizer.weight_decay": 0.1,
        "regularizer.decay_norm_and_bias": True,
    },
    "gradients clipped": {"regularizer.grad_clip": 0.5, "regularizer.l2": 0.05},
    "gradients below the clip": {"regularizer.grad_clip": 1e6},
}


def train(
    network: Network, backend: str, batches: Batches, steps: int, lr: float
) -> tuple[dict[str, np.ndarray], StepRecord, np.ndarray]:
    """Train with a varying learning rate.

    Return the network's arrays, the record of the steps, and the logits of the first batch.
    """
    convert = torch.tensor if backend == "torch" else np.copy
    for step in range(steps):
        x, y = batches[step % len(batches)]
        network.train_step(convert(x), convert(y), lr * (1 + step % 3) / 2, step)
    return network.arrays(), network.read_steps(), network.predict(convert(batches[0][0]))


def assert_equal_after(
    make_network: MakeNetwork,
    batches: Batches,
    layers: list[Any],
    steps: int,
    lr: float,
    tolerance: dict[str, float],
    **options: Any,
) -> None:
    """Train both backends from the same weights and compare their results."""
    options = {"backend.shared_masks": True} | options
    shape = batches[0][0].shape[1:]
    (arrays, record, logits), (torch_arrays, torch_record, torch_logits) = (
        train(make_network(x, layers, shape, **options), x, batches, steps, lr) for x in BACKENDS
    )
    assert set(arrays) == set(torch_arrays)
    for name, array in arrays.items():
        assert_allclose(torch_arrays[name], array, **tolerance, err_msg=name)
    assert_allclose(torch_logits, logits, **tolerance)
    assert_allclose(torch_record.losses, record.losses, **tolerance)
    assert_allclose(torch_record.gradient_norm, record.gradient_norm, **tolerance)
    assert (torch_record.correct, torch_record.count) == (record.correct, record.count)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_between_backends(
    make_network: MakeNetwork, batches: Batches, name: str
) -> None:
    layers = [{"dense": 8}, *LAYERS[name], {"dense": "classes"}]
    assert_equal_after(make_network, batches, layers, 1, 2.0, TIGHT, optimizer="sgd")


def test_network_of_images_agrees_between_backends(make_network: MakeNetwork) -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((7, 3, 2, 4)), rng.integers(0, 4, 7))]
    layers = ["tanh", {"dropout": 0.2}, "flatten", {"dense": "classes"}]
    assert_equal_after(make_network, batches, layers, 1, 2.0, TIGHT, optimizer="sgd")


@pytest.mark.parametrize("penalized", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_slopes_of_prelu_are_penalized_like_norm_parameters(
    make_network: MakeNetwork, batches: Batches, per_channel: bool, penalized: bool
) -> None:
    """A step of SGD with lr 1 subtracts the gradient. L2 adds λ times the slope to it."""
    layers = [{"dense": 8}, {"prelu": {"per_channel": per_channel}}, {"dense": "classes"}]
    options = {"optimizer": "sgd", "regularizer.decay_norm_and_bias": penalized}
    x, y = batches[0]
    for backend in BACKENDS:
        convert = torch.tensor if backend == "torch" else np.copy
        slopes = []
        for l2 in (0.0, 0.5):
            network = make_network(backend, layers, **options, **{"regularizer.l2": l2})
            before = network.arrays()["prelu1.weight"]
            network.train_step(convert(x), convert(y), 1.0, 0)
            slopes.append(network.arrays()["prelu1.weight"])
        assert before.shape == ((8,) if per_channel else (1,))
        assert_allclose(slopes[0] - slopes[1], 0.5 * before * penalized, **TIGHT)


@pytest.mark.parametrize("name", OPTIONS)
def test_loss_penalty_and_clipping_agree_between_backends(
    make_network: MakeNetwork, batches: Batches, name: str
) -> None:
    layers = [{"dense": 8}, "layer_norm", "tanh", {"dense": "classes"}]
    for steps, optimizer in ((1, "sgd"), (20, "momentum")):
        options = {"optimizer": optimizer} | OPTIONS[name]
        assert_equal_after(make_network, batches, layers, steps, 0.1, TIGHT, **options)


def test_every_loss_is_compared() -> None:
    compared = {options.get("loss", "cross_entropy") for options in OPTIONS.values()}
    assert compared == set(get_args(get_type_hints(Config)["loss"]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "focal"])
def test_training_on_mixed_labels_agrees_between_backends(
    make_network: MakeNetwork, batches: Batches, loss: str, smoothing: float
) -> None:
    """For the accuracy, the label of a mixture is the class with the largest fraction."""
    rng = np.random.default_rng(0)
    mixed = [(x, rng.dirichlet(np.ones(4), len(x))) for x, _ in batches]
    layers = [{"dense": 8}, "tanh", {"dense": "classes"}]
    options = {"regularizer.label_smoothing": smoothing, "loss": loss}
    assert_equal_after(make_network, mixed, layers, 20, 0.1, TIGHT, **options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("decay", [None, 0.02])
def test_optimizer_agrees_between_backends(
    make_network: MakeNetwork, batches: Batches, optimizer: str, decay: float | None
) -> None:
    layers = [{"dense": 8}, "tanh", {"dense": "classes"}]
    options = {"optimizer": optimizer, "regularizer.weight_decay": decay}
    assert_equal_after(make_network, batches, layers, 20, 0.05, TIGHT, **options)


RULES: list[dict[str, Any]] = [
    {"optimizer": "rmsprop", "optimizer.momentum": 0.5},
    {"optimizer": "rmsprop", "optimizer.centered": True, "optimizer.epsilon": 1e-3},
    {
        "optimizer": "rmsprop",
        "optimizer.momentum": 0.5,
        "optimizer.centered": True,
        "optimizer.epsilon": 1e-3,
    },
    {"optimizer": "adam", "optimizer.amsgrad": True},
    {"optimizer": "nadam", "optimizer.momentum_decay": 0.1},
    {"optimizer": "adadelta", "optimizer.rho": 0.5},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_optimizer_with_options_agrees_between_backends(
    make_network: MakeNetwork, batches: Batches, rule: dict[str, Any]
) -> None:
    layers = [{"dense": 8}, "tanh", {"dense": "classes"}]
    options = rule | {"regularizer.weight_decay": 0.02, "regularizer.l2": 0.01}
    assert_equal_after(make_network, batches, layers, 100, 0.05, LONG, **options)


WHOLE = {
    "batch norm": ["batch_norm", "relu"],
    "batch norm and dropout": ["batch_norm", "relu", {"dropout": 0.3}],
    "layer norm and residual": ["layer_norm", {"residual": [{"dense": 16}, "gelu"]}],
}


@pytest.mark.parametrize("name", WHOLE)
def test_hundred_steps_agree_between_backends(
    make_network: MakeNetwork, batches: Batches, name: str
) -> None:
    """Training uses momentum and an L2 penalty. Every seventh batch is smaller."""
    hidden = [{"dense": {"units": 16, "bias": False}}, *WHOLE[name]]
    layers = [*hidden, *hidden, {"dense": "classes"}]
    options = {"optimizer": "momentum", "regularizer.l2": 0.01}
    assert_equal_after(make_network, batches, layers, 100, 0.1, LONG, **options)


def test_comparison_of_networks_with_different_masks_fails(
    make_network: MakeNetwork, batches: Batches
) -> None:
    """The comparisons above detect different dropout masks."""
    layers = [{"dense": 8}, {"dropout": 0.3}, {"dense": "classes"}]
    with pytest.raises(AssertionError, match="dense"):
        assert_equal_after(
            make_network, batches, layers, 1, 0.1, TIGHT, **{"backend.shared_masks": False}
        )

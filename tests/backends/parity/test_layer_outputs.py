"""Gradients of the last step, and outputs of all layers, compared between the backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_parity_images import image_batches
from test_parity_networks import MakeNetwork

from nnopt.backends.protocol import Network

SHAPE = (3, 9, 8)
LAYERS: list[Any] = [
    {"conv2d": 4},
    "batch_norm",
    "relu",
    {
        "residual": {
            "layers": [{"conv2d": {"channels": 5, "stride": 2}}, "batch_norm", "relu"],
            "shortcut": [{"conv2d": {"channels": 5, "kernel": 1, "stride": 2}}],
        }
    },
    {"spatial_dropout": 0.3},
    "max_pool2d",
    "flatten",
    {"dense": "classes"},
]
OUTPUTS = {
    "conv2d1": (4, 9, 8),
    "batch_norm1": (4, 9, 8),
    "relu1": (4, 9, 8),
    "residual1": (5, 5, 4),
    "residual1.conv2d1": (5, 5, 4),
    "residual1.batch_norm1": (5, 5, 4),
    "residual1.relu1": (5, 5, 4),
    "residual1.shortcut.conv2d1": (5, 5, 4),
    "spatial_dropout1": (5, 5, 4),
    "max_pool2d1": (5, 2, 2),
    "flatten1": (20,),
    "dense1": (4,),
}


def on_device(backend: str, *arrays: np.ndarray) -> Any:
    if backend == "numpy":
        return arrays
    import torch

    return [torch.from_numpy(array) for array in arrays]


def trained(make_network: MakeNetwork, backend: str, **options: Any) -> Network:
    """Return a network after two training steps."""
    shared = {} if backend == "numpy" else {"backend.shared_masks": True}
    network = make_network(backend, LAYERS, SHAPE, **shared, **options)
    for step, batch in enumerate(image_batches()):
        x, y = on_device(backend, *batch)
        network.train_step(x, y, 0.1, step)
    return network


@pytest.fixture
def x() -> np.ndarray:
    return image_batches()[0][0]


def test_layer_outputs_agree_between_backends(make_network: MakeNetwork, x: np.ndarray) -> None:
    ours, theirs = (
        trained(make_network, backend).layer_outputs(*on_device(backend, x))
        for backend in ("numpy", "torch")
    )
    assert {name: array.shape[1:] for name, array in ours.items()} == OUTPUTS
    assert list(ours) == list(theirs) == list(OUTPUTS)
    for name, array in theirs.items():
        assert_allclose(ours[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


def test_layer_outputs_are_not_overwritten_by_later_layers(
    make_network: MakeNetwork, x: np.ndarray
) -> None:
    """Each layer's output equals a computation from the returned outputs of earlier layers."""
    network = trained(make_network, "numpy")
    y = network.layer_outputs(x)
    assert_array_equal(y["relu1"], np.maximum(y["batch_norm1"], 0))
    both = y["residual1.relu1"] + y["residual1.shortcut.conv2d1"]
    assert_allclose(y["residual1"], both, rtol=1e-12)
    assert_array_equal(y["flatten1"], y["max_pool2d1"].reshape(len(x), -1))
    assert_array_equal(y["dense1"], network.predict(x))


@pytest.mark.parametrize("options", [{}, {"regularizer.l2": 0.1, "regularizer.grad_clip": 0.01}])
def test_gradient_arrays_agree_between_backends(
    make_network: MakeNetwork, options: dict[str, Any]
) -> None:
    ours, theirs = (
        trained(make_network, backend, **options).gradient_arrays()
        for backend in ("numpy", "torch")
    )
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        assert_allclose(ours[name], array, rtol=1e-9, atol=1e-9, err_msg=name)
    if options:
        total = np.sqrt(sum(np.sum(array**2) for array in ours.values()))
        assert total == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_layer_outputs_and_gradients_are_copies(
    make_network: MakeNetwork, backend: str, x: np.ndarray
) -> None:
    """Changing the returned arrays does not affect training."""
    plain, watched = (trained(make_network, backend) for _ in range(2))
    (there,) = on_device(backend, x)
    for array in (*watched.layer_outputs(there).values(), *watched.gradient_arrays().values()):
        array[...] = np.nan
    again, labels = on_device(backend, *image_batches()[1])
    for network in (plain, watched):
        network.train_step(again, labels, 0.1, 2)
    for name, array in plain.arrays().items():
        assert_array_equal(watched.arrays()[name], array)

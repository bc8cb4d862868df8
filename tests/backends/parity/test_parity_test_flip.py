"""Logits averaged over images and their mirror images, in both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from nnopt.backends.protocol import Network

IMAGES = np.random.default_rng(5).standard_normal((7, 2, 4, 6))
NETWORKS: dict[str, list[Any]] = {
    "dense": ["flatten", {"dense": 5}, "tanh", {"dense": "classes"}],
    "convolutional": [
        {"conv2d": 4},
        "batch_norm",
        "relu",
        "max_pool2d",
        "flatten",
        {"dense": "classes"},
    ],
}

MakeNetwork = Callable[..., Network]


def logits(make_network: MakeNetwork, backend: str, name: str, x: np.ndarray, flip: bool) -> Any:
    options = {"regularizer.test_time_flip": flip}
    network = make_network(backend, NETWORKS[name], (2, 4, 6), 3, **options)
    return network.predict(torch.tensor(x) if backend == "torch" else x)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_flip_averages_logits_of_image_and_mirror_image(
    make_network: MakeNetwork, backend: str, name: str
) -> None:
    mirrored = IMAGES[..., ::-1].copy()
    plain = logits(make_network, backend, name, IMAGES, False)
    other = logits(make_network, backend, name, mirrored, False)
    both = logits(make_network, backend, name, IMAGES, True)
    assert_allclose(both, (plain + other) / 2, rtol=1e-12, atol=1e-14)
    assert np.abs(both - plain).max() > 1e-2
    upside_down = logits(make_network, backend, name, IMAGES[..., ::-1, :].copy(), False)
    assert np.abs(both - (plain + upside_down) / 2).max() > 1e-2
    assert_allclose(logits(make_network, backend, name, mirrored, True), both, rtol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_flip_agrees_between_backends(make_network: MakeNetwork, name: str) -> None:
    first, second = (
        logits(make_network, backend, name, IMAGES, True) for backend in ("numpy", "torch")
    )
    assert_allclose(first, second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_flip_does_not_affect_training(make_network: MakeNetwork, backend: str) -> None:
    labels = np.arange(7) % 3
    found = []
    for flip in (False, True):
        options = {"regularizer.test_time_flip": flip}
        network = make_network(backend, NETWORKS["convolutional"], (2, 4, 6), 3, **options)
        place: Any = torch.tensor if backend == "torch" else np.copy
        for step in range(3):
            network.train_step(place(IMAGES), place(labels), 0.1, step)
            network.predict(place(IMAGES))
        found.append(network.arrays())
    for name, array in found[0].items():
        assert (array == found[1][name]).all(), name

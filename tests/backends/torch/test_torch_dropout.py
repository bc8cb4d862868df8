"""Dropout masks, shared with NumPy or drawn on the device: functions of seed, layer and step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.backends.torch.dropout import DeviceMasks, Dropout
from nnopt.backends.torch.network import TorchNetwork
from nnopt.random import DropoutMasks

CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.5, 0.999])
def test_dropout_keeps_expected_fraction_and_scales_by_its_inverse(rate: float) -> None:
    masks = DeviceMasks(0, "dropout1", rate, CPU)
    count = 400_000
    kept = masks.draw(0, torch.Size((400, 1000))).float().mean().item()
    assert abs(kept - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / count) + 2**-16
    assert masks.scale * (1 - rate) == pytest.approx(1, abs=2**-16 / (1 - rate))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 4), (2, 3, 3)])
def test_dropout_mask_has_the_requested_shape(shape: tuple[int, ...]) -> None:
    keep = DeviceMasks(0, "dropout1", 0.5, CPU).draw(0, torch.Size(shape))
    assert keep.shape == shape
    assert keep.dtype == torch.bool


def test_dropout_masks_depend_only_on_seed_layer_and_step() -> None:
    shape = torch.Size((64, 64))

    def draw(seed: int, layer: str, step: int) -> torch.Tensor:
        return DeviceMasks(seed, layer, 0.5, CPU).draw(step, shape)

    masks = DeviceMasks(0, "dropout1", 0.5, CPU)
    first, second = masks.draw(0, shape), masks.draw(1, shape)
    torch.rand(3)
    assert torch.equal(masks.draw(0, shape), first)  # the order of steps does not matter
    assert torch.equal(draw(0, "dropout1", 1), second)
    others = [
        second,
        draw(1, "dropout1", 0),
        draw(0, "dropout2", 0),
        draw(2**63 - 1, "dropout1", 0),
    ]
    for other in others:  # independent masks agree on half of the units
        assert 0.45 < (other == first).float().mean().item() < 0.55


def test_units_of_one_mask_are_independent() -> None:
    """Units are independent even if their random numbers come from the same 64 random bits."""
    keep = DeviceMasks(0, "dropout1", 0.5, CPU).draw(0, torch.Size((100_000, 4)))
    correlation = np.corrcoef(keep.numpy().T.astype(float))
    assert np.abs(correlation - np.eye(4)).max() < 0.02


def test_shared_masks_equal_those_of_numpy(make_network: Callable[..., TorchNetwork]) -> None:
    """The weight's gradient, d_zᵀ (x · keep · scale), shows the masks.

    d_z is the gradient of the logits, ``keep`` is the mask, and ``scale`` is 1 / (1 - rate).
    """
    changes = {"backend.shared_masks": True, "optimizer": "sgd", "seed": 11}
    network = make_network("torch", [{"dropout": 0.3}, {"dense": "classes"}], **changes)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 6)), rng.integers(0, 4, 9)
    masks = DropoutMasks(11, "dropout1", 0.3)
    for step in (0, 5, 2):
        w = network.arrays()
        dropped = x * masks.draw(step, x.shape) * masks.scale
        z = dropped @ w["dense1.weight"].T + w["dense1.bias"]
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        expected = w["dense1.weight"] - ((p - np.eye(4)[y]) / 9).T @ dropped
        network.train_step(torch.tensor(x), torch.tensor(y), 1.0, step)
        assert_allclose(network.arrays()["dense1.weight"], expected, rtol=1e-12, atol=1e-13)


def test_dropout_gradient_has_the_mask_of_the_output() -> None:
    dropout = Dropout(DeviceMasks(0, "dropout1", 0.4, CPU))
    x = torch.ones(8, 8, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.6, rel=1e-4)]


def test_evaluation_and_rate_zero_drop_nothing(make_network: Callable[..., TorchNetwork]) -> None:
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = make_network("torch", [{"dense": "classes"}])
    for rate in (0, 0.0, 0.5):
        network = make_network("torch", [{"dropout": rate}, {"dense": "classes"}])
        assert_array_equal(network.predict(x), plain.predict(x))
    network = make_network("torch", [{"dropout": 0.0}, {"dense": "classes"}])
    for trained in (network, plain):
        trained.train_step(x, torch.zeros(9, dtype=torch.int64), 0.1, 0)
    assert_array_equal(network.arrays()["dense1.weight"], plain.arrays()["dense1.weight"])


def test_dropout_used_twice_in_a_step_draws_two_masks() -> None:
    """In torchvision's Swin transformers, two branches share one stochastic depth module."""
    module = Dropout(DeviceMasks(0, "dropout1", 0.5, CPU))
    x = torch.ones(64, 64)
    module.set_step(3)
    first, second = module(x), module(x)
    assert 0.45 < (first == second).float().mean().item() < 0.55
    module.set_step(3)
    assert torch.equal(module(x), first)
    assert torch.equal(module(x), second)


def test_dropout_in_16_bits_keeps_the_mean() -> None:
    """The scale at rate 0.1 is 1.1111. In bfloat16, the scale would be 1.1094, 0.16 % too small."""
    module = Dropout(DeviceMasks(0, "dropout1", 0.1, CPU))
    x = torch.linspace(1, 2, 2**20).to(torch.bfloat16)
    y = module(x)
    assert y.dtype == torch.bfloat16
    ratio = (y.double() / x.double())[y != 0].mean().item()
    assert ratio == pytest.approx(1 / 0.9, rel=3e-4)

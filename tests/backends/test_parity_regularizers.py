"""Regularizers that act on a network's weights or layers: what each does, and that both backends do
the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from test_parity_images import CLOSE, image_batches
from test_parity_networks import BACKENDS, assert_equal_after, train

from nnopt.architecture.builders import build
from nnopt.architecture.layers import Residual
from nnopt.backends import Network
from nnopt.backends.numpy_scratch import modules
from nnopt.backends.numpy_scratch.network import NumpyNetwork
from nnopt.backends.numpy_scratch.tape import Variable
from nnopt.backends.pytorch.network import TorchNetwork
from nnopt.random import KeepMasks
from nnopt.schema import Config, ResnetConfig

MakeNetwork = Callable[..., Network]

CONV: list[Any] = [{"conv2d": 6}, "batch_norm", "relu", "global_avg_pool", {"dense": "classes"}]
IMAGE = (3, 9, 8)


# max-norm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_max_norm_scales_down_the_units_that_exceed_it(
    make_network: MakeNetwork, backend: str, dtype: str
) -> None:
    """Every parameter after a step is the one without max-norm, or, if it is a weight whose unit
    has a larger norm, as many times smaller."""
    batches = [(x.astype(dtype), y) for x, y in image_batches()]
    options = {"backend.dtype": dtype, "regularizer.decay_all": True}
    free, limited = (
        train(
            make_network(backend, CONV, IMAGE, **options, **{"regularizer.max_norm": largest}),
            backend,
            batches,
            1,
            1.0,
        )[0]
        for largest in (0.0, 1.0)
    )
    scaled = kept = 0
    for name, array in free.items():
        if not name.endswith(("conv2d1.weight", "dense1.weight")):
            assert_array_equal(limited[name], array)
            continue
        for weight, found in zip(array, limited[name], strict=True):
            norm = np.sqrt(sum(float(w) ** 2 for w in weight.flat))
            if norm > 1:
                assert_allclose(found, weight / norm, rtol=1e-6 if dtype == "float32" else 1e-13)
                scaled += 1
            else:
                assert_array_equal(found, weight)
                kept += 1
    assert scaled
    assert kept


def test_max_norm_is_the_same_in_both(make_network: MakeNetwork) -> None:
    options = {"optimizer": "momentum", "regularizer.max_norm": 0.7, "regularizer.l2": 0.01}
    assert_equal_after(make_network, image_batches(), CONV, 20, 0.1, CLOSE, **options)


def test_max_norm_of_whole_arrays_is_seen(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_norms(self: TorchNetwork, largest: float) -> None:
        for weight in self._weights:
            weight.div_((weight.norm() / largest).clamp(min=1))

    monkeypatch.setattr(TorchNetwork, "_limit_norms", limit_norms)
    with pytest.raises(AssertionError, match="weight"):
        test_max_norm_is_the_same_in_both(make_network)


# stochastic depth ---------------------------------------------------------------------------------

RESIDUAL: list[Any] = [
    {"residual": [{"dense": 6}, "tanh"]},
    {"residual": [{"dense": 5}, {"residual": ["batch_norm", {"dense": 5}]}, {"dense": 6}]},
    {"dense": "classes"},
]
RESIDUAL_CONV: list[Any] = [
    {"residual": {"layers": [{"conv2d": 2}, "tanh"], "shortcut": [{"conv2d": 2}]}},
    {"residual": [{"conv2d": {"channels": 2, "kernel": 1}}, "batch_norm"]},
    "flatten",
    {"dense": "classes"},
]
HALF = {"regularizer.stochastic_depth": 0.5, "backend.shared_masks": True}


@pytest.mark.parametrize(("depth", "blocks"), [(9, 2), (18, 8), (20, 9)])
def test_the_deeper_a_branch_the_more_often_it_is_skipped(
    make_config: Callable[..., Config], depth: Any, blocks: int
) -> None:
    config = make_config(
        architecture=ResnetConfig("resnet", depth, 4), **{"regularizer.stochastic_depth": 0.4}
    )
    layers = build(config.architecture, config.regularizer, (3, 16, 16), 10).walk()
    rates = {x.name: x.skipped for x in layers if isinstance(x.record, Residual)}
    expected = [0.4 * (i + 1) / blocks for i in range(blocks)]
    assert list(rates.values()) == pytest.approx(expected, rel=1e-15)
    assert list(rates) == [f"residual{i + 1}" for i in range(blocks)]


def test_skipped_branches_add_nothing_and_the_others_more(make_network: MakeNetwork) -> None:
    """Sample by sample, of a branch within another's too; evaluation skips none."""
    layers = [*RESIDUAL[:1], {"residual": ["tanh", {"residual": ["sigmoid"]}]}, RESIDUAL[-1]]
    network, plain = (make_network("numpy", layers, seed=7, **options) for options in (HALF, {}))
    assert isinstance(network, NumpyNetwork)
    x, y = np.random.default_rng(0).standard_normal((40, 6)), np.zeros(40, np.int64)
    assert_array_equal(network.predict(x), plain.predict(x))
    w = plain.arrays()
    rates = {"residual1": 0.5 / 3, "residual2": 1 / 3, "residual2.residual1": 0.5}
    masks = [KeepMasks(7, name, rate) for name, rate in rates.items()]
    for step in (0, 3):
        kept = [mask.draw(step, (40, 1)) for mask in masks]
        assert all(0 < np.count_nonzero(x) < 40 for x in kept)
        a, b, c = (x * mask.scale for x, mask in zip(kept, masks, strict=True))
        h = x @ w["residual1.dense1.weight"].T + w["residual1.dense1.bias"]
        h = x + a * np.tanh(h)
        inner = np.tanh(h)
        h = h + b * (inner + c / (1 + np.exp(-inner)))
        logits = network.forward(Variable(x), y, step)[0].value
        expected = h @ w["dense1.weight"].T + w["dense1.bias"]
        assert_allclose(logits, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("layers", "shape"), [(RESIDUAL, (6,)), (RESIDUAL_CONV, (2, 3, 3))])
def test_gradients_under_stochastic_depth_are_central_differences(
    make_network: MakeNetwork, layers: list[Any], shape: tuple[int, ...]
) -> None:
    network = make_network("numpy", layers, shape, **HALF)
    assert isinstance(network, NumpyNetwork)
    rng = np.random.default_rng(1)
    x = Variable(rng.standard_normal((7, *shape)), wanted=True)
    y = rng.integers(0, 4, 7)
    found = {n: g.copy() for n, g in network.gradients(network.forward(x, y, 2)[1]).items()}
    found["input"] = np.array(x.gradient)
    values = {n: p.value for n, p in network.parameters.items()} | {"input": x.value}
    for name, value in values.items():
        numeric = np.empty_like(value)
        for index in np.ndindex(value.shape):
            losses = []
            for move in (1e-6, -2e-6):
                value[index] += move
                losses.append(float(network.forward(x, y, 2)[1].value))
            value[index] += 1e-6
            numeric[index] = (losses[0] - losses[1]) / 2e-6
        assert_allclose(found[name], numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def test_a_gradient_that_reaches_a_skipped_branch_is_seen(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = modules.DROPOUT._replace(backward=lambda g, mask, wanted, buffer: (g.copy(),))
    monkeypatch.setattr(modules, "DROPOUT", wrong)
    with pytest.raises(AssertionError, match="residual1"):
        test_gradients_under_stochastic_depth_are_central_differences(make_network, RESIDUAL, (6,))


@pytest.mark.parametrize("name", ["flat", "images"])
def test_stochastic_depth_is_the_same_in_both(
    make_network: MakeNetwork, batches: Any, name: str
) -> None:
    layers, data = (RESIDUAL, batches) if name == "flat" else (RESIDUAL_CONV, image_batches())
    if name == "images":
        layers = [{"conv2d": 2}, *layers]
    assert_equal_after(make_network, data, layers, 20, 0.01, CLOSE, optimizer="momentum", **HALF)
    unlike = HALF | {"backend.shared_masks": False}
    with pytest.raises(AssertionError, match="weight"):
        assert_equal_after(make_network, data, layers, 1, 0.1, CLOSE, **unlike)


def test_masks_of_the_device_skip_whole_samples(make_network: MakeNetwork) -> None:
    """With the last layer's weight as the unit matrix the logits are x, or x and twice the
    branch."""
    layers = [{"residual": [{"dense": 4}, "tanh"]}, {"dense": {"units": "classes", "bias": False}}]
    network = make_network("torch", layers, (4,), **{"regularizer.stochastic_depth": 0.5})
    assert isinstance(network, TorchNetwork)
    network.load(network.arrays() | {"dense1.weight": np.eye(4)})
    x = torch.tensor(np.random.default_rng(0).standard_normal((200, 4)))
    branch = torch.tensor(network.predict(x)) - x
    with torch.no_grad():
        added = network.module.train()(x) - x
    is_skipped = (added == 0).all(dim=1)
    assert 70 < is_skipped.sum() < 130
    assert_allclose(added[~is_skipped], 2 * branch[~is_skipped], rtol=1e-9, atol=1e-12)

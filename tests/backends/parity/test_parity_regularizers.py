"""Regularizers of weights and layers, and gradient accumulation, in both backends."""

from __future__ import annotations

import tracemalloc
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
from nnopt.backends.numpy import modules
from nnopt.backends.numpy import network as numpy_network
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.tape import Variable
from nnopt.backends.protocol import Network
from nnopt.backends.torch import network as torch_network
from nnopt.backends.torch.network import TorchNetwork
from nnopt.data.batches import batch_parts
from nnopt.random import DropoutMasks
from nnopt.schema import Config, ResnetConfig

MakeNetwork = Callable[..., Network]

CONV: list[Any] = [{"conv2d": 6}, "batch_norm", "relu", "global_avg_pool", {"dense": "classes"}]
IMAGE = (3, 9, 8)


# max-norm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_max_norm_scales_down_only_units_above_the_limit(
    make_network: MakeNetwork, backend: str, dtype: str
) -> None:
    """Max-norm rescales the weights of units whose norm is too large, and no other weights."""
    batches = [(x.astype(dtype), y) for x, y in image_batches()]
    options = {"backend.dtype": dtype, "regularizer.decay_norm_and_bias": True}
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
        for weight, computed in zip(array, limited[name], strict=True):
            norm = np.sqrt(sum(float(w) ** 2 for w in weight.flat))
            if norm > 1:
                assert_allclose(computed, weight / norm, rtol=1e-6 if dtype == "float32" else 1e-13)
                scaled += 1
            else:
                assert_array_equal(computed, weight)
                kept += 1
    assert scaled
    assert kept


def test_max_norm_agrees_between_backends(make_network: MakeNetwork) -> None:
    options = {"optimizer": "momentum", "regularizer.max_norm": 0.7, "regularizer.l2": 0.01}
    assert_equal_after(make_network, image_batches(), CONV, 20, 0.1, CLOSE, **options)


def test_comparison_fails_if_max_norm_limits_whole_arrays(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_norms(weights: list[torch.Tensor], largest: float, overflowed: None) -> None:
        for weight in weights:
            weight.div_((weight.norm() / largest).clamp(min=1))

    monkeypatch.setattr("nnopt.backends.torch.network.limit_norms", limit_norms)
    with pytest.raises(AssertionError, match="weight"):
        test_max_norm_agrees_between_backends(make_network)


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
def test_stochastic_depth_skips_deeper_branches_more_often(
    make_config: Callable[..., Config], depth: Any, blocks: int
) -> None:
    config = make_config(
        architecture=ResnetConfig("resnet", depth, 4), **{"regularizer.stochastic_depth": 0.4}
    )
    layers = build(config.architecture, config.regularizer, (3, 16, 16), 10).walk()
    rates = {x.name: x.skip_probability for x in layers if isinstance(x.record, Residual)}
    expected = [0.4 * (i + 1) / blocks for i in range(blocks)]
    assert list(rates.values()) == pytest.approx(expected, rel=1e-15)
    assert list(rates) == [f"residual{i + 1}" for i in range(blocks)]


def test_skipped_branch_adds_zero_and_other_branches_are_scaled(make_network: MakeNetwork) -> None:
    """Each sample skips different branches, including nested ones. Evaluation skips none."""
    layers = [*RESIDUAL[:1], {"residual": ["tanh", {"residual": ["sigmoid"]}]}, RESIDUAL[-1]]
    network, plain = (make_network("numpy", layers, seed=7, **options) for options in (HALF, {}))
    assert isinstance(network, NumpyNetwork)
    x, y = np.random.default_rng(0).standard_normal((40, 6)), np.zeros(40, np.int64)
    assert_array_equal(network.predict(x), plain.predict(x))
    w = plain.arrays()
    rates = {"residual1": 0.5 / 3, "residual2": 1 / 3, "residual2.residual1": 0.5}
    masks = [DropoutMasks(7, name, rate) for name, rate in rates.items()]
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
def test_stochastic_depth_gradients_equal_central_differences(
    make_network: MakeNetwork, layers: list[Any], shape: tuple[int, ...]
) -> None:
    network = make_network("numpy", layers, shape, **HALF)
    assert isinstance(network, NumpyNetwork)
    rng = np.random.default_rng(1)
    x = Variable(rng.standard_normal((7, *shape)), requires_grad=True)
    y = rng.integers(0, 4, 7)
    computed = {n: g.copy() for n, g in network.gradients(network.forward(x, y, 2)[1]).items()}
    computed["input"] = np.array(x.gradient)
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
        assert_allclose(computed[name], numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def test_gradient_check_fails_if_a_skipped_branch_has_a_gradient(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = modules.DROPOUT._replace(backward=lambda g, mask, buffer: (g.copy(),))
    monkeypatch.setattr(modules, "DROPOUT", wrong)
    with pytest.raises(AssertionError, match="residual1"):
        test_stochastic_depth_gradients_equal_central_differences(make_network, RESIDUAL, (6,))


@pytest.mark.parametrize("name", ["flat", "images"])
def test_stochastic_depth_agrees_between_backends(
    make_network: MakeNetwork, batches: Any, name: str
) -> None:
    layers, data = (RESIDUAL, batches) if name == "flat" else (RESIDUAL_CONV, image_batches())
    if name == "images":
        layers = [{"conv2d": 2}, *layers]
    assert_equal_after(make_network, data, layers, 20, 0.01, CLOSE, optimizer="momentum", **HALF)
    different = HALF | {"backend.shared_masks": False}
    with pytest.raises(AssertionError, match="weight"):
        assert_equal_after(make_network, data, layers, 1, 0.1, CLOSE, **different)


def test_stochastic_depth_masks_on_device_skip_whole_samples(make_network: MakeNetwork) -> None:
    """The last weight is an identity matrix, so a sample's logits are x or x + 2 · branch."""
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


# micro-batches ----------------------------------------------------------------------------------

PLAIN: list[Any] = [{"dense": 8}, "layer_norm", "tanh", {"dense": "classes"}]
PENALIZED = {
    "optimizer": "momentum",
    "regularizer.l2": 0.02,
    "regularizer.grad_clip": 0.5,
    "regularizer.max_norm": 0.9,
    "regularizer.label_smoothing": 0.1,
}


def assert_same_training(
    make_network: MakeNetwork,
    backend: str,
    batches: Any,
    accumulation_steps: int,
    dtype: str,
    tolerance: dict[str, float],
) -> None:
    """Compare 20 steps on whole batches with 20 steps on the micro-batches of these batches."""
    batches = [(x.astype(dtype), y) for x, y in batches]
    networks = [
        make_network(
            backend,
            PLAIN,
            batch_size=10,
            accumulation_steps=k,
            **{"backend.dtype": dtype},
            **PENALIZED,
        )
        for k in (1, accumulation_steps)
    ]
    (whole, record, logits), (computed, computed_record, computed_logits) = (
        train(network, backend, batches, 20, 0.1) for network in networks
    )
    gradient, computed_gradient = (network.gradient_arrays() for network in networks)
    for name, array in whole.items():
        assert_allclose(computed[name], array, **tolerance, err_msg=name)
        assert_allclose(computed_gradient[name], gradient[name], **tolerance, err_msg=name)
    assert_allclose(computed_logits, logits, **tolerance)
    assert_allclose(computed_record.losses, record.losses, **tolerance)
    assert_allclose(computed_record.gradient_norm, record.gradient_norm, **tolerance)
    assert (computed_record.correct, computed_record.count) == (record.correct, record.count)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("accumulation_steps", [2, 4, 10], ids=["5 and 5", "2 to 3 each", "1 each"])
@pytest.mark.parametrize("mixed", [False, True], ids=["labels", "mixed labels"])
def test_accumulation_over_micro_batches_equals_whole_batch(
    make_network: MakeNetwork, batches: Any, backend: str, accumulation_steps: int, mixed: bool
) -> None:
    """Every seventh batch has only three samples."""
    if mixed:
        rng = np.random.default_rng(0)
        batches = [(x, rng.dirichlet(np.ones(4), len(x))) for x, _ in batches]
    tight = {"rtol": 1e-9, "atol": 1e-12}
    assert_same_training(make_network, backend, batches, accumulation_steps, "float64", tight)
    if not mixed:
        loose = {"rtol": 1e-3, "atol": 1e-5}
        assert_same_training(make_network, backend, batches, accumulation_steps, "float32", loose)


@pytest.mark.parametrize("backend", BACKENDS)
def test_comparison_fails_if_micro_batches_repeat_a_sample(
    make_network: MakeNetwork, batches: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(count: int, batch_size: int, accumulation_steps: int) -> list[slice]:
        first, *others = batch_parts(count, batch_size, accumulation_steps)
        return [first, *(slice(x.start - 1, x.stop - 1) for x in others)]

    for module in (numpy_network, torch_network):
        monkeypatch.setattr(module, "batch_parts", shifted)
    coarse = {"rtol": 1e-3, "atol": 1e-3}
    with pytest.raises(AssertionError, match="weight"):
        assert_same_training(make_network, backend, batches, 4, "float64", coarse)


@pytest.mark.parametrize("backend", BACKENDS)
def test_accumulated_loss_is_the_mean_over_the_batch(
    make_network: MakeNetwork, batches: Any, backend: str
) -> None:
    """A mean over micro-batches would give the samples of small micro-batches a larger weight."""
    x, y = batches[0]
    singly = [
        train(make_network(backend, PLAIN), backend, [(x[i : i + 1], y[i : i + 1])], 1, 0.0)[1]
        for i in range(10)
    ]
    losses = [record.losses[0] for record in singly]
    network = make_network(backend, PLAIN, batch_size=10, accumulation_steps=4)
    record = train(network, backend, batches, 1, 0.0)[1]
    assert_allclose(record.losses, [np.mean(losses)], rtol=1e-12)
    sizes = [part.stop - part.start for part in batch_parts(10, 10, 4)]
    of_means = np.mean([np.mean(x) for x in np.split(losses, np.cumsum(sizes)[:-1])])
    assert abs(of_means - record.losses[0]) > 1e-3


@pytest.mark.parametrize("accumulation_steps", [2, 4])
def test_accumulation_agrees_between_backends(
    make_network: MakeNetwork, batches: Any, accumulation_steps: int
) -> None:
    """Each micro-batch has its own dropout masks and its own batch norm statistics."""
    layers = [{"dense": 6}, "batch_norm", {"dropout": 0.3}, *RESIDUAL]
    batches = batches[:6]  # the seventh batch has only one micro-batch
    options = HALF | {
        "batch_size": 10,
        "accumulation_steps": accumulation_steps,
        "optimizer": "momentum",
    }
    assert_equal_after(make_network, batches, layers, 20, 0.05, CLOSE, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_micro_batches_have_different_dropout_masks(
    make_network: MakeNetwork, backend: str
) -> None:
    """The batch repeats one sample, so equal masks of the halves would give equal gradients.

    The mask of micro-batch k depends on the number step · accumulation_steps + k.
    """
    convert = torch.tensor if backend == "torch" else np.copy
    x, y = np.tile(np.linspace(1, 2, 6), (10, 1)), np.zeros(10, np.int64)
    layers = [{"dropout": 0.5}, {"dense": "classes"}]

    def gradient(step: int, rows: int, **changes: Any) -> np.ndarray:
        network = make_network(backend, layers, optimizer="sgd", **changes)
        network.train_step(convert(x[:rows]), convert(y[:rows]), 0.1, step)
        return network.gradient_arrays()["dense1.weight"]

    whole = gradient(3, 10, batch_size=10, accumulation_steps=2)
    halves = [gradient(step, 5) for step in (6, 7)]  # 3 · 2 + k, for k = 0 and 1
    assert_allclose(whole, (halves[0] + halves[1]) / 2, rtol=1e-12, atol=1e-14)
    assert not np.allclose(halves[0], halves[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_updates_statistics_after_each_micro_batch(
    make_network: MakeNetwork, batches: Any, backend: str
) -> None:
    layers = ["batch_norm", {"dense": "classes"}]
    network = make_network(backend, layers, batch_size=10, accumulation_steps=3)
    mean = network.arrays()["batch_norm1.running_mean"]
    x, _ = batches[0]
    arrays = train(network, backend, batches, 1, 0.0)[0]
    for part in (x[:3], x[3:6], x[6:]):
        mean = 0.9 * mean + 0.1 * part.mean(axis=0)
    assert_allclose(arrays["batch_norm1.running_mean"], mean, rtol=1e-12)


def test_accumulation_needs_the_memory_of_one_micro_batch(make_network: MakeNetwork) -> None:
    """The test uses the NumPy backend, because tracemalloc tracks NumPy's arrays.

    Weights and gradients of the network need little memory.
    """
    x, y = np.random.default_rng(0).standard_normal((1024, 6)), np.zeros(1024, np.int64)
    layers = [{"dense": 64}, "tanh", {"dense": 64}, "tanh", {"dense": "classes"}]
    peaks = []
    for accumulation_steps in (1, 8):
        network = make_network(
            "numpy", layers, batch_size=1024, accumulation_steps=accumulation_steps
        )
        tracemalloc.start()
        network.train_step(x, y, 0.1, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 4

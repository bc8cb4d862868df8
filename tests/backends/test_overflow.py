"""Numbers whose squares overflow float32 give the exact result or a result that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from nnopt.backends.clipping import clipping_factors
from nnopt.backends.numpy.gradients import norm as numpy_norm
from nnopt.backends.numpy.ops.normalization import (
    BATCH_NORM,
    GROUP_NORM,
    LAYER_NORM,
    batch_norm_evaluate,
)
from nnopt.backends.protocol import Network
from nnopt.backends.torch.gradients import Norm, total_norm
from nnopt.backends.torch.losses import hinge as torch_hinge
from nnopt.backends.torch.muon import orthogonalize
from nnopt.training.loop import Loop

MakeNetwork = Callable[..., Network]
Array = np.ndarray

BACKENDS = ["numpy", "torch"]
LINEAR = [{"dense": {"units": "classes", "bias": False}}]
LABELS = np.array([0, 1, 2, 3, 0])


def inputs(backend: str, x: Array) -> Any:
    """Return a float32 batch as an array or tensor of the backend."""
    x = x.astype(np.float32)
    return torch.tensor(x) if backend == "torch" else x


def labels(backend: str) -> Any:
    return torch.tensor(LABELS) if backend == "torch" else LABELS


def batch(scale: float) -> Array:
    return scale * np.random.default_rng(0).standard_normal((len(LABELS), 6))


def one_step(make_network: MakeNetwork, backend: str, scale: float, **overrides: Any) -> Network:
    """Return a float32 linear network, trained for one step on ``batch(scale)``."""
    overrides = {"backend.dtype": "float32", "optimizer": "sgd"} | overrides
    network = make_network(backend, LINEAR, **overrides)
    with np.errstate(all="ignore"):
        network.train_step(inputs(backend, batch(scale)), labels(backend), lr=0.1, step=0)
    return network


def gradient(network: Network) -> Array:
    return np.concatenate([g.ravel() for g in network.gradient_arrays().values()])


@pytest.mark.parametrize("scale", [1e30, 1e22, 1.0, 1e-25, 1e-36])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_norm_of_any_scale_is_correct(
    make_network: MakeNetwork, backend: str, scale: float
) -> None:
    network = one_step(make_network, backend, scale)
    expected = float(np.linalg.norm(gradient(network).astype(np.float64)))
    assert expected > 0.05 * scale
    assert_allclose(network.read_steps().gradient_norm, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e30, 1e22])
@pytest.mark.parametrize("backend", BACKENDS)
def test_clipped_large_gradient_keeps_direction(
    make_network: MakeNetwork, backend: str, scale: float
) -> None:
    free = one_step(make_network, backend, scale)
    clipped = one_step(make_network, backend, scale, **{"regularizer.grad_clip": 1.0})
    direction = gradient(free).astype(np.float64)
    norm = np.linalg.norm(direction)
    assert_allclose(gradient(clipped), direction / norm, rtol=1e-4, atol=1e-9)
    assert_allclose(clipped.read_steps().gradient_norm, norm, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clipping_keeps_small_gradient(make_network: MakeNetwork, backend: str) -> None:
    free = one_step(make_network, backend, 1e-25)
    clipped = one_step(make_network, backend, 1e-25, **{"regularizer.grad_clip": 1.0})
    np.testing.assert_array_equal(gradient(clipped), gradient(free))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_clipping_of_nan_or_infinite_gradient_gives_nan_weights(
    make_network: MakeNetwork, backend: str, value: float
) -> None:
    network = make_network(
        backend, LINEAR, **{"backend.dtype": "float32", "regularizer.grad_clip": 1.0}
    )
    x = batch(1)
    x[0, 0] = value
    with np.errstate(all="ignore"):
        network.train_step(inputs(backend, x), labels(backend), lr=0.1, step=0)
    assert np.isnan(network.arrays()["dense1.weight"]).any()


def norms(backend: str, vector: Array) -> float:
    if backend == "torch":
        return total_norm([torch.tensor(part) for part in np.split(vector, 2)]).read()
    return numpy_norm(vector)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_of_extreme_vectors_is_correct_or_nan(backend: str, dtype: str) -> None:
    info = np.finfo(dtype)
    for size in (float(info.max) / 8, float(info.tiny) * 8, 1.0, 0.0):
        vector = np.array([3, 0, 0, -4], dtype) * info.dtype.type(size)
        assert_allclose(norms(backend, vector), 5 * size, rtol=1e-6)
    for wrong in (math.nan, math.inf, -math.inf):
        assert math.isnan(norms(backend, np.array([1, wrong, 0, 0], dtype)))


@pytest.mark.parametrize("shares", [[1.0, 1.0, 1.0, 1.0], [-1.0, 0.75, 0.5, 0.0], [1.0, -0.125]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_above_range_of_float32_is_correct(backend: str, shares: list[float]) -> None:
    largest = float(np.finfo(np.float32).max)
    vector = np.float32(largest) * np.array(shares, np.float32)
    expected = largest * math.sqrt(math.fsum(share**2 for share in shares))
    assert expected > largest
    assert_allclose(norms(backend, vector), expected, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_above_range_of_float64_is_nan(backend: str) -> None:
    assert math.isnan(norms(backend, np.full(4, np.finfo(np.float64).max)))


@pytest.mark.parametrize("largest", [1.0, 0.25, 1e-6, 1e-20, 1e30])
@pytest.mark.parametrize("size", [1e-12, 1e-6, 0.5, 3.0, 1e12, 1e37, math.nan])
def test_clipping_factors_on_device_equal_factors_on_host(size: float, largest: float) -> None:
    vector = np.array([3, 0, 0, -4], np.float32) * np.float32(size)
    norm = Norm(torch.tensor(np.float32(size)), torch.tensor(np.float32(5)))
    if math.isnan(size):
        norm = total_norm([torch.tensor(vector)])
    on_device = [factor.numpy() for factor in norm.clipping_factors(largest)]
    on_host = clipping_factors(norm.read(), largest, float(np.finfo(np.float32).tiny))
    for factor in on_host:
        vector = vector * np.float32(factor)
    expected = np.array([3, 0, 0, -4], np.float32) * np.float32(size) * on_device[0] * on_device[1]
    assert_allclose(vector, expected, rtol=1e-6)
    if not math.isnan(size):
        clipped = min(5 * size, largest * (5 * size) / (5 * size + 1e-6))
        assert_allclose(np.linalg.norm(vector.astype(np.float64)), clipped, rtol=1e-5)


@pytest.mark.parametrize("grad_clip", [1.0, 0.25, 1e30, 1e-3, 1e-6, 1e-20])
@pytest.mark.parametrize("backend", BACKENDS)
def test_clipping_of_norm_above_range_of_float32_keeps_direction(
    make_network: MakeNetwork, backend: str, grad_clip: float
) -> None:
    overrides = {"backend.dtype": "float32", "regularizer.grad_clip": grad_clip}
    network = make_network(backend, LINEAR, optimizer="sgd", **overrides)
    network.load({name: np.zeros_like(array) for name, array in network.arrays().items()})
    x = 1e38 * np.array([[3, -3, 2, 3, 3, -1]])
    network.train_step(inputs(backend, x), labels(backend)[:1], lr=0.0, step=0)
    # All logits are 0, so the gradient is the outer product of x and p - t. Every p is 1/4. t is 1
    # for the label and 0 for the other classes.
    slopes = np.array([-0.75, 0.25, 0.25, 0.25])
    norm = 1e38 * math.sqrt(41 * 0.75)
    assert norm > float(np.finfo(np.float32).max)
    assert_allclose(network.read_steps().gradient_norm, norm, rtol=1e-6)
    expected = np.outer(slopes, x) * (grad_clip / norm)
    assert_allclose(gradient(network), expected.ravel(), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nadam", "rmsprop", "adagrad", "adadelta"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_overflowing_square_of_gradient_makes_optimizer_state_not_finite(
    make_network: MakeNetwork, backend: str, optimizer: str
) -> None:
    assert one_step(make_network, backend, 1.0, optimizer=optimizer).read_steps().state_is_finite
    network = one_step(make_network, backend, 1e25, optimizer=optimizer)
    assert not network.read_steps().state_is_finite


@pytest.mark.parametrize("optimizer", ["muon", "schedule_free_adamw", "lion"])
def test_torch_optimizer_with_large_gradient_moves_weights_or_is_not_finite(
    make_network: MakeNetwork, optimizer: str
) -> None:
    layers = [{"dense": {"units": 5, "bias": False}}, {"dense": 5}, *LINEAR]
    network = make_network("torch", layers, optimizer=optimizer, **{"backend.dtype": "float32"})
    before = network.arrays()
    network.train_step(inputs("torch", batch(1e25)), labels("torch"), lr=0.1, step=0)
    after = network.arrays()
    stopped = any((before[name] == after[name]).all() for name in before if "weight" in name)
    finite = all(np.isfinite(array).all() for array in after.values())
    assert not (network.read_steps().state_is_finite and finite and stopped)


def test_orthogonalized_overflowing_matrix_is_nan() -> None:
    matrix = torch.full((3, 4), 1e25)
    assert orthogonalize(matrix, 5).isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_norm_of_overflowing_weight_is_nan(make_network: MakeNetwork, backend: str) -> None:
    network = one_step(make_network, backend, 1e25, **{"regularizer.max_norm": 1.0})
    weight = network.arrays()["dense1.weight"]
    assert np.isnan(weight).any()
    assert (np.isnan(weight) | (np.linalg.norm(weight, axis=1, keepdims=True) > 0)).all()


# norm layers --------------------------------------------------------------------------------------


def train_norm_layer(
    backend: str, make_network: MakeNetwork, layer: Any, x: Array, **options: Any
) -> Any:
    """Return a network with a norm layer, trained for one step with a learning rate of 0.

    All entries of the network's arrays start as 1, except in the arrays given by ``options``.
    """
    flatten = ["flatten"] if x.ndim == 4 else []
    layers = [layer, *flatten, {"dense": "classes"}]
    network = make_network(backend, layers, x.shape[1:], **{"backend.dtype": "float32"})
    arrays = {name: np.ones_like(array) for name, array in network.arrays().items()}
    network.load(arrays | options)
    with np.errstate(all="ignore"):
        network.train_step(inputs(backend, x), labels(backend)[: len(x)], lr=0.0, step=0)
    return network


FLAT = np.array([[1.0, 2, 3, 4], [2, 4, 3, 1], [4, 4, 1, 2]])
IMAGES = np.random.default_rng(1).standard_normal((3, 4, 2, 2))
NORMS: dict[str, tuple[Any, Array]] = {
    "batch norm": ("batch_norm", FLAT),
    "layer norm": ("layer_norm", FLAT),
    "batch norm of images": ("batch_norm", IMAGES),
    "layer norm of images": ("layer_norm", IMAGES),
    "group norm": ({"group_norm": 2}, IMAGES),
    "instance norm": ("instance_norm", IMAGES),
}


@pytest.mark.parametrize("scale", [1.0, 1e15])
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_layer_of_large_values_is_finite(
    make_network: MakeNetwork, backend: str, name: str, scale: float
) -> None:
    layer, x = NORMS[name]
    network = train_norm_layer(backend, make_network, layer, scale * x)
    assert np.isfinite(network.read_steps().losses).all()
    assert all(np.isfinite(array).all() for array in network.arrays().values())


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_layer_with_overflowing_variance_is_not_finite(
    make_network: MakeNetwork, backend: str, name: str
) -> None:
    layer, x = NORMS[name]
    network = train_norm_layer(backend, make_network, layer, 1e21 * x)
    losses = network.read_steps().losses
    arrays = network.arrays()
    assert not np.isfinite(losses).all() or not all(np.isfinite(a).all() for a in arrays.values())
    with np.errstate(all="ignore"):
        assert not np.isfinite(network.predict(inputs(backend, 1e21 * x))).any()


@pytest.mark.parametrize("shape", [(4,), (4, 2, 2)], ids=["flat", "images"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_with_infinite_running_variance_is_nan(
    make_network: MakeNetwork, backend: str, shape: tuple[int, ...]
) -> None:
    flatten = ["flatten"] if len(shape) == 3 else []
    layers = ["batch_norm", *flatten, {"dense": "classes"}]
    network = make_network(backend, layers, shape, **{"backend.dtype": "float32"})
    network.load(network.arrays() | {"batch_norm1.running_var": np.full(4, np.inf, np.float32)})
    with np.errstate(all="ignore"):
        assert np.isnan(network.predict(inputs(backend, np.ones((2, *shape))))).all()


@pytest.mark.parametrize("op", [BATCH_NORM, LAYER_NORM], ids=["batch norm", "layer norm"])
def test_norm_layer_of_flat_samples_is_nan_only_where_squares_overflow(op: Any) -> None:
    x = FLAT.astype(np.float32)
    scaled = x.copy()
    place = (slice(None), 1) if op is BATCH_NORM else (1, slice(None))
    scaled[place] *= np.float32(1e20)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    with np.errstate(all="ignore"):
        y, _ = op.forward(scaled, ones, zeros, epsilon=1e-5)
        expected, _ = op.forward(x, ones, zeros, epsilon=1e-5)
    assert np.isnan(y[place]).all()
    expected[place] = np.nan
    assert_allclose(y, expected, rtol=1e-6)


def test_group_norm_with_overflow_is_nan() -> None:
    x = (1e20 * IMAGES.transpose(2, 3, 0, 1)).astype(np.float32)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    with np.errstate(all="ignore"):
        y, _ = GROUP_NORM.forward(x, ones, zeros, groups=2, epsilon=1e-5)
    assert np.isnan(y).all()


def test_batch_norm_with_large_running_variance_is_correct() -> None:
    x, ones = np.full((2, 3), 1e18, np.float32), np.ones(3, np.float32)
    y = batch_norm_evaluate(x, ones, ones, np.zeros_like(ones), 1e36 * ones, 1e-5)
    assert_allclose(y, 2, rtol=1e-6)


# hinge --------------------------------------------------------------------------------------------


def hinge(backend: str, logits: list[float]) -> tuple[float, Array]:
    """Return the hinge loss of one sample of class 0, and its gradient."""
    z = np.array([logits], np.float32)
    if backend == "torch":
        inputs = torch.tensor(z, requires_grad=True)
        loss = torch_hinge(inputs, torch.zeros(1, dtype=torch.long))
        loss.backward()
        assert inputs.grad is not None
        return float(loss.detach()), inputs.grad.numpy()
    from nnopt.backends.numpy.ops.losses import HINGE

    with np.errstate(all="ignore"):
        value, saved = HINGE.forward(z, labels=np.zeros(1, np.int64))
        (slope,) = HINGE.backward(np.ones_like(value), saved)
    assert slope is not None
    return float(value), slope


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_hinge_with_nan_or_infinite_logit_is_not_finite(
    backend: str, place: int, wrong: float
) -> None:
    logits = [0.5, 0.25, -3.0]
    logits[place] = wrong
    loss, slope = hinge(backend, logits)
    assert not math.isfinite(loss)
    assert not np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("logits", "loss", "slope"),
    [
        ([5, 0, 0], 0.0, [0, 0, 0]),
        ([0, 0, 0], 2.0, [-2, 1, 1]),
        ([1e6, 1e6 + 1, -1e6], 2.0, [-1, 1, 0]),
        ([1e30, 0, 0], 0.0, [0, 0, 0]),
        ([0, 1e30, 0], 1e30, [-2, 1, 1]),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_hinge_of_extreme_logits_is_correct(
    backend: str, logits: list[float], loss: float, slope: list[float]
) -> None:
    found, gradients = hinge(backend, logits)
    assert_allclose(found, loss, rtol=1e-6)
    np.testing.assert_array_equal(gradients, [slope])


# training loop ------------------------------------------------------------------------------------


def test_training_with_overflowing_optimizer_state_reports_divergence(
    make_network: MakeNetwork, make_config: Callable[..., Any]
) -> None:
    from nnopt.data.dataset import Dataset, Normalization, Part

    rows = np.arange(len(LABELS))
    part = Part(batch(1e25).astype(np.float32), LABELS, rows)
    unchanged = Normalization(np.ones(6), np.zeros(6))
    dataset = Dataset("test", ("a", "b", "c", "d"), part, None, part, unchanged, {})
    config = make_config(optimizer="adam", epochs=3, **{"backend.dtype": "float32"})
    from nnopt.backends import load_backend

    for backend in BACKENDS:
        network = make_network(backend, LINEAR, optimizer="adam", **{"backend.dtype": "float32"})
        changed = make_config(backend=backend, optimizer="adam", epochs=3)
        loader = load_backend(backend).build_loader(part, dataset.normalization, changed)
        loop = Loop(network, dataset, (loader, None), config)
        with np.errstate(all="ignore"):
            assert list(loop.run()) == []
        assert loop.training.diverged_at == 1

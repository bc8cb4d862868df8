"""All operations on images, except convolutions, in chunks and on threads.

The results are compared with PyTorch, finite differences and the results on one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from all_gradients import all_gradients
from image_cases import (
    CASES,
    C,
    N,
    check_against_differences,
    check_against_torch,
    gradient_like,
    inside,
    outside,
    step,
    torch_step,
)
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Buffer, Op, pooling
from nnopt.backends.numpy.ops.activations import GELU, RELU, SILU
from nnopt.backends.numpy.ops.normalization import BATCH_NORM, GROUP_NORM, batch_norm_evaluate
from nnopt.backends.numpy.ops.pooling import MAX_POOL2D
from nnopt.backends.numpy.ops.shape import CHANNELS_LAST
from nnopt.backends.numpy.tape import Buffers
from nnopt.backends.numpy.threads import SERIAL, ThreadPool

THREADED = [name for name, case in CASES.items() if case.threaded]


@pytest.fixture(params=["whole", "in chunks"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Divide images into one chunk and then, in a second run of the test, into many chunks."""
    if request.param == "in chunks":
        cut_finely(monkeypatch)
    return str(request.param)


def cut_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "IMAGE_CHUNK_ELEMENTS", 48)
    monkeypatch.setattr(tuning, "IMAGE_CHUNK_LANES", 7)
    monkeypatch.setattr(tuning, "THREADING_MIN_ELEMENTS", 1)
    monkeypatch.setattr(tuning, "POOLING_CHUNK_ELEMENTS", 200)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", CASES)
def test_image_op_outputs_and_gradients_equal_torch(name: str) -> None:
    check_against_torch(CASES[name], CASES[name].op)


@pytest.mark.parametrize("name", [name for name in CASES if "byte" not in name])  # the fast ones
def test_image_op_gradients_equal_central_differences(name: str) -> None:
    check_against_differences(CASES[name], CASES[name].op)


@pytest.mark.parametrize("name", CASES)
def test_image_op_result_does_not_depend_on_layout_of_inputs(name: str) -> None:
    case = CASES[name]
    inputs = case.inputs()
    g, expected = torch_step(case, inputs)
    arranged = [np.asfortranarray(a) for a in inputs]
    for array in arranged:
        array.setflags(write=False)
    for ours, theirs in zip(step(case.op, arranged, g, **case.options), expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    transposed = np.asfortranarray(g)  # a gradient may have this layout
    y, saved = case.op.forward(*inputs, **case.options)
    gradients = all_gradients(case.op, transposed, saved, len(inputs))
    for gradient, theirs in zip(gradients, expected[1:], strict=True):
        assert_allclose(gradient, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", CASES)
def test_image_op_float32_keeps_dtype_and_is_near_float64(name: str) -> None:
    case = CASES[name]
    inputs = case.inputs(seed=5, dtype=np.float32)
    g, expected = torch_step(case, inputs)
    for ours, theirs in zip(
        step(case.op, inputs, g.astype(np.float32), **case.options), expected, strict=True
    ):
        assert ours.dtype == np.float32
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", THREADED)
def test_image_op_gives_same_bits_on_one_and_two_threads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_finely(monkeypatch)
    case, two = CASES[name], ThreadPool(2)
    inputs = case.inputs(dtype=np.float32)
    alone = step(case.op, inputs, None, **case.options)
    for buffer in (Buffer(two), Buffers(two), Buffers(two)):
        together = step(case.op, inputs, None, **case.options, buffer=buffer)
        for ours, theirs in zip(together, alone, strict=True):
            assert_array_equal(ours, theirs)


@pytest.mark.parametrize("op", [MAX_POOL2D, BATCH_NORM, GELU], ids=["pool", "norm", "gelu"])
def test_image_op_of_large_batch_gives_same_bits_on_one_and_two_threads(op: Op) -> None:
    rng = np.random.default_rng(6)
    shape = (33, 32, 32, 32)  # 33 rows give chunks of unequal size
    assert np.prod(shape) >= tuning.THREADING_MIN_ELEMENTS
    inputs = [a.astype(np.float32) for a in (rng.standard_normal(shape), *rng.random((2, 32)))]
    options: dict[str, Any] = {"epsilon": 1e-5} if op is BATCH_NORM else {}
    options |= {"size": 2, "stride": 2} if op is MAX_POOL2D else {}
    inputs = inputs if op is BATCH_NORM else inputs[:1]
    g = gradient_like(op.forward(*inputs, **options)[0], seed=15).astype(np.float32)
    alone = step(op, inputs, g, **options)
    together = step(op, inputs, g, **options, buffer=Buffers(ThreadPool(2)))
    for ours, theirs in zip(together, alone, strict=True):
        assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", CASES)
def test_image_op_with_reused_buffers_gives_same_bits(name: str) -> None:
    case, buffers = CASES[name], Buffers()
    for seed in range(3):
        inputs = case.inputs(seed)
        kept = step(case.op, inputs, None, **case.options, buffer=buffers)
        for ours, fresh in zip(kept, step(case.op, inputs, None, **case.options), strict=True):
            assert_array_equal(ours, fresh)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("max pool")])
def test_gradient_of_max_pool_tie_goes_to_first_maximum_as_in_torch(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(7)
    check_against_torch(case, case.op, [np.zeros(case.shape)])
    check_against_torch(case, case.op, [np.maximum(rng.standard_normal(case.shape), 0)])
    few = rng.integers(-2, 1, case.shape).astype(float)
    check_against_torch(case, case.op, [few])
    # If all values are -∞, the maximum is the first value outside the padding.
    check_against_torch(case, case.op, [np.where(few == 0, few, -np.inf)])
    check_against_torch(case, case.op, [np.full(case.shape, -np.inf)])


@pytest.mark.parametrize("name", [name for name in CASES if "pool" in name])
def test_pool_output_with_nan_equals_torch(name: str) -> None:
    case = CASES[name]
    (x,) = case.inputs()
    x.reshape(-1)[np.random.default_rng(10).permutation(x.size)[: x.size // 9]] = np.nan
    y, _ = case.op.forward(x, **case.options)
    expected = case.reference(outside(torch.tensor(x)))
    assert_allclose(y, inside(expected) if y.ndim == 4 else expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("window", "fast", "naive"),
    [([3, 5, np.nan, 7], 1, 2), ([np.nan, 5, 1, 2], 0, 0), ([1, np.nan, 5, np.nan], 0, 3)],
)
@pytest.mark.parametrize("padding", [0, 1])
def test_gradient_of_max_pool_with_nan_goes_to_documented_position(
    window: list[float], fast: int, naive: int, padding: int
) -> None:
    """One window covers the image. The naive version chooses the same position as PyTorch."""
    size = 2 + 2 * padding
    x = np.array(window).reshape(2, 2, 1, 1)
    options = {"size": size, "stride": size, "padding": padding}
    y, d_x = step(MAX_POOL2D, [x], None, **options)
    (naive_d_x,) = pooling.max_pool2d_naive_backward(np.ones((1, 1, 1, 1)), x, **options)
    assert np.isnan(y).all()
    assert np.isnan(pooling.max_pool2d_naive_forward(x, **options)).all()
    assert_array_equal(d_x.ravel(), np.eye(4)[fast])
    assert_array_equal(naive_d_x.ravel(), np.eye(4)[naive])
    tensor = torch.tensor(outside(x), requires_grad=True)
    torch.nn.functional.max_pool2d(tensor, size, size, padding).sum().backward()
    assert_array_equal(tensor.grad.numpy().ravel(), np.eye(4)[naive])


def test_channels_last_permutes_images_and_permutes_gradients_back() -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((N, C, 4, 5))
    y, saved = CHANNELS_LAST.forward(x)
    assert np.shares_memory(x, y)
    assert_array_equal(y, inside(x))
    (d_x,) = CHANNELS_LAST.backward(y, saved)
    assert d_x is not None
    assert d_x.flags.c_contiguous
    assert_array_equal(d_x, x)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("workers", [SERIAL, ThreadPool(2)], ids=["one thread", "two"])
def test_image_batch_norm_saves_batch_statistics_for_evaluation(workers: ThreadPool) -> None:
    rng = np.random.default_rng(12)
    x = rng.standard_normal((4, 5, N, C)) * np.arange(1, C + 1) + np.arange(C)
    weight, bias = rng.standard_normal((2, C))
    y, saved = BATCH_NORM.forward(x, weight, bias, epsilon=1e-5, buffer=Buffer(workers))
    mean, variance = saved[-2:]
    assert_allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-12)
    assert_allclose(variance, x.var(axis=(0, 1, 2)), rtol=1e-12)
    again = batch_norm_evaluate(x, weight, bias, mean, variance, 1e-5, buffer=Buffer(workers))
    assert_allclose(again, y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("distance", [0.5, 3.9, 4.1, 1000], ids=["zero", "near", "far", "farther"])
def test_batch_norm_float32_far_from_zero_is_accurate(distance: float) -> None:
    """The mean of each channel is ``distance`` standard deviations away from zero."""
    rng = np.random.default_rng(13)
    x = (distance + rng.standard_normal((32, 32, 64, 4))).astype(np.float32)
    rows = x.astype(np.float64).reshape(-1, 4)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    y, saved = BATCH_NORM.forward(x, ones, zeros, epsilon=1e-5)
    mean, variance = saved[-2:]
    assert_allclose(mean, rows.mean(axis=0), rtol=2e-7, atol=2e-7)
    assert_allclose(variance, rows.var(axis=0), rtol=1e-5)
    _, d_x, d_weight, d_bias = step(BATCH_NORM, [x, ones, zeros], x, epsilon=1e-5)
    assert_allclose(d_bias, rows.sum(axis=0), rtol=1e-6)


def test_float32_variance_of_many_positions_in_batch_norm_is_accurate() -> None:
    """The data have only two distinct values, so rounding errors do not cancel."""
    rng = np.random.default_rng(15)
    x = rng.choice(np.float32([0.65, 1.15]), (181, 181, 1, 4))
    ones = np.ones(4, np.float32)
    y, saved = BATCH_NORM.forward(x, ones, 0 * ones, epsilon=1e-5)
    rows = x.astype(np.float64)
    assert_allclose(saved[-1], rows.var(axis=(0, 1, 2)), rtol=3e-5)
    normalized = (rows - rows.mean((0, 1, 2))) / np.sqrt(rows.var((0, 1, 2)) + 1e-5)
    assert_allclose(y, normalized, atol=2e-5)


@pytest.mark.parametrize("op", [BATCH_NORM, GROUP_NORM], ids=["batch norm", "group norm"])
def test_output_of_image_norm_layer_with_overflowing_squares_is_not_finite(op: Op) -> None:
    x = np.random.default_rng(16).standard_normal((4, 5, N, C)).astype(np.float32) * 1e25
    options = {"epsilon": 1e-5} | ({"groups": 2} if op is GROUP_NORM else {})
    with np.errstate(over="ignore", invalid="ignore"):
        y, _ = op.forward(x.astype(np.float32), *np.ones((2, C), np.float32), **options)
    assert not np.isfinite(y).any()


@pytest.mark.parametrize("op", [BATCH_NORM, GROUP_NORM], ids=["batch norm", "group norm"])
def test_norm_layer_of_constant_images_returns_bias(op: Op) -> None:
    x, weight, bias = np.full((4, 5, N, C), 7.0), np.ones(C), np.arange(float(C))
    options = {"epsilon": 1e-5} | ({"groups": 2} if op is GROUP_NORM else {})
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        y, d_x, *_ = step(op, [x, weight, bias], None, **options)
    assert_allclose(y, np.broadcast_to(bias, x.shape), atol=1e-9)
    assert_allclose(d_x, 0, atol=1e-9)


@pytest.mark.parametrize("op", [RELU, GELU, SILU], ids=["relu", "gelu", "silu"])
def test_activation_of_flat_batch_gives_same_bits_on_one_and_two_threads(
    op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(14).standard_normal((40, 12))
    expected = step(op, [x], x)
    cut_finely(monkeypatch)
    for ours, whole in zip(step(op, [x], x, buffer=Buffer(ThreadPool(2))), expected, strict=True):
        assert_array_equal(ours, whole)

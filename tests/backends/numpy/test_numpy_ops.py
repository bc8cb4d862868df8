"""Operations of dense networks: gradients equal central differences, and inputs do not change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from all_gradients import all_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from operations import ACTIVATION_CASES

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Op
from nnopt.backends.numpy.ops.activations import LEAKY_RELU, RELU
from nnopt.backends.numpy.ops.dense import DENSE, weight_view
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.linear_units import PRELU
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY, FOCAL, HINGE, MSE
from nnopt.backends.numpy.ops.normalization import BATCH_NORM, LAYER_NORM, batch_norm_evaluate
from nnopt.backends.numpy.ops.shape import ADD, FLATTEN

Array = np.ndarray
Rng = np.random.Generator

UNITS = 3  # outputs of the dense layer


def normal(rng: Rng, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def off_zero(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Return values that are at least 0.1 away from zero, the kink of a ReLU."""
    x = rng.standard_normal(shape)
    return x + np.copysign(0.1, x)


def off_margin(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Return multiples of 0.3, because the hinge loss has a kink where two logits differ by 1."""
    return rng.integers(-5, 6, shape) * 0.3


@dataclass(frozen=True)
class Case:
    """An operation, its options, and the shapes of its inputs for a batch (N, D)."""

    op: Op
    shapes: Callable[[int, int], list[tuple[int, ...]]] = lambda n, d: [(n, d)]
    options: Callable[[Rng, int, int], Mapping[str, Any]] = lambda rng, n, d: {}
    values: Callable[[Rng, tuple[int, ...]], Array] = normal

    def draw(self, rng: Rng, n: int, d: int) -> tuple[list[Array], Mapping[str, Any]]:
        return [self.values(rng, shape) for shape in self.shapes(n, d)], self.options(rng, n, d)


def labelled(**options: float) -> Callable[[Rng, int, int], Mapping[str, Any]]:
    return lambda rng, n, d: {"labels": rng.integers(0, d, n), **options}


def mixed(**options: float) -> Callable[[Rng, int, int], Mapping[str, Any]]:
    """Return a function that draws options whose labels are mixtures of all classes."""
    return lambda rng, n, d: {"labels": rng.dirichlet(np.ones(d), n), **options}


def fixed(**options: Any) -> Callable[[Rng, int, int], Mapping[str, Any]]:
    return lambda rng, n, d: options


def normalizing(epsilon: float) -> Callable[[Rng, int, int], Mapping[str, Any]]:
    return lambda rng, n, d: {"epsilon": epsilon}


CASES = {
    "dense": Case(DENSE, lambda n, d: [(n, d), (UNITS, d), (UNITS,)]),
    "dense without bias": Case(DENSE, lambda n, d: [(n, d), (UNITS, d)]),
    "dense and relu": Case(
        DENSE, lambda n, d: [(n, d), (UNITS, d), (UNITS,)], lambda *_: {"relu": True}
    ),
    "dense and relu, without bias": Case(
        DENSE, lambda n, d: [(n, d), (UNITS, d)], lambda *_: {"relu": True}
    ),
    **{
        name: Case(x.op, options=fixed(**x.options), values=off_zero if x.has_kink else normal)
        for name, x in ACTIVATION_CASES.items()
    },
    "prelu": Case(PRELU, lambda n, d: [(n, d), (1,)], values=off_zero),
    "prelu per feature": Case(PRELU, lambda n, d: [(n, d), (d,)], values=off_zero),
    "leaky relu 0.01": Case(LEAKY_RELU, options=lambda *_: {"slope": 0.01}, values=off_zero),
    "leaky relu 0": Case(LEAKY_RELU, options=lambda *_: {"slope": 0.0}, values=off_zero),
    "leaky relu 0.9": Case(LEAKY_RELU, options=lambda *_: {"slope": 0.9}, values=off_zero),
    "dropout": Case(
        DROPOUT, options=lambda rng, n, d: {"keep_mask": rng.random((n, d)) < 0.7, "scale": 1 / 0.7}
    ),
    "dropout of everything": Case(
        DROPOUT, options=lambda rng, n, d: {"keep_mask": np.zeros((n, d), bool), "scale": 2.0}
    ),
    "batch norm": Case(BATCH_NORM, lambda n, d: [(n, d), (d,), (d,)], normalizing(1e-5)),
    "batch norm, large epsilon": Case(
        BATCH_NORM, lambda n, d: [(n, d), (d,), (d,)], normalizing(0.5)
    ),
    "layer norm": Case(LAYER_NORM, lambda n, d: [(n, d), (d,), (d,)], normalizing(1e-3)),
    "layer norm, large epsilon": Case(
        LAYER_NORM, lambda n, d: [(n, d), (d,), (d,)], normalizing(0.5)
    ),
    "cross entropy": Case(CROSS_ENTROPY, options=labelled()),
    "cross entropy, smoothing 0.1": Case(CROSS_ENTROPY, options=labelled(label_smoothing=0.1)),
    "cross entropy, smoothing 0.9": Case(CROSS_ENTROPY, options=labelled(label_smoothing=0.9)),
    "cross entropy, mixture": Case(CROSS_ENTROPY, options=mixed()),
    "cross entropy, mixture, smoothing 0.3": Case(
        CROSS_ENTROPY, options=mixed(label_smoothing=0.3)
    ),
    "hinge": Case(HINGE, options=labelled(), values=off_margin),
    "mean squared error": Case(MSE, options=labelled()),
    "mean squared error, mixture, smoothing": Case(MSE, options=mixed(label_smoothing=0.3)),
    "focal": Case(FOCAL, options=labelled(gamma=2.0)),
    "focal, gamma 0.5": Case(FOCAL, options=labelled(gamma=0.5)),
    "focal, smoothing": Case(FOCAL, options=labelled(gamma=1.0, label_smoothing=0.2)),
    "focal, mixture": Case(FOCAL, options=mixed(gamma=3.0)),
    "flatten": Case(FLATTEN, lambda n, d: [(n, 2, d, 3)]),
    "add": Case(ADD, lambda n, d: [(n, d), (n, d)]),
}


def gradients(case: Case, inputs: list[Array], options: Mapping[str, Any], g: Array) -> list[Array]:
    _, saved = case.op.forward(*inputs, **options)
    return all_gradients(case.op, g.copy(), saved, len(inputs))


def differences(case: Case, inputs: list[Array], options: Mapping[str, Any], g: Array) -> Any:
    """Yield d sum(g · op(inputs)) / d input for each input, by central differences."""
    h = 1e-5

    def value(moved: list[Array]) -> float:
        return float(np.sum(g * case.op.forward(*moved, **options)[0]))

    for number, array in enumerate(inputs):
        slope = np.empty_like(array)
        for index in np.ndindex(array.shape):
            moved = [x.copy() for x in inputs]
            moved[number][index] += h
            above = value(moved)
            moved[number][index] -= 2 * h
            slope[index] = (above - value(moved)) / (2 * h)
        yield slope


def check(case: Case, n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, options = case.draw(rng, n, d)
    g = rng.standard_normal(np.shape(case.op.forward(*inputs, **options)[0]))
    by_hand = gradients(case, inputs, options, g)
    for ours, numeric in zip(by_hand, differences(case, inputs, options, g), strict=True):
        assert ours.shape == numeric.shape
        error = np.linalg.norm(ours - numeric)
        assert error <= 1e-7 * (np.linalg.norm(ours) + np.linalg.norm(numeric)) + 1e-9


@pytest.mark.parametrize("name", CASES)
def test_op_gradients_equal_central_differences(name: str) -> None:
    check(CASES[name], 5, 4, seed=0)


@pytest.mark.parametrize("name", [name for name in CASES if "batch norm" not in name])
def test_op_gradients_of_single_sample_equal_central_differences(name: str) -> None:
    check(CASES[name], 1, 4, seed=1)


@pytest.mark.parametrize("name", CASES)
@given(n=st.integers(2, 6), d=st.integers(2, 5), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_op_gradients_for_any_shape_equal_central_differences(
    name: str, n: int, d: int, seed: int
) -> None:
    check(CASES[name], n, d, seed)


def strided(x: Array) -> Array:
    """Return a copy of an array with gaps between rows and columns in memory."""
    wide = np.full([2 * size for size in x.shape], np.nan, x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def read_only(x: Array) -> Array:
    copy = x.copy()
    copy.setflags(write=False)
    return copy


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "read-only": read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_op_result_does_not_depend_on_layout_of_inputs(name: str, layout: str) -> None:
    case, rng = CASES[name], np.random.default_rng(2)
    inputs, options = case.draw(rng, 6, 4)
    before = [x.copy() for x in inputs]
    expected = case.op.forward(*inputs, **options)[0].copy()
    g = rng.standard_normal(np.shape(expected))
    expected_gradients = [x.copy() for x in gradients(case, inputs, options, g)]
    arranged = [LAYOUTS[layout](x) for x in inputs]
    assert_allclose(case.op.forward(*arranged, **options)[0], expected, rtol=1e-13, atol=1e-14)
    for ours, theirs in zip(gradients(case, arranged, options, g), expected_gradients, strict=True):
        assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    for array, copy in zip([*inputs, *arranged], before * 2, strict=True):
        assert_array_equal(array, copy)


@pytest.mark.parametrize("name", CASES)
def test_op_float32_keeps_dtype_and_is_near_float64(name: str) -> None:
    case, rng = CASES[name], np.random.default_rng(3)
    inputs, options = case.draw(rng, 16, 5)
    inputs = [x.astype(np.float32) for x in inputs]
    wide = [x.astype(np.float64) for x in inputs]
    y = case.op.forward(*inputs, **options)[0]
    assert y.dtype == np.float32
    assert_allclose(y, case.op.forward(*wide, **options)[0], rtol=2e-5, atol=2e-6)
    g = rng.standard_normal(np.shape(y)).astype(np.float32)
    ours = gradients(case, inputs, options, g)
    exact = gradients(case, wide, options, g.astype(np.float64))
    for narrow, reference in zip(ours, exact, strict=True):
        assert narrow.dtype == np.float32
        assert_allclose(narrow, reference, rtol=2e-4, atol=2e-5)


def test_dense_input_without_requires_grad_has_no_gradient() -> None:
    rng = np.random.default_rng(4)
    x, weight, bias = (rng.standard_normal(shape) for shape in [(5, 2), (3, 2), (3,)])
    g = rng.standard_normal((5, 3))
    _, saved = DENSE.forward(x, weight, bias)
    expected = all_gradients(DENSE, g, saved, 3)
    d_x, *others = DENSE.backward(g, saved, (False, True, True))
    assert d_x is None
    for ours, theirs in zip(others, expected[1:], strict=True):
        assert ours is not None
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("bias", [None, np.arange(256.0)], ids=["without bias", "with bias"])
def test_dense_product_with_large_weight_equals_products_with_its_blocks(bias) -> None:
    rng = np.random.default_rng(6)
    x, weight = rng.standard_normal((3, 4096)), rng.standard_normal((256, 4096))
    assert weight.size >= tuning.DENSE_TRANSPOSED_BELOW_ELEMENTS > weight[:8].size
    y = DENSE.forward(x, weight, bias)[0]
    blocks = [
        DENSE.forward(x, weight[rows], None if bias is None else bias[rows])[0]
        for rows in np.arange(256).reshape(-1, 8)
    ]
    assert y.flags.c_contiguous
    assert_allclose(y, np.hstack(blocks), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (256, 4096)], ids=["small", "large"])
def test_dense_with_views_for_weight_and_gradient_equals_formula(
    shape: tuple[int, int], relu: bool
) -> None:
    rng = np.random.default_rng(7)
    units, inputs = shape
    x, g = rng.standard_normal((4, inputs)), rng.standard_normal((4, units))
    weight = rng.standard_normal(shape)
    vector = np.zeros(weight.size)
    view, target = weight_view(np.zeros_like(vector), shape), weight_view(vector, shape)
    view[...] = weight

    def buffer(name: str, size: tuple[int, ...], dtype: type) -> np.ndarray:
        return target if name == "d_weight" else np.zeros(size, dtype)

    y, saved = DENSE.forward(x, view, relu=relu, buffer=buffer)
    d_x, d_weight = DENSE.backward(g.copy(), saved, (True, True), buffer=buffer)
    assert d_weight is target
    assert np.shares_memory(target, vector)
    z = x @ weight.T
    if relu:
        z, g = np.maximum(z, 0), g * (z > 0)
    assert_allclose(y, z, rtol=1e-10, atol=1e-10)
    assert_allclose(d_x, g @ weight, rtol=1e-10, atol=1e-10)
    assert_allclose(target, g.T @ x, rtol=1e-10, atol=1e-10)


def test_relu_slope_at_zero_equals_torch() -> None:
    x, g = np.zeros((1, 1)), np.ones((1, 1))
    assert RELU.backward(g.copy(), RELU.forward(x)[1])[0] == 0
    assert LEAKY_RELU.backward(g, LEAKY_RELU.forward(x, slope=0.2)[1])[0] == 0.2


def test_dropout_scales_kept_units() -> None:
    x = np.array([[1.0, 2.0, 3.0]])
    keep = np.array([[True, False, True]])
    assert_array_equal(DROPOUT.forward(x, keep_mask=keep, scale=1.25)[0], [[1.25, 0, 3.75]])


def test_batch_norm_evaluated_with_batch_statistics_equals_training_output() -> None:
    x = np.random.default_rng(5).standard_normal((9, 3)) * [1, 5, 0.1] + [0, 3, -2]
    weight, bias = np.array([1.0, 2.0, -1.0]), np.array([0.0, 0.5, 1.0])
    y, saved = BATCH_NORM.forward(x, weight, bias, epsilon=1e-5)
    mean, variance = saved[-2:]
    assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    assert_allclose(variance, x.var(axis=0), rtol=1e-12)
    assert_allclose(y.mean(axis=0), bias, atol=1e-12)
    assert_allclose(batch_norm_evaluate(x, weight, bias, mean, variance, 1e-5), y, rtol=1e-10)


RAISE = {"over": "raise", "divide": "raise", "invalid": "raise"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", [CROSS_ENTROPY, HINGE], ids=["cross entropy", "hinge"])
@pytest.mark.parametrize(
    "logits",
    [[[1e4, -1e4, 0]], [[-1e4, 1e4, 1e4]], [[7, 7, 7]], [[0, 0, 0]], [[5]]],
    ids=["wide", "label far below", "equal", "zero", "one class"],
)
def test_loss_of_extreme_logits_is_finite(op: Op, logits: Any, dtype: Any) -> None:
    z = np.array(logits, dtype)
    with np.errstate(**RAISE):  # type: ignore[arg-type]
        loss, saved = op.forward(z, labels=np.zeros(1, np.int64))
        (d_logits,) = all_gradients(op, np.ones_like(loss), saved, 1)
    assert np.isfinite(loss)
    assert np.isfinite(d_logits).all()
    if z.shape[1] == 1:
        assert loss == 0
        assert d_logits == 0


def test_loss_of_extreme_logits_has_exact_value() -> None:
    z, labels = np.array([[-1e4, 1e4]]), np.zeros(1, np.int64)
    assert CROSS_ENTROPY.forward(z, labels=labels)[0] == 2e4
    assert HINGE.forward(z, labels=labels)[0] == 2e4 + 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_one_hot_rows_equals_cross_entropy_of_labels(smoothing: float) -> None:
    rng = np.random.default_rng(7)
    z, labels, g = rng.standard_normal((9, 4)), rng.integers(0, 4, 9), np.float64(1.0)
    found = []
    for y in (labels, np.eye(4)[labels]):
        loss, saved = CROSS_ENTROPY.forward(z, labels=y, label_smoothing=smoothing)
        found.append((loss, *all_gradients(CROSS_ENTROPY, g, saved, 1)))
    assert_allclose(found[1][0], found[0][0], rtol=1e-13)
    assert_allclose(found[1][1], found[0][1], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(
    ("logits", "value"), [([3e38, -3e38, 0], 0), ([0, -np.inf, -80], math.exp(-80))]
)
def test_cross_entropy_with_very_low_logit_ignores_its_class(logits: Any, value: float) -> None:
    z, labels = np.array([logits], np.float32), np.zeros(1, np.int64)
    with np.errstate(over="ignore"):
        loss, saved = CROSS_ENTROPY.forward(z, labels=labels)
        (d_logits,) = CROSS_ENTROPY.backward(np.ones(()), saved)
    assert_allclose(loss, value, rtol=1e-6)
    assert_allclose(d_logits, [[-value, 0, value]], rtol=1e-6)


def test_cross_entropy_of_extreme_logits_and_mixtures_is_finite() -> None:
    z = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 1e4]], np.float32)
    with np.errstate(**RAISE):  # type: ignore[arg-type]
        loss, saved = CROSS_ENTROPY.forward(z, labels=np.array([[0.5, 0.5, 0], [1, 0, 0]]))
        (d_logits,) = all_gradients(CROSS_ENTROPY, np.ones_like(loss), saved, 1)
    assert_allclose(loss, (0.5 * 2e4 + 2e4 + np.log(2)) / 2, rtol=1e-6)
    assert np.isfinite(d_logits).all()


@pytest.mark.parametrize("op", [BATCH_NORM, LAYER_NORM], ids=["batch norm", "layer norm"])
def test_norm_layer_of_constant_values_returns_bias(op: Op) -> None:
    x, weight, bias = np.full((4, 3), 7.0), np.ones(3), np.array([1.0, 2.0, 3.0])
    with np.errstate(**RAISE):  # type: ignore[arg-type]
        y, saved = op.forward(x, weight, bias, epsilon=1e-5)
        d_x, *_ = all_gradients(op, np.ones_like(y), saved, 3)
    assert_allclose(y, np.broadcast_to(bias, (4, 3)))
    assert np.isfinite(d_x).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATION_CASES)
def test_activation_saturates_without_overflow(name: str, dtype: str) -> None:
    case = ACTIVATION_CASES[name]
    largest = 1e4 if name in ("gelu", "tanh") else 0.9 * float(np.finfo(dtype).max)
    x = np.array([[-largest, -1e4, -100, 0, 100, 1e4, largest]], dtype)
    with np.errstate(**RAISE):  # type: ignore[arg-type]
        y, saved = case.op.forward(x, **case.options)
        (d_x,) = all_gradients(case.op, np.ones_like(y), saved, 1)
    assert np.isfinite(y).all()
    assert np.isfinite(d_x).all()

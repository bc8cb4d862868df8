"""Every convolution algorithm compared with PyTorch and with finite differences."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.ops import Buffer, conv, im2col, new, winograd
from nnopt.backends.numpy.ops.conv import conv2d_backward, conv2d_forward
from nnopt.backends.numpy.tape import Buffers
from nnopt.backends.numpy.threads import ThreadPool

ALGORITHMS = ["naive", "im2col", "winograd", "auto"]


@dataclass(frozen=True)
class Case:
    """A convolution of n images with c channels and h x w pixels; its output has o channels."""

    n: int
    c: int
    h: int
    w: int
    o: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}


CASES = {
    "whole tiles": Case(5, 4, 8, 8, 6),
    "tiles cut off": Case(5, 4, 7, 9, 6),
    "valid": Case(3, 4, 6, 5, 2, padding=0),
    "full": Case(3, 4, 6, 5, 2, padding=2),
    "many chunks": Case(40, 20, 9, 9, 18),
    "chunks of unequal size": Case(33, 2, 2, 3, 2),
    "one output": Case(2, 2, 3, 3, 2, padding=0),
    "one pixel": Case(2, 2, 1, 1, 2),
    "one image, one channel": Case(1, 1, 6, 6, 1),
    "large kernel": Case(4, 3, 9, 8, 5, kernel=5, padding=2),
    "stem": Case(2, 3, 11, 11, 4, kernel=7, stride=3, padding=3),
    "pointwise": Case(4, 3, 9, 8, 5, kernel=1, padding=0),
    "strided pointwise": Case(4, 3, 9, 8, 5, kernel=1, stride=2, padding=0),
    "strided, rows left over": Case(4, 3, 10, 7, 5, stride=2),
    "stride beyond the kernel": Case(2, 3, 10, 9, 4, kernel=2, stride=3, padding=0),
    "wide padding": Case(2, 3, 4, 4, 4, padding=3),
    "groups": Case(4, 6, 8, 8, 4, groups=2),
    "depthwise": Case(4, 6, 8, 7, 6, stride=2, groups=6),
}


def arrays(case: Case, dtype: type = np.float64) -> tuple[np.ndarray, ...]:
    """Return x (N, C, H, W), weight, bias and g, and then PyTorch's y, d_x, d_weight and d_bias.

    g is a random gradient of the output y.
    """
    rng = np.random.default_rng(0)
    kernel = (case.o, case.c // case.groups, case.kernel, case.kernel)
    x, weight, bias = (
        rng.standard_normal(shape).astype(dtype)
        for shape in [(case.n, case.c, case.h, case.w), kernel, (case.o,)]
    )
    inputs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, weight, bias)]
    y = F.conv2d(*inputs, **case.options)
    g = rng.standard_normal(y.shape).astype(dtype)
    y.backward(torch.tensor(g, dtype=torch.float64))
    gradients = [a.grad.numpy() for a in inputs if a.grad is not None]
    return x, weight, bias, g, y.detach().numpy(), *gradients


def inside(image: np.ndarray) -> np.ndarray:
    """Permute (N, C, H, W) to (H, W, N, C)."""
    return np.ascontiguousarray(image.transpose(2, 3, 0, 1))


def compute(case: Case, algorithm: str, data, buffer=new) -> list[np.ndarray]:
    """Return y, d_x, d_weight and d_bias. Images have the axes (N, C, H, W)."""
    x, weight, bias, g = data[:4]
    options = case.options | {"algorithm": algorithm}
    y, saved = conv2d_forward(inside(x), weight, bias, **options, buffer=buffer)
    d_x, d_weight, d_bias = conv2d_backward(inside(g), saved, (True, True, True), buffer=buffer)
    return [y.transpose(2, 3, 0, 1), d_x.transpose(2, 3, 0, 1), d_weight, d_bias]


def largest_error(case: Case, algorithm: str, dtype: type = np.float64, **options) -> float:
    """Return the largest difference from PyTorch's arrays, relative to each array's maximum."""
    data = arrays(case, dtype)
    ours = compute(case, algorithm, data, **options)
    pairs = zip(ours, data[4:], strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CASES)
def test_conv_outputs_and_gradients_equal_torch(name, algorithm):
    case, buffer = CASES[name], Buffers(ThreadPool(2))
    assert largest_error(case, algorithm) < 1e-10
    for _ in range(2):  # the second call reuses the buffers
        assert largest_error(case, algorithm, buffer=buffer) < 1e-10


LAYOUTS = {
    "channels first": lambda a: np.ascontiguousarray(a.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1),
    "every other image": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1, :1, :, :1], a.shape),
}
"""Functions that return a view of images (H, W, N, C) with an unusual memory layout."""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["whole tiles", "tiles cut off", "groups", "stem"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conv_result_does_not_depend_on_memory_layout(layout, name, algorithm):
    case, arrange = CASES[name], LAYOUTS[layout]
    options = case.options | {"algorithm": algorithm}
    x, weight, bias, g, *_ = arrays(case)
    results = []
    for strided in (False, True):
        x_inside, g_inside = (
            arrange(inside(a)) if strided else arrange(inside(a)).copy() for a in (x, g)
        )
        y, saved = conv2d_forward(x_inside, weight, bias, **options)
        results.append([y, *conv2d_backward(g_inside, saved, (True, True, True))])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CASES)
def test_conv_float32_is_near_float64(name, algorithm):
    assert largest_error(CASES[name], algorithm, np.float32) < 1e-4


def test_winograd_float32_with_many_channels_is_near_float64():
    assert largest_error(Case(2, 256, 12, 12, 64), "winograd", np.float32) < 1e-4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["tiles cut off", "stem", "groups", "wide padding"])
def test_conv_gradients_equal_finite_differences(name, algorithm):
    """L = Σ g y is linear in each array p, so (L(p + h v) - L(p - h v)) / 2h is v·∇L for any v."""
    case = CASES[name]
    data = arrays(case)
    gradients = compute(case, algorithm, data)[1:]
    rng = np.random.default_rng(1)
    for position, gradient in enumerate(gradients):
        for _ in range(3):
            v = rng.standard_normal(gradient.shape)
            losses = []
            for sign in (1, -1):
                moved = [array.copy() for array in data[:4]]
                moved[position] += sign * 1e-3 * v
                y = compute(case, algorithm, moved)[0]
                losses.append(float(np.sum(moved[3] * y)))
            slope = (losses[0] - losses[1]) / 2e-3
            assert slope == pytest.approx(float(np.sum(v * gradient)), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("algorithm", ["im2col", "winograd"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conv_bits_do_not_depend_on_number_of_threads(algorithm, dtype, monkeypatch):
    monkeypatch.setattr(tuning, "PARALLEL_SUM_MIN_ELEMENTS", 100)
    case = CASES["many chunks"]
    data = arrays(case, dtype)
    alone = compute(case, algorithm, data)
    for count in (1, 2, 3, 4):
        workers = ThreadPool(count)
        with threadpool_limits(count, user_api="blas"):
            for _ in range(2):
                together = compute(case, algorithm, data, Buffer(workers))
                for a, b in zip(together, alone, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["many chunks", "stem", "large kernel", "strided, rows left over"])
def test_bits_of_im2col_input_gradient_do_not_depend_on_chunk_size(name, monkeypatch):
    """With one output channel, only the order of sums over overlapping windows can change bits."""
    case = replace(CASES[name], o=1)
    data, found = arrays(case, np.float32), []
    for numbers in (1, 5000, 2**30):  # a chunk has one row of windows, some rows, or all rows
        monkeypatch.setattr(tuning, "COL2IM_CHUNK_ELEMENTS", numbers)
        found.append(compute(case, "im2col", data)[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])


@pytest.mark.parametrize("images", [16, 32])
def test_memory_of_im2col_input_gradient_is_bounded(images):
    """A matrix of all 5x5 windows would be 25 times as large as the images."""
    weight, padded_shape = np.ones((4, 32, 5, 5), np.float32), (36, 36, 32, images)
    g = np.ones((32, 32, images, 4), np.float32)
    tracemalloc.start()
    d_x = im2col._input_gradient(g, padded_shape, weight, 1, 2, new)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3.5 * d_x.nbytes  # d_x, its padded copy, and a row of windows


def test_backward_pass_of_conv_without_bias_returns_two_gradients():
    x, weight, _, g, *_ = arrays(CASES["whole tiles"])
    for algorithm in ALGORITHMS:
        _, saved = conv2d_forward(inside(x), weight, padding=1, algorithm=algorithm)
        gradients = conv2d_backward(inside(g), saved, (False, True))
        assert len(gradients) == 2
        assert gradients[0] is None


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_conv_gradients_that_are_not_required_are_none(algorithm, groups):
    rng = np.random.default_rng(9)
    x, g = rng.standard_normal((2, 8, 8, 3, 4))
    weight, bias = rng.standard_normal((4, 4 // groups, 3, 3)), rng.standard_normal(4)
    options = {"padding": 1, "groups": groups, "algorithm": algorithm}

    def gradients(requires_grad):
        _, saved = conv2d_forward(x, weight, bias, **options)
        return conv2d_backward(g.copy(), saved, requires_grad)

    whole = gradients((True, True, True))
    for requires_grad in itertools.product([False, True], repeat=3):
        part = gradients(requires_grad)
        assert [d is not None for d in part] == list(requires_grad)
        for one, other in zip(part, whole, strict=True):
            if one is not None:
                assert_array_equal(one, other)


def test_automatic_conv_algorithm_depends_on_shape():
    def chosen(case: Case, algorithm: str = "auto") -> str:
        weight = np.zeros((case.o, case.c // case.groups, case.kernel, case.kernel))
        return conv._choose(algorithm, weight, case.stride, case.padding, case.groups)

    assert chosen(Case(1, 64, 8, 8, 64)) == "winograd"
    assert chosen(Case(1, 3, 8, 8, 64)) == "im2col"
    assert chosen(Case(1, 64, 8, 8, 64, stride=2)) == "im2col"
    assert chosen(Case(1, 64, 8, 8, 64, kernel=5)) == "im2col"
    four_outputs_per_group = Case(1, 64, 8, 8, 16, groups=4)
    assert chosen(four_outputs_per_group) == "im2col"
    assert chosen(Case(1, 64, 8, 8, 64), "naive") == "naive"
    assert chosen(Case(1, 64, 8, 8, 64, stride=2), "winograd") == "im2col"


def test_winograd_transforms_are_exact_in_rational_numbers():
    """Aᵀ [(G w) ⊙ (Bᵀ d)] is the correlation of six numbers d with three numbers w."""
    rng = np.random.default_rng(2)
    fraction = np.vectorize(lambda v: Fraction(v).limit_denominator(24))
    bt, g, at = (fraction(m) for m in (winograd.BT, winograd.G, winograd.AT))
    d, w = (fraction(rng.integers(-9, 9, n)) for n in (6, 3))
    y = at @ ((g @ w) * (bt @ d))
    assert list(y) == [sum(d[i + j] * w[j] for j in range(3)) for i in range(4)]


def flipped(x, weight, bias, *rest):
    return winograd.winograd_forward(x, weight[..., ::-1, ::-1].copy(), bias, *rest)


def unturned(g, x, weight, *rest):
    _, d_weight, d_bias = winograd.winograd_backward(g, x, weight, *rest)
    turned = weight[..., ::-1, ::-1].copy()
    return winograd.winograd_backward(g, x, turned, *rest)[0], d_weight, d_bias


def shifted(*arguments):
    d_x, d_weight, d_bias = winograd.winograd_backward(*arguments)
    return np.roll(d_x, 1, axis=0), d_weight, d_bias


def turned_weight_gradient(*arguments):
    d_x, d_weight, d_bias = winograd.winograd_backward(*arguments)
    return d_x, d_weight[..., ::-1, ::-1], d_bias


def halved(*arguments):
    d_x, d_weight, d_bias = winograd.winograd_backward(*arguments)
    return d_x, d_weight, d_bias / 2


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("winograd_forward", flipped),
        ("winograd_backward", unturned),
        ("winograd_backward", shifted),
        ("winograd_backward", turned_weight_gradient),
        ("winograd_backward", halved),
    ],
)
def test_comparison_with_torch_fails_if_winograd_is_faulty(monkeypatch, name, fault):
    case = CASES["whole tiles"]
    assert largest_error(case, "winograd") < 1e-10
    monkeypatch.setattr(conv, name, fault)
    assert largest_error(case, "winograd") > 1e-3


@pytest.mark.parametrize("matrix", ["BT", "AT", "GG"])
def test_comparison_with_torch_fails_if_winograd_matrix_has_a_wrong_entry(monkeypatch, matrix):
    wrong = getattr(winograd, matrix).copy()
    wrong[1, 1] += 1
    monkeypatch.setattr(winograd, matrix, wrong)
    assert largest_error(CASES["whole tiles"], "winograd") > 1e-3

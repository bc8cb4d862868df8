"""Errors planted in the operations on images, to show that the checks detect them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from image_cases import CASES, Array, C, N, check_against_differences, check_against_torch

from nnopt.backends.numpy.ops import Op, lanes
from nnopt.backends.numpy.ops.normalization import GROUP_NORM
from nnopt.backends.numpy.ops.pooling import AVG_POOL2D, MAX_POOL2D
from nnopt.backends.numpy.ops.shape import FLATTEN


def last_of_equals() -> Op:
    """Return a max pooling that passes the gradient of tied maxima to the last maximum."""

    def forward(x: Array, **options: Any) -> tuple[Array, Any]:
        y, saved = MAX_POOL2D.forward(x[::-1, ::-1], **options)
        return y[::-1, ::-1], saved

    def backward(g: Array, saved: Any, **keep: Any) -> tuple[Array | None]:
        (d_x,) = MAX_POOL2D.backward(g[::-1, ::-1], saved, **keep)
        assert d_x is not None
        return (d_x[::-1, ::-1],)

    return Op(forward, backward, ("x",))


def padded_with_zeros(op: Op) -> Op:
    """Return a pooling that includes the zero-valued padding in each window."""

    def forward(x: Array, *, padding: int, **options: Any) -> tuple[Array, Any]:
        margin = (padding, padding)
        y, saved = op.forward(np.pad(x, (margin, margin, (0, 0), (0, 0))), **options)
        return y, (saved, padding)

    def backward(g: Array, saved: Any, **keep: Any) -> tuple[Array | None]:
        inner, padding = saved
        (d_x,) = op.backward(g, inner, **keep)
        assert d_x is not None
        return (d_x[padding:-padding, padding:-padding],)

    return Op(forward, backward, ("x",))


def without(term: int) -> Callable[..., Array]:
    """Return a faulty version of lanes.combine, a · g + b · x + c, that sets a, b or c to 0."""
    right = lanes.combine

    def wrong(g: Array, x: Array, *rest: Any) -> Array:
        factors = list(rest[:3])
        factors[term] = np.zeros_like(factors[term])
        return right(g, x, *factors, *rest[3:])

    return wrong


def test_average_pool_with_zero_padding_equals_torch() -> None:
    check_against_torch(CASES["average pool, padded tiles"], padded_with_zeros(AVG_POOL2D))


def test_max_pool_with_zero_padding_fails_comparison_with_torch() -> None:
    with pytest.raises(AssertionError):
        check_against_torch(CASES["max pool, padded tiles"], padded_with_zeros(MAX_POOL2D))


def test_max_pool_gradient_of_tie_to_last_maximum_fails_comparison_with_torch() -> None:
    case = CASES["max pool, tiles"]
    check_against_torch(case, last_of_equals())  # without ties, the faulty version is correct
    with pytest.raises(AssertionError):
        check_against_torch(case, last_of_equals(), [np.zeros(case.shape)])


def test_average_pool_that_excludes_padding_from_divisor_fails_comparison_with_torch() -> None:
    case = CASES["average pool, overlapping and padded"]
    ones = np.ones(case.shape)

    def forward(x: Array, **options: Any) -> tuple[Array, Any]:
        y, saved = AVG_POOL2D.forward(x, **options)
        return y / AVG_POOL2D.forward(ones, **options)[0], saved

    with pytest.raises(AssertionError):
        check_against_torch(case, Op(forward, AVG_POOL2D.backward, ("x",)))


@pytest.mark.parametrize("term", [1, 2], ids=["variance", "mean"])
@pytest.mark.parametrize("name", ["batch norm", "group norm, 2 groups"])
def test_norm_layer_gradient_with_missing_term_fails_gradient_checks(
    name: str, term: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "combine", without(term))
    for check in (check_against_torch, check_against_differences):
        with pytest.raises(AssertionError):
            check(CASES[name], CASES[name].op)


@pytest.mark.parametrize("name", ["batch norm and relu", "group norm and relu"])
def test_norm_layer_gradient_that_ignores_relu_fails_gradient_checks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = lanes.sums
    monkeypatch.setattr(lanes, "sums", lambda *arguments: right(*arguments[:3]))
    for check in (check_against_torch, check_against_differences):
        with pytest.raises(AssertionError):
            check(CASES[name], CASES[name].op)


def test_group_norm_of_interleaved_groups_fails_comparison_with_torch() -> None:
    order = np.arange(C).reshape(2, -1).T.reshape(-1)  # consecutive channels in different groups

    def forward(x: Array, *parameters: Array, **options: Any) -> tuple[Array, Any]:
        y, saved = GROUP_NORM.forward(x[..., order], *[p[order] for p in parameters], **options)
        return y[..., np.argsort(order)], saved

    with pytest.raises(AssertionError):
        check_against_torch(
            CASES["group norm, 2 groups"], Op(forward, GROUP_NORM.backward, GROUP_NORM.inputs)
        )


def test_flatten_in_channels_last_order_fails_comparison_with_torch() -> None:
    def forward(x: Array) -> tuple[Array, Any]:
        return x.transpose(2, 0, 1, 3).reshape(N, -1), x.shape

    with pytest.raises(AssertionError):
        check_against_torch(CASES["flatten"], Op(forward, FLATTEN.backward, ("x",)))

"""Operations on images (H, W, N, C), and comparisons with the same operations in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from all_gradients import all_gradients
from numpy.testing import assert_allclose
from operations import ACTIVATION_CASES
from torch import Tensor
from torch.nn import functional as F

from nnopt.backends.numpy.ops import Op
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.linear_units import PRELU
from nnopt.backends.numpy.ops.normalization import BATCH_NORM, GROUP_NORM
from nnopt.backends.numpy.ops.pooling import AVG_POOL2D, GLOBAL_AVG_POOL, MAX_POOL2D
from nnopt.backends.numpy.ops.shape import ADD, FLATTEN

Array = np.ndarray
N, C = 3, 6


def outside(image: Any) -> Any:
    """Permute an array or a tensor from (H, W, N, C) to (N, C, H, W)."""
    return image.permute(2, 3, 0, 1) if isinstance(image, Tensor) else image.transpose(2, 3, 0, 1)


def inside(image: Any) -> Any:
    """Permute an array or a tensor from (N, C, H, W) to (H, W, N, C)."""
    return outside(image)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def off_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return values that are at least 0.1 away from zero, the kink of a ReLU."""
    x = rng.standard_normal(shape)
    return x + np.copysign(0.1, x)


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return mostly negative values that differ by at least 0.1, so that no maximum is a tie."""
    return (3 - 0.1 * rng.permutation(int(np.prod(shape)))).reshape(shape)


def gradient_like(y: Array, seed: int) -> Array:
    """Return a random array of the shape of an output, for use as its gradient."""
    return np.random.default_rng(seed).standard_normal(y.shape)


@dataclass(frozen=True)
class Case:
    """An operation on images x (H, W, N, C) and parameters.

    ``reference`` is the same operation in PyTorch. ``values`` is the function that draws x.
    ``threaded`` is true if the operation divides its work among threads.
    """

    op: Op
    reference: Callable[..., Tensor]
    shape: tuple[int, ...] = (4, 5, N, C)
    parameters: tuple[tuple[int, ...], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    values: Callable[..., Array] = normal
    threaded: bool = True

    def inputs(self, seed: int = 0, dtype: type = np.float64) -> list[Array]:
        rng = np.random.default_rng(seed)
        x = self.values(rng, self.shape)
        return [a.astype(dtype) for a in (x, *(rng.standard_normal(p) for p in self.parameters))]


POOLS: dict[str, tuple[tuple[int, int], dict[str, int]]] = {
    "tiles": ((4, 6), {"size": 2, "stride": 2}),
    "rows and columns left over": ((5, 7), {"size": 2, "stride": 2}),
    "overlapping": ((7, 6), {"size": 3, "stride": 2}),
    "overlapping and padded": ((7, 6), {"size": 3, "stride": 2, "padding": 1}),
    "at every pixel": ((5, 4), {"size": 3, "stride": 1, "padding": 1}),
    "padded tiles": ((5, 6), {"size": 2, "stride": 2, "padding": 1}),
    "gaps": ((7, 9), {"size": 2, "stride": 3}),
    "gaps and padding": ((8, 5), {"size": 2, "stride": 3, "padding": 1}),
    "one window": ((4, 4), {"size": 4, "stride": 4}),
    "one pixel": ((3, 2), {"size": 1, "stride": 1}),
    "one pixel, strided": ((5, 4), {"size": 1, "stride": 2}),
    "wide padding": ((3, 3), {"size": 5, "stride": 2, "padding": 2}),
    "more positions than a byte counts": ((18, 17), {"size": 17, "stride": 17}),
}


def pool_cases() -> Iterator[tuple[str, Case]]:
    for name, ((height, width), options) in POOLS.items():
        many = (height, width, N, C) if height < 10 else (height, width, 1, 2)
        values = {"kernel_size": options["size"], **options}
        del values["size"]
        yield (
            f"max pool, {name}",
            Case(
                MAX_POOL2D,
                lambda x, values=values: F.max_pool2d(x, **values),
                many,
                options=options,
                values=distinct,
            ),
        )
        yield (
            f"average pool, {name}",
            Case(
                AVG_POOL2D,
                lambda x, values=values: F.avg_pool2d(x, **values),
                many,
                options=options,
            ),
        )


def batch_norm(epsilon: float) -> Callable[..., Tensor]:
    return lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=epsilon)


def norm_cases() -> Iterator[tuple[str, Case]]:
    affine = ((C,), (C,))
    for name, shape in {
        "": (4, 5, N, C),
        ", one sample": (4, 5, 1, C),
        ", 1x1": (1, 1, 5, C),
    }.items():
        options = {"epsilon": 1e-5}
        yield f"batch norm{name}", Case(BATCH_NORM, batch_norm(1e-5), shape, affine, options)
    yield (
        "batch norm, large epsilon",
        Case(BATCH_NORM, batch_norm(0.5), parameters=affine, options={"epsilon": 0.5}),
    )
    yield (
        "batch norm, far from zero",
        Case(
            BATCH_NORM,
            batch_norm(1e-5),
            parameters=affine,
            options={"epsilon": 1e-5},
            values=lambda rng, shape: normal(rng, shape) + np.arange(0, 10 * C, 10),
        ),
    )
    yield (
        "batch norm and relu",
        Case(
            BATCH_NORM,
            lambda *inputs: F.relu(batch_norm(1e-5)(*inputs)),
            parameters=affine,
            options={"epsilon": 1e-5, "relu": True},
        ),
    )
    yield (
        "group norm and relu",
        Case(
            GROUP_NORM,
            lambda x, w, b: F.relu(F.group_norm(x, 3, w, b, 1e-5)),
            parameters=affine,
            options={"groups": 3, "epsilon": 1e-5, "relu": True},
        ),
    )
    yield (
        "group norm, far from zero",
        Case(
            GROUP_NORM,
            lambda x, w, b: F.group_norm(x, 3, w, b, 1e-5),
            parameters=affine,
            options={"groups": 3, "epsilon": 1e-5},
            values=lambda rng, shape: normal(rng, shape) - 50,
        ),
    )
    for groups, epsilon in [(1, 1e-5), (2, 1e-5), (3, 0.5), (C, 1e-5)]:
        yield (
            f"group norm, {groups} groups",
            Case(
                GROUP_NORM,
                lambda x, w, b, groups=groups, epsilon=epsilon: F.group_norm(
                    x, groups, w, b, epsilon
                ),
                parameters=affine,
                options={"groups": groups, "epsilon": epsilon},
            ),
        )


KEEP = np.random.default_rng(1).random((N, C, 4, 5)) < 0.6

CASES: dict[str, Case] = {
    **dict(pool_cases()),
    **dict(norm_cases()),
    "global average pool": Case(GLOBAL_AVG_POOL, lambda x: x.mean((2, 3)), threaded=False),
    "flatten": Case(FLATTEN, lambda x: x.flatten(1), threaded=False),
    "add": Case(ADD, lambda x, y: x + inside(y), parameters=((4, 5, N, C),), threaded=False),
    "dropout": Case(
        DROPOUT,
        lambda x: x * torch.tensor(KEEP) * 2,
        options={"keep_mask": inside(KEEP), "scale": 2.0},
        threaded=False,
    ),
    "spatial dropout": Case(
        DROPOUT,
        lambda x: x * torch.tensor(KEEP[:, :, :1, :1]) * 1.5,
        options={"keep_mask": KEEP[:, :, 0, 0], "scale": 1.5},
        threaded=False,
    ),
    **{
        name: Case(
            x.op, x.torch, options=dict(x.options), values=off_zero if x.has_kink else normal
        )
        for name, x in ACTIVATION_CASES.items()
    },
    "prelu": Case(PRELU, F.prelu, parameters=((1,),), values=off_zero),
    "prelu per channel": Case(PRELU, F.prelu, parameters=((C,),), values=off_zero),
}


def step(op: Op, inputs: list[Array], g: Array | None, **options: Any) -> list[Array]:
    """Return copies of the output and of all gradients.

    ``g`` is the gradient of the output. If it is None, all entries of the gradient are 1.
    """
    buffer = options.pop("buffer", None)
    keep = {} if buffer is None else {"buffer": buffer}
    y, saved = op.forward(*inputs, **options, **keep)
    output = y.copy()
    g = np.ones_like(y) if g is None else g.copy()
    return [output, *(d.copy() for d in all_gradients(op, g, saved, len(inputs), **keep))]


def torch_step(case: Case, inputs: list[Array], seed: int = 2) -> tuple[Array, list[Array]]:
    """Return a random gradient of the output, and PyTorch's output and gradients in float64."""
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in inputs]
    y = case.reference(outside(tensors[0]), *tensors[1:])
    y = inside(y) if y.ndim == 4 else y
    g = np.random.default_rng(seed).standard_normal(tuple(y.shape))
    gradients = torch.autograd.grad(y, tensors, torch.tensor(g))
    return g, [t.detach().numpy() for t in (y, *gradients)]


def check_against_torch(case: Case, op: Op, inputs: list[Array] | None = None) -> None:
    inputs = case.inputs() if inputs is None else inputs
    g, expected = torch_step(case, inputs)
    for ours, theirs in zip(step(op, inputs, g, **case.options), expected, strict=True):
        assert ours.shape == theirs.shape
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def check_against_differences(case: Case, op: Op) -> None:
    """Compare the gradients of Σ g y, for the output y and a random g, with central differences."""
    inputs, h = case.inputs(seed=3), 1e-5
    y = op.forward(*inputs, **case.options)[0]
    g = gradient_like(y, seed=4)
    _, *gradients = step(op, inputs, g, **case.options)
    for number, (array, by_hand) in enumerate(zip(inputs, gradients, strict=True)):
        slopes = np.empty_like(array)
        for index in np.ndindex(array.shape):
            sides = []
            for move in (h, -h):
                moved = [a.copy() for a in inputs]
                moved[number][index] += move
                sides.append(float(np.sum(g * op.forward(*moved, **case.options)[0])))
            slopes[index] = (sides[0] - sides[1]) / (2 * h)
        error = np.linalg.norm(by_hand - slopes)
        assert error <= 1e-6 * (np.linalg.norm(by_hand) + np.linalg.norm(slopes)) + 1e-9

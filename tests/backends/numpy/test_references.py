"""Fast operations and optimizers equal their reference versions, whose names contain ``naive``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from image_cases import CASES as IMAGE_CASES
from image_cases import POOLS, step
from numpy.testing import assert_allclose
from operations import ACTIVATION_CASES, OPERATIONS
from test_numpy_optimizers import CONFIGS

from nnopt.backends.numpy import update_rules
from nnopt.backends.numpy.optimizers import Optimizer
from nnopt.backends.numpy.update_rules import OPTIMIZERS

Array = np.ndarray

WITHOUT_FORMULA = {"ADD", "CHANNELS_LAST", "FLATTEN"}
"""Operations without a reference version, because they only move or add arrays."""

AFFINE = [(5,), (5,)]
LABELS = np.array([0, 4, 2, 2, 1, 3, 0])
MIXTURES = np.random.default_rng(2).dirichlet(np.ones(5), 7)
TARGETS = [(LABELS, 0.0), (LABELS, 0.1), (MIXTURES, 0.0), (MIXTURES, 0.3)]
EDGES = np.array([[-30.0, -1.0, -0.0, 0.0, 1e-8], [30.0, 1.0, 1e-300, -1e-300, 5.0]])

ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    (name, dict(case.options))
    for case in ACTIVATION_CASES.values()
    for name, (_, op) in OPERATIONS.items()
    if op is case.op
]
"""Name and options of each activation without parameters."""

CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("DENSE", [(7, 5), (3, 5), (3,)], {}),
    ("DENSE", [(1, 1), (1, 1), (1,)], {}),
    ("DENSE", [(7, 5), (3, 5), (3,)], {"relu": True}),
    ("DENSE", [(2, 1024), (512, 1024), (512,)], {}),
    *[
        (name, [shape], options)
        for name, options in ACTIVATIONS
        for shape in ((7, 5), (4, 3, 2, 6))
    ],
    *[("PRELU", [shape, (1,)], {}) for shape in ((7, 5), (4, 3, 2, 5), (3, 1))],
    *[("PRELU", [shape, (5,)], {}) for shape in ((7, 5), (4, 3, 2, 5), (1, 5))],
    ("DROPOUT", [(7, 5)], {"keep_mask": MIXTURES > 0.2, "scale": 1.25}),
    ("DROPOUT", [(2, 3, 7, 5)], {"keep_mask": MIXTURES > 0.2, "scale": 2.0}),
    ("DROPOUT", [(2, 3, 7, 5)], {"keep_mask": np.zeros((7, 1), bool), "scale": 2.0}),
    ("BATCH_NORM", [(7, 5), *AFFINE], {"epsilon": 1e-5}),
    ("BATCH_NORM", [(4, 3, 7, 5), *AFFINE], {"epsilon": 0.5}),
    ("BATCH_NORM", [(4, 3, 7, 5), *AFFINE], {"epsilon": 1e-5, "relu": True}),
    ("LAYER_NORM", [(7, 5), *AFFINE], {"epsilon": 1e-5}),
    ("LAYER_NORM", [(1, 5), *AFFINE], {"epsilon": 0.5}),
    ("GROUP_NORM", [(4, 3, 7, 5), *AFFINE], {"groups": 1, "epsilon": 1e-5}),
    ("GROUP_NORM", [(4, 3, 7, 5), *AFFINE], {"groups": 5, "epsilon": 1e-5, "relu": True}),
    ("GROUP_NORM", [(4, 3, 2, 6), (6,), (6,)], {"groups": 3, "epsilon": 0.5}),
    ("CROSS_ENTROPY", [(7, 5)], {"labels": LABELS}),
    ("CROSS_ENTROPY", [(7, 5)], {"labels": LABELS, "label_smoothing": 0.1}),
    ("CROSS_ENTROPY", [(7, 5)], {"labels": MIXTURES, "label_smoothing": 0.3}),
    ("CROSS_ENTROPY", [(1, 1)], {"labels": np.zeros(1, np.int64)}),
    ("HINGE", [(7, 5)], {"labels": LABELS}),
    ("HINGE", [(1, 1)], {"labels": np.zeros(1, np.int64)}),
    *[("MSE", [(7, 5)], {"labels": labels, "label_smoothing": e}) for labels, e in TARGETS],
    ("MSE", [(1, 1)], {"labels": np.zeros(1, np.int64)}),
    *[
        ("FOCAL", [(7, 5)], {"labels": labels, "label_smoothing": e, "gamma": gamma})
        for labels, e in TARGETS
        for gamma in (0.0, 0.5, 1.0, 2.0, 4.5)
    ],
    ("FOCAL", [(1, 1)], {"labels": np.zeros(1, np.int64), "gamma": 2.0}),
    *[
        ("CONV2D", [(8, 9, 2, 4), (6, 4, 3, 3), (6,)], options | {"algorithm": algorithm})
        for algorithm in ("im2col", "winograd")
        for options in ({"stride": 1, "padding": 1}, {"stride": 2, "padding": 0})
    ],
    ("CONV2D", [(7, 7, 2, 3), (2, 3, 5, 5), (2,)], {"stride": 3, "padding": 2}),
    ("GLOBAL_AVG_POOL", [(4, 3, 7, 5)], {}),
]


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function without the named arguments that the function does not accept."""
    taken = inspect.signature(function).parameters
    takes_all = any(x.kind == x.VAR_KEYWORD for x in taken.values())
    return function(*arguments, **{k: x for k, x in named.items() if takes_all or k in taken})


def check(name: str, inputs: list[Array], options: dict[str, Any]) -> None:
    """Compare the outputs and gradients of an operation and its reference version."""
    module, op = OPERATIONS[name]
    forward, backward = (
        getattr(module, f"{name.lower()}_naive_{way}") for way in ("forward", "backward")
    )
    named = dict(zip(op.inputs, inputs, strict=True)) | options
    y = call(forward, **named)
    g = np.random.default_rng(1).standard_normal(y.shape)
    fast = step(op, inputs, g, **options)
    if options.get("relu"):
        y, g = np.maximum(y, 0), g * (y > 0)
    for ours, reference in zip(fast, [y, *call(backward, g, **named)], strict=True):
        assert ours.shape == np.shape(reference)
        assert_allclose(ours, reference, rtol=1e-11, atol=1e-13 * max(1, ours.size**0.5))


@pytest.mark.parametrize(("name", "shapes", "options"), CASES)
def test_operation_equals_its_reference(
    name: str, shapes: list[tuple[int, ...]], options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    check(name, [rng.standard_normal(shape) for shape in shapes], options)


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_activation_of_edge_values_equals_its_reference(name: str, options: dict[str, Any]) -> None:
    check(name, [EDGES], options)


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.25, 1.0, 3.0])
def test_prelu_of_edge_values_equals_its_reference(slope: float) -> None:
    check("PRELU", [EDGES, np.array([slope])], {})


@pytest.mark.parametrize("name", ["CROSS_ENTROPY", "HINGE", "MSE", "FOCAL"])
def test_loss_of_edge_values_equals_its_reference(name: str) -> None:
    check(name, [EDGES], {"labels": np.array([4, 1])} | ({"gamma": 2.0} if name == "FOCAL" else {}))


@pytest.mark.parametrize("name", ["BATCH_NORM", "LAYER_NORM", "GROUP_NORM"])
def test_norm_layer_of_constant_values_equals_its_reference(name: str) -> None:
    shape = (7, 5) if name == "LAYER_NORM" else (4, 3, 7, 5)
    options = {"groups": 1} if name == "GROUP_NORM" else {}
    check(name, [np.full(shape, 3.0), *np.ones((2, 5))], {"epsilon": 1e-5} | options)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("name", ["MAX_POOL2D", "AVG_POOL2D"])
def test_pooling_equals_its_reference(name: str, ties: bool, pool: str) -> None:
    case = IMAGE_CASES[f"{'max' if name == 'MAX_POOL2D' else 'average'} pool, {pool}"]
    (x,) = case.inputs(seed=8)
    check(name, [np.round(x / 4) if ties else x], case.options)


def test_every_operation_has_a_case() -> None:
    tested = {name for name, _, _ in CASES} | {"MAX_POOL2D", "AVG_POOL2D"}
    assert tested == set(OPERATIONS) - WITHOUT_FORMULA
    assert len(OPERATIONS) > 15


def test_every_optimizer_has_a_reference() -> None:
    assert {f"{rule.update.__name__}_naive" for rule in OPTIMIZERS.values()} <= set(
        vars(update_rules)
    )


@pytest.mark.parametrize("size", [1, 23])
@pytest.mark.parametrize("name", CONFIGS)
def test_optimizer_equals_its_reference(name: str, size: int) -> None:
    config, _ = CONFIGS[name]
    reference = getattr(update_rules, f"{OPTIMIZERS[config.name].update.__name__}_naive")
    rng = np.random.default_rng(0)
    fast, gradient = rng.standard_normal(size), np.empty(size)
    slow, state = fast.copy(), [np.zeros(size) for _ in range(3)]
    optimizer = Optimizer(config, fast, gradient, slice(size // 2), 0.3)
    for t in range(1, 8):
        gradient[:] = rng.standard_normal(size) * (rng.random(size) < 0.8)  # a fifth are zeros
        optimizer.step(0.1 * t)
        slow[: size // 2] *= 1 - 0.1 * t * 0.3
        named = vars(config) | {"lr": 0.1 * t, "t": t, "state": state}
        slow = call(reference, slow, gradient, **named)
        assert_allclose(fast, slow, rtol=1e-12, atol=1e-14)

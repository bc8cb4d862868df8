"""NumPy's operations and optimizers with unusual memory layouts, NaN, 1e4 or one sample.

test_numpy_ops.py and test_numpy_image_ops.py compare the gradients with other computations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pytest
from all_gradients import all_gradients
from operations import ACTIVATION_CASES, OPERATIONS

from nnopt.backends.numpy.ops import Op
from nnopt.backends.numpy.ops.conv import CONV2D
from nnopt.backends.numpy.ops.dense import DENSE
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.linear_units import PRELU
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY, FOCAL, HINGE, MSE
from nnopt.backends.numpy.ops.normalization import BATCH_NORM, GROUP_NORM, LAYER_NORM
from nnopt.backends.numpy.ops.pooling import AVG_POOL2D, GLOBAL_AVG_POOL, MAX_POOL2D
from nnopt.backends.numpy.ops.shape import ADD, FLATTEN
from nnopt.backends.numpy.optimizers import Optimizer
from nnopt.backends.numpy.update_rules import OPTIMIZERS
from nnopt.schema import Activation, Config

Array = np.ndarray
Shape = tuple[int, ...]

FLAT, IMAGES = (4, 3), (6, 6, 2, 4)


@dataclass(frozen=True)
class Component:
    """An operation with its options, the shapes of its inputs, and the axis of samples."""

    op: Op
    shapes: tuple[Shape, ...] = (FLAT,)
    options: Mapping[str, Any] = field(default_factory=dict)
    sample_axis: int = 0

    def inputs(self, dtype: str = "float64", samples: int | None = None) -> list[Array]:
        random = np.random.default_rng(0)
        shapes = [list(shape) for shape in self.shapes]
        for shape in shapes if samples is not None else ():
            if tuple(shape) == self.shapes[0]:
                shape[self.sample_axis] = samples
        return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def images(op: Op, *parameters: Shape, **options: Any) -> Component:
    return Component(op, (IMAGES, *parameters), options, sample_axis=2)


NORM: dict[str, Any] = {"epsilon": 1e-5}
POOL: dict[str, Any] = {"size": 2, "stride": 2}
WINDOW: dict[str, Any] = {"padding": 1}
COMPONENTS = {
    **{name: Component(x.op, options=x.options) for name, x in ACTIVATION_CASES.items()},
    **{f"{name} of images": images(x.op, **x.options) for name, x in ACTIVATION_CASES.items()},
    "prelu": Component(PRELU, (FLAT, (1,))),
    "prelu of images": images(PRELU, (1,)),
    "prelu per channel": Component(PRELU, (FLAT, (3,))),
    "prelu of images per channel": images(PRELU, (4,)),
    "dense": Component(DENSE, (FLAT, (5, 3), (5,))),
    "dense and relu": Component(DENSE, (FLAT, (5, 3), (5,)), {"relu": True}),
    "conv by loops": images(CONV2D, (4, 4, 3, 3), (4,), algorithm="naive", **WINDOW),
    "conv by im2col": images(CONV2D, (4, 4, 3, 3), (4,), algorithm="im2col", **WINDOW),
    "conv by Winograd": images(CONV2D, (4, 4, 3, 3), (4,), algorithm="winograd", **WINDOW),
    "conv in groups": images(CONV2D, (4, 2, 3, 3), (4,), groups=2, **WINDOW),
    "max pool": images(MAX_POOL2D, **POOL),
    "max pool, padded": images(MAX_POOL2D, size=3, stride=2, padding=1),
    "average pool": images(AVG_POOL2D, **POOL),
    "global average pool": images(GLOBAL_AVG_POOL),
    "batch norm": Component(BATCH_NORM, (FLAT, (3,), (3,)), NORM),
    "batch norm of images": images(BATCH_NORM, (4,), (4,), **NORM),
    "batch norm of images and relu": images(BATCH_NORM, (4,), (4,), relu=True, **NORM),
    "layer norm": Component(LAYER_NORM, (FLAT, (3,), (3,)), NORM),
    "group norm": images(GROUP_NORM, (4,), (4,), groups=2, **NORM),
    "dropout": Component(DROPOUT, options={"keep_mask": np.ones((1, 3), bool), "scale": 1.0}),
    "add": Component(ADD, (FLAT, FLAT)),
    "flatten": images(FLATTEN),
    "cross entropy": Component(CROSS_ENTROPY, options={"labels": np.zeros(4, np.int64)}),
    "cross entropy, smoothed": Component(
        CROSS_ENTROPY, options={"labels": np.zeros(4, np.int64), "label_smoothing": 0.1}
    ),
    "hinge": Component(HINGE, options={"labels": np.zeros(4, np.int64)}),
    "mean squared error": Component(MSE, options={"labels": np.zeros(4, np.int64)}),
    "mean squared error, smoothed": Component(
        MSE, options={"labels": np.zeros(4, np.int64), "label_smoothing": 0.1}
    ),
    "focal": Component(FOCAL, options={"labels": np.zeros(4, np.int64), "gamma": 0.5}),
    "focal, smoothed": Component(
        FOCAL, options={"labels": np.zeros(4, np.int64), "gamma": 2.0, "label_smoothing": 0.1}
    ),
}

ALL = pytest.mark.parametrize("component", COMPONENTS.values(), ids=COMPONENTS)


def step(
    component: Component, inputs: list[Array], options: Mapping[str, Any] | None = None
) -> list[Array]:
    """Return copies of the output and of all gradients."""
    options = component.options if options is None else options
    y, saved = component.op.forward(*inputs, **options)
    output = np.array(y)
    gradients = all_gradients(component.op, np.ones_like(y), saved, len(inputs))
    return [output, *map(np.array, gradients)]


def test_every_operation_is_a_component() -> None:
    components = {id(component.op) for component in COMPONENTS.values()}
    missing = {name for name, (_, op) in OPERATIONS.items() if id(op) not in components}
    assert missing == {"CHANNELS_LAST"}  # changes the layout of images


def test_every_activation_has_a_case() -> None:
    """Tests of this folder use ``ACTIVATION_CASES``. PReLU has a parameter, and its own cases."""
    names = {name.partition(",")[0] for name in ACTIVATION_CASES}
    assert names == set(get_args(Activation)) - {"prelu"}


@ALL
def test_component_result_does_not_depend_on_layout_of_inputs(component: Component) -> None:
    inputs = component.inputs()
    before = [x.copy() for x in inputs]
    right = step(component, inputs)
    for x, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, copy)
    wide = [np.repeat(x, 2, axis=-1)[..., ::2] for x in inputs]
    frozen = [x.copy() for x in inputs]
    for x in frozen:
        x.setflags(write=False)
    for layout in (wide, frozen, [np.asfortranarray(x) for x in inputs]):
        for actual, expected in zip(step(component, layout), right, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


@ALL
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_component_keeps_dtype(component: Component, dtype: str) -> None:
    assert {array.dtype.name for array in step(component, component.inputs(dtype))} == {dtype}


@ALL
def test_component_is_finite_for_a_batch_of_one_sample(component: Component) -> None:
    options = dict(component.options)
    if "labels" in options:
        options["labels"] = options["labels"][:1]
    found = step(component, component.inputs(samples=1), options)
    assert all(np.isfinite(array).all() for array in found)


@ALL
def test_component_gives_same_bits_for_same_inputs(component: Component) -> None:
    first, second = (step(component, component.inputs("float32")) for _ in range(2))
    for actual, expected in zip(first, second, strict=True):
        np.testing.assert_array_equal(actual, expected)


@ALL
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_component_output_for_nan_input_contains_nan(component: Component, dtype: str) -> None:
    inputs = component.inputs(dtype)
    inputs[0].flat[0] = np.nan
    with np.errstate(invalid="ignore"):
        output, *_ = step(component, inputs)
    assert np.isnan(output).any()


@ALL
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_component_with_inputs_of_1e4_is_finite_without_warning(
    component: Component, dtype: str
) -> None:
    inputs = component.inputs(dtype)
    inputs[0] = np.where(inputs[0] > 0, 1e4, -1e4).astype(dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = step(component, inputs)
    assert all(np.isfinite(array).all() for array in found)


# optimizers ---------------------------------------------------------------------------------------


Update = Callable[[str, Array, Array], Array]


@pytest.fixture
def update(make_config: Callable[..., Config]) -> Update:
    """Return a function that updates w three times with the named optimizer, and returns w."""

    def three_updates(name: str, w: Array, g: Array) -> Array:
        optimizer = Optimizer(make_config(optimizer=name).optimizer, w, g, slice(0), 0.0)
        for _ in range(3):
            optimizer.step(0.1)
        return w

    return three_updates


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_changes_neither_gradient_nor_dtype(
    update: Update, name: str, dtype: str
) -> None:
    g = np.random.default_rng(0).standard_normal(7).astype(dtype)
    before = g.copy()
    w = update(name, np.ones(7, dtype), g)
    np.testing.assert_array_equal(g, before)
    assert w.dtype.name == dtype
    assert (np.sign(1 - w) == np.sign(g)).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_with_zero_gradient_keeps_parameters(update: Update, name: str) -> None:
    w = np.array([1.0, -2.0, 0.0])
    np.testing.assert_array_equal(update(name, w.copy(), np.zeros(3)), w)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_with_nan_gradient_makes_parameter_nan(update: Update, name: str) -> None:
    with np.errstate(invalid="ignore"):
        w = update(name, np.ones(3), np.array([0.5, np.nan, -0.5]))
    np.testing.assert_array_equal(np.isnan(w), [False, True, False])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_with_extreme_gradients_gives_no_warning(update: Update, name: str) -> None:
    g = np.array([1e4, -1e4, 1e-30, -1e-30, 0], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(update(name, np.ones(5, np.float32), g)).all()

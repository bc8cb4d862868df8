"""The tape: gradients of whole graphs, and reuse of arrays between steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.backends.numpy.ops.activations import RELU, SIGMOID, TANH
from nnopt.backends.numpy.ops.dense import DENSE
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY
from nnopt.backends.numpy.ops.shape import ADD
from nnopt.backends.numpy.tape import Tape, Variable

Array = np.ndarray
Graph = Callable[[Tape, Variable, Variable], Variable]
"""A function of (tape, x, parameter) that returns logits."""

D = 4
LABELS = np.array([0, 3, 2, 1, 1])


def used_twice(tape: Tape, x: Variable, w: Variable) -> Variable:
    """Use one weight in two layers."""
    return tape.apply(DENSE, tape.apply(TANH, tape.apply(DENSE, x, w)), w)


def used_three_times(tape: Tape, x: Variable, w: Variable) -> Variable:
    return tape.apply(DENSE, tape.apply(SIGMOID, used_twice(tape, x, w)), w)


def used_twice_by_one_operation(tape: Tape, x: Variable, w: Variable) -> Variable:
    """Compute x W Wᵀ, with the weight W as both inputs of one operation."""
    return tape.apply(DENSE, x, tape.apply(DENSE, w, w))


def added_to_itself(tape: Tape, x: Variable, w: Variable) -> Variable:
    return tape.apply(DENSE, x, tape.apply(ADD, w, w))


def diamond(tape: Tape, x: Variable, w: Variable) -> Variable:
    """Compute two branches from one value, and add the branches."""
    h = tape.apply(DENSE, x, w)
    return tape.apply(ADD, tape.apply(TANH, h), tape.apply(SIGMOID, h))


def double_diamond(tape: Tape, x: Variable, w: Variable) -> Variable:
    h = diamond(tape, x, w)
    left, right = tape.apply(TANH, h), tape.apply(ADD, h, h)
    return tape.apply(ADD, tape.apply(ADD, left, right), h)


def nested_residual(tape: Tape, x: Variable, w: Variable) -> Variable:
    h = tape.apply(DENSE, x, w)
    inner = tape.apply(TANH, h)
    inner = tape.apply(ADD, inner, tape.apply(SIGMOID, tape.apply(DENSE, inner, w)))
    return tape.apply(ADD, h, inner)


GRAPHS: dict[str, Graph] = {
    graph.__name__: graph
    for graph in (
        used_twice,
        used_three_times,
        used_twice_by_one_operation,
        added_to_itself,
        diamond,
        double_diamond,
        nested_residual,
    )
}


def loss_of(graph: Graph, tape: Tape, x: Variable, w: Variable) -> Variable:
    tape.reset()
    return tape.apply(CROSS_ENTROPY, graph(tape, x, w), labels=LABELS)


def differences(array: Array, loss: Callable[[], float]) -> Array:
    slope = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + 1e-5
        above = loss()
        array[index] = before - 1e-5
        slope[index] = (above - loss()) / 2e-5
        array[index] = before
    return slope


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_gradients_equal_central_differences(name: str) -> None:
    graph, rng = GRAPHS[name], np.random.default_rng(0)
    x = Variable(rng.standard_normal((len(LABELS), D)), requires_grad=True)
    w = Variable(
        rng.standard_normal((D, D)), requires_grad=True, grad_buffer=np.full((D, D), np.nan)
    )
    tape = Tape()
    for _ in range(3):  # later steps reuse every array of the first step
        tape.backward(loss_of(graph, tape, x, w))
        assert w.grad_buffer is not None
        for variable, ours in ((x, x.gradient), (w, w.grad_buffer)):
            numeric = differences(variable.value, lambda: float(loss_of(graph, Tape(), x, w).value))
            assert ours is not None
            assert_allclose(ours, numeric, rtol=1e-7, atol=1e-9)


def test_backward_pass_does_not_change_inputs() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((len(LABELS), D)), rng.standard_normal((D, D))
    kept = x.copy(), w.copy()
    tape = Tape()
    tape.backward(loss_of(nested_residual, tape, Variable(x, True), Variable(w, True)))
    assert_array_equal(x, kept[0])
    assert_array_equal(w, kept[1])


def test_input_without_requires_grad_gets_no_gradient() -> None:
    rng = np.random.default_rng(2)
    x, w = Variable(rng.standard_normal((5, D))), Variable(rng.standard_normal((D, D)), True)
    tape = Tape()
    tape.backward(loss_of(used_twice, tape, x, w))
    assert x.gradient is None
    assert w.gradient is not None


def test_constant_branch_is_skipped_in_backward_pass() -> None:
    x, w = Variable(np.ones((5, D))), Variable(np.eye(D), requires_grad=True)
    tape = Tape()
    constant = tape.apply(RELU, x)
    loss = tape.apply(CROSS_ENTROPY, tape.apply(DENSE, constant, w), labels=LABELS)
    tape.backward(loss)
    assert constant.gradient is None
    assert w.gradient is not None


def arrays_of(tape: Tape) -> set[int]:
    return {id(a) for buffers in tape._buffers for a in buffers._arrays.values()}


def test_step_reuses_the_arrays_of_the_previous_step() -> None:
    rng = np.random.default_rng(3)
    w = Variable(rng.standard_normal((D, D)), requires_grad=True, grad_buffer=np.empty((D, D)))
    tape = Tape()

    def step() -> set[int]:
        x = Variable(rng.standard_normal((len(LABELS), D)), requires_grad=True)
        tape.backward(loss_of(nested_residual, tape, x, w))
        return arrays_of(tape)

    first = step()
    assert len(first) > 10
    assert all(step() == first for _ in range(5))

"""Reverse-mode automatic differentiation: a tape of the operations of one training step.

Going forward, the tape notes each operation with what its backward function needs. Going backward,
it walks the notes in reverse and hands every variable the sum of the gradients that reach it
(Griewank and Walther 2008, chapter 3). Networks do the same operations at every step, so the tape
keeps the arrays of its i-th operation for the i-th operation of the next step: once every batch
size has been seen, training allocates next to nothing.
"""

from __future__ import annotations

import math
from threading import Lock
from typing import Any

import numpy as np

from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.ops import Array, Op


class Variable:
    """An array in the computation. ``wanted``: is its gradient needed? ``target``: for parameters,
    the array that receives the gradient."""

    __slots__ = ("gradient", "target", "value", "wanted")

    def __init__(self, value: Array, wanted: bool = False, target: Array | None = None) -> None:
        self.value = value
        self.wanted = wanted
        self.target = target
        self.gradient: Array | None = None


class Buffers:
    """The arrays of one operation, found again by name and shape at every step. Those of one name
    and several shapes, as of batches of several sizes, share the memory of the largest."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...]], Array] = {}
        self._memory: dict[str, Array] = {}
        self._lock = Lock()
        self.bound = False

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        array = self._arrays.get((name, shape))
        return self._make(name, shape, dtype) if array is None else array

    def _make(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Make an array. Threads that share an operation may ask for theirs at the same time."""
        size = math.prod(shape)
        with self._lock:
            memory = self._memory.get(name)
            if memory is None or memory.size < size:
                memory = self._memory[name] = empty((size,), dtype)
                for key in [key for key in self._arrays if key[0] == name]:
                    del self._arrays[key]  # they keep the smaller memory
            array = self._arrays[name, shape] = memory[:size].reshape(shape)
        return array

    def bind(self, names: tuple[str, ...], inputs: tuple[Variable, ...]) -> None:
        """Hand out a parameter's target for its gradient, so that no copy is needed. Of a parameter
        that is used twice, only the first gradient to arrive goes there; the other is added."""
        self.bound = True
        for position, (name, variable) in enumerate(zip(names, inputs, strict=False)):
            is_first = variable.gradient is None and variable not in inputs[:position]
            if variable.target is not None and is_first:
                self._arrays[f"d_{name}", variable.target.shape] = variable.target


Note = tuple[Op, tuple[Variable, ...], tuple[bool, ...], Variable, Any, Buffers]
"""An operation done: its inputs, which of their gradients are wanted, its output, what its backward
function needs, and its arrays."""


class Tape:
    """Notes operations on variables, then runs them backward."""

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._buffers: list[Buffers] = []

    def restart(self) -> None:
        """Forget the notes, keep the arrays."""
        self._notes.clear()

    def apply(self, op: Op, *inputs: Variable, **options: Any) -> Variable:
        """Compute ``op`` on the inputs and note it."""
        position = len(self._notes)
        if position == len(self._buffers):
            self._buffers.append(Buffers())
        buffers = self._buffers[position]
        value, saved = op.forward(*[x.value for x in inputs], buffer=buffers, **options)
        wanted = tuple([x.wanted for x in inputs])
        output = Variable(value, True in wanted)
        self._notes.append((op, inputs, wanted, output, saved, buffers))
        return output

    def last_saved(self) -> Any:
        """What the last operation saved for its backward function."""
        return self._notes[-1][4]

    def backward(self, output: Variable) -> None:
        """Set ``gradient`` of every wanted variable to d output / d variable, output a scalar."""
        for _, inputs, *_ in self._notes:
            for variable in inputs:
                variable.gradient = None
        output.gradient = output.value.dtype.type(1)
        for op, inputs, wanted, result, saved, buffers in reversed(self._notes):
            if not result.wanted:
                continue
            if not buffers.bound:
                buffers.bind(op.inputs, inputs)
            gradients = op.backward(result.gradient, saved, wanted, buffer=buffers)
            for variable, gradient in zip(inputs, gradients, strict=True):
                if variable.wanted:
                    _accumulate(variable, gradient)


def _accumulate(variable: Variable, gradient: Array) -> None:
    if variable.gradient is None:
        variable.gradient = gradient
        if variable.target is not None and gradient is not variable.target:
            np.copyto(variable.target, gradient)
            variable.gradient = variable.target
    else:
        np.add(variable.gradient, gradient, out=variable.gradient)

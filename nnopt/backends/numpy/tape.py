"""Reverse-mode automatic differentiation: a tape of the operations of one training step.

The forward pass records each operation and the values that the backward function needs. The
backward pass visits the entries in reverse order and adds up the gradients of each variable
(Griewank and Walther 2008, chapter 3). The i-th operation of a step reuses the arrays (buffers) of
the i-th operation of the previous step, so training allocates almost no memory after the first
steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.ops import Array, Buffer, Op
from nnopt.backends.numpy.threads import SERIAL, ThreadPool


@dataclass(slots=True, eq=False)
class Variable:
    """An input, a result or a parameter. ``grad_buffer`` receives the gradient of a parameter."""

    value: Array
    requires_grad: bool = False
    grad_buffer: Array | None = None
    gradient: Array | None = None


class Buffers(Buffer):
    """The arrays of one operation by name and shape, which are reused in every step.

    Batches have several sizes, so arrays with the same name share the memory of the largest array.
    """

    def __init__(self, workers: ThreadPool = SERIAL) -> None:
        super().__init__(workers)
        self._arrays: dict[tuple[str, tuple[int, ...]], Array] = {}
        self._memory: dict[str, Array] = {}
        self._parts: dict[int, Buffers] = {}
        self._lock = Lock()
        self.bound = False

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array with the given name and shape. A new array is uninitialized."""
        array = self._arrays.get((name, shape))
        return self._allocate(name, shape, dtype) if array is None else array

    def _allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Allocate an array. Several threads may call this method at the same time."""
        size = math.prod(shape)
        with self._lock:
            memory = self._memory.get(name)
            if memory is None or memory.size < size:
                memory = self._memory[name] = empty((size,), dtype)
                for key in [key for key in self._arrays if key[0] == name]:
                    del self._arrays[key]  # because it is a view of the smaller memory
            array = self._arrays[name, shape] = memory[:size].reshape(shape)
        return array

    def part(self, number: int) -> Buffers:
        """Return the buffers of a part of the operation, such as one group of a convolution."""
        if number not in self._parts:
            self._parts[number] = Buffers(self.workers)
        return self._parts[number]

    def bind(self, names: tuple[str, ...], inputs: tuple[Variable, ...]) -> None:
        """Use each parameter's ``grad_buffer`` as the array for its gradient, to save a copy.

        If a parameter is used twice, the second gradient is added to the first.
        """
        self.bound = True
        for position, (name, variable) in enumerate(zip(names, inputs, strict=False)):
            is_first = variable.gradient is None and variable not in inputs[:position]
            if variable.grad_buffer is not None and is_first:
                self._arrays[f"d_{name}", variable.grad_buffer.shape] = variable.grad_buffer


TapeEntry = tuple[Op, tuple[Variable, ...], tuple[bool, ...], Variable, Any, Buffers]
"""(operation, inputs, requires_grad of each input, output, values saved for the backward function,
arrays of the operation)."""


class Tape:
    """Records operations on variables and computes the gradients of the variables."""

    def __init__(self, workers: ThreadPool = SERIAL) -> None:
        self.workers = workers
        self.entries: list[TapeEntry] = []
        self._buffers: list[Buffers] = []

    def reset(self) -> None:
        """Delete the entries, but keep the arrays for the next step."""
        self.entries.clear()

    def apply(self, op: Op, *inputs: Variable, **options: Any) -> Variable:
        """Apply an operation to the inputs, record the operation and return the output."""
        index = len(self.entries)
        if index == len(self._buffers):
            self._buffers.append(Buffers(self.workers))
        buffers = self._buffers[index]
        value, saved = op.forward(*[x.value for x in inputs], buffer=buffers, **options)
        requires_grad = tuple([x.requires_grad for x in inputs])
        output = Variable(value, True in requires_grad)
        self.entries.append((op, inputs, requires_grad, output, saved, buffers))
        return output

    def backward(self, output: Variable) -> None:
        """Compute the gradient of the scalar ``output`` for each variable that requires one."""
        for _, inputs, *_ in self.entries:
            for variable in inputs:
                variable.gradient = None
        output.gradient = output.value.dtype.type(1)
        for op, inputs, requires_grad, result, saved, buffers in reversed(self.entries):
            if not result.requires_grad:
                continue
            if not buffers.bound:
                buffers.bind(op.inputs, inputs)
            options = (requires_grad,) if op.takes_requires_grad else ()
            gradients = op.backward(result.gradient, saved, *options, buffer=buffers)
            for variable, gradient in zip(inputs, gradients, strict=True):
                if not variable.requires_grad:
                    continue
                if variable.gradient is not None:
                    np.add(variable.gradient, gradient, out=variable.gradient)
                elif variable.grad_buffer is None or variable.grad_buffer is gradient:
                    variable.gradient = gradient
                else:
                    np.copyto(variable.grad_buffer, gradient)
                    variable.gradient = variable.grad_buffer

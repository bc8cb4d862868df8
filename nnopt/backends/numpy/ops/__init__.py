"""Operations: stateless pairs of a forward and a backward function.

    output, saved = forward(*inputs, buffer=new, **options)
    gradients     = backward(g, saved, buffer=new)

``g`` is dL/d output for a loss L, and ``saved`` contains the values that backward needs. Backward
returns dL/d input for each input. It may overwrite ``g`` and ``saved``, because it runs at most
once per forward pass. Otherwise no function changes its arguments.

``buffer`` provides the threads, and the arrays for outputs, gradients and intermediate results. By
default the arrays are new. The tape (``nnopt.backends.numpy.tape``) passes a buffer that provides
the same arrays in every step, so gradients are valid until the next step.

Each fast version, such as ``relu_forward`` and ``relu_backward`` of the operation ``RELU``, has a
short reference version at the top of its file, ``relu_naive_forward`` and ``relu_naive_backward``.
Reference versions take all inputs, no ``saved`` and no ``buffer``, and allocate their results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.threads import SERIAL, ThreadPool

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]


class Buffer:
    """The threads and the arrays of an operation. This class returns a new array in every call."""

    def __init__(self, workers: ThreadPool = SERIAL) -> None:
        self.workers = workers

    def __call__(self, name: str, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialized array. The gradient of an input ``x`` has the name ``d_x``."""
        return empty(shape, dtype)

    def part(self, number: int) -> Buffer:
        """Return the buffer of a part of the operation, such as one group of a convolution."""
        return self


new = Buffer()


class Op(NamedTuple):
    """A forward and a backward function, with the names of forward's inputs.

    If ``takes_requires_grad``, backward takes a third argument ``requires_grad``, one bool per
    input, and returns None for an input that requires no gradient.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array | None, ...]]
    inputs: tuple[str, ...]
    takes_requires_grad: bool = False

"""Operations: stateless pairs of a forward and a backward function, with their formulas.

    output, saved = forward(*inputs, buffer=new, **options)
    gradients     = backward(g, saved, buffer=new)

``g`` is dL/d output for a loss L, and ``saved`` contains the values that backward needs. Backward
returns dL/d input for each input. It may overwrite ``g`` and ``saved``, because it runs at most
once per forward pass. Otherwise no function changes its arguments.

``buffer`` is a function that provides the arrays for outputs, gradients and intermediate results.
By default it allocates new arrays. The tape (``nnopt.backends.numpy.tape``) passes a function that
provides the same arrays in every step, so gradients are valid until the next step.

Each fast version, such as ``relu_forward`` and ``relu_backward`` of the operation ``RELU``, has a
short reference version at the top of its file, ``relu_naive_forward`` and ``relu_naive_backward``.
The reference version takes only inputs and options, and allocates its results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnopt.backends.numpy.memory import empty

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]

Buffer = Callable[[str, Shape, Any], Array]
"""Returns an uninitialized array for a name, shape and type: the same array for the same name and
shape."""


def new(name: str, shape: Shape, dtype: Any) -> Array:
    """Return a new array. This is the buffer that never reuses memory."""
    return empty(shape, dtype)


class Op(NamedTuple):
    """A forward and a backward function.

    Attributes:
        inputs: The names of forward's array arguments. ``buffer("d_x", ...)`` returns the memory of
            the gradient of the argument ``x``.
        takes_requires_grad: Whether backward takes a third argument ``requires_grad``, one bool per
            input, and returns None for an input that requires no gradient.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array | None, ...]]
    inputs: tuple[str, ...]
    takes_requires_grad: bool = False

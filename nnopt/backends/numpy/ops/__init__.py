"""Operations: stateless pairs of a forward and a backward function, with their formulas.

    output, saved = forward(*inputs, buffer=new, **options)
    gradients     = backward(g, saved, buffer=new)

``g`` is dL/d output and ``saved`` contains the values that backward needs. Backward returns
dL/d input for each input. No function changes its inputs, but backward may overwrite ``g`` and
``saved``: it runs at most once per forward pass. Without a ``buffer`` all arrays are new. The tape
passes a buffer that returns the same arrays in every step, so gradients are valid until the next
step.

The operation ``RELU`` has a short reference version at the top of its file, ``relu_naive_forward``
and ``relu_naive_backward``, which takes inputs and options and allocates its results. All other
operations are named in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnopt.backends.numpy.memory import empty

Array = np.ndarray[Any, np.dtype[Any]]


Buffer = Callable[[str, tuple[int, ...], Any], Array]
"""Returns an uninitialized array for a name, shape and type: the same array for the same name and
shape."""


def new(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return a new array: a buffer without memory."""
    return empty(shape, dtype)


class Op(NamedTuple):
    """A forward and a backward function.

    Attributes:
        inputs: names of forward's array arguments. The gradient of ``x`` is written to the buffer
            ``d_x``.
        takes_requires_grad: backward takes a third argument ``requires_grad``, one bool per input,
            and may return None for an input whose gradient is not required.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array | None, ...]]
    inputs: tuple[str, ...]
    takes_requires_grad: bool = False

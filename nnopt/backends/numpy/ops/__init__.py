"""The operations: pairs of pure functions, forward and backward, each beside its formula.

    output, saved = forward(*inputs, buffer=new, **options)
    gradients     = backward(gradient, saved, wanted, buffer=new)

``saved`` is whatever backward needs. ``gradient`` is dL/d output; ``wanted`` says for each input
whether its gradient is needed, and backward returns one array for each input, or None. Without a
``buffer`` the arrays are fresh; the tape passes one that hands out the same arrays at every step.
The arrays backward returns are valid until the next step. No function writes to its inputs, but
backward may use up ``gradient`` and ``saved``: it runs once for each forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnopt.backends.numpy.memory import empty

Array = np.ndarray[Any, np.dtype[Any]]


class Buffer(Protocol):
    """Hands out an uninitialized array; the same one for the same name and shape."""

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array: ...


def new(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """The buffer that remembers nothing: a fresh array every time."""
    return empty(shape, dtype)


class Op(NamedTuple):
    """A forward/backward pair. ``inputs`` names forward's array arguments; the gradient of ``x`` is
    written to the buffer "d_x"."""

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., tuple[Array | None, ...]]
    inputs: tuple[str, ...]

"""A call of an operation's backward function that returns the gradients of all inputs."""

from __future__ import annotations

from typing import Any

from nnopt.backends.numpy.ops import Array, Op


def all_gradients(op: Op, g: Any, saved: Any, inputs: int, **buffer: Any) -> list[Array]:
    """Return the gradients of all inputs. ``inputs`` is the number of inputs."""
    requires_grad = ((True,) * inputs,) if op.takes_requires_grad else ()
    gradients = op.backward(g, saved, *requires_grad, **buffer)
    return [gradient for gradient in gradients if gradient is not None]

"""The gradients of all inputs of a NumPy operation."""

from __future__ import annotations

from typing import Any

from nnopt.backends.numpy.ops import Array, Op


def all_gradients(op: Op, g: Any, saved: Any, inputs: int, **buffer: Any) -> list[Array]:
    """Run the backward function of an operation, and return the gradients of all inputs.

    Args:
        op: The operation.
        g: The gradient of the output.
        saved: The values that the forward function saved.
        inputs: The number of inputs.
        buffer: Optional arguments of the backward function.
    """
    requires_grad = ((True,) * inputs,) if op.takes_requires_grad else ()
    gradients = op.backward(g, saved, *requires_grad, **buffer)
    return [gradient for gradient in gradients if gradient is not None]

"""The layout of parameters in a flat vector."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnopt.architecture.network import is_penalized
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.ops.dense import weight_view


class FlatLayout:
    """The slices of a flat vector that contain the parameters. Penalized parameters come first.

    Args:
        shapes: The shapes of the parameters by full name.
        decay_norm_and_bias: Whether parameters with one axis, such as biases, are penalized too.

    Attributes:
        size: The length of the vector.
        penalized: The slice of the penalized parameters.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], decay_norm_and_bias: bool = False
    ) -> None:
        self._shapes = shapes
        first = [name for name, shape in shapes.items() if is_penalized(shape, decay_norm_and_bias)]
        self._slices: dict[str, slice] = {}
        start = 0
        for name in sorted(shapes, key=lambda name: name not in first):
            self._slices[name] = slice(start, start := start + math.prod(shapes[name]))
        self.size = start
        self.penalized = slice(sum(math.prod(shapes[name]) for name in first))

    def views(self, vector: Array) -> dict[str, Array]:
        """Return the parts of a vector (size,) as views with the shapes of the parameters."""
        return {name: _view(vector[self._slices[name]], x) for name, x in self._shapes.items()}


def _view(vector: Array, shape: tuple[int, ...]) -> Array:
    """Return a part of a flat vector as a view with the shape of a parameter."""
    return weight_view(vector, shape) if len(shape) == 2 else vector.reshape(shape)

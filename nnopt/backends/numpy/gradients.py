"""The norm of a gradient, and clipping by norm."""

from __future__ import annotations

import math

import numpy as np

from nnopt.backends.clipping import clipping_factors
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.threads import single_blas_thread


def clip(gradient: Array, max_norm: float) -> float:
    """Scale a gradient to a norm of at most ``max_norm``. Return the norm before scaling."""
    before = norm(gradient)
    tiny = float(np.finfo(gradient.dtype).tiny)
    for factor in clipping_factors(before, max_norm, tiny):
        gradient *= factor
    return before


def norm(vector: Array) -> float:
    """Return √(v·v) for a vector v, or NaN if the result is not finite.

    If v·v overflows, or is so small that squares may have become 0, the result is m √(u·u), where m
    is the largest absolute value and u = v / m.
    """
    with np.errstate(over="ignore"):
        square = _dot(vector)
    limits = np.finfo(vector.dtype)
    if limits.tiny / limits.eps**2 < square < math.inf:
        return math.sqrt(square)
    largest = np.max(np.abs(vector), initial=0)
    if largest == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        scaled = vector / largest
    scaled_norm = float(largest) * math.sqrt(_dot(scaled))
    return scaled_norm if math.isfinite(scaled_norm) else math.nan


def _dot(vector: Array) -> float:
    """Return v·v, computed in one thread, because the number of threads would change the bits."""
    with single_blas_thread():
        return float(np.dot(vector, vector))

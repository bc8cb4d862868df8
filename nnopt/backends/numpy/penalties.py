"""L1 and L2 penalties, and the limit of the norms of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from nnopt.backends.numpy.ops import Array


def add_penalty_gradients(w: Array, g: Array, l1: float, l2: float) -> None:
    """Add d/dw (½ l2 w² + l1 |w|) = l2 w + l1 sign w to the gradient g (N,) of weights w (N,)."""
    if l2:
        g += l2 * w
    if l1:
        g += l1 * np.sign(w)


def limit_norms(weights: Iterable[Array], max_norm: float) -> None:
    """Compute w ← w / max(‖w‖ / max_norm, 1) for the incoming weights w of each unit.

    ``weights`` have the shape (units, inputs). The incoming weights of a unit are a row of a dense
    weight or the kernel of an output channel (Srivastava et al. 2014, section 5.1).
    """
    for weight in weights:
        norms = np.sqrt(np.einsum("ij,ij->i", weight, weight))
        norms[np.isinf(norms)] = math.nan  # otherwise the weight would become 0
        np.divide(weight, np.maximum(norms / max_norm, 1)[:, None], out=weight)

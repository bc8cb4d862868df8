"""Comparison of analytic derivatives with finite differences.

If the loss has a kink (ReLU, hinge) between two points, a finite difference of these points differs
from the derivative even if the derivative is right. Therefore several step sizes h and then
one-sided differences are tried, and the closest estimate counts. A wrong derivative differs from
all estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Displace = Callable[[float], None]
"""Function that sets the parameters to their original values plus a multiple of a direction."""

TOLERANCE = 1e-6
"""The largest relative error of a derivative that counts as right."""

STEP_SIZES = (1e-6, 1e-7, 1e-5, 1e-4)
"""The step 1e-6 avoids the kinks of most networks. The step 1e-7 avoids those of deep networks, but
is less precise. Losses whose rounding error exceeds the small differences need the larger steps."""


def relative_error(
    displacements: Sequence[Displace],
    derivatives: Floats,
    loss: Callable[[], float],
    advance: Callable[[], None],
) -> float:
    """Return ‖numeric - analytic‖ / (‖numeric‖ + ‖analytic‖ + rounding) over all directions.

    ``rounding`` is the error that rounding of the loss causes in the estimate of a zero gradient.

    Args:
        displacements: For each direction, a function that moves the parameters along it.
        derivatives: Analytic derivatives along the directions.
        loss: Computes the loss of the current parameters.
        advance: Called after each direction, to report progress.
    """
    center = loss()
    norm, rounding = float(np.linalg.norm(derivatives)), 1e-8 * max(1.0, abs(center))
    # If every estimate is this close, the relative error is within the tolerance.
    close = TOLERANCE * (norm + rounding) / math.sqrt(len(displacements))
    numeric = np.empty(len(displacements))
    pairs = zip(displacements, derivatives.tolist(), strict=True)
    for i, (displace, derivative) in enumerate(pairs):
        numeric[i] = _closest(_estimates(displace, loss, center), derivative, close)
        displace(0)
        deviation = abs(numeric[i] - derivative)
        # ‖numeric‖ is at most ‖analytic‖ + ‖difference‖, so one deviation may decide the result.
        if deviation > TOLERANCE * (2 * norm + deviation + rounding):
            close = math.inf  # the error is too large: one estimate per direction suffices
        advance()
    scale = float(np.linalg.norm(numeric)) + norm + rounding
    return float(np.linalg.norm(numeric - derivatives)) / scale


def _estimates(displace: Displace, loss: Callable[[], float], center: float) -> Iterator[float]:
    """Yield central differences, then one-sided differences of second order.

    A one-sided difference is right even if there is a kink on the other side.
    """

    def at(amount: float) -> float:
        displace(amount)
        return loss()

    for h in STEP_SIZES:
        yield (at(h) - at(-h)) / (2 * h)
    for h in STEP_SIZES[:2]:
        for side in (h, -h):
            yield (4 * at(side) - at(2 * side) - 3 * center) / (2 * side)


def _closest(estimates: Iterator[float], derivative: float, close: float) -> float:
    """Return the first estimate within ``close`` of the derivative, else the nearest."""
    tried = []
    for estimate in estimates:
        tried.append(estimate)
        if abs(estimate - derivative) <= close:
            return estimate
    return min(tried, key=lambda estimate: abs(estimate - derivative))

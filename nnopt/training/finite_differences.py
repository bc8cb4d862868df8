"""Derivatives of a function of many numbers, held against differences of its values.

Where the function has a kink (ReLU, hinge) between two points their difference is wrong, not the
derivative; so other h are tried until one agrees, then differences from one side; the best counts
if none does. A wrong derivative is wrong for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Move = Callable[[float], None]
"""Puts parameters so far from where they were."""

TOLERANCE = 1e-6
"""The largest relative error of a derivative that counts as right."""

STEPS = (1e-6, 1e-7, 1e-5, 1e-4)
"""The first is small enough for the kinks of most networks; the next, with fewer digits, for those
of a deep one. The large ones are for a loss so large that its rounding drowns the small ones."""


def relative_error(
    moves: Sequence[Move],
    derivatives: Floats,
    loss: Callable[[], float],
    advance: Callable[[], None],
) -> float:
    """‖numeric - analytic‖ / (‖numeric‖ + ‖analytic‖ + rounding), over all moves; the last term is
    what the rounding of L makes of a gradient that is zero."""
    here = loss()
    norm, rounding = float(np.linalg.norm(derivatives)), 1e-8 * max(1.0, abs(here))
    # If every estimate is so close, the whole is within the tolerance.
    close = TOLERANCE * (norm + rounding) / math.sqrt(len(moves))
    numeric = np.empty(len(moves))
    for i, (move, derivative) in enumerate(zip(moves, derivatives.tolist(), strict=True)):
        numeric[i] = _closest(_estimates(move, loss, here), derivative, close)
        move(0)
        off = abs(numeric[i] - derivative)
        # ‖numeric‖ is at most ‖analytic‖ + ‖difference‖, so one bad estimate may settle the matter.
        if off > TOLERANCE * (2 * norm + off + rounding):
            close = math.inf  # the others only say by how much: no need to look far
        advance()
    scale = float(np.linalg.norm(numeric)) + norm + rounding
    return float(np.linalg.norm(numeric - derivatives)) / scale


def _estimates(move: Move, loss: Callable[[], float], here: float) -> Iterator[float]:
    """Of the derivative along a move: central differences; then, should there be kinks nearer than
    the smallest h, differences of second order from one side, since a kink is on one side."""

    def at(amount: float) -> float:
        move(amount)
        return loss()

    for h in STEPS:
        yield (at(h) - at(-h)) / (2 * h)
    for h in STEPS[:2]:
        for side in (h, -h):
            yield (4 * at(side) - at(2 * side) - 3 * here) / (2 * side)


def _closest(estimates: Iterator[float], derivative: float, close: float) -> float:
    """The first estimate that is ``close`` to the derivative, or, if none is, the nearest."""
    seen = []
    for estimate in estimates:
        seen.append(estimate)
        if abs(estimate - derivative) <= close:
            return estimate
    return min(seen, key=lambda estimate: abs(estimate - derivative))

"""The factors that clip a gradient by its norm."""

from __future__ import annotations


def clipping_factors(norm: float, largest: float, tiny: float) -> list[float]:
    """Return factors that, one after the other, scale a gradient to a norm of at most ``largest``.

    There is no factor if the gradient is small enough, and one in most other cases. There are two
    if the whole factor is below ``tiny``, the smallest normal number: it would have few digits.

    Args:
        norm: The norm of the gradient. NaN gives the factor NaN.
        largest: The norm to which the gradient is scaled.
        tiny: The smallest normal number of the gradient's number type.

    Source: Pascanu et al. 2013, algorithm 1, with PyTorch's 1e-6 in the denominator.
    """
    divisor = norm + 1e-6
    factor = largest / divisor
    if factor >= 1:
        return []
    if factor < tiny:
        return [tiny, largest / (divisor * tiny)]
    return [factor]

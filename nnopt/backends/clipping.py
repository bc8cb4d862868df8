"""The factors that clip a gradient by norm."""

from __future__ import annotations


def clipping_factors(norm: float, max_norm: float, tiny: float) -> list[float]:
    """Return factors that scale a gradient of norm ``norm`` to a norm of at most ``max_norm``.

    The list is empty if the norm is small enough. Otherwise there is usually one factor. If this
    factor would be below ``tiny``, the smallest normal number of the gradient's type, two factors
    replace it, because smaller numbers have fewer digits. If the norm is NaN, the factor is NaN.
    The formula is algorithm 1 of Pascanu et al. 2013, with PyTorch's 1e-6 in the denominator.
    """
    divisor = norm + 1e-6
    factor = max_norm / divisor
    if factor >= 1:
        return []
    if factor < tiny:
        return [tiny, max_norm / (divisor * tiny)]
    return [factor]

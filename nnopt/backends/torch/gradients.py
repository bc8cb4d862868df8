"""The norm of a gradient, and clipping by norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnopt.backends.clipping import clipping_factors


@dataclass(frozen=True)
class Norm:
    """The two factors of an L2 norm. Their product, the norm, may overflow in float32."""

    unit: Tensor  # the number by which the values were divided; it is never denormal
    relative: Tensor  # the norm of the divided values, NaN if a value is not finite

    def read(self) -> float:
        """Return the norm, or NaN if the norm is not finite. Waits for the device."""
        unit, relative = torch.stack([self.unit, self.relative]).tolist()
        norm = unit * relative
        return norm if math.isfinite(norm) else math.nan

    def clipping_factors(self, max_norm: float) -> tuple[Tensor, Tensor]:
        """Return the factors of ``nnopt.backends.clipping``. Factors that are not needed are 1."""
        # The numerator and the denominator of max_norm / (norm + 1e-6) are divided by unit.
        divisor = self.relative + 1e-6 / self.unit
        tiny = torch.finfo(self.unit.dtype).tiny  # a power of 2, so products with it are exact
        product = ((max_norm / self.unit) / divisor).clamp(max=1)
        ones, tinies = torch.ones_like(product), torch.full_like(product, tiny)
        first = torch.where(product < tiny, tinies, ones)
        second = torch.where(product < tiny, (max_norm / (self.unit * tiny)) / divisor, product)
        return first, second


def total_norm(tensors: list[Tensor]) -> Norm:
    """Return the L2 norm of all tensors together, as factors, so that no square is out of range.

    The factor ``unit`` is the largest absolute value. On a CPU, ``unit`` is 1 instead if the square
    of the norm is well within the range of the number type. On other devices, this comparison would
    wait for the device.
    """
    if tensors[0].device.type == "cpu":
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
        limits = torch.finfo(norm.dtype)
        if limits.tiny / limits.eps**2 < float(norm) ** 2 < limits.max:
            return Norm(torch.ones_like(norm), norm)
    largest = torch.stack(torch._foreach_norm(tensors, math.inf)).max()
    unit = largest.clamp(min=torch.finfo(largest.dtype).tiny)
    norms = torch._foreach_norm(torch._foreach_div(tensors, unit))
    return Norm(unit, torch.linalg.vector_norm(torch.stack(norms)))


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Norm:
    """Scale the gradient to a norm of at most ``max_norm``. Return the norm before scaling.

    A value that is not finite makes the gradient NaN, so that the training ends as diverged.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = total_norm(gradients)
    factors: Iterable[float | Tensor]
    if norm.unit.device.type == "cpu":
        factors = clipping_factors(norm.read(), max_norm, torch.finfo(norm.unit.dtype).tiny)
    else:
        factors = norm.clipping_factors(max_norm)
    for factor in factors:
        torch._foreach_mul_(gradients, factor)
    return norm

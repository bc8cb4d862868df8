"""The norm of a gradient, and clipping by it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """An L2 norm as ``unit`` times ``relative``, because the product may overflow in float32.

    unit: the largest absolute value, at least the smallest normal number. relative: the norm of all
    values divided by ``unit``; NaN if a value is not finite.
    """

    unit: Tensor
    relative: Tensor

    def read(self) -> float:
        """Return the norm, NaN if it is not finite. Waits for the device."""
        unit, relative = torch.stack([self.unit, self.relative]).tolist()
        norm = unit * relative
        return norm if math.isfinite(norm) else math.nan

    def factors_to(self, largest: float) -> tuple[Tensor, Tensor]:
        """Return two factors that, one after the other, scale values of this norm to ``largest``.

        Both are 1 if the norm is smaller. The first is 1 unless their product is subnormal and so
        has few digits.
        """
        # largest / (norm + 1e-6), with PyTorch's 1e-6; numerator and denominator divided by unit
        divisor = self.relative + 1e-6 / self.unit
        tiny = torch.finfo(self.unit.dtype).tiny  # a power of 2
        product = ((largest / self.unit) / divisor).clamp(max=1)
        ones, tinies = torch.ones_like(product), torch.full_like(product, tiny)
        first = torch.where(product < tiny, tinies, ones)
        second = torch.where(product < tiny, (largest / (self.unit * tiny)) / divisor, product)
        return first, second


def total_norm(tensors: list[Tensor]) -> Norm:
    """Return the L2 norm of all tensors together as m and ‖x / m‖, where m is the largest absolute
    value: the squares neither overflow nor become 0. Does not wait for the device."""
    largest = torch.stack(torch._foreach_norm(tensors, math.inf)).max()
    unit = largest.clamp(min=torch.finfo(largest.dtype).tiny)
    norms = torch._foreach_norm(torch._foreach_div(tensors, unit))
    return Norm(unit, torch.linalg.vector_norm(torch.stack(norms)))


def clip(parameters: Iterable[nn.Parameter], largest: float) -> Norm:
    """Scale the gradient to at most this norm (Pascanu et al. 2013, algorithm 1), and return the
    norm it had. A value that is not finite makes the gradient NaN, so that the training ends as
    diverged."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = total_norm(gradients)
    for factor in norm.factors_to(largest):
        torch._foreach_mul_(gradients, factor)
    return norm

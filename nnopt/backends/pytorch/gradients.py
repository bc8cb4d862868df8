"""The norm of a gradient, and clipping by it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together as m ‖x / m‖, where m is the largest absolute
    value: the squares neither overflow nor become 0. NaN if a number is not finite, or if the norm
    itself overflows."""
    largest = torch.stack(torch._foreach_norm(tensors, math.inf)).max()
    unit = largest.clamp(min=torch.finfo(largest.dtype).tiny)
    norms = torch._foreach_norm(torch._foreach_div(tensors, unit))
    norm = unit * torch.linalg.vector_norm(torch.stack(norms))
    finite_or_nan: Tensor = norm.masked_fill(norm.isinf(), math.nan)
    return finite_or_nan


def clip(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradient to at most this norm (Pascanu et al. 2013, algorithm 1), and return the
    norm it had. A norm of NaN makes the gradient NaN, so that the training ends as diverged."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = total_norm(gradients)
    scale = (largest / (norm + 1e-6)).clamp(max=1)  # the 1e-6 is PyTorch's
    torch._foreach_mul_(gradients, scale)
    return norm

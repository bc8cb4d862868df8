"""L1 and L2 penalties, decoupled weight decay, and the limit of the norms of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def add_penalty_gradients(parameters: Iterable[Tensor], l1: float, l2: float) -> None:
    """Add d/dw (½ l2 w² + l1 |w|) = l2 w + l1 sign w to the gradient of each parameter w."""
    if not (l1 or l2):
        return
    pairs = [(p, p.grad) for p in parameters if p.grad is not None]
    trained, gradients = [p for p, _ in pairs], [g for _, g in pairs]
    if l2:
        torch._foreach_add_(gradients, trained, alpha=l2)
    if l1:
        torch._foreach_add_(gradients, torch._foreach_sign(trained), alpha=l1)


def decay(
    groups: Iterable[tuple[dict[str, Any], list[Tensor]]],
    weight_decay: float,
    overflowed: Tensor | None,
) -> None:
    """Compute w ← (1 - η λ) w with λ = ``weight_decay`` and the learning rate η of each group.

    Nothing changes if the step was skipped: ``overflowed`` is a boolean tensor, or None if the loss
    is not scaled.
    """
    for group, parameters in groups:
        factor = 1 - group["lr"] * weight_decay
        skipping = factor if overflowed is None else torch.where(overflowed, 1.0, factor)
        torch._foreach_mul_(parameters, skipping)


def limit_norms(weights: Iterable[Tensor], max_norm: float, overflowed: Tensor | None) -> None:
    """Compute w ← w / max(‖w‖ / max_norm, 1) for the incoming weights w of each unit.

    They are a row of a dense weight or the kernel of an output channel (Srivastava et al. 2014,
    section 5.1). Nothing changes if the step was skipped, as in ``decay``.
    """
    for weight in weights:
        inputs = tuple(range(1, weight.ndim))
        norms = torch.linalg.vector_norm(weight, dim=inputs, keepdim=True)
        norms.masked_fill_(norms.isinf(), math.nan)  # otherwise the weight would become 0
        excess = norms.div_(max_norm).clamp_(min=1)
        weight.div_(excess if overflowed is None else excess.masked_fill_(overflowed, 1))

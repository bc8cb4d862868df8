"""The losses, as functions of logits and labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K), labels (N,) or class fractions (N, K)) -> mean loss of the batch."""


def cross_entropy(label_smoothing: float) -> Loss:
    """Return a loss: the mean of -Σₖ tₖ log softmax(z)ₖ for logits z and smoothed fractions t."""
    return lambda logits, y: F.cross_entropy(logits, y, label_smoothing=label_smoothing)


def hinge(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean of Σ_{j≠y} max(0, z_j - z_y + 1) for logits z (Weston and Watkins 1999).

    The loss is NaN if a logit is not finite. PyTorch's loss is divided by K and treats NaN as 0.
    """
    loss = F.multi_margin_loss(logits, y) * logits.shape[1]
    return loss * torch.where(torch.isfinite(logits).all(), 1.0, math.nan)

"""The losses, as functions of logits and labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nnopt.schema import Config
from nnopt.schema.tables import filled

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K), labels (N,) or class fractions (N, K)) -> mean loss of the batch."""


def build_loss(config: Config) -> Loss:
    """Return the configured loss."""
    return LOSSES[config.loss](config)


def _cross_entropy(config: Config) -> Loss:
    smoothing = config.regularizer.label_smoothing
    return lambda z, y: F.cross_entropy(z, y, label_smoothing=smoothing)


def _mse(config: Config) -> Loss:
    smoothing = config.regularizer.label_smoothing
    return lambda z, y: F.mse_loss(z, targets(z, y, smoothing))


def _focal(config: Config) -> Loss:
    smoothing, gamma = config.regularizer.label_smoothing, config.focal_gamma
    return lambda z, y: focal(z, y, gamma, smoothing)


def targets(logits: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    """Return t = (1 - ε) y + ε/K, (N, K), with the smoothing ε and one-hot rows y for labels."""
    classes = logits.shape[1]
    fractions = F.one_hot(y, classes) if y.ndim == 1 else y
    return (1 - label_smoothing) * fractions.to(logits.dtype) + label_smoothing / classes


def focal(logits: Tensor, y: Tensor, gamma: float, label_smoothing: float) -> Tensor:
    """Return the mean of Σₖ tₖ (1 - pₖ)^γ (-log pₖ) for the softmax p (Lin et al. 2017, eq. 4).

    1 - p is limited to positive numbers, because the slope of q^γ is infinite at q = 0 if γ < 1.
    """
    log_p = F.log_softmax(logits, dim=1)
    is_one_hot = y.ndim == 1 and not label_smoothing
    if is_one_hot:
        log_p = log_p.gather(1, y[:, None])
    q = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    terms = q**gamma * log_p
    if not is_one_hot:
        terms = targets(logits, y, label_smoothing) * terms
    return -terms.sum() / len(logits)


def hinge(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean of Σ_{j≠y} max(0, z_j - z_y + 1) for logits z (Weston and Watkins 1999).

    The loss is NaN if a logit is not finite. PyTorch's loss is divided by K and treats NaN as 0.
    """
    loss = F.multi_margin_loss(logits, y) * logits.shape[1]
    return loss * torch.where(torch.isfinite(logits).all(), 1.0, math.nan)


LOSSES: dict[str, Callable[[Config], Loss]] = filled(
    "loss/torch",
    {
        "cross_entropy": _cross_entropy,
        "hinge": lambda config: hinge,
        "mse": _mse,
        "focal": _focal,
    },
)
"""Value of the key ``loss`` -> function that returns the configured loss."""

"""PyTorch's normalization layers, with an output of NaN where a variance overflows.

PyTorch's 1 / √(σ² + ε) is then 0, so the output would be the bias, a plausible number. In training
mode, batch norm is unchanged: its running variance overflows too, which the training loop detects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized samples, in the shape of x."""
        if self.training:
            return super().forward(x)
        variance = self.running_var
        assert variance is not None
        variance = variance.masked_fill(variance.isinf(), math.nan)
        return F.batch_norm(x, self.running_mean, variance, self.weight, self.bias, eps=self.eps)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """Batch norm of samples (N, D)."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch norm of images (N, C, H, W)."""


class LayerNorm(nn.LayerNorm):
    """Layer norm of samples (N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized samples (N, D)."""
        x = _as_autocast(x, self.weight)
        y, _, inverse_std = torch.native_layer_norm(
            x, self.normalized_shape, self.weight, self.bias, self.eps
        )
        return y.add_(_zero_or_nan(inverse_std))


class GroupNorm(nn.GroupNorm):
    """Group norm of images (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images (N, C, H, W)."""
        x = _as_autocast(x, self.weight)
        samples, channels, height, width = x.shape
        if not x.is_cpu or not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        sizes = samples, channels, height * width, self.num_groups
        y, _, inverse_std = torch.native_group_norm(x, self.weight, self.bias, *sizes, self.eps)
        wrong = _zero_or_nan(inverse_std).sum(dim=1)
        return y.add_(wrong.view(-1, 1, 1, 1))


def _as_autocast(x: Tensor, weight: Tensor) -> Tensor:
    """Return x in the type that autocast selects: on an accelerator, the type of the weight."""
    return x if x.is_cpu else x.to(weight.dtype)


def _zero_or_nan(inverse_std: Tensor) -> Tensor:
    """Return NaN where 1 / σ is 0, and 0 elsewhere."""
    return torch.zeros_like(inverse_std).masked_fill_(inverse_std == 0, math.nan)


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms of a module, whose running statistics change in training mode."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


@contextmanager
def keeping_momenta(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Restore the momenta of batch norms at the end of the context."""
    momenta = [norm.momentum for norm in norms]
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def unchanged_statistics(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norm unchanged within the context."""
    norms = batch_norms(module)
    with keeping_momenta(norms):
        for norm in norms:
            norm.momentum = 0.0
        yield

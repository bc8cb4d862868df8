"""Activations that keep their relative precision in the tails.

PyTorch computes the slopes of sigmoid and tanh as y (1 - y) and 1 - y², and Φ(x) in GELU as
(1 + erf(x/√2)) / 2. All digits of these differences cancel from about x = 17, x = 9 and x = -5.5 on
in float32. Then a unit whose gradient is small gets none, or noise, which Adam scales up to a whole
step. The formulas here are those of ``nnopt.backends.numpy_scratch.ops.activations``. PyTorch's
ReLU, leaky ReLU and SiLU have no such difference.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

LEADING_HALF = {
    torch.float32: (torch.int32, -1 << 12),
    torch.float64: (torch.int64, -1 << 27),
}
"""The integers of a number type's size, and a mask that keeps at most half of the digits."""


class _Sigmoid(torch.autograd.Function):
    """y = σ(x);  dL/dx = g · s (1 - s), s = σ(-|x|)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _times_logistic_slope(g, x, 1)


class _Tanh(torch.autograd.Function):
    """y = tanh x;  dL/dx = g · 4 s (1 - s), s = σ(-2|x|)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _times_logistic_slope(g, x, 2) * 4


class _Gelu(torch.autograd.Function):
    """y = x Φ(x), Φ(-|x|) = exp(-x²/2) erfcx(|x|/√2) / 2;  dL/dx = g · (Φ(x) + x φ(x)). Computed
    in float32 at least. The slope is saved, not its three parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        bell = _bell(wide)
        tail = torch.special.erfcx(wide.abs() * math.sqrt(0.5)) * bell * 0.5
        cdf = torch.where(wide > 0, 1 - tail, tail)
        if ctx.needs_input_grad[0]:
            slope = cdf + bell * (1 / math.sqrt(2 * math.pi)) * wide
            ctx.save_for_backward(slope.to(x.dtype))
        return (wide * cdf).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        d_x: Tensor = g * slope
        return d_x


def _times_logistic_slope(g: Tensor, x: Tensor, steepness: float) -> Tensor:
    """Return g · s (1 - s), s = σ(-k|x|) for a steepness k. s is at most 1/2: 1 - s loses no
    digits."""
    tail = torch.sigmoid(x.abs() * -steepness)
    return g * (1 - tail) * tail


def _bell(x: Tensor) -> Tensor:
    """Return exp(-x²/2) as exp(-h²/2) · exp(-(x - h)(x + h)/2), h the leading half of the digits of
    x, whose square is exact."""
    integer, mask = LEADING_HALF[x.dtype]
    head = (x.view(integer) & mask).view(x.dtype)
    return torch.exp(-0.5 * head * head) * torch.exp(-0.5 * (x - head) * (x + head))


class Sigmoid(nn.Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Sigmoid.apply(x)
        return y


class Tanh(nn.Module):
    """tanh x."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Tanh.apply(x)
        return y


class GELU(nn.Module):
    """x Φ(x), Φ the normal distribution function."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Gelu.apply(x)
        return y

"""Activations that differ from PyTorch's: sigmoid, tanh and PReLU.

The derivatives of sigmoid and tanh keep their relative precision in the tails.

PyTorch computes the derivatives as y (1 - y) and 1 - y². In float32, these differences lose all
digits from about x = 17 (sigmoid) and x = 9 (tanh) on. The gradient of such a unit is then zero or
noise, and Adam scales noise up to a whole step. ``nnopt.backends.numpy.ops.activations`` has the
formulas. Other activations are PyTorch's own; docs/backends.md gives the error of PyTorch's GELU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SOFTPLUS_THRESHOLD = 40
"""Above this input, softplus is the identity: exp(-40) is less than half a rounding of 40 in
float64. PyTorch's default of 20 causes an error of 2e-9 in value and slope."""


class _Sigmoid(torch.autograd.Function):
    """y = σ(x) and dL/dx = dL/dy · s (1 - s) with s = σ(-|x|) ≤ 1/2, so 1 - s loses no digits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        tail = x.abs().neg_().sigmoid_()
        return torch.ops.aten.sigmoid_backward(g, tail)  # type: ignore[no-any-return]


class _Tanh(torch.autograd.Function):
    """y = tanh x and dL/dx = dL/dy · 4 s (1 - s) with s = σ(-2|x|) ≤ 1/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        tail = x.abs().mul_(-2).sigmoid_()
        return torch.ops.aten.sigmoid_backward(g, tail).mul_(4)  # type: ignore[no-any-return]


class Sigmoid(nn.Module):
    """The sigmoid 1 / (1 + exp(-x)) of every element."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations, in the shape of x."""
        return _Sigmoid.apply(x)  # type: ignore[no-any-return]


class Tanh(nn.Module):
    """The hyperbolic tangent of every element."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations, in the shape of x."""
        return _Tanh.apply(x)  # type: ignore[no-any-return]


class PReLU(nn.PReLU):
    """x where x > 0, else a · x, with learned slopes a.

    Under autocast, the inputs can have 16 bits. PyTorch's module then refuses the float32 slopes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations, in the shape of x."""
        return F.prelu(x, self.weight.to(x.dtype))

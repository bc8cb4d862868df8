"""Sigmoid and tanh with derivatives that keep their relative precision in the tails.

PyTorch computes the derivatives as y (1 - y) and 1 - y². In float32, these differences lose all
digits from about x = 17 (sigmoid) and x = 9 (tanh) on. The gradient of such a unit is then zero or
noise, and Adam scales noise up to a whole step. ``nnopt.backends.numpy.ops.activations`` has the
formulas. Other activations are PyTorch's own; docs/backends.md gives the error of PyTorch's GELU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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

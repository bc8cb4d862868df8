"""Activations that keep their relative precision in the tails.

PyTorch computes the slopes of sigmoid and tanh as y (1 - y) and 1 - y², and Φ(x) in GELU as
(1 + erf(x/√2)) / 2. All digits of these differences cancel from about x = 17, x = 9 and x = -5.5 on
in float32. Then a unit whose gradient is small gets none, or noise, which Adam scales up to a whole
step. The formulas here are those of ``nnopt.backends.numpy_scratch.ops.activations``. PyTorch's
ReLU, leaky ReLU and SiLU have no such difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LEADING_HALF = {
    torch.float32: (torch.int32, -1 << 12),
    torch.float64: (torch.int64, -1 << 27),
}
"""The integers of a number type's size, and a mask that keeps at most half of the digits."""


CHUNK = 2**15
"""Numbers that one thread of a CPU computes at a time, so that intermediate results stay in its
cache."""


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
        return _times_logistic_slope(g, x, 2).mul_(4)


def _times_logistic_slope(g: Tensor, x: Tensor, steepness: float) -> Tensor:
    """Return g · s (1 - s), s = σ(-k|x|) for a steepness k. s is at most 1/2: 1 - s loses no
    digits."""

    def of_chunk(g: Tensor, x: Tensor) -> tuple[Tensor]:
        tail = x.abs().mul_(-steepness).sigmoid_()
        return (torch.ops.aten.sigmoid_backward(g, tail),)

    (d_x,) = _in_chunks(of_chunk, 1, x, g)
    return d_x


class _Gelu(torch.autograd.Function):
    """y = x Φ(x);  dL/dx = g · (Φ(x) + x φ(x)). Computed in float32 at least. The slope is saved,
    not its three parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, slope = _in_chunks(_gelu, 2, x)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        d_x: Tensor = g * slope
        return d_x


def _in_chunks(
    function: Callable[..., tuple[Tensor, ...]], results: int, x: Tensor, g: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return the results, so many, of an elementwise function of x or of (g, x), on a CPU chunk by
    chunk. The compiler needs no chunks."""
    size = CHUNK * torch.get_num_threads()
    inputs = [x] if g is None else [g, x]
    if torch.compiler.is_compiling() or not x.is_cpu or x.numel() <= size:
        return function(*inputs)
    if not torch.ops.aten.is_non_overlapping_and_dense(x):
        x = x.contiguous()
    like_x = [
        tensor if tensor.stride() == x.stride() else torch.empty_like(x).copy_(tensor)
        for tensor in inputs
    ]
    outputs = tuple(torch.empty_like(x) for _ in range(results))
    parts = [
        torch.split(tensor.as_strided((x.numel(),), (1,), tensor.storage_offset()), size)
        for tensor in (*like_x, *outputs)
    ]
    for tensors in zip(*parts, strict=True):
        computed = function(*tensors[: len(inputs)])
        for out, result in zip(tensors[len(inputs) :], computed, strict=True):
            out.copy_(result)
    return outputs


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x Φ(x) and Φ(x) + x φ(x)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    has_wider = wide.dtype is torch.float32 and wide.device.type != "mps"
    cdf, bell = (_normal_in_float32 if has_wider else _normal)(wide)
    slope = torch.addcmul(cdf, bell, wide, value=1 / math.sqrt(2 * math.pi))
    return cdf.mul_(wide).to(x.dtype), slope.to(x.dtype)


def _normal_in_float32(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Φ(x) = erfc(z) / 2, z = -x/√2, and exp(-x²/2). Where z is large, its rounding r would
    become a relative error of 2 z r: z and its square are computed in float64, and erfc(z + r) as
    erfc(z) - 2/√π exp(-z²) r."""
    z = x.double().mul_(-math.sqrt(0.5))
    rounded = z.float()
    rest = torch.sub(z, rounded).float()
    bell = z.square_().neg_().exp_().float()
    cdf = torch.erfc(rounded).mul_(0.5)
    return cdf.addcmul_(bell, rest, value=-1 / math.sqrt(math.pi)), bell


def _normal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Φ(x), by Φ(-|x|) = exp(-x²/2) erfcx(|x|/√2) / 2, and exp(-x²/2), where no wider type
    of numbers is available. It takes several times as long."""
    bell = _bell(x)
    tail = torch.special.erfcx(x.abs() * math.sqrt(0.5)) * bell * 0.5
    return torch.where(x > 0, 1 - tail, tail), bell


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

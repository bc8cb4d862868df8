"""Compare the time of a convolution in NumPy and in PyTorch on the CPU.

    python benchmarks/conv.py

The first table has the time of a 3x3 layer for five shapes: the forward pass and the gradients of
input and weight. The ratio compares NumPy with the faster of PyTorch's two memory formats. A second
table shows how NumPy's time grows with the batch size and the channels. NumPy and PyTorch use 2
threads and take turns; the ratio is the median over turns. Exits with 1 if a ratio exceeds 1.5 or
the geometric mean of the ratios exceeds 1.1.
"""

from __future__ import annotations

import nnopt  # noqa: F401  # isort: skip  # before NumPy, because it configures OpenBLAS

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timing import Table, compare_with_fastest, machine_line, take_turns
from torch.nn import functional as F

from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.ops.conv import conv2d_backward, conv2d_forward
from nnopt.backends.numpy.tape import Buffers
from nnopt.backends.numpy.threads import ThreadPool

THREADS = 2
LARGEST_RATIO, LARGEST_MEAN = 1.5, 1.1


@dataclass(frozen=True)
class Shape:
    """A 3x3 convolution of N images of H x H pixels, from C to O channels."""

    images: int
    channels: int
    side: int
    outputs: int

    @property
    def flops(self) -> float:
        """FLOPs of the forward pass and both gradients, counted as in a direct convolution."""
        return 3 * 2 * 9 * self.images * self.side**2 * self.channels * self.outputs

    def __str__(self) -> str:
        return f"({self.images}, {self.channels}, {self.side}, {self.outputs})"


SHAPES = (
    Shape(64, 32, 32, 32),
    Shape(64, 64, 16, 64),
    Shape(64, 128, 16, 128),
    Shape(64, 256, 8, 256),
    Shape(32, 128, 32, 128),
)

GROWING = (
    *(Shape(images, 64, 16, 64) for images in (16, 32, 64, 128)),
    *(Shape(64, channels, 16, channels) for channels in (32, 128, 256)),
)


def main() -> int:
    """Print the tables; return 1 if a target is missed."""
    torch.set_num_threads(THREADS)
    print(f"{machine_line()}; {THREADS} threads")
    print("\n3x3 layer, forward and both gradients, float32")
    table = Table("(N, C, H, O)", "PyTorch", "NumPy", "GFLOP/s", "ratio", label_width=20)
    ratios = []
    with threadpool_limits(THREADS):
        for shape in SHAPES:
            layers = [torch_layer(shape, f) for f in (torch.contiguous_format, torch.channels_last)]
            theirs, ours, ratio = compare_with_fastest(numpy_layer(shape), *layers)
            ratios.append(ratio)
            cells = [f"{theirs * 1e3:.1f} ms", f"{ours * 1e3:.1f} ms"]
            cells += [f"{shape.flops / ours / 1e9:.0f}", f"{ratio:.2f}"]
            table.row(str(shape), *cells, value=ratio, at_most=LARGEST_RATIO)
        mean = statistics.geometric_mean(ratios)
        table.row("geometric mean", "", "", "", f"{mean:.2f}", value=mean, at_most=LARGEST_MEAN)
        print("\nGrowth with batch, then with channels")
        growth = Table("(N, C, H, O)", "GFLOP", "NumPy", "GFLOP/s", label_width=20, target="")
        for shape in GROWING:
            (turns,) = take_turns(numpy_layer(shape), turns=25, turn_seconds=0.15)
            ours = statistics.median(map(statistics.median, turns))
            gflop = shape.flops / 1e9
            growth.row(str(shape), f"{gflop:.1f}", f"{ours * 1e3:.1f} ms", f"{gflop / ours:.0f}")
    return int(table.missed)


def torch_layer(shape: Shape, memory_format: torch.memory_format) -> Callable[[], None]:
    """Return a function that computes the forward pass and both gradients in PyTorch."""

    def tensor(*size: int) -> torch.Tensor:
        return torch.randn(size).to(memory_format=memory_format)

    x = tensor(shape.images, shape.channels, shape.side, shape.side).requires_grad_()
    weight = tensor(shape.outputs, shape.channels, 3, 3).requires_grad_()
    g = tensor(shape.images, shape.outputs, shape.side, shape.side)

    def step() -> None:
        x.grad = weight.grad = None
        F.conv2d(x, weight, padding=1).backward(g)

    return step


def numpy_layer(shape: Shape) -> Callable[[], None]:
    """Return a function that computes the forward pass and both gradients in NumPy.

    The function uses nnopt's operations, and the same buffers in every call.
    """
    random = np.random.default_rng(0)

    def array(*size: int) -> np.ndarray:
        return random.standard_normal(dtype=np.float32, out=empty(size, np.float32))

    x = array(shape.side, shape.side, shape.images, shape.channels)
    weight = array(shape.outputs, shape.channels, 3, 3)
    g = array(shape.side, shape.side, shape.images, shape.outputs)
    buffer = Buffers(ThreadPool(THREADS))

    def step() -> None:
        _, saved = conv2d_forward(x, weight, padding=1, buffer=buffer)
        conv2d_backward(g, saved, (True, True), buffer=buffer)

    return step


if __name__ == "__main__":
    sys.exit(main())

"""Time of convolution in NumPy over PyTorch's on the CPU.

    python benchmarks/conv.py

A 3x3 layer alone, forward and both gradients, at five shapes, against the faster of PyTorch's two
memory formats at each; then the same layer with batch and channels doubled, for the time to be seen
growing as the FLOPs do. Both sides have 2 threads and take turns; of each turn counts the median,
and of all turns the median of the ratios, so that a drift of the machine's speed meets both sides.
Exits with 1 past a bar.
"""

from __future__ import annotations

import nnopt  # isort: skip  # before NumPy, as the command line does: it sets OpenBLAS up

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn import functional as F

from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.ops.conv import conv2d_backward, conv2d_forward
from nnopt.backends.numpy.tape import Buffers
from nnopt.backends.numpy.threads import ThreadPool

THREADS = 2
TURNS = 25
TURN_SECONDS = 0.15
LARGEST_RATIO, LARGEST_MEAN = 1.5, 1.1


@dataclass(frozen=True)
class Shape:
    """N images of C channels, H x H, to O channels."""

    images: int
    channels: int
    side: int
    outputs: int

    @property
    def flops(self) -> float:
        """Of forward and both gradients, by the direct sum."""
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
    Shape(16, 64, 16, 64),
    Shape(32, 64, 16, 64),
    Shape(64, 64, 16, 64),
    Shape(128, 64, 16, 64),
    Shape(64, 32, 16, 32),
    Shape(64, 128, 16, 128),
    Shape(64, 256, 16, 256),
)


def main() -> int:
    """Print the tables; 1 if a bar is passed."""
    torch.set_num_threads(THREADS)
    versions = f"nnopt {nnopt.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    print(f"{versions}, {THREADS} threads")
    print("\n3x3 layer, forward and both gradients, float32")
    print(f"{'(N, C, H, O)':>20} {'PyTorch':>10} {'NumPy':>10} {'GFLOP/s':>8} {'ratio':>6}  bar")
    ratios = []
    with threadpool_limits(THREADS):
        for shape in SHAPES:
            theirs, ours, ratio = measure(shape)
            ratios.append(ratio)
            verdict = "ok" if ratio <= LARGEST_RATIO else "MISSED"
            print(
                f"{shape!s:>20} {theirs * 1e3:>7.1f} ms {ours * 1e3:>7.1f} ms "
                f"{shape.flops / ours / 1e9:>8.0f} {ratio:>6.2f}  {LARGEST_RATIO} {verdict}",
                flush=True,
            )
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        verdict = "ok" if mean <= LARGEST_MEAN else "MISSED"
        print(f"{'geometric mean':>20} {mean:>37.2f}  {LARGEST_MEAN} {verdict}")
        print("\nGrowth with batch, then with channels")
        print(f"{'(N, C, H, O)':>20} {'GFLOP':>8} {'NumPy':>10} {'GFLOP/s':>8}")
        for shape in GROWING:
            seconds = interleave(numpy_layer(shape))[0]
            ours = statistics.median(seconds)
            print(
                f"{shape!s:>20} {shape.flops / 1e9:>8.1f} {ours * 1e3:>7.1f} ms "
                f"{shape.flops / ours / 1e9:>8.0f}",
                flush=True,
            )
    return int(mean > LARGEST_MEAN or max(ratios) > LARGEST_RATIO)


def measure(shape: Shape) -> tuple[float, float, float]:
    """Median seconds of PyTorch's better format and of NumPy, and the median of their ratios."""
    layers = [
        torch_layer(shape, torch.contiguous_format),
        torch_layer(shape, torch.channels_last),
        numpy_layer(shape),
    ]
    *formats, ours = interleave(*layers)
    theirs = min(formats, key=statistics.median)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(theirs), statistics.median(ours), ratio


def interleave(*works: Callable[[], None]) -> list[list[float]]:
    """For each work, the median seconds of each of its turns."""
    medians: list[list[float]] = [[] for _ in works]
    for _ in range(TURNS):
        for work, taken in zip(works, medians, strict=True):
            seconds = []
            end = time.perf_counter() + TURN_SECONDS
            while (started := time.perf_counter()) < end or len(seconds) < 2:
                work()
                seconds.append(time.perf_counter() - started)
            taken.append(statistics.median(seconds))
    return medians


def torch_layer(shape: Shape, memory_format: torch.memory_format) -> Callable[[], None]:
    """Forward and both gradients in PyTorch."""

    def tensor(*size: int) -> torch.Tensor:
        return torch.randn(size).to(memory_format=memory_format)

    x = tensor(shape.images, shape.channels, shape.side, shape.side).requires_grad_()
    weight = tensor(shape.outputs, shape.channels, 3, 3).requires_grad_()
    g = tensor(shape.images, shape.outputs, shape.side, shape.side)

    def work() -> None:
        x.grad = weight.grad = None
        F.conv2d(x, weight, padding=1).backward(g)

    return work


def numpy_layer(shape: Shape) -> Callable[[], None]:
    """Forward and both gradients in nnopt's NumPy backend, on kept arrays as in training."""
    random = np.random.default_rng(0)

    def array(*size: int) -> np.ndarray:
        return random.standard_normal(dtype=np.float32, out=empty(size, np.float32))

    x = array(shape.side, shape.side, shape.images, shape.channels)
    weight = array(shape.outputs, shape.channels, 3, 3)
    g = array(shape.side, shape.side, shape.images, shape.outputs)
    workers, buffer = ThreadPool(THREADS), Buffers()

    def work() -> None:
        _, saved = conv2d_forward(x, weight, padding=1, workers=workers, buffer=buffer)
        conv2d_backward(g, saved, (True, True), buffer=buffer)

    return work


if __name__ == "__main__":
    sys.exit(main())

"""Compare time and memory of training convolutional networks in NumPy and in PyTorch on the CPU.

    python benchmarks/conv_step.py

Both sides train on images of 3 x 32 x 32 pixels in batches of 64, in float32, by SGD with momentum
and with 2 threads. The NumPy side is nnopt's network and optimizer (``NumpyNetwork.train_step``).
The PyTorch side is a net of ``torch.nn`` modules with the same layers, and ``torch.optim`` with
default settings, in the faster of PyTorch's two memory formats. Both sides take turns; the ratio is
the median over turns.

Memory is the growth of a new process's peak memory from before the network is built to step 20.
The row "growth to step 200" shows how much the peak memory of the NumPy side grows after step 20.
Exits with 1 if a ratio of times exceeds 1.5, a ratio of memory exceeds 2, or the growth to step 200
exceeds 2 MB. Two of the networks have no targets.
"""

from __future__ import annotations

import nnopt  # noqa: F401  # isort: skip  # before NumPy, because it configures OpenBLAS

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timing import Table, compare_with_fastest, machine_line, run_command
from workloads import Step, build_architecture, numpy_step, torch_step

from nnopt.backends.models import initial_arrays
from nnopt.backends.numpy.memory import empty
from nnopt.backends.torch.modules import build_sequential
from nnopt.config.compose import compose_config
from nnopt.schema import Config

THREADS = 2
BATCH, SHAPE, CLASSES = 64, (3, 32, 32), 10
LR = 1e-4
LARGEST_RATIO, LARGEST_MEMORY_RATIO, LARGEST_GROWTH_MB = 1.5, 2.0, 2.0
MEGABYTE = 2**20


@dataclass(frozen=True)
class Case:
    """A network, described by its overrides."""

    name: str
    overrides: tuple[str, ...]
    has_target: bool = True


CASES = (
    Case("three_layer_conv", ("architecture=three_layer_conv",)),
    Case("vgg 32-64-128, batch norm", ("architecture=vgg", "regularizer.norm=batch")),
    Case("vgg 32-64-128", ("architecture=vgg",), has_target=False),
    Case(
        "resnet 20, batch norm",
        ("architecture=resnet", "architecture.depth=20", "regularizer.norm=batch"),
        has_target=False,
    ),
)


def main() -> int:
    """Print the tables; return 1 if a target is missed."""
    torch.set_num_threads(THREADS)
    print(f"{machine_line()}; {THREADS} threads\n")
    times = Table("step of batch 64", "PyTorch", "NumPy", "ratio")
    for case in CASES:
        with threadpool_limits(THREADS):
            *references, step = (make(case) for make in STEPS.values())
            theirs, ours, ratio = compare_with_fastest(step, *references)
        target = {"at_most": LARGEST_RATIO} if case.has_target else {}
        cells = f"{theirs * 1e3:.1f} ms", f"{ours * 1e3:.1f} ms", f"{ratio:.2f}"
        times.row(case.name, *cells, value=ratio, **target)
    print()
    memory = Table("peak memory", "PyTorch", "NumPy", "ratio")
    for number, case in enumerate(CASES):
        peaks = {name: memory_of(name, number) for name in STEPS}
        theirs = min(peaks["contiguous"][0], peaks["channels last"][0])
        ours, growth = peaks["NumPy"]
        target = {"at_most": LARGEST_MEMORY_RATIO} if case.has_target else {}
        cells = f"{theirs:.0f} MB", f"{ours:.0f} MB", f"{ours / theirs:.2f}"
        memory.row(case.name, *cells, value=ours / theirs, **target)
        target = {"at_most": LARGEST_GROWTH_MB} if case.has_target else {}
        memory.row("  growth to step 200", "", f"{growth:.1f} MB", value=growth, **target)
    return int(times.missed or memory.missed)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of random images and labels."""
    random = np.random.default_rng(0)
    x = random.standard_normal(dtype=np.float32, out=empty((BATCH, *SHAPE), np.float32))
    return x, random.integers(0, CLASSES, BATCH)


def configure(case: Case, backend: str) -> Config:
    """Return the configuration of a case."""
    overrides = ["optimizer=momentum", f"optimizer.lr={LR}", f"backend.threads={THREADS}"]
    overrides += ["regularizer.grad_clip=0", f"backend={backend}"]
    return compose_config(["dataset=cifar10", *case.overrides, *overrides])


def nnopt_step(case: Case) -> Step:
    """Return a function that runs a step of nnopt's NumPy backend."""
    config = configure(case, "numpy")
    return numpy_step(config, build_architecture(config, SHAPE, CLASSES), *batch(), LR)


def pytorch_step(case: Case, memory_format: torch.memory_format) -> Step:
    """Return a function that runs a step of a usual hand-written PyTorch loop."""
    config = configure(case, "torch")
    architecture = build_architecture(config, SHAPE, CLASSES)
    model = build_sequential(architecture.layers, config).to_empty(device="cpu")
    initial = initial_arrays(architecture, config.initializer, config.seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(initial[name]))
    model = model.to(memory_format=memory_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    x, y = (torch.from_numpy(array) for array in batch())
    return torch_step(model, optimizer, x.to(memory_format=memory_format), y)


STEPS: dict[str, Callable[[Case], Step]] = {
    "contiguous": lambda case: pytorch_step(case, torch.contiguous_format),
    "channels last": lambda case: pytorch_step(case, torch.channels_last),
    "NumPy": nnopt_step,
}


def memory_of(side: str, number: int) -> tuple[float, float]:
    """Return the growth of a new process's peak memory in MB, until step 20 and after step 20.

    ``side`` is a key of ``STEPS``, and ``number`` is an index of ``CASES``.
    """
    first, growth = run_command(sys.executable, __file__, side, number).output.split()[-2:]
    return float(first), float(growth)


def measure_memory(side: str, number: int) -> None:
    """Build and train a network in this process, and print the two results of ``memory_of``."""
    torch.set_num_threads(THREADS)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which imports have raised
    before = peak()
    with threadpool_limits(THREADS):
        step = STEPS[side](CASES[number])
        for _ in range(20):
            step()
        after = peak()
        for _ in range(180 if side == "NumPy" else 0):
            step()
    print((after - before) / MEGABYTE, (peak() - after) / MEGABYTE)


def peak() -> int:
    """Return the peak memory of this process since the last reset, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_memory(sys.argv[1], int(sys.argv[2]))
    else:
        sys.exit(main())

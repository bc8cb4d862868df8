"""Time and memory of a training step of convolutional networks, NumPy over PyTorch on the CPU.

    python benchmarks/conv_step.py

3 x 32 x 32 images in batches of 64, float32, SGD with momentum, 2 threads. The NumPy side is
nnopt's own network and optimizer (``NumpyNetwork.train_step``), the PyTorch side the same layers as
``torch.nn`` modules with ``torch.optim`` in its default form, in the faster of its two memory
formats. They take turns as in ``benchmarks/conv.py``. Memory is the growth of a fresh process's
peak over 20 steps, beyond what it had before the network was built; and the growth of the NumPy
side from step 20 to step 200, which must not be. Exits with 1 past a bar.
"""

from __future__ import annotations

import nnopt  # isort: skip  # before NumPy, as the command line does: it sets OpenBLAS up

import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conv import interleave
from threadpoolctl import threadpool_limits
from torch import nn

from nnopt.architecture.builders import build
from nnopt.architecture.initializers import initial_arrays
from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.torch.modules import build_sequential
from nnopt.config.compose import compose_config

THREADS = 2
BATCH, SHAPE, CLASSES = 64, (3, 32, 32), 10
LR = 1e-4
LARGEST_RATIO, LARGEST_MEMORY, LARGEST_GROWTH = 1.5, 2.0, 2.0
MEGABYTE = 2**20


@dataclass(frozen=True)
class Case:
    """A network as its words on the command line."""

    name: str
    words: tuple[str, ...]
    has_bar: bool = True


CASES = (
    Case("three_layer_conv", ("architecture=three_layer_conv",)),
    Case("vgg 32-64-128, batch norm", ("architecture=vgg", "regularizer.norm=batch")),
    Case("vgg 32-64-128", ("architecture=vgg",), has_bar=False),
    Case(
        "resnet 20, batch norm",
        ("architecture=resnet", "architecture.depth=20", "regularizer.norm=batch"),
        has_bar=False,
    ),
)

Step = Callable[[], None]


def main() -> int:
    """Print the tables; 1 if a bar is passed."""
    torch.set_num_threads(THREADS)
    versions = f"nnopt {nnopt.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    print(f"{versions}, {THREADS} threads")
    print(f"\n{'step of batch 64':>26} {'PyTorch':>10} {'NumPy':>10} {'ratio':>6}  bar")
    failed = False
    for case in CASES:
        with threadpool_limits(THREADS):
            *formats, ours = interleave(*(step(case) for step in STEPS.values()))
        theirs = min(formats, key=statistics.median)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        failed |= (missed := case.has_bar and ratio > LARGEST_RATIO)
        print(
            f"{case.name:>26} {statistics.median(theirs) * 1e3:>7.1f} ms "
            f"{statistics.median(ours) * 1e3:>7.1f} ms {ratio:>6.2f}  "
            f"{verdict(case, LARGEST_RATIO, missed)}",
            flush=True,
        )
    print(f"\n{'peak memory':>26} {'PyTorch':>10} {'NumPy':>10} {'ratio':>6} {'growth':>9}  bars")
    for number, case in enumerate(CASES):
        peaks = {name: memory(name, number) for name in STEPS}
        theirs_mb = min(peaks["contiguous"][0], peaks["channels last"][0])
        ours_mb, growth = peaks["NumPy"]
        ratio = ours_mb / theirs_mb
        failed |= (missed := case.has_bar and (ratio > LARGEST_MEMORY or growth > LARGEST_GROWTH))
        print(
            f"{case.name:>26} {theirs_mb:>7.0f} MB {ours_mb:>7.0f} MB {ratio:>6.2f} "
            f"{growth:>6.1f} MB  {verdict(case, LARGEST_MEMORY, missed)}",
            flush=True,
        )
    return int(failed)


def verdict(case: Case, bar: float, missed: bool) -> str:
    """The last column."""
    return f"{bar} {'MISSED' if missed else 'ok'}" if case.has_bar else "-"


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels."""
    random = np.random.default_rng(0)
    x = random.standard_normal(dtype=np.float32, out=empty((BATCH, *SHAPE), np.float32))
    return x, random.integers(0, CLASSES, BATCH)


def configure(case: Case, backend: str = "numpy"):
    """The config and the placed layers."""
    words = [*case.words, "optimizer=momentum", f"optimizer.lr={LR}", f"backend.threads={THREADS}"]
    words += ["regularizer.grad_clip=0", f"backend={backend}"]
    config = compose_config(["dataset=cifar10", *words])
    return config, build(config.architecture, config.regularizer, SHAPE, CLASSES)


def numpy_step(case: Case) -> Step:
    """A step of nnopt's NumPy backend; the records of an epoch's steps are read every 100."""
    config, architecture = configure(case)
    network = NumpyNetwork(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    x, y = batch()
    count = 0

    def step() -> None:
        nonlocal count
        network.train_step(x, y, LR, count)
        count += 1
        if count % 100 == 0:
            network.read_steps()

    return step


def torch_step(case: Case, memory_format: torch.memory_format) -> Step:
    """A step as one writes it by hand in PyTorch."""
    config, architecture = configure(case, "torch")
    model = build_sequential(architecture.layers, config).to_empty(device="cpu")
    initial = initial_arrays(architecture, config.initializer, config.seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(initial[name]))
    model = model.to(memory_format=memory_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    x, y = (torch.from_numpy(array) for array in batch())
    x = x.to(memory_format=memory_format)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


STEPS: dict[str, Callable[[Case], Step]] = {
    "contiguous": lambda case: torch_step(case, torch.contiguous_format),
    "channels last": lambda case: torch_step(case, torch.channels_last),
    "NumPy": numpy_step,
}


def memory(side: str, number: int) -> tuple[float, float]:
    """In a process of its own: megabytes of 20 steps, and of 180 more beyond these."""
    words = [sys.executable, __file__, side, str(number)]
    out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    first, growth = map(float, out.split())
    return first, growth


def measure_memory(side: str, number: int) -> None:
    """What the child process does: build, train, print."""
    torch.set_num_threads(THREADS)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: imports have theirs
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
    """Bytes: the most this process held since its peak was reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_memory(sys.argv[1], int(sys.argv[2]))
    else:
        sys.exit(main())

"""Compare the time of a training step in NumPy and in eager PyTorch on the CPU.

    python benchmarks/numpy_step.py

Both sides have the same net, initial weights, batch and optimizer, which is SGD with momentum 0.9
except in the last table. Both have 2 threads, but nnopt multiplies small matrices with one thread.
The NumPy side is nnopt's network and optimizer (``NumpyNetwork.train_step``). The PyTorch side is a
hand-written ``nn.Sequential``, and ``torch.optim`` with default settings. Both take turns; the
ratio is computed from the medians. Exits with 1 if a ratio of the first table exceeds its target.

The column "by hand" of the first table is a control: the time of a short NumPy loop without nnopt,
with preallocated arrays, divided by PyTorch's time. It depends on the matrix libraries (OpenBLAS
for NumPy, MKL for PyTorch) and on the processor, but not on nnopt.
"""

from __future__ import annotations

import nnopt  # noqa: F401  # isort: skip  # before NumPy, because it configures OpenBLAS

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timing import Table, machine_line, take_turns
from torch import nn
from workloads import Step, build_architecture, numpy_step, torch_step

from nnopt.architecture.network import Architecture
from nnopt.backends.models import initial_arrays
from nnopt.backends.numpy.memory import empty
from nnopt.config.compose import compose_config
from nnopt.schema import Config, MlpConfig

THREADS = 2
SECONDS_PER_CASE = 8.0
TURN_SECONDS = 0.5
"""After their last task, the worker threads of one side spin for several milliseconds and slow
the other side. Turns are so long that this affects only their first steps."""

LR = 1e-5  # small, so that gradients of the only batch do not become denormal


@dataclass(frozen=True)
class Case:
    """Layer sizes of a net from input to classes, batch size, and largest ratio allowed."""

    sizes: tuple[int, ...]
    batch: int
    largest_ratio: float


CASES = (
    Case((2, 64, 3), 32, 0.35),
    Case((784, 20, 7, 5, 10), 128, 0.6),
    Case((784, 128, 64, 10), 64, 0.7),
    Case((784, 256, 128, 10), 128, 0.95),
    Case((3072, 1024, 512, 10), 128, 1.0),
)

VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "batch norm and dropout 0.3": ["regularizer.norm=batch", "regularizer.dropout=0.3"],
    "plain, Adam": ["optimizer=adam"],
}


def main() -> int:
    """Print the tables; return 1 if a target is missed."""
    torch.set_num_threads(THREADS)
    print(f"{machine_line()}; {THREADS} threads")
    missed = False
    for title, overrides in VARIANTS.items():
        is_plain = title == "plain"
        print(f"\n{title}")
        columns = ["net", "batch", "PyTorch", "NumPy", "ratio", *(["by hand"] if is_plain else [])]
        table = Table(*columns, label_width=20, target="target" if is_plain else "")
        for case in CASES:
            theirs, ours, *control = measure(case, overrides, is_plain)
            cells = ["-".join(map(str, case.sizes)), str(case.batch), f"{theirs * 1e6:.0f} us"]
            cells += [f"{ours * 1e6:.0f} us", f"{ours / theirs:.2f}"]
            cells += [f"{seconds / theirs:.2f}" for seconds in control]
            target = {"at_most": case.largest_ratio} if is_plain else {}
            table.row(*cells, value=ours / theirs, **target)
        missed |= table.missed
    return int(missed)


def measure(case: Case, overrides: list[str], with_control: bool) -> list[float]:
    """Return the median seconds of a step in PyTorch, in nnopt and, if wanted, in the control."""
    fixed = [f"optimizer.lr={LR}", f"backend.threads={THREADS}", "regularizer.grad_clip=0"]
    config = compose_config([*overrides, *fixed])
    config = replace(config, architecture=MlpConfig("mlp", case.sizes[1:-1], "relu"))
    architecture = build_architecture(config, case.sizes[:1], case.sizes[-1])
    random = np.random.default_rng(0)
    x = empty((case.batch, case.sizes[0]), np.float32)
    random.standard_normal(dtype=np.float32, out=x)
    y = random.integers(0, case.sizes[-1], case.batch)
    with threadpool_limits(THREADS):
        steps = [
            pytorch_step(case, config, architecture, x, y),
            numpy_step(config, architecture, x, y, LR),
        ]
        if with_control:
            steps.append(loop_by_hand(case, config, architecture, x, y))
        turns = math.ceil(SECONDS_PER_CASE / (TURN_SECONDS * len(steps)))
        measured = take_turns(*steps, turns=turns, turn_seconds=TURN_SECONDS)
    return [statistics.median(chain(*calls)) for calls in measured]


def loop_by_hand(
    case: Case, config: Config, architecture: Architecture, x: np.ndarray, y: np.ndarray
) -> Callable[[], None]:
    """Return a function that runs a step of a NumPy loop without nnopt: ReLU, SGD with momentum.

    Weights have the shape (inputs, outputs).
    """
    initial = initial_arrays(architecture, config.initializer, config.seed)
    parameters = [aligned(a.T) for a in initial.values()]  # w, b, w, b, ...
    velocities, updates = [[aligned(0 * p) for p in parameters] for _ in range(2)]
    gradients = [aligned(0 * p) for p in parameters]
    outputs = [empty((case.batch, size), np.float32) for size in case.sizes[1:]]
    errors = [empty((case.batch, size), np.float32) for size in case.sizes[1:-1]]
    rows = np.arange(case.batch)
    losses: list[float] = []

    def step() -> None:
        inputs = [x, *outputs[:-1]]
        for k, z in enumerate(outputs):
            np.matmul(inputs[k], parameters[2 * k], out=z)
            z += parameters[2 * k + 1]
            if k < len(outputs) - 1:
                np.maximum(z, 0, out=z)
        d = outputs[-1]  # becomes softmax(z), then dL/dz
        np.exp(np.subtract(d, d.max(axis=1, keepdims=True), out=d), out=d)
        d /= d.sum(axis=1, keepdims=True)
        losses.append(-np.log(d[rows, y]).mean())
        d[rows, y] -= 1
        d /= case.batch
        for k in reversed(range(len(outputs))):
            np.matmul(inputs[k].T, d, out=gradients[2 * k])
            np.add.reduce(d, axis=0, out=gradients[2 * k + 1])
            if k:
                d = np.matmul(d, parameters[2 * k].T, out=errors[k - 1])
                d *= inputs[k] > 0
        for w, v, g, a in zip(parameters, velocities, gradients, updates, strict=True):
            v *= 0.9
            v += g
            w -= np.multiply(v, LR, out=a)

    return step


def aligned(values: np.ndarray) -> np.ndarray:
    """Return a copy that starts on a cache line."""
    array = empty(values.shape, np.float32)
    array[...] = values
    return array


def pytorch_step(
    case: Case, config: Config, architecture: Architecture, x: np.ndarray, y: np.ndarray
) -> Step:
    """Return a function that runs a step of a hand-written PyTorch net.

    The initial weights are those of nnopt's network.
    """
    regularizer = config.regularizer
    layers: list[nn.Module] = []
    for inputs, outputs in zip(case.sizes, case.sizes[1:-1], strict=False):
        layers.append(nn.Linear(inputs, outputs, bias=regularizer.norm == "none"))
        layers += [nn.BatchNorm1d(outputs)] if regularizer.norm == "batch" else []
        layers.append(nn.ReLU())
        layers += [nn.Dropout(regularizer.dropout)] if regularizer.dropout else []
    model = nn.Sequential(*layers, nn.Linear(case.sizes[-2], case.sizes[-1]))
    initial = initial_arrays(architecture, config.initializer, config.seed)
    with torch.no_grad():
        trained = [a for name, a in initial.items() if "running_" not in name]
        for parameter, array in zip(model.parameters(), trained, strict=True):
            parameter.copy_(torch.from_numpy(array))
    if config.optimizer.name == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    return torch_step(model, optimizer, torch.from_numpy(x), torch.from_numpy(y))


if __name__ == "__main__":
    sys.exit(main())

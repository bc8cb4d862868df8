"""Time of one training step in NumPy over PyTorch eager's on the CPU.

    python benchmarks/numpy_step.py

The same net, initial weights and batch; SGD with momentum 0.9, as by default; both with 2 threads,
of which nnopt takes one for the products of small batches.
The NumPy side is nnopt's own network and optimizer (``NumpyNetwork.train_step``), the PyTorch side
a hand-written ``nn.Sequential`` with ``torch.optim`` in its default form. The two take turns, so
that a drift of the machine's speed meets both; what counts is the ratio of the medians. Exits with
1 past a bar.

The plain table has a control beside it: the same step as a short loop written for this net alone,
arrays kept between steps, no layers, records or threads but BLAS's. What that loop takes of
PyTorch's time is up to the two matrix libraries, OpenBLAS and MKL, and differs between processors.
"""

from __future__ import annotations

import nnopt  # isort: skip  # before NumPy, as the command line does: it sets OpenBLAS up

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from nnopt.architecture.builders import build
from nnopt.architecture.initializers import initial_arrays
from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.config.compose import compose_config
from nnopt.schema import Config, MlpConfig

THREADS = 2
SECONDS_PER_CASE = 8.0
TURN_SECONDS = 0.5
LR = 1e-5  # one batch, over and over: learnt by heart, its gradients would become denormal


@dataclass(frozen=True)
class Case:
    """A net by its sizes, input first and classes last, and the largest ratio allowed."""

    sizes: tuple[int, ...]
    batch: int
    bar: float


CASES = (
    Case((2, 64, 3), 32, 0.35),
    Case((784, 20, 7, 5, 10), 128, 0.6),
    Case((784, 128, 64, 10), 64, 0.7),
    Case((784, 256, 128, 10), 128, 0.95),
    Case((3072, 1024, 512, 10), 128, 1.0),
)


def main() -> int:
    """Print the tables; 1 if a bar is passed."""
    torch.set_num_threads(THREADS)
    versions = f"nnopt {nnopt.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    print(f"{versions}, {THREADS} threads")
    failed = False
    variants = [
        ("plain", [], True),
        (
            "batch norm and dropout 0.3",
            ["regularizer.norm=batch", "regularizer.dropout=0.3"],
            False,
        ),
        ("plain, Adam", ["optimizer=adam"], False),
    ]
    for title, overrides, is_plain in variants:
        last = f"{'bar':<11} loop by hand" if is_plain else ""
        print(f"\n{title}\n{'net':>20} batch {'PyTorch':>10} {'NumPy':>10}  ratio  {last}")
        for case in CASES:
            theirs, ours, *control = measure(case, overrides, is_plain)
            ratio = ours / theirs
            net = "-".join(map(str, case.sizes))
            row = f"{net:>20} {case.batch:>5} {theirs * 1e6:>7.0f} us {ours * 1e6:>7.0f} us"
            row += f"{ratio:>7.2f}  "
            if is_plain:
                missed = ratio > case.bar
                failed |= missed
                row += f"{case.bar:.2f} {'MISSED' if missed else 'ok':<6} {control[0] / theirs:.2f}"
            print(row.rstrip(), flush=True)
    return int(failed)


def measure(case: Case, overrides: list[str], with_control: bool) -> tuple[float, ...]:
    """Median seconds of a step of PyTorch's, of nnopt's and of the control, taking turns."""
    words = [f"optimizer.lr={LR}", f"backend.threads={THREADS}", "regularizer.grad_clip=0"]
    config = compose_config([*overrides, *words])
    config = replace(config, architecture=MlpConfig("mlp", case.sizes[1:-1], "relu"))
    random = np.random.default_rng(0)
    x = empty((case.batch, case.sizes[0]), np.float32)
    random.standard_normal(dtype=np.float32, out=x)
    y = random.integers(0, case.sizes[-1], case.batch)
    with threadpool_limits(THREADS):
        steps = [pytorch_step(case, config, x, y), numpy_step(case, config, x, y)]
        if with_control:
            steps.append(loop_by_hand(case, config, x, y))
        return interleave(*steps)


def interleave(*steps: Callable[[], None]) -> tuple[float, ...]:
    """Median seconds of each over all its steps, in turns of TURN_SECONDS.

    The turns are long, for the worker threads of either side go on spinning for some ten
    milliseconds after their last task and take a core from the other side meanwhile: that falls on
    the first steps of a turn, and not on the median.
    """
    times: list[list[float]] = [[] for _ in steps]
    stop = time.perf_counter() + SECONDS_PER_CASE
    while time.perf_counter() < stop:
        for step, taken in zip(steps, times, strict=True):
            end = time.perf_counter() + TURN_SECONDS
            while (started := time.perf_counter()) < end:
                step()
                taken.append(time.perf_counter() - started)
    return tuple(statistics.median(taken) for taken in times)


def numpy_step(case: Case, config: Config, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """A step of nnopt's NumPy backend; the records of an epoch's steps are read every 100."""
    network = NumpyNetwork(architecture := architecture_of(case, config), config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    count = 0

    def step() -> None:
        nonlocal count
        network.train_step(x, y, LR, count)
        count += 1
        if count % 100 == 0:
            network.read_steps()

    return step


def loop_by_hand(case: Case, config: Config, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """A step of this net and rule and of nothing else; weights (in, out), so that a @ w needs no
    turning."""
    initial = initial_arrays(architecture_of(case, config), config.initializer, config.seed)
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
    """A copy that begins on a cache line."""
    array = empty(values.shape, np.float32)
    array[...] = values
    return array


def architecture_of(case: Case, config: Config):
    """The placed layers of a case."""
    return build(config.architecture, config.regularizer, case.sizes[:1], case.sizes[-1])


def pytorch_step(case: Case, config: Config, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """A step as one writes it by hand in PyTorch."""
    regularizer = config.regularizer
    layers: list[nn.Module] = []
    for inputs, outputs in zip(case.sizes, case.sizes[1:-1], strict=False):
        layers.append(nn.Linear(inputs, outputs, bias=regularizer.norm == "none"))
        layers += [nn.BatchNorm1d(outputs)] if regularizer.norm == "batch" else []
        layers.append(nn.ReLU())
        layers += [nn.Dropout(regularizer.dropout)] if regularizer.dropout else []
    model = nn.Sequential(*layers, nn.Linear(case.sizes[-2], case.sizes[-1]))
    initial = initial_arrays(architecture_of(case, config), config.initializer, config.seed)
    with torch.no_grad():
        trained = [a for name, a in initial.items() if "running_" not in name]
        for parameter, array in zip(model.parameters(), trained, strict=True):
            parameter.copy_(torch.from_numpy(array))
    if config.optimizer.name == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    sys.exit(main())

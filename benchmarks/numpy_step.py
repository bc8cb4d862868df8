"""Time of one training step in NumPy over PyTorch eager's on the CPU.

    python benchmarks/numpy_step.py

The same net, initial weights and batch; SGD with momentum 0.9; both with 2 threads. The NumPy side
is nnopt's own network and optimizer (``NumpyNetwork.train_step``), the PyTorch side a hand-written
``nn.Sequential`` with ``torch.optim`` in its default form. The two take turns, so that a drift of
the machine's speed meets both; what counts is the ratio of the medians. Exits with 1 past a bar.
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
from nnopt.backends.numpy_scratch.memory import empty
from nnopt.backends.numpy_scratch.network import NumpyNetwork
from nnopt.compose import compose_config
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
    for title, overrides, has_bar in variants:
        print(
            f"\n{title}\n{'net':>20} {'batch':>5} {'PyTorch':>10} {'NumPy':>10} {'ratio':>6}  bar"
        )
        for case in CASES:
            theirs, ours = measure(case, overrides)
            ratio = ours / theirs
            missed = has_bar and ratio > case.bar
            failed |= missed
            bar = f"{case.bar:.2f} {'MISSED' if missed else 'ok'}" if has_bar else "-"
            net = "-".join(map(str, case.sizes))
            print(
                f"{net:>20} {case.batch:>5} {theirs * 1e6:>7.0f} us {ours * 1e6:>7.0f} us "
                f"{ratio:>6.2f}  {bar}",
                flush=True,
            )
    return int(failed)


def measure(case: Case, overrides: list[str]) -> tuple[float, float]:
    """Median seconds of a step of PyTorch's and of nnopt's, taking turns."""
    config = compose_config(
        ["optimizer=momentum", *overrides, f"optimizer.lr={LR}", f"backend.threads={THREADS}"]
    )
    config = replace(config, architecture=MlpConfig("mlp", case.sizes[1:-1], "relu"))
    random = np.random.default_rng(0)
    x = empty((case.batch, case.sizes[0]), np.float32)
    random.standard_normal(dtype=np.float32, out=x)
    y = random.integers(0, case.sizes[-1], case.batch)
    with threadpool_limits(THREADS):
        steps = pytorch_step(case, config, x, y), numpy_step(case, config, x, y)
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

"""The PyTorch backend's epoch beside hand-written PyTorch, in one process, taking turns.

    python benchmarks/torch_epoch.py [--rounds 9] [--threads 2]

plain:    shuffled index batches of float32 tensors in memory, torch.optim.SGD as it comes,
          the loss summed on the device: the loop of somebody who knows PyTorch.
tutorial: a dataset that transforms sample by sample, a DataLoader, loss.item() each step: the loop
          of most tutorials, without and with worker processes, of which the faster one counts.

Epochs beside plain take turns every 50 steps, those beside tutorial as a whole, since its workers
would go on in the backend's time. Prints the median over rounds of the ratio. Exits 1 where the
backend takes more than 1.05 of plain or 0.6 of tutorial. MNIST if NNOPT_DATA_DIR holds it,
else noise of its shape.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from nnopt.architecture.builders import build
from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.config.compose import compose_config
from nnopt.data.batches import PLAIN
from nnopt.data.dataset import Normalization, Part

MEAN, DEVIATION = 0.1307 * 255, 0.3081 * 255
CASES = [((128, 64), 64), ((256, 128), 128)]
LARGEST = {"plain": 1.05, "tutorial": 0.6}
LR, MOMENTUM = 0.05, 0.9

TURN = 50

Epoch = Callable[[], Iterator[float]]
"""One epoch; stops after every TURN steps, and at the end yields the mean loss."""


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """60,000 images (N, 1, 28, 28) uint8 and their labels (N,) int64."""
    folder = Path(os.environ.get("NNOPT_DATA_DIR", "data")) / "MNIST" / "raw"
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    if not images.exists():
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (60_000, 1, 28, 28), dtype=np.uint8)
        return x, rng.integers(0, 10, 60_000)
    x = np.fromfile(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return x, np.fromfile(labels, np.uint8, offset=8).astype(np.int64)


def ours(x: np.ndarray, y: np.ndarray, hidden: tuple[int, ...], batch: int) -> Epoch:
    """The backend, through its loader and network alone."""
    config = compose_config(
        [
            "backend=torch",
            f"architecture.hidden={list(hidden)}",
            f"batch_size={batch}",
            f"optimizer.lr={LR}",
            f"optimizer.momentum={MOMENTUM}",
            "regularizer.grad_clip=0",
        ]
    )
    architecture = build(config.architecture, config.regularizer, (1, 28, 28), 10)
    backend = load_backend("torch")
    network = backend.build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    scale = Normalization(np.array([1 / DEVIATION]), np.array([-MEAN / DEVIATION]))
    loader = backend.build_loader(Part(x, y, np.arange(len(x))), scale, config)
    rng = np.random.default_rng(0)
    steps = 0

    def epoch() -> Iterator[float]:
        nonlocal steps
        for inputs, labels in loader.train_batches(rng.permutation(len(x)), batch, PLAIN):
            network.train_step(inputs, labels, LR, steps)
            steps += 1
            if steps % TURN == 0:
                yield math.nan
        yield float(network.read_steps().losses.mean())

    return epoch


def mlp(hidden: tuple[int, ...]) -> nn.Sequential:
    """784, hidden sizes with ReLU, 10."""
    sizes = [784, *hidden]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def plain(x: np.ndarray, y: np.ndarray, hidden: tuple[int, ...], batch: int) -> Epoch:
    """Tensors in memory."""
    inputs = (torch.tensor(x).flatten(1).float() - MEAN) / DEVIATION
    labels = torch.tensor(y)
    model = mlp(hidden)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM)

    def epoch() -> Iterator[float]:
        total = torch.zeros(())
        order = torch.randperm(len(inputs))
        for step, start in enumerate(range(0, len(order), batch)):
            chosen = order[start : start + batch]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
            if step % TURN == 0:
                yield math.nan
        yield float(total) / (step + 1)

    return epoch


class Images(Dataset[tuple[Tensor, int]]):
    """Scales and normalizes one sample at a time, as torchvision's datasets do."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.tensor(self.x[index]).float() / 255
        return (image - MEAN / 255) / (DEVIATION / 255), int(self.y[index])


def tutorial(
    x: np.ndarray, y: np.ndarray, hidden: tuple[int, ...], batch: int, workers: int
) -> Epoch:
    """A DataLoader."""
    loader = DataLoader(Images(x, y), batch, shuffle=True, num_workers=workers)
    model = mlp(hidden)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM)

    def epoch() -> Iterator[float]:
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.flatten(1)), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        yield total / len(loader)

    return epoch


def race(*epochs: Epoch) -> list[float]:
    """Seconds of each epoch, the epochs taking turns."""
    running = [epoch() for epoch in epochs]
    seconds = [0.0] * len(running)
    unfinished = set(range(len(running)))
    while unfinished:
        for k in sorted(unfinished):
            start = time.perf_counter()
            if next(running[k], None) is None:
                unfinished.remove(k)
            seconds[k] += time.perf_counter() - start
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x, y = mnist()
    missed = 0
    for hidden, batch in CASES:
        data = x, y, hidden, batch
        mine, by_hand = ours(*data), plain(*data)
        loaders = {workers: tutorial(*data, workers) for workers in (0, 2)}
        race(mine, by_hand)  # both have to touch their memory once
        pairs = [race(mine, by_hand) for _ in range(arguments.rounds)]
        slow = [
            [*race(mine), min(*race(loaders[0]), *race(loaders[2]))]
            for _ in range(math.ceil(arguments.rounds / 3))
        ]
        name = "-".join(map(str, (784, *hidden, 10)))
        for other, times in (("plain", pairs), ("tutorial", slow)):
            ratio = statistics.median(a / b for a, b in times)
            verdict = "ok" if ratio <= LARGEST[other] else "TOO SLOW"
            missed += ratio > LARGEST[other]
            print(
                f"{name} batch {batch}: {statistics.median(a for a, _ in times):.3f} s an epoch, "
                f"{ratio:.2f} of {other} (at most {LARGEST[other]}) {verdict}",
                flush=True,
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

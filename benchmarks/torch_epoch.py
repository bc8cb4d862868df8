"""Compare an epoch of the PyTorch backend on MNIST with hand-written PyTorch.

    python benchmarks/torch_epoch.py [--rounds 9] [--threads 2]

plain:    an efficient loop: batches selected by shuffled indices from float32 tensors in memory,
          torch.optim.SGD with default settings, the loss summed on the device.
tutorial: the loop of most tutorials: a dataset that transforms sample by sample, a DataLoader, and
          loss.item() at each step; with no or two worker processes, whichever is faster.

The backend and plain take turns every 50 steps. The backend and tutorial take turns only after each
epoch, because worker processes would continue during the backend's turn. The ratio is the median
over rounds. Exits with 1 if the backend takes more than 1.05 times plain's time or 0.6 times
tutorial's. The images are noise if NNOPT_DATA_DIR does not contain MNIST.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from timing import Table, machine_line, paired_ratio
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from workloads import TURN_STEPS, Epoch, backend_epoch, make_dataset, race, tutorial_epoch

from nnopt.config.compose import compose_config

MEAN, DEVIATION = 0.1307 * 255, 0.3081 * 255
CASES = [((128, 64), 64), ((256, 128), 128)]
LARGEST_RATIOS = {"plain": 1.05, "tutorial": 0.6}
LR, MOMENTUM = 0.05, 0.9


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine_line()}; {options.threads} threads")
    x, y = mnist()
    table = Table("net, batch", "reference", "epoch", "backend", "ratio", label_width=22)
    for hidden, batch in CASES:
        ours, by_hand = backend(x, y, hidden, batch), plain(x, y, hidden, batch)
        loaders = [tutorial(x, y, hidden, batch, workers) for workers in (0, 2)]
        race(ours, by_hand)  # the first epoch allocates memory
        measured = {
            "plain": [race(ours, by_hand) for _ in range(options.rounds)],
            "tutorial": [
                [*race(ours), min(race(loader)[0] for loader in loaders)]
                for _ in range(math.ceil(options.rounds / 3))
            ],
        }
        for name, pairs in measured.items():
            mine, theirs = zip(*pairs, strict=True)
            ratio = paired_ratio(mine, theirs)
            times = (f"{statistics.median(seconds):.3f} s" for seconds in (theirs, mine))
            label = f"{'-'.join(map(str, (784, *hidden, 10)))}, {batch}"
            target = LARGEST_RATIOS[name]
            table.row(label, name, *times, f"{ratio:.2f}", value=ratio, at_most=target)
    return int(table.missed)


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Return 60,000 images (N, 1, 28, 28) uint8 and their labels (N,) int64."""
    folder = Path(os.environ.get("NNOPT_DATA_DIR", "data")) / "MNIST" / "raw"
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    if not images.exists():
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (60_000, 1, 28, 28), dtype=np.uint8)
        return x, random.integers(0, 10, 60_000)
    x = np.fromfile(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return x, np.fromfile(labels, np.uint8, offset=8).astype(np.int64)


def backend(x: np.ndarray, y: np.ndarray, hidden: tuple[int, ...], batch: int) -> Epoch:
    """Return a function that runs an epoch of nnopt's PyTorch backend."""
    overrides = ["backend=torch", f"architecture.hidden={list(hidden)}", f"batch_size={batch}"]
    overrides += [f"optimizer.lr={LR}", f"optimizer.momentum={MOMENTUM}", "regularizer.grad_clip=0"]
    dataset = make_dataset(x, y, np.array([MEAN]), np.array([DEVIATION]))
    return backend_epoch(compose_config(overrides), dataset, LR)


def mlp(hidden: tuple[int, ...]) -> nn.Sequential:
    """Return a net with 784 inputs, hidden layers of these sizes with ReLU, and 10 outputs."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise([784, *hidden]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 10))


def plain(x: np.ndarray, y: np.ndarray, hidden: tuple[int, ...], batch: int) -> Epoch:
    """Return a function that runs an epoch of an efficient hand-written loop."""
    inputs = (torch.tensor(x).flatten(1).float() - MEAN) / DEVIATION
    labels = torch.tensor(y)
    model = mlp(hidden)[1:]
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
            if step % TURN_STEPS == 0:
                yield math.nan
        yield float(total) / (step + 1)

    return epoch


class Images(Dataset[tuple[Tensor, int]]):
    """A dataset that scales and normalizes one sample at a time, as torchvision's datasets do."""

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
    """Return a function that runs an epoch of the loop of most tutorials."""
    model = mlp(hidden)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM)
    loader = DataLoader(Images(x, y), batch, shuffle=True, num_workers=workers)
    return tutorial_epoch(loader, model, optimizer)


if __name__ == "__main__":
    sys.exit(main())

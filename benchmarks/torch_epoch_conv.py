"""Training on images with the PyTorch backend beside hand-written PyTorch, in one process.

    pip install -c constraints.txt torchvision
    python benchmarks/torch_epoch_conv.py [KEY=VALUE ...] [--rounds 5] [--images 6400]

best:     the loop of somebody who knows PyTorch well: images resident on the device, augmentation
          as one gather a batch, channels last, a fused optimizer, losses read at the end.
tutorial: the loop of most tutorials: torchvision's transforms on one image at a time, a DataLoader
          with 2 workers, the default layout and optimizer, loss.item() at each step.

All three train the same net on CIFAR-10, with random crops and flips, in batches of 64, over so
many images a round, taking turns. Prints the median over rounds of the ratio. Exits 1 where the
backend takes more than 1.03 of best or 0.8 of tutorial. CIFAR-10 if NNOPT_DATA_DIR holds it, else
noise of its shape. KEY=VALUE: settings of the backend, such as backend.compile=default; with
backend.device=cuda the others train there too. They are neither compiled nor in 16 bits, whatever
the backend is told: beside such settings "best" shows what these bring.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nnopt.architecture.builders import build
from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.config.compose import compose_config
from nnopt.data.batches import draw_augmentation
from nnopt.data.dataset import Dataset as Samples
from nnopt.data.dataset import Normalization, Part

BATCH, PAD, SIDE = 64, 4, 32
LR, MOMENTUM = 0.01, 0.9
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
LARGEST = {"best": 1.03, "tutorial": 0.8}

Epoch = Callable[[], float]
"""Train on every image once; the mean loss."""


def conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution and batch norm."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]


def vgg() -> nn.Sequential:
    """What ``architecture=vgg regularizer.norm=batch`` is."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [*conv(inputs, outputs), nn.ReLU(), *conv(outputs, outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(2048, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, 10))


class Block(nn.Module):
    """A basic residual block (He et al. 2016, section 4.2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv(inputs, outputs, stride), nn.ReLU(), *conv(outputs, outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def resnet() -> nn.Sequential:
    """What ``architecture=resnet regularizer.norm=batch`` is: 20 layers."""
    layers: list[nn.Module] = [*conv(3, 16), nn.ReLU()]
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        layers += [Block(inputs, outputs, outputs // inputs)]
        layers += [Block(outputs, outputs, 1) for _ in range(2)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pool, nn.Linear(64, 10))


MODELS = {"vgg": vgg, "resnet": resnet}


def cifar10(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64."""
    folder = Path(os.environ.get("NNOPT_DATA_DIR", "data")) / "cifar-10-batches-bin"
    if not folder.exists():
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
        return x, rng.integers(0, 10, count)
    rows = np.fromfile(folder / "data_batch_1.bin", np.uint8).reshape(-1, 3073)[:count]
    return rows[:, 1:].reshape(-1, 3, SIDE, SIDE).copy(), rows[:, 0].astype(np.int64)


def ours(name: str, x: np.ndarray, y: np.ndarray, settings: list[str]) -> Epoch:
    """The backend, through its loader and network."""
    config = compose_config(
        [
            "dataset=cifar10",
            "backend=torch",
            f"architecture={name}",
            "regularizer.norm=batch",
            f"regularizer.augmentation.crop={PAD}",
            "regularizer.augmentation.flip=true",
            f"batch_size={BATCH}",
            f"optimizer.lr={LR}",
            f"optimizer.momentum={MOMENTUM}",
            "regularizer.grad_clip=0",
            *settings,
        ]
    )
    architecture = build(config.architecture, config.regularizer, x.shape[1:], 10)
    backend = load_backend("torch")
    network = backend.build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    deviation = np.array(DEVIATION)
    scale = Normalization(1 / (255 * deviation), -np.array(MEAN) / deviation)
    part = Part(x, y, np.arange(len(x)))
    samples = Samples("cifar10", tuple("0123456789"), part, None, part, scale, {})
    loader = backend.build_loader(part, scale, config)
    rng = np.random.default_rng(0)
    steps = epochs = 0

    def epoch() -> float:
        nonlocal steps, epochs
        epochs += 1
        augmentation = draw_augmentation(config, samples, epochs, len(x))
        for inputs, labels in loader.train_batches(rng.permutation(len(x)), BATCH, augmentation):
            network.train_step(inputs, labels, LR, steps)
            steps += 1
        return float(network.read_steps().losses.mean())

    return epoch


def best(name: str, x: np.ndarray, y: np.ndarray, device: str) -> Epoch:
    """Resident data, channels last from the start."""
    images = (torch.tensor(x).permute(0, 2, 3, 1) / 255 - torch.tensor(MEAN)) / torch.tensor(
        DEVIATION
    )
    padded = F.pad(images, (0, 0, PAD, PAD, PAD, PAD)).to(device)
    labels = torch.tensor(y, device=device)
    model = MODELS[name]().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, fused=True)
    across = torch.arange(SIDE, device=device)

    def augmented(chosen: Tensor) -> Tensor:
        top, left = torch.randint(0, 2 * PAD + 1, (2, len(chosen), 1), device=device)
        flip = torch.rand(len(chosen), 1, device=device) < 0.5
        rows, columns = across + top, torch.where(flip, across.flip(0), across) + left
        cut = padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cut.permute(0, 3, 1, 2)  # (N, C, H, W), in memory (N, H, W, C)

    def epoch() -> float:
        losses = []
        for chosen in torch.randperm(len(padded), device=device).split(BATCH):
            loss = F.cross_entropy(model(augmented(chosen)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    return epoch


class Images(Dataset[tuple[Tensor, int]]):
    """One image at a time, as torchvision's own dataset of CIFAR-10."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x.transpose(0, 2, 3, 1).copy(), y
        self.transform = v2.Compose(
            [
                v2.RandomCrop(SIDE, PAD),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(v2.functional.to_pil_image(self.x[index])), int(self.y[index])


def tutorial(name: str, x: np.ndarray, y: np.ndarray, device: str) -> Epoch:
    """A DataLoader; its workers live on, so that a short round does not pay for their start."""
    loader = DataLoader(Images(x, y), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    model = MODELS[name]().to(device)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM)

    def epoch() -> float:
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / len(loader)

    return epoch


def main() -> int:
    """Print the table; 1 if a bar is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, y = cifar10(options.images)
    device = compose_config(["backend=torch", *options.settings]).backend.device
    missed = False
    print(f"{'net':>8} {'beside':>9} {'theirs':>9} {'backend':>9} {'ratio':>6}  bar")
    for name in MODELS:
        by_hand = [make(name, x, y, device) for make in (best, tutorial)]
        epochs = [ours(name, x, y, options.settings), *by_hand]
        for epoch in epochs:  # first touch of memory, start of workers
            epoch()
        seconds: list[list[float]] = []
        for _ in range(options.rounds):
            seconds.append([])
            for epoch in epochs:
                started = time.perf_counter()
                epoch()
                seconds[-1].append(time.perf_counter() - started)
        for column, (other, largest) in enumerate(LARGEST.items(), start=1):
            ratio = statistics.median(row[0] / row[column] for row in seconds)
            theirs, mine = (statistics.median(row[k] for row in seconds) for k in (column, 0))
            missed |= ratio > largest
            verdict = "ok" if ratio <= largest else "MISSED"
            print(
                f"{name:>8} {other:>9} {theirs:>7.2f} s {mine:>7.2f} s {ratio:>6.2f}  "
                f"{largest} {verdict}",
                flush=True,
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

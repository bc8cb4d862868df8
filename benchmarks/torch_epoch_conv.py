"""Compare the training time of the PyTorch backend and of hand-written PyTorch on images.

    pip install -c constraints.txt torchvision
    python benchmarks/torch_epoch_conv.py [KEY=VALUE ...] [--rounds 5] [--images 6400]

best:     a highly efficient loop: images resident on the device, augmentation as one gather per
          batch, channels last, a fused optimizer, losses read at the end.
tutorial: the loop of most tutorials: torchvision's transforms on one image at a time, a DataLoader
          with 2 workers, the default layout and optimizer, loss.item() at each step.

The backend and both loops train the same net on CIFAR-10, with random crops and flips, in batches
of 64. They take turns; each turn is one epoch of ``--images`` images. The ratio is the median over
rounds. Exits with 1 if the backend takes more than 1.03 times best's time or 0.8 times tutorial's.
The images are noise if NNOPT_DATA_DIR does not contain CIFAR-10.

KEY=VALUE are overrides for the backend, such as backend.compile=default. With backend.device=cuda
both loops use the GPU too, but they are never compiled and always use float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import Table, alternate, machine_line, paired_ratio
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from workloads import Epoch, backend_epoch, make_dataset, race, tutorial_epoch

from nnopt.config.compose import compose_config

BATCH, PAD, SIDE = 64, 4, 32
LR, MOMENTUM = 0.01, 0.9
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
LARGEST_RATIOS = {"best": 1.03, "tutorial": 0.8}


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine_line()}; {options.threads} threads")
    x, y = cifar10(options.images)
    device = compose_config(["backend=torch", *options.overrides]).backend.device
    table = Table("net", "reference", "epoch", "backend", "ratio", label_width=8)
    for name in MODELS:
        epochs = {
            "backend": backend(name, x, y, options.overrides),
            "best": best(name, x, y, device),
            "tutorial": tutorial(name, x, y, device),
        }
        races = {key: partial(race, epoch) for key, epoch in epochs.items()}
        measured = alternate(races, options.rounds, warmup=1)  # warm-up: starts the workers
        seconds = {key: [taken for (taken,) in results] for key, results in measured.items()}
        for key, target in LARGEST_RATIOS.items():
            ratio = paired_ratio(seconds["backend"], seconds[key])
            times = (f"{statistics.median(seconds[k]):.2f} s" for k in (key, "backend"))
            table.row(name, key, *times, f"{ratio:.2f}", value=ratio, at_most=target)
    return int(table.missed)


def conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Return a 3x3 convolution and batch norm."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]


def vgg() -> nn.Sequential:
    """Return the net of ``architecture=vgg regularizer.norm=batch``."""
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
    """Return the net of ``architecture=resnet regularizer.norm=batch``, with 20 layers."""
    layers: list[nn.Module] = [*conv(3, 16), nn.ReLU()]
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        layers += [Block(inputs, outputs, outputs // inputs)]
        layers += [Block(outputs, outputs, 1) for _ in range(2)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pool, nn.Linear(64, 10))


MODELS = {"vgg": vgg, "resnet": resnet}


def cifar10(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 3, 32, 32) uint8 and labels (N,) int64."""
    folder = Path(os.environ.get("NNOPT_DATA_DIR", "data")) / "cifar-10-batches-bin"
    if not folder.exists():
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
        return x, random.integers(0, 10, count)
    rows = np.fromfile(folder / "data_batch_1.bin", np.uint8).reshape(-1, 3073)[:count]
    return rows[:, 1:].reshape(-1, 3, SIDE, SIDE).copy(), rows[:, 0].astype(np.int64)


def backend(name: str, x: np.ndarray, y: np.ndarray, overrides: list[str]) -> Epoch:
    """Return a function that runs an epoch of nnopt's PyTorch backend."""
    fixed = ["dataset=cifar10", "backend=torch", f"architecture={name}", "regularizer.norm=batch"]
    fixed += [f"regularizer.augmentation.crop={PAD}", "regularizer.augmentation.flip=true"]
    fixed += [f"batch_size={BATCH}", f"optimizer.lr={LR}", f"optimizer.momentum={MOMENTUM}"]
    config = compose_config([*fixed, "regularizer.grad_clip=0", *overrides])
    mean, deviation = (255 * np.array(values) for values in (MEAN, DEVIATION))
    return backend_epoch(config, make_dataset(x, y, mean, deviation), LR)


def best(name: str, x: np.ndarray, y: np.ndarray, device: str) -> Epoch:
    """Return a function that runs an epoch of an efficient hand-written loop."""
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    images = (torch.tensor(x).permute(0, 2, 3, 1) / 255 - mean) / deviation
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

    def epoch() -> Iterator[float]:
        losses = []
        for chosen in torch.randperm(len(padded), device=device).split(BATCH):
            loss = F.cross_entropy(model(augmented(chosen)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        yield float(torch.stack(losses).mean())

    return epoch


class Images(Dataset[tuple[Tensor, int]]):
    """A dataset that transforms one image at a time, as torchvision's dataset of CIFAR-10 does."""

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
    """Return a function that runs an epoch of the loop of most tutorials.

    The workers of the loader persist between epochs.
    """
    model = MODELS[name]().to(device)
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM)
    loader = DataLoader(Images(x, y), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    return tutorial_epoch(loader, model, optimizer, device)


if __name__ == "__main__":
    sys.exit(main())

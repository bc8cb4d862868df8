"""Functions that run training steps and epochs of nnopt and of hand-written PyTorch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nnopt.architecture.builders import build
from nnopt.architecture.network import Architecture
from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.data.batches import draw_augmentation
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.schema import Config

Step = Callable[[], None]

Epoch = Callable[[], Iterator[float]]
"""A function that runs an epoch. It may yield NaN at the end of each turn, and yields the mean loss
at the end of the epoch."""

TURN_STEPS = 50

READ_EVERY = 100
"""Steps between two reads of the loss and accuracy that the NumPy backend has recorded."""


def build_architecture(config: Config, shape: tuple[int, ...], classes: int = 10) -> Architecture:
    """Return the configured architecture. ``shape`` is that of one sample, without a batch axis."""
    return build(config.architecture, config.regularizer, shape, classes)


def numpy_step(
    config: Config, architecture: Architecture, x: np.ndarray, y: np.ndarray, lr: float
) -> Step:
    """Return a function that runs a step of nnopt's NumPy backend.

    Every 100 steps, the function reads the recorded losses.
    """
    network = NumpyNetwork(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    count = 0

    def step() -> None:
        nonlocal count
        network.train_step(x, y, lr, count)
        count += 1
        if count % READ_EVERY == 0:
            network.read_steps()

    return step


def torch_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Step:
    """Return a function that runs a step of a usual hand-written PyTorch loop."""

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def make_dataset(x: np.ndarray, y: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Dataset:
    """Return a dataset of images ``x`` (N, C, H, W) uint8 with ten classes.

    ``mean`` and ``std`` are those of the channels, for pixels in 0..255.
    """
    part = Part(x, y, np.arange(len(x)))
    scale = Normalization(1 / std, -mean / std)
    return Dataset("images", tuple("0123456789"), part, None, part, scale, {})


def backend_epoch(config: Config, dataset: Dataset, lr: float) -> Epoch:
    """Return a function that runs an epoch of the configured backend.

    The function uses only the backend's loader and network.
    """
    architecture = build_architecture(config, dataset.input_shape)
    backend = load_backend(config.backend.name)
    network = backend.build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    loader = backend.build_loader(dataset.train, dataset.normalization, config)
    random = np.random.default_rng(0)
    count, steps, epochs = len(dataset.train), 0, 0

    def epoch() -> Iterator[float]:
        nonlocal steps, epochs
        epochs += 1
        augmentation = draw_augmentation(config, dataset, epochs, count)
        order = random.permutation(count)
        for x, y in loader.train_batches(order, config.batch_size, augmentation):
            network.train_step(x, y, lr, steps)
            steps += 1
            if steps % TURN_STEPS == 0:
                yield math.nan
        yield float(network.read_steps().losses.mean())

    return epoch


def tutorial_epoch(
    loader: DataLoader, model: nn.Module, optimizer: torch.optim.Optimizer, device: str = "cpu"
) -> Epoch:
    """Return a function that runs an epoch as in most tutorials.

    The epoch uses a DataLoader, and calls loss.item() at each step.
    """

    def epoch() -> Iterator[float]:
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()
        yield total / len(loader)

    return epoch


def race(*epochs: Epoch) -> list[float]:
    """Run epochs that take turns whenever they yield; return the seconds of each epoch."""
    running = [epoch() for epoch in epochs]
    seconds = [0.0] * len(running)
    unfinished = set(range(len(running)))
    while unfinished:
        for k in sorted(unfinished):
            started = time.perf_counter()
            if next(running[k], None) is None:
                unfinished.remove(k)
            seconds[k] += time.perf_counter() - started
    return seconds

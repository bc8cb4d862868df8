"""Measured times of a training step and of a prediction, before and after units are removed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.backends import load_backend
from nnopt.backends.protocol import DeviceArray, Network
from nnopt.data.batches import PLAIN
from nnopt.data.dataset import Dataset, Part
from nnopt.recipe.prepare import norms_over_batch
from nnopt.schema import Config

BATCH_SIZES = (1, 1024)
MIN_TURNS, MAX_TURNS, SECONDS, MAX_SECONDS = 3, 200, 0.3, 5.0
"""The networks take at least 3 and at most 200 turns: until 0.3 s have passed, at most 5 s."""

MAX_ACTIVATIONS = 2**28
"""Maximum number of elements of all layers' outputs for a batch: 1 GB in float32."""

LEARNING_RATE = 1e-8
"""A learning rate so small that the weights stay in the usual range."""

Arrays = Mapping[str, NDArray[Any]]


def measured_speed(
    config: Config,
    dataset: Dataset,
    before: tuple[Architecture, Arrays],
    after: tuple[Architecture, Arrays],
    threads: int,
) -> list[dict[str, Any]]:
    """Measure the network before and after pruning in turns, with training samples as the input.

    Args:
        config: The configuration of the run.
        dataset: The dataset of the run.
        before: The architecture and the weights of the network before pruning.
        after: The architecture and the weights of the network after pruning.
        threads: The number of threads of both networks.

    Returns:
        One entry for each batch size: ``batch_size``, ``threads``, the median seconds of a step and
        of a prediction of each network, and the ratio of these medians. A batch is left out if its
        activations need too much memory. The entries of the step are None if a batch norm cannot
        compute the variance of the batch.
    """
    backend = replace(config.backend, threads=threads)
    config = replace(config, backend=backend, accumulation_steps=1)
    rows = []
    for size in BATCH_SIZES:
        if size * _activations(before[0]) > MAX_ACTIVATIONS:
            continue
        at_size = replace(config, batch_size=size)
        networks = [_network(at_size, *each) for each in (before, after)]
        x, y = _batch(at_size, dataset, size)
        predict = _times([partial(network.predict, x) for network in networks])
        step: tuple[float | None, float | None] = (None, None)
        if size > 1 or not norms_over_batch(before[0]):
            step = _times([_step(network, x, y) for network in networks])
        row: dict[str, Any] = {"batch_size": size, "threads": threads}
        for name, (slow, fast) in {"step": step, "predict": predict}.items():
            row[f"{name}_seconds_before"], row[f"{name}_seconds_after"] = slow, fast
            row[f"{name}_speedup"] = None if slow is None or fast is None else slow / fast
        rows.append(row)
    return rows


def _network(config: Config, architecture: Architecture, arrays: Arrays) -> Network:
    network = load_backend(config.backend.name).build_network(architecture, config)
    network.load(arrays)
    return network


def _batch(config: Config, dataset: Dataset, size: int) -> tuple[DeviceArray, DeviceArray]:
    """Return a batch of training samples, repeated if there are too few."""
    train = dataset.train
    part = Part(train.inputs, train.labels, np.resize(train.rows, size))
    loader = load_backend(config.backend.name).build_loader(part, dataset.normalization, config)
    return next(iter(loader.train_batches(np.arange(size), size, PLAIN)))


def _step(network: Network, x: DeviceArray, y: DeviceArray) -> Callable[[], object]:
    """Return a function that runs a training step and waits for its end."""

    def step() -> object:
        network.train_step(x, y, LEARNING_RATE, 0)
        return network.read_steps()

    return step


def _times(functions: Sequence[Callable[[], object]]) -> tuple[float, float]:
    """Return the median seconds of two functions that are called in turns."""
    seconds: list[list[float]] = [[], []]
    for function in functions:
        function()  # the first call allocates memory
    start = time.perf_counter()
    for turn in range(MAX_TURNS):
        passed = time.perf_counter() - start
        if passed > (SECONDS if turn >= MIN_TURNS else MAX_SECONDS) and turn:
            break
        for function, times in zip(functions, seconds, strict=True):
            started = time.perf_counter()
            function()
            times.append(time.perf_counter() - started)
    before, after = map(statistics.median, seconds)
    return before, after


def _activations(architecture: Architecture) -> int:
    """Return the number of elements of the outputs of all layers for one sample."""
    return sum(math.prod(layer.output_shape) for layer in architecture.walk())

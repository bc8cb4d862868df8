"""Everything that can be refused before a run has a folder: device, data, architecture, batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnopt import data
from nnopt.architecture.builders import build
from nnopt.architecture.layers import BatchNorm
from nnopt.architecture.network import Architecture
from nnopt.backends import load_backend
from nnopt.data.dataset import Dataset
from nnopt.errors import ConfigError
from nnopt.schema import Config
from nnopt.training.loop import Length


@dataclass(frozen=True)
class Prepared:
    """What a run works on."""

    dataset: Dataset
    architecture: Architecture
    length: Length


def prepare(config: Config) -> Prepared:
    """Load the data and place the layers.

    Raises ConfigError (device absent, layers that do not fit, impossible batches) or DataError.
    """
    if problems := load_backend(config.backend.name).check_backend(config):
        raise ConfigError(problems)
    dataset = data.load(config.dataset, config.data, config.seed)
    architecture = build(
        config.architecture, config.regularizer, dataset.input_shape, len(dataset.classes)
    )
    if problems := _problems(config, dataset, architecture):
        raise ConfigError(problems)
    return Prepared(dataset, architecture, Length.of(config, len(dataset.train)))


def _problems(config: Config, dataset: Dataset, architecture: Architecture) -> list[str]:
    """Combinations of the configuration with the data that cannot work."""
    samples, size = len(dataset.train), config.batch_size
    if config.last_batch == "drop" and samples < size:
        return [
            f"batch_size = {size} with last_batch = 'drop' leaves no batch of {samples} training "
            "samples; set last_batch=keep or a smaller batch_size"
        ]
    length = Length.of(config, samples)
    most = config.epochs * length.steps_per_epoch
    problems = []
    if config.steps is not None and config.steps > most:
        problems.append(
            f"steps = {config.steps} is more than the {most} steps of epochs = {config.epochs}; "
            f"set epochs={math.ceil(config.steps / length.steps_per_epoch)}"
        )
    warmup = round(config.schedule.warmup * length.steps_per_epoch)
    if warmup > length.steps:
        problems.append(
            f"schedule.warmup = {config.schedule.warmup:g} epochs are {warmup} steps, longer than "
            f"the whole training of {length.steps} steps"
        )
    norms = [  # those that have the batch alone to take a variance of
        x.name
        for x in architecture.walk()
        if isinstance(x.record, BatchNorm) and math.prod(x.input_shape[1:]) == 1
    ]
    last = samples % size if config.last_batch == "keep" else 0
    if norms and (size == 1 or last == 1):
        mend = f"batch_size={size + 1}" if size == 1 else "last_batch=drop or another batch_size"
        problems.append(
            f"batch_size = {size} with {samples} training samples leaves a batch of 1, which batch "
            f"normalization ({norms[0]}) cannot take the variance of; set {mend}"
        )
    augmentation = config.regularizer.augmentation
    if not dataset.is_image and (augmentation.crop or augmentation.flip or augmentation.cutout):
        problems.append(
            f"regularizer.augmentation needs images, but the samples of {dataset.name} have the "
            f"shape {dataset.input_shape}"
        )
    if dataset.is_image and augmentation.cutout > (side := min(dataset.input_shape[1:])):
        problems.append(
            f"regularizer.augmentation.cutout = {augmentation.cutout} is larger than the images of "
            f"{dataset.name}, whose shorter side has {side} pixels; set at most {side}"
        )
    return problems

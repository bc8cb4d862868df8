"""Checks before a run creates its folder: device, packages, data, architecture and batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from nnopt import data
from nnopt.architecture.layers import BatchNorm
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.architecture.whitening import whitening_problems
from nnopt.backends import load_backend
from nnopt.backends.models import build_architecture
from nnopt.config.rules import made_for_images
from nnopt.data.batches import batch_parts
from nnopt.data.dataset import Dataset
from nnopt.data.published import PUBLISHED
from nnopt.data.split import chosen_classes, training_samples
from nnopt.data.synthetic import class_names, part_sizes
from nnopt.errors import ConfigError, Problems
from nnopt.pruning.schedule import ScheduleClock
from nnopt.pruning.schedule import schedule_problems as pruning_schedule_problems
from nnopt.random import generator
from nnopt.recipe.pruning_checks import pruning_problems
from nnopt.schema import Config, CsvConfig, DatasetVariant, ImageConfig, MuonConfig
from nnopt.schema.tables import COMPONENTS, table
from nnopt.training.averaging import first_swa_epoch
from nnopt.training.length import Length
from nnopt.training.schedules import schedule_problems


@dataclass(frozen=True)
class Prepared:
    """The data, the architecture and the length of a training."""

    dataset: Dataset
    architecture: Architecture
    length: Length


@dataclass(frozen=True)
class DataShape:
    """The properties of a dataset on which the network and its training depend.

    ``input_shape`` is the shape of one sample, (C, H, W) or (D,). ``samples`` is the number of
    training samples, or None if it is not known before the data files are read.
    """

    dataset: str
    input_shape: tuple[int, ...]
    classes: int
    samples: int | None


@dataclass(frozen=True)
class Planned:
    """The properties of a training that are known before its data are read."""

    shape: DataShape
    architecture: Architecture
    length: Length | None  # None if the number of training samples is not known


def prepare(config: Config, trains: bool = True) -> Prepared:
    """Load the data and infer the shapes of the layers.

    Optional packages and the training length are checked only if ``trains`` is True. Raises
    ConfigError if the device is not available, the layers do not fit the data, or the batch sizes
    are invalid, and DataError if a file with data or published weights is missing or damaged.
    """
    _check_backend(config)
    if trains:
        _check_optional_packages(config)
    dataset = data.load(config.dataset, config.data, config.seed, config.backend.dtype)
    samples = len(dataset.train)
    shape = DataShape(dataset.name, dataset.input_shape, len(dataset.classes), samples)
    architecture = _fit(config, shape, trains)
    if isinstance(architecture, ModuleArchitecture) and architecture.model.pretrained:
        from nnopt.backends.torch.vision import published_weights

        published_weights(architecture.model.model, config.data.download)
    return Prepared(dataset, architecture, Length.of(config, samples))


def prepare_without_data(config: Config, trains: bool = True) -> Planned | None:
    """Infer the shapes of the layers and the length without reading or generating data.

    Return None for a CSV dataset, whose shape is only known from its file. ``trains``: see
    ``prepare``. Raises ConfigError with those problems of ``prepare`` that do not depend on the
    files, and DataError if the samples are too few to be split.
    """
    _check_backend(config)
    if trains:
        _check_optional_packages(config)
    shape = known_shape(config.dataset)
    if shape is None:
        return None
    architecture = _fit(config, shape, trains)
    length = None if shape.samples is None else Length.of(config, shape.samples)
    return Planned(shape, architecture, length)


def known_shape(dataset: DatasetVariant) -> DataShape | None:
    """Return the properties of a dataset; None if only its files or its plug-in determine them.

    Raises ConfigError for unknown classes or a too large subset, and DataError; see
    ``training_samples``.
    """
    if isinstance(dataset, CsvConfig) or ("dataset", dataset.name) in COMPONENTS:
        return None
    if isinstance(dataset, ImageConfig):
        published = PUBLISHED[dataset.name]
        classes = len(chosen_classes(published.classes, dataset.classes))
        samples = training_samples(dataset, published.parts)
        return DataShape(dataset.name, published.shape, classes, samples)
    samples = training_samples(dataset, part_sizes(dataset))
    return DataShape(dataset.name, (2,), len(class_names(dataset)), samples)


def planned_length(config: Config, steps_per_epoch: int | None = None) -> Length | None:
    """Return the length of a training without reading data; None if it depends on the files.

    By default, the number of steps per epoch follows from the number of training samples. Raises
    ConfigError if the schedule does not fit the length, and DataError; see ``training_samples``.
    """
    if steps_per_epoch is not None:
        length = Length.of_steps(config, steps_per_epoch)
    else:
        shape = known_shape(config.dataset)
        samples = training_samples(config.dataset, {}) if shape is None else shape.samples
        if samples is None:
            return None
        Problems(_drop_last_problems(config, samples)).check()
        length = Length.of(config, samples)
    Problems(_length_problems(config, length)).check()
    return length


def _check_backend(config: Config) -> None:
    """Raise ConfigError if the backend or its device is not available."""
    if problems := load_backend(config.backend.name).check_backend(config):
        raise ConfigError(problems)


def _check_optional_packages(config: Config) -> None:
    """Raise ConfigError if a key needs a package that is not installed.

    The packages are not imported, because imports are slow.
    """
    problems = []
    if config.tensorboard and find_spec("tensorboard") is None:
        problems.append(
            "tensorboard = True needs the package tensorboard, which is not installed; run: "
            "pip install 'nnopt[tensorboard]', or set tensorboard=false"
        )
    if config.progress == "curves" and find_spec("plotext") is None:
        problems.append(
            "progress = 'curves' needs the package plotext, which is not installed; run: "
            "pip install 'nnopt[curves]', or set progress=bar"
        )
    if problems:
        raise ConfigError(problems)


def _fit(config: Config, shape: DataShape, trains: bool = True) -> Architecture:
    """Build the architecture. Raise ConfigError if the configuration does not fit the data."""
    architecture = build_architecture(
        config.architecture, config.regularizer, shape.input_shape, shape.classes
    )
    problems = [*image_problems(config, shape), *_muon_problems(config, architecture)]
    problems += pruning_problems(config.pruning, architecture)
    if config.initializer.input == "whitening":
        problems += whitening_problems(architecture, shape.samples)
    if shape.samples is not None:
        problems = [*_batch_problems(config, shape.samples, architecture, trains), *problems]
    if problems:
        raise ConfigError(problems)
    if config.plugins:
        load_backend(config.backend.name).try_components(architecture, config)
        _try_metrics(config, shape.classes)
    return architecture


def _try_metrics(config: Config, classes: int) -> None:
    """Compute the metrics of plug-ins for random logits. Raises ConfigError if one is faulty."""
    labels = np.arange(4 * classes) % classes
    logits = generator(0, "gradcheck").standard_normal((len(labels), classes))
    for name in config.evaluation.metrics:
        table("metric")[name](logits, labels)


def _length_problems(config: Config, length: Length) -> list[str]:
    most = config.epochs * length.steps_per_epoch
    problems = []
    if config.max_steps is not None and config.max_steps > most:
        problems.append(
            f"max_steps = {config.max_steps} is more than the {most} steps of epochs = "
            f"{config.epochs}; set epochs={math.ceil(config.max_steps / length.steps_per_epoch)}"
        )
    warmup = round(config.schedule.warmup_epochs * length.steps_per_epoch)
    if warmup > length.steps:
        problems.append(
            f"schedule.warmup_epochs = {config.schedule.warmup_epochs:g} epochs are {warmup} "
            f"steps, longer than the whole training of {length.steps} steps; set a smaller value"
        )
    swa = config.regularizer.swa_start
    if swa and first_swa_epoch(swa, length.epochs) == length.epochs:
        problems.append(
            f"regularizer.swa_start = {swa:g} averages only the weights after the last of "
            f"{length.epochs} epochs; set a smaller value or more epochs"
        )
    lengths = length.epochs, length.steps_per_epoch, length.steps
    of_pruning = list(pruning_schedule_problems(config.pruning, *lengths))
    if warmup <= length.steps and not of_pruning:
        clock = ScheduleClock(config.pruning, length.epochs, length.steps_per_epoch)
        steps = clock.length(length.steps)
        problems += schedule_problems(config.schedule, length.steps_per_epoch, steps)
    return [*problems, *of_pruning]


def _drop_last_problems(config: Config, samples: int) -> list[str]:
    size = config.batch_size
    if not config.drop_last or samples >= size:
        return []
    return [
        f"batch_size = {size} with drop_last = True leaves no batch, because there are only "
        f"{samples} training samples; set drop_last=false or a smaller batch_size"
    ]


def _batch_problems(
    config: Config, samples: int, architecture: Architecture, trains: bool
) -> list[str]:
    if problems := _drop_last_problems(config, samples):
        return problems
    size = config.batch_size
    problems = _length_problems(config, Length.of(config, samples)) if trains else []
    norms = norms_over_batch(architecture)
    last = samples % size if not config.drop_last else 0
    if norms and (size == 1 or last == 1):
        mend = "a larger batch_size" if size == 1 else "drop_last=true or another batch_size"
        problems.append(
            f"batch_size = {size} with {samples} training samples leaves a batch of 1; batch "
            f"normalization ({norms[0]}) cannot compute the variance of one sample; set {mend}"
        )
    elif norms and (count := _cut_to_one(config, (size if samples >= size else 0, last))):
        problems.append(
            f"accumulation_steps = {config.accumulation_steps} with batch_size = {size} splits a "
            f"batch of {count} into parts, one of them of 1 sample; batch normalization "
            f"({norms[0]}) cannot compute its variance; set a smaller accumulation_steps"
        )
    return problems


def norms_over_batch(architecture: Architecture) -> list[str]:
    """Return the names of the batch norms that compute variances over the batch axis only."""
    return [
        x.name
        for x in architecture.walk()
        if isinstance(x.record, BatchNorm) and math.prod(x.input_shape[1:]) == 1
    ]


def _cut_to_one(config: Config, counts: tuple[int, ...]) -> int | None:
    """Return the first batch size that is split so that one part has a single sample, or None."""
    for count in filter(None, counts):
        parts = batch_parts(count, config.batch_size, config.accumulation_steps)
        if any(part.stop - part.start == 1 for part in parts):
            return count
    return None


def image_problems(config: Config, shape: DataShape) -> list[str]:
    """Return the reasons why the configured augmentation does not fit the samples."""
    augmentation, axes = config.regularizer.augmentation, shape.input_shape
    if len(axes) < 3:
        return [
            f"{setting} needs images, but the samples of {shape.dataset} have the shape {axes}"
            for setting in made_for_images(config)
        ]
    problems = []
    if augmentation.cutout > (side := min(axes[1:])):
        problems.append(
            f"regularizer.augmentation.cutout = {augmentation.cutout} is larger than the images of "
            f"{shape.dataset}, whose shorter side has {side} pixels; set at most {side}"
        )
    if augmentation.policy != "none" and axes[0] not in (1, 3):
        problems.append(
            f"regularizer.augmentation.policy = {augmentation.policy!r} needs images with 1 "
            f"channel (grey) or 3 (RGB), but the images of {shape.dataset} have {axes[0]} channels"
        )
    return problems


def _muon_problems(config: Config, architecture: Architecture) -> list[str]:
    """Refuse Muon for a network without hidden weights, because Adam would train all weights."""
    if not isinstance(config.optimizer, MuonConfig):
        return []
    weights = architecture.weights
    by_adam = 2 if config.optimizer.input_layer == "adam" else 1
    if len(weights) > by_adam:
        return []
    names = " and ".join(name.removesuffix(".weight") for name in weights)
    mend = "add a hidden layer"
    if len(weights) == 2:
        mend += ", or set optimizer.input_layer=muon"
    return [
        "optimizer.name = 'muon' trains the weights of hidden layers, but the only weights of this "
        f"network, those of {names}, are left to Adam; {mend}"
    ]

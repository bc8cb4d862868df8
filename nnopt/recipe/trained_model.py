"""The trained network of a run: its description is written here, and read with its weights.

This module is the only reader of the weights of a run. Everything that uses a trained network gets
it from ``load_model``, or from ``read_arrays`` if the weights alone are enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import Shape
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.architecture.parse import layer_items
from nnopt.backends import load_backend
from nnopt.backends.models import build_architecture
from nnopt.backends.protocol import Network
from nnopt.config.validate import read_config
from nnopt.data.dataset import Dataset, InputFormat, Normalization, Part
from nnopt.errors import ConfigError, DataError, ModelError, join_problems
from nnopt.io.atomic_files import FileRecord, shown, write_hashed_arrays
from nnopt.io.own_files import MODEL, WEIGHTS
from nnopt.recipe.earlier_model import read_earlier_model
from nnopt.recipe.evaluation import input_batches
from nnopt.results import environment
from nnopt.results.cores import thread_pools, usable_cores
from nnopt.results.model_file import ModelFile, read_model_file, write_model_file
from nnopt.results.run_folder import check_run
from nnopt.results.summary import read_summary
from nnopt.results.weights import Arrays, read_weights
from nnopt.schema import BackendVariant, Config
from nnopt.schema.reader import Reader
from nnopt.training.evaluation import Evaluation, evaluate


@dataclass(frozen=True)
class TrainedModel:
    """A trained network, with all that its predictions need.

    Attributes:
        folder: The folder of the run.
        epoch: "best" or "last".
        config: The configuration of the run, with its number of threads.
        container: The configuration of the run as in ``config.yaml``.
        architecture: The layers.
        inputs: The raw inputs.
        classes: The names of the classes.
        normalization: The normalization of the raw inputs.
        arrays: Full name -> parameter or running statistic.
        record: Name, size and hash of the file of the weights; None for a run of an earlier
            version.
        data: The name of the dataset, and the SHA-256 of each of its files.
    """

    folder: Path
    epoch: str
    config: Config
    container: Mapping[str, Any]
    architecture: Architecture
    inputs: InputFormat
    classes: tuple[str, ...]
    normalization: Normalization
    arrays: Arrays
    record: FileRecord | None
    data: Mapping[str, Any]

    def on(self, backend: BackendVariant) -> TrainedModel:
        """Return the model with other values of the keys of ``backend``, such as ``device``.

        If ``backend.threads`` is None, the number of threads stays the same.
        """
        threads = backend.threads or self.config.backend.threads
        backend = replace(backend, threads=threads)
        return replace(self, config=replace(self.config, backend=backend))

    @cached_property
    def network(self) -> Network:
        """The network with its weights. Raises ConfigError if its backend is not available."""
        backend = load_backend(self.config.backend.name)
        if problems := backend.check_backend(self.config):
            raise ConfigError(problems)
        network = backend.build_network(self.architecture, self.config)
        network.load(self.arrays)
        return network

    def logits(self, inputs: np.ndarray) -> NDArray[np.floating]:
        """Return the logits (N, K) of raw inputs (N, ...).

        The batches and the number of threads are those of the evaluation after training. Therefore,
        the logits of the same samples in the same order have the same bits on the same machine.
        """
        with self._computing():
            batches = input_batches(inputs, self.normalization, self.config)
            return np.concatenate([self.network.predict(x) for x in batches])

    def evaluate(self, part: Part) -> Evaluation:
        """Predict the samples of a part of a dataset, and compare them with their labels."""
        with self._computing():
            backend = load_backend(self.config.backend.name)
            loader = backend.build_loader(part, self.normalization, self.config)
            labels = part.labels[part.rows]
            return evaluate(self.network, loader.evaluation_batches(), labels, self.config)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Use the number of threads of the run within the context."""
        backend, threads = load_backend(self.config.backend.name), self.config.backend.threads
        self.network  # imports PyTorch, whose threads are limited below  # noqa: B018
        with (
            np.errstate(all="ignore"),
            thread_pools().limit(limits=threads),
            backend.device_errors(),
        ):
            yield


def write_model(
    folder: Path,
    architecture: Architecture,
    dataset: Dataset,
    weights: Mapping[str, Mapping[str, NDArray[Any]]],
    compressed: bool,
    summary: Mapping[str, Any],
) -> None:
    """Write the weights of a trained network, and then its description. Raises OutputError.

    Args:
        folder: The folder of the run.
        architecture: The network at the end of the training.
        dataset: The dataset.
        weights: "best" and "last" -> the weights by full name.
        compressed: Whether the files of the weights are compressed.
        summary: The summary of the run, whose configuration and threads are included.
    """
    files = {
        epoch: write_hashed_arrays(folder / WEIGHTS[epoch], arrays, compressed)
        for epoch, arrays in weights.items()
    }
    model = ModelFile(
        inputs=dataset.input_format,
        classes=dataset.classes,
        normalization=dataset.normalization,
        architecture=_record_of(architecture),
        config=summary["config"],
        threads=summary["threads"]["used"],
        weights=files,
        data={"name": dataset.name, "sources": dataset.sources},
        versions=environment.versions(),
    )
    write_model_file(folder, model)


def _record_of(architecture: Architecture) -> dict[str, Any]:
    """Return the architecture as a choice of the group ``architecture``."""
    if isinstance(architecture, ModuleArchitecture):
        return asdict(architecture.model)
    records = [layer.record for layer in architecture.layers]
    return {"name": "layers", "layers": layer_items(records, complete=True)}


def read_arrays(folder: Path, epoch: str = "best") -> Arrays:
    """Return the weights of a run, full name -> array.

    The file is compared with its hash in ``model.json``, unless an earlier version wrote the run.

    Raises:
        ModelError: The weights or ``model.json`` are missing, damaged or of a newer version.
    """
    file = read_model_file(folder)
    return _checked_arrays(folder, epoch, file, _parameters(folder))


def _checked_arrays(
    folder: Path, epoch: str, file: ModelFile | None, parameters: float | None
) -> Arrays:
    record = None if file is None else file.weights[epoch]
    return read_weights(folder / WEIGHTS[epoch], parameters, record)


def _parameters(folder: Path) -> float | None:
    """Return the number of parameters in the summary of a run, or None if it is unknown."""
    with suppress(DataError):
        count = read_summary(folder).values.get("parameters")
        return None if count is None else float(count)
    return None


def load_model(folder: Path, epoch: str | None = None) -> TrainedModel:
    """Read the trained network of a run, with the weights of an epoch, "best" or "last".

    By default, the weights are those that the key ``test_weights`` of the run selects. The files
    in the folder are enough. Only for a run of an earlier version, which has no ``model.json``, the
    description is built from its configuration and, if necessary, its dataset.

    Raises:
        ConfigError: The folder is not that of a run.
        ModelError: A file is missing, damaged, of a newer version, or does not fit the others.
    """
    check_run(folder, shown(folder))
    file = read_model_file(folder)
    if file is None and not any((folder / name).exists() for name in WEIGHTS.values()):
        raise ModelError(f"{shown(folder)} has no weights: its training has not ended")
    where, described = shown(folder / MODEL), file or read_earlier_model(folder)
    try:
        container = described.config
        if container.get("plugins"):
            from nnopt.config.plugins.load import stored_plugins  # not needed by most runs

            container = stored_plugins(container, folder)
        config = read_config(container)
        architecture = _architecture(described, config)
    except ConfigError as error:
        writer = described.versions.get("nnopt", "an unknown version")
        reason = join_problems(error.problems, "; ")
        raise ModelError(
            f"{where} has values that this nnopt refuses (it was written by nnopt {writer}): "
            f"{reason}"
        ) from error
    epoch = epoch or config.test_weights
    arrays = _checked_arrays(folder, epoch, file, architecture.parameter_count)
    if problems := shape_problems(arrays, shapes_of(architecture)):
        raise ModelError(
            f"{shown(folder / WEIGHTS[epoch])} does not fit the layers in {where}: "
            f"{join_problems([*problems.values()], '; ')}"
        )
    return TrainedModel(
        folder=folder,
        epoch=epoch,
        config=_for_prediction(config, described.threads),
        container=container,
        architecture=architecture,
        inputs=described.inputs,
        classes=described.classes,
        normalization=described.normalization,
        arrays=arrays,
        record=None if file is None else file.weights[epoch],
        data=described.data,
    )


def _architecture(file: ModelFile, config: Config) -> Architecture:
    """Build the architecture from its record. Raises ConfigError."""
    reader = Reader()
    chosen = reader.checked(reader.read_variant("architecture", file.architecture))
    return build_architecture(chosen, config.regularizer, file.inputs.shape, len(file.classes))


def _for_prediction(config: Config, threads: int) -> Config:
    """Return the configuration with the number of threads of the run, and a learning rate.

    More threads than cores would wait for each other. The learning rate has no effect.
    """
    count = min(threads, usable_cores() or threads)
    config = replace(config, backend=replace(config.backend, threads=count))
    if config.optimizer.lr == "auto":
        config = replace(config, optimizer=replace(config.optimizer, lr=1e-3))
    return config


def shapes_of(architecture: Architecture) -> dict[str, Shape]:
    """Return the shapes of all arrays of a network by full name."""
    return architecture.parameter_shapes() | architecture.statistic_shapes()


def shape_problems(arrays: Arrays, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Return a text for each array whose shape is not the expected one, by full name."""
    problems = {}
    for name, shape in shapes.items():
        if name not in arrays:
            problems[name] = f"it has no {name} {shape}"
        elif arrays[name].shape != shape:
            problems[name] = f"{name} is {arrays[name].shape}, expected {shape}"
    others = {x: f"{x} {array.shape} is unexpected" for x, array in arrays.items()}
    return problems | {name: text for name, text in others.items() if name not in shapes}

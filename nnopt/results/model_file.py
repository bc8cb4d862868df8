"""``model.json``: the description of a trained network, next to the files of its weights.

With the weights, it contains all that predictions need: the records of the layers, the shape of the
inputs, the normalization, the names of the classes and the configuration. It has a checksum of its
values, like ``summary.json``, and the SHA-256 of the weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset import InputFormat, Normalization
from nnopt.errors import ModelError
from nnopt.io.atomic_files import FileRecord, shown, strict, write_json
from nnopt.io.own_files import MODEL, WEIGHTS
from nnopt.io.received_files import MIB, open_received, parse_json, read_received
from nnopt.io.safe_text import shortened, visible
from nnopt.results.summary import CHECKSUM, check_tree, values_digest
from nnopt.results.weights import MAX_FILE_BYTES
from nnopt.schema import with_added_keys, with_new_keys

FORMAT = 1

MODEL_BYTES = 512 * MIB
"""Largest size of a file that is read. A usual file has 10 kB, one with 2**20 features 100 MB."""

LONG_LISTS = ("columns", "normalization")
"""Keys with a number or text for each feature, which may exceed the limits of other values."""

INPUT_TYPES = {1: ("float32", "float64"), 3: ("uint8",)}
"""Number of axes of a sample -> allowed types of raw inputs."""


@dataclass(frozen=True)
class ModelFile:
    """The content of a ``model.json``.

    Attributes:
        inputs: The raw inputs.
        classes: The names of the classes.
        normalization: The normalization of the raw inputs.
        architecture: A choice of the group ``architecture``: ``layers`` with the records of all
            layers, or ``torchvision`` with the name of the model.
        config: The resolved configuration of the run, with the current names of all keys.
        threads: The number of threads of the run, which can change the last bits of predictions.
        weights: Epoch of the weights, "best" or "last" -> their file.
        data: The name of the dataset, and the SHA-256 of each of its files.
        versions: Versions by package.
    """

    inputs: InputFormat
    classes: tuple[str, ...]
    normalization: Normalization
    architecture: Mapping[str, Any]
    config: Mapping[str, Any]
    threads: int
    weights: Mapping[str, FileRecord]
    data: Mapping[str, Any]
    versions: Mapping[str, str]


def write_model_file(folder: Path, model: ModelFile) -> None:
    """Write the ``model.json`` of a folder. Raises OutputError."""
    normalization = model.normalization
    values = strict(
        {
            CHECKSUM: None,
            "format": FORMAT,
            "input_shape": model.inputs.shape,
            "input_type": model.inputs.dtype,
            "columns": model.inputs.columns,
            "classes": model.classes,
            "normalization": {
                "origin": normalization.origin,
                "scale": normalization.scale,
                "shift": normalization.shift,
            },
            "architecture": model.architecture,
            "weights": {epoch: asdict(record) for epoch, record in model.weights.items()},
            "threads": model.threads,
            "data": model.data,
            "versions": model.versions,
            "config": model.config,
        }
    )
    write_json(folder / MODEL, values | {CHECKSUM: values_digest(values)})


def read_model_file(folder: Path) -> ModelFile | None:
    """Read the ``model.json`` of a folder. Return None if there is no such file.

    Raises:
        ModelError: The file is damaged, of a newer version, or no file of nnopt.
    """
    path = folder / MODEL
    try:
        values = parse_json(read_received(path, folder, MODEL_BYTES))
        return _read(values)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{shown(path)} cannot be read: {error.strerror}") from error
    except _NewerError as error:
        raise ModelError(f"{shown(path)} {error}") from None
    except ValueError as error:
        reason = shortened(visible(str(error)), 300)
        raise ModelError(
            f"{shown(path)} is damaged: {reason}; copy it from the run again, with its weights"
        ) from error


def weights_sha256(folder: Path, epoch: str = "best") -> str:
    """Return the SHA-256 of the file of a run's weights, from ``model.json`` if there is one.

    Raises:
        ModelError: A file is missing or damaged.
    """
    if (model := read_model_file(folder)) is not None:
        return model.weights[epoch].sha256
    path = folder / WEIGHTS[epoch]
    try:
        with open_received(path, folder, MAX_FILE_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{shown(path)} cannot be read: {error.strerror}") from error


class _NewerError(ValueError):
    """The file is of a newer version of nnopt."""


def _read(values: Any) -> ModelFile:
    """Check the values of a file. Raises ValueError for the first one that is wrong."""
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise ValueError("it is no description of a model of nnopt")
    if values["format"] > FORMAT:
        versions = values.get("versions")
        writer = versions.get("nnopt") if isinstance(versions, dict) else None
        raise _NewerError(
            f"was written by nnopt {visible(str(writer))[:50]} in format {values['format']}, but "
            f"this nnopt reads formats up to {FORMAT}; use the newer version"
        )
    check_tree({key: None if key in LONG_LISTS else x for key, x in values.items()})
    if values.get(CHECKSUM) != values_digest(values):
        raise ValueError("its checksum does not match its values")
    shape, dtype = _numbers(values, "input_shape"), _typed(values, "input_type", str)
    if dtype not in INPUT_TYPES.get(len(shape), ()):
        raise ValueError(f"inputs of shape {list(shape)} cannot have the type {dtype!r}")
    columns, classes = _texts(values, "columns"), _texts(values, "classes")
    if len(columns) not in (0, math.prod(shape)) or not classes:
        raise ValueError("it has no classes, or not one column for each number of a sample")
    threads = _typed(values, "threads", int)
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    return ModelFile(
        inputs=InputFormat(shape, dtype, columns),
        classes=classes,
        normalization=_normalization(_typed(values, "normalization", dict), shape[0]),
        architecture=_typed(values, "architecture", dict),
        config=with_added_keys(with_new_keys(_typed(values, "config", dict))),
        threads=threads,
        weights=_weights(_typed(values, "weights", dict)),
        data=_typed(values, "data", dict),
        versions=_typed(values, "versions", dict),
    )


def _typed(values: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return the value of a key. Raises ValueError if it has another type."""
    if type(values.get(key)) is not kind:
        raise ValueError(f"{key} is not a value of the type {kind.__name__}")
    return values[key]


def _texts(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    texts = _typed(values, key, list)
    if not all(type(text) is str for text in texts):
        raise ValueError(f"{key} is not a list of texts")
    return tuple(texts)


def _numbers(values: Mapping[str, Any], key: str) -> tuple[int, ...]:
    numbers = _typed(values, key, list)
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"{key} is not a list of numbers above 0")
    return tuple(numbers)


def _normalization(values: Mapping[str, Any], width: int) -> Normalization:
    def constants(key: str) -> NDArray[np.float64]:
        numbers = _typed(values, key, list)
        if len(numbers) != width or not all(type(x) in (int, float) for x in numbers):
            raise ValueError(f"normalization: {key} is not a list of {width:,} numbers")
        array = np.array(numbers, dtype=np.float64)
        if not np.isfinite(array).all():
            raise ValueError(f"normalization: {key} has a number that is not finite")
        return array

    origin = None if values.get("origin") is None else constants("origin")
    return Normalization(constants("scale"), constants("shift"), origin)


def _weights(values: Mapping[str, Any]) -> dict[str, FileRecord]:
    records = {}
    for epoch, name in WEIGHTS.items():
        record = _typed(values, epoch, dict)
        size, digest = _typed(record, "size", int), _typed(record, "sha256", str)
        if record.get("name") != name:
            raise ValueError(f"the file of the {epoch} weights is not {name}")
        records[epoch] = FileRecord(name, size, digest)
    return records

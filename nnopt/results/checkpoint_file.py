"""Files with the state of an unfinished training.

A checkpoint is an ``.npz`` archive without pickled objects. Its array ``values`` is a text in JSON,
and its array ``sha256`` is the SHA-256 of all other arrays, with their names, types and shapes. A
run writes two files in turn, so the previous checkpoint stays until the next one is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import ModelError, ResumeError
from nnopt.io.atomic_files import shown, strict, write_arrays
from nnopt.results.metrics_file import LayerRow
from nnopt.results.summary import check_summary
from nnopt.results.weights import read_weights

FORMAT = 3
"""Version of the format of checkpoints. A newer nnopt may write a higher version."""

TRAINING: Mapping[str, type] = {
    **dict.fromkeys(("numbers", "stopping", "plateau", "averaging", "epoch"), dict),
    **dict.fromkeys(("target", "updates"), dict),
    "history": list,
    "prunings": list,
}
"""Key of a value in ``Checkpoint.training`` -> type of the value."""

VALUES, DIGEST = "values", "sha256"

Record = TypeVar("Record")


@dataclass(frozen=True)
class Content:
    """The state of a training: values in the types of JSON, and arrays by name.

    In contrast to strict JSON, the values may include NaN and infinities.
    """

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        training: The state of the training and of its network.
        summary: The values of ``summary.json`` so far.
        layers: The rows of ``layers.csv`` so far.
        path: The file from which the checkpoint was read.
    """

    training: Content
    summary: dict[str, Any]
    layers: list[LayerRow]
    path: Path = Path()

    @property
    def step(self) -> int:
        """The number of optimizer steps so far."""
        return self.training.arrays.get("learning_rates", np.zeros(0)).size


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint completely or not at all. Raises OutputError."""
    values = {
        "format": FORMAT,
        "training": checkpoint.training.values,
        "summary": strict(checkpoint.summary),
        "layers": [astuple(row) for row in checkpoint.layers],
    }
    text = np.frombuffer(json.dumps(values).encode("ascii"), np.uint8)
    arrays = {VALUES: text, **checkpoint.training.arrays}
    write_arrays(path, {DIGEST: _digest(arrays), **arrays})


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the content of a checkpoint.

    Raises:
        ResumeError: The file is missing, damaged, or in the format of a newer version.
    """
    try:
        arrays = read_weights(path)
        if not np.array_equal(arrays.pop(DIGEST, ()), _digest(arrays)):
            raise ResumeError(f"{shown(path)} is damaged: its SHA-256 does not match")
        values = json.loads(arrays.pop(VALUES, np.zeros(0, np.uint8)).tobytes())
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise ResumeError(
                f"{shown(path)} has format {version}, but this nnopt reads format {FORMAT}; use "
                "the version of nnopt that wrote the file"
            )
        values = typed(values, {"format": int, "training": dict, "summary": dict, "layers": list})
        check_summary(values["summary"])
        if version == 1:
            values["training"] = _without_prunings(values["training"])
        if version in (1, 2):
            values = _from_format_2(values)
        typed(values["training"], TRAINING)
        layers = read_records(LayerRow, values["layers"])
        return Checkpoint(Content(values["training"], arrays), values["summary"], layers, path)
    except ModelError as error:
        raise ResumeError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ResumeError(f"{shown(path)} is not a checkpoint of nnopt: {error}") from error


def _without_prunings(training: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of a training from format 1, which has no pruning. Raises ValueError."""
    history, averaging = training.get("history"), training.get("averaging")
    if not isinstance(history, list) or not all(isinstance(row, list) for row in history):
        raise ValueError("history has a wrong type")
    if not isinstance(averaging, dict):
        raise ValueError("averaging has a wrong type")
    return training | {
        "history": [[*row, 0.0] for row in history],
        "averaging": averaging | {"first_step": 0},
        "prunings": [],
    }


def _from_format_2(values: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of format 2, which has no target and no norms. Raises ValueError.

    In format 2, only an improvement above ``early_stopping.min_delta`` gives the best value, so it
    is also the reference of the next improvement.
    """
    training, layers = values["training"], values["layers"]
    stopping = training.get("stopping")
    if not isinstance(stopping, dict) or "best" not in stopping:
        raise ValueError("stopping has a wrong type, or no best value")
    if not all(isinstance(row, list) for row in layers):
        raise ValueError("layers has a wrong type")
    added = {
        "stopping": stopping | {"reference": stopping["best"]},
        "target": {"step": None, "seconds": None},
        "updates": {},
    }
    return values | {
        "training": training | added,
        "layers": [[*row, None, None] for row in layers],
    }


def _digest(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode(errors="surrogatepass"))
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return np.frombuffer(digest.digest(), np.uint8)


def typed(values: object, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` if it is a map with the keys and types in ``types``, else raise ValueError.

    A negative integer is refused, because all integers of a checkpoint are counts.
    """
    if not isinstance(values, dict) or values.keys() != types.keys():
        raise ValueError(f"expected a map with exactly the keys {', '.join(types)}")
    for key, kind in types.items():
        value = values[key]
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise ValueError(f"{key} has a wrong type")
        if type(value) is int and not 0 <= value < 2**63:
            raise ValueError(f"{key} is out of range")
    return {key: values[key] for key in types}


def read_records(kind: type[Record], rows: object) -> list[Record]:
    """Return an instance of the dataclass ``kind`` for each list of values. Raises ValueError."""
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("expected a list of rows, each a list of values")
    return [kind(**typed(_by_name(names, row), types)) for row in rows]


def _by_name(names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    if len(names) != len(row):
        raise ValueError(f"a row has {len(row)} values, expected {len(names)}")
    return dict(zip(names, row, strict=True))

"""Datasets of plug-ins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.data.duplicates import repeated_rows
from nnopt.data.source import Decoded, channel_statistics
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.schema import DataConfig
from nnopt.schema.tables import Component

Arrays = tuple[Any, Any]
"""Inputs (N, D) of real numbers or images (N, C, H, W) in uint8, and labels (N,) in 0..K-1."""


@dataclass(frozen=True)
class Samples:
    """The samples of a dataset.

    Attributes:
        classes: The names of the K classes.
        train: The inputs and labels of the training part.
        test: The inputs and labels of the test part.
        features: The names of the D features, if they are known.
        files: The files that were read. Their hashes are recorded, and compared on resume.
    """

    classes: Sequence[str]
    train: Arrays
    test: Arrays
    features: Sequence[str] = ()
    files: Sequence[Path | str] = ()


def decoder(
    component: Component, load: Callable[[Any, Path], Samples]
) -> Callable[[Any, DataConfig, str], Decoded]:
    """Return the function that loads, checks and describes the samples of a dataset."""

    def decode(config: Any, data: DataConfig, working: str) -> Decoded:
        root = Path(data.root)
        try:
            with component.running("load"):
                samples = load(config, root)
        except Exception as error:
            if isinstance(error.__cause__, OSError):  # a missing or unreadable file
                raise DataError(str(error)) from error
            raise
        if not isinstance(samples, Samples):
            raise component.error(f"returns no Samples from load, got {type(samples).__name__}")
        parts = {
            name: _checked(component, name, getattr(samples, name), len(samples.classes))
            for name in ("train", "test")
        }
        shapes = {name: inputs.shape[1:] for name, (inputs, _) in parts.items()}
        if shapes["train"] != shapes["test"]:
            raise component.error(
                f"has training samples of the shape {shapes['train']}, but test samples of the "
                f"shape {shapes['test']}"
            )
        is_image = len(shapes["train"]) == 3
        if not is_image and samples.features and len(samples.features) != shapes["train"][0]:
            raise component.error(
                f"names {len(samples.features)} features, but a sample has {shapes['train'][0]}"
            )
        decoded = Decoded(
            classes=tuple(map(str, samples.classes)),
            parts=parts,
            sources={_name(Path(file), root): _digest(Path(file)) for file in samples.files},
            features=tuple(map(str, samples.features)),
            repeated=repeated_rows(parts),
        )
        if is_image:
            mean, std = channel_statistics(parts["train"][0])
            decoded = replace(decoded, mean=mean, std=std)
        return decoded

    return decode


def _checked(
    component: Component, part: str, arrays: Any, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels in the types that nnopt uses. Raises ConfigError."""
    if not isinstance(arrays, tuple) or len(arrays) != 2:
        raise component.error(f"needs a pair (inputs, labels) as {part}")
    inputs, labels = map(np.asarray, arrays)
    if inputs.ndim not in (2, 4) or 0 in inputs.shape:
        raise component.error(
            f"has {part} inputs of the shape {inputs.shape}, expected (N, D) or (N, C, H, W)"
        )
    if labels.shape != inputs.shape[:1]:
        raise component.error(
            f"has {part} labels of the shape {labels.shape} for inputs of the shape "
            f"{inputs.shape}, expected ({len(inputs)},)"
        )
    if labels.dtype.kind not in "iu":
        raise component.error(f"has {part} labels of the type {labels.dtype}, expected integers")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise component.error(
            f"has the {part} label {wrong}, but {classes} classes; allowed are 0 to {classes - 1}"
        )
    if inputs.ndim == 4 and inputs.dtype != np.uint8:
        raise component.error(f"has {part} images of the type {inputs.dtype}, expected uint8")
    if inputs.ndim == 2:
        if inputs.dtype.kind not in "fiub":
            raise component.error(f"has {part} inputs of the type {inputs.dtype}, expected numbers")
        inputs = inputs.astype(np.float64, copy=False)
        if not np.isfinite(inputs).all():
            raise component.error(f"has {part} inputs that are not finite")
    return np.ascontiguousarray(inputs), labels.astype(np.int64)


def _name(file: Path, root: Path) -> str:
    """Return the name of a file for the results, relative to data.root if possible."""
    return str(file.relative_to(root) if file.is_relative_to(root) else file)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{shown(file)}: cannot be read: {error.strerror}") from error

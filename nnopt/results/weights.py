"""Weights that runs left, and how those of two runs differ."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import DataError
from nnopt.results.files import shown

Arrays = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class ArrayDifference:
    """Two arrays of one name and shape, a and b, as vectors.

    norms: ‖a‖ and ‖b‖; distance: ‖b - a‖; cosine: of the angle between them, None if one is 0.
    """

    name: str
    shape: tuple[int, ...]
    norms: tuple[float, float]
    distance: float
    cosine: float | None


DAMAGES = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
)
"""What NumPy and zipfile raise at an archive with wrong bytes in it."""


def read_weights(path: Path) -> Arrays:
    """The named arrays of an ``.npz``; nothing is unpickled. Raises DataError."""
    try:
        # A file of our own: np.load leaves the one it opens behind if it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)} does not exist: the run left no weights") from error
    except DAMAGES as error:
        raise DataError(f"{shown(path)} is damaged: {error}") from error


def array_differences(
    a: Mapping[str, NDArray[np.floating]], b: Mapping[str, NDArray[np.floating]]
) -> list[ArrayDifference]:
    """For the arrays that both have, in the same shape; in float64."""
    return [
        _difference(name, np.asarray(x, np.float64), np.asarray(b[name], np.float64))
        for name, x in a.items()
        if name in b and np.shape(x) == np.shape(b[name])
    ]


def _difference(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> ArrayDifference:
    norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    cosine = float(np.vdot(x, y) / (norms[0] * norms[1])) if all(norms) else None
    return ArrayDifference(name, x.shape, norms, float(np.linalg.norm(y - x)), cosine)

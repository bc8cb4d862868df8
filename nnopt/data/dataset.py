"""A dataset for training: three parts of shared arrays, and their normalization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import DataError

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Part:
    """Training, validation or test samples: rows of shared, possibly memory-mapped arrays."""

    inputs: np.ndarray  # (M, C, H, W) uint8, (M, D) float64 or (M, 2) float32 points; read-only
    labels: NDArray[np.int64]  # (M,) classes 0..K-1; -1 in rows of classes that are not selected
    rows: NDArray[np.int64]  # (N,), ascending indices of the samples of this part

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> np.ndarray:
        """Return a copy of ``self.inputs[rows]``. Raises DataError; see ``check_file``."""
        self.check_file()
        taken: np.ndarray = self.inputs[rows]
        return taken

    def check_file(self) -> None:
        """Raise DataError if the memory-mapped file of the inputs was truncated.

        Without this check, reading would end the process with SIGBUS. A deleted or replaced file
        is no problem, because the mapping still reads the old file.
        """
        mapping = getattr(self.inputs, "_mmap", None)
        if mapping is not None and mapping.size() < len(mapping):
            raise DataError(
                f"a file of the data cache was truncated to {mapping.size():,} bytes while it was "
                f"in use, expected {len(mapping):,}; delete the folder of data.cache and run again"
            )


@dataclass(frozen=True)
class Normalization:
    """The normalization ``(x - origin) * scale + shift`` of an input x.

    ``origin`` is subtracted first, so that values that differ only in their last digits, such as
    times, stay different.
    """

    scale: NDArray[np.float64]  # (C,) for images, one per channel, or (D,) for features
    shift: NDArray[np.float64]  # same shape as ``scale``
    origin: NDArray[np.float64] | None = None  # (D,) for float64 features; None means 0

    def of_features(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normalize float64 features (N, D) in place and return them."""
        if self.origin is not None:
            x -= self.origin
        x *= self.scale
        x += self.shift
        return x


@dataclass(frozen=True)
class InputFormat:
    """The raw inputs of a network, before normalization.

    Attributes:
        shape: Shape of one sample, (C, H, W) or (D,).
        dtype: Number type: uint8 for images, float64 or float32 for features.
        columns: Names of the features or pixels in a CSV file, in the order of the inputs; empty if
            they are unknown.
    """

    shape: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether the samples are images, (C, H, W)."""
        return len(self.shape) == 3


@dataclass(frozen=True)
class Dataset:
    """A dataset, split into disjoint parts.

    ``sources`` maps a file (relative to data.root) to the SHA-256 of its bytes; it is empty for
    generated data. A tree of image files is one entry, with the hash of all names and contents.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part | None
    test: Part
    normalization: Normalization
    sources: dict[str, str]
    features: tuple[str, ...] = ()  # see ``InputFormat.columns``

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (C, H, W) or (D,)."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def input_format(self) -> InputFormat:
        """The shape, the type and the columns of the raw inputs."""
        return InputFormat(self.input_shape, str(self.train.inputs.dtype), self.features)

    @property
    def is_image(self) -> bool:
        """Whether the samples are images, (C, H, W)."""
        return len(self.input_shape) == 3

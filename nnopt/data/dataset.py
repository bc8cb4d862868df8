"""The arrays that training sees: three parts of one dataset, and how their inputs are scaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import DataError

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Part:
    """Training, validation or test samples: rows of shared, possibly memory-mapped, arrays.

    inputs: (M, C, H, W) uint8 images, (M, D) float64 features, or (M, 2) float32 points that are
        generated; never written to.
    labels: (M,) int64 in 0..K-1; -1 marks a row whose class was not asked for.
    rows:   (N,) int64, ascending: the samples that belong to this part. Two parts may share inputs.
    """

    inputs: np.ndarray
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64]) -> np.ndarray:
        """Return a copy of these rows of the inputs. Raises DataError, see ``check_file``."""
        self.check_file()
        taken: np.ndarray = self.inputs[rows]
        return taken

    def check_file(self) -> None:
        """Raise DataError if the file that the inputs are mapped from was cut short since.

        Without this check, reading on would end the process with SIGBUS. The mapping keeps its
        file, so a file that was deleted or replaced does no harm.
        """
        mapping = getattr(self.inputs, "_mmap", None)
        if mapping is not None and mapping.size() < len(mapping):
            raise DataError(
                f"a file of the data cache was cut short to {mapping.size():,} bytes while it was "
                f"in use, expected {len(mapping):,}; delete the cache folder and run again"
            )


@dataclass(frozen=True)
class Normalization:
    """A network sees ``(x - origin) * scale + shift`` of an input x.

    scale, shift: float64, one number per channel (C,) for images or per feature (D,).
    origin: (D,) float64, for float64 features, whose values may differ in their last digits alone,
        as times do; None is 0.
    """

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    origin: NDArray[np.float64] | None = None

    def of_features(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a network sees of float64 features (N, D); x is overwritten."""
        if self.origin is not None:
            np.subtract(x, self.origin, out=x)
        np.multiply(x, self.scale, out=x)
        return np.add(x, self.shift, out=x)


@dataclass(frozen=True)
class Dataset:
    """A dataset, split once for all: validation never shares a row with training or test.

    sources: file (relative to data.root) -> SHA-256 of its bytes; empty for generated data. A tree
    of images is one entry, its hash that of all names and contents in order.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part | None
    test: Part
    normalization: Normalization
    sources: dict[str, str]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample: (C, H, W) or (D,)."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def is_image(self) -> bool:
        """Return whether the samples are images, (C, H, W)."""
        return len(self.input_shape) == 3

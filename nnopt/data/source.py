"""The decoded arrays of a dataset, and the checks that all sources of data share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset_files import unreadable
from nnopt.data.duplicates import repeated_rows
from nnopt.data.published import Published, owner
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown

CHUNK_IMAGES = 1_000

S = TypeVar("S")


@dataclass(frozen=True)
class Decoded:
    """The complete arrays of a source, before rows are selected.

    The parts are "train", "test" (unless there is a single CSV file) and, for CINIC-10, "valid".
    Each part has inputs and labels. Inputs are (M, C, H, W) uint8, (M, D) float64 or, if generated,
    (M, 2) float32. Labels are (M,) int64 in 0..K-1.
    """

    classes: tuple[str, ...]  # names of the K classes
    parts: Mapping[str, tuple[np.ndarray, NDArray[np.int64]]]
    sources: Mapping[str, str]  # see ``Dataset``
    mean: tuple[float, ...] = ()  # per channel of the training images, 0..255; empty for features
    std: tuple[float, ...] = ()  # per channel, like ``mean``
    notes: tuple[str, ...] = ()  # warnings, shown each time the data are used
    features: tuple[str, ...] = ()  # see ``InputFormat.columns``; empty if very long
    repeated: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # see ``repeated_rows``


def stat_lines(paths: Iterable[Path]) -> str:
    """Return one line per file: name, size, modification time and change time."""
    lines = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise unreadable(path, error) from error
        # The system updates ctime even if a program resets mtime.
        lines.append(f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Source(Generic[S]):
    """The files of a dataset and the function that decodes them.

    The decoded arrays depend on ``settings`` and ``files`` alone, so that options outside of the
    cache key cannot change them.
    """

    name: str
    location: str  # folder or paths of the files, for messages
    files: Mapping[str, Path]  # role of a file or folder -> its path
    settings: S  # its ``repr`` is part of the cache key
    decoder: Callable[[S, Mapping[str, Path]], Decoded]  # ``decode`` adds mean, std, repeated
    fingerprinter: Callable[[Iterable[Path]], str] = stat_lines  # see ``fingerprint``

    def decode(self) -> Decoded:
        """Read and decode all files, which may take minutes. Raises DataError."""
        decoded = self.decoder(self.settings, self.files)
        images, _ = decoded.parts["train"]
        mean, std = channel_statistics(images) if images.ndim == 4 else ((), ())
        return replace(decoded, mean=mean, std=std, repeated=repeated_rows(decoded.parts))

    def fingerprint(self) -> str:
        """Return a text that changes with the names of the files, and with their sizes and times.

        For CINIC-10, it depends on the sizes and times of only some files.
        """
        return self.fingerprinter(self.files.values())


def check_labels(labels: NDArray[np.uint8], classes: int, where: str) -> None:
    """Raise DataError if a label is not in 0..classes-1. The message has the first such label."""
    bad = np.flatnonzero(labels >= classes)
    if len(bad):
        raise DataError(
            f"{where}: label {labels[bad[0]]} at index {bad[0]:,} ({len(bad):,} such labels); "
            f"allowed are 0 to {classes - 1}"
        )


def check_official(published: Published, file: str, sha256: str, path: Path) -> list[str]:
    """Return a list with a warning if a file differs from the published one, else an empty list.

    Raises DataError for a file of another dataset, such as Fashion-MNIST in place of MNIST.
    """
    known = published.sha256.get(file)
    if sha256 == known:
        return []
    if other := owner(sha256):
        raise wrong_dataset(path, *other)
    return [
        f"{published.relative(file)} is not the published file: SHA-256 {sha256}, "
        f"published {known}; results are not comparable with published ones"
    ]


def wrong_dataset(path: Path, other: Published, other_file: str) -> DataError:
    """Return the error for a file that belongs to another published dataset."""
    return DataError(
        f"{shown(path)} is {other_file} of {other.name}; replace it by the right file, or set "
        f"dataset={other.name}"
    )


def channel_statistics(
    images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of each channel.

    images: (M, C, H, W) uint8. rows: the selected rows, None for all. For the n pixels x of a
    channel, mean = S / n and variance = (n Q - S²) / n² with S = Σ x and Q = Σ x². S and Q are
    integers, computed from a histogram.
    """
    channels = images.shape[1]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images) if rows is None else len(rows), CHUNK_IMAGES):
        chunk = slice(start, start + CHUNK_IMAGES)
        block = images[chunk if rows is None else rows[chunk]]
        for channel in range(channels):
            histogram[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
    mean, std = [], []
    for counts in histogram.tolist():
        n, total, squares = (
            sum(value**power * count for value, count in enumerate(counts)) for power in range(3)
        )
        mean.append(total / n)
        std.append(math.sqrt(n * squares - total * total) / n)
    return tuple(mean), tuple(std)

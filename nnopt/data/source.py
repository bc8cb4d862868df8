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

CHUNK = 1_000  # images per step of a pass over all pixels

S = TypeVar("S")


@dataclass(frozen=True)
class Decoded:
    """A source's whole arrays, before any of its rows are chosen.

    parts: "train"; "test" but for a lone CSV file; CINIC-10's "valid". Each has inputs
        (M, C, H, W) uint8, or (M, D) float64, of generated points float32, and labels (M,) int64
        in 0..K-1.
    sources: see ``Dataset.sources``.
    mean, std: per channel (C,) of all training images, in pixel values 0..255; empty for features.
    notes: what the user should be told each time the data are used.
    features: names of the D features; empty if they have none, or very long ones.
    repeated: see ``repeats.repeated_rows``.
    """

    classes: tuple[str, ...]
    parts: Mapping[str, tuple[np.ndarray, NDArray[np.int64]]]
    sources: Mapping[str, str]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    repeated: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


def stat_lines(paths: Iterable[Path]) -> str:
    """Return one line per file: name, size, and times of the last change, in nanoseconds.

    The second time (ctime) also moves when a program sets the first one back.
    """
    lines = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise unreadable(path, error) from error
        lines.append(f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Source(Generic[S]):
    """The files of a dataset, and how to read them.

    place: the files as a message names them.
    files: the role of a file or folder -> its path.
    settings: everything else that decoding depends on; its ``repr`` is part of the cache's keys.
    decoder: receives only the settings and the files, so an option that the cache does not know
        cannot change the decoded arrays. Raises DataError.
    look: see ``fingerprint``.
    """

    name: str
    place: str
    files: Mapping[str, Path]
    settings: S
    decoder: Callable[[S, Mapping[str, Path]], Decoded] = field(repr=False)
    look: Callable[[Iterable[Path]], str] = field(default=stat_lines, repr=False)

    def decode(self) -> Decoded:
        """Read and decode all files, which may take minutes. Raises DataError."""
        decoded = self.decoder(self.settings, self.files)
        return replace(decoded, repeated=repeated_rows(decoded.parts))

    def fingerprint(self) -> str:
        """Return a text that changes when the files do, as far as that is visible without reading
        them. Raises DataError."""
        return self.look(self.files.values())


def check_labels(labels: NDArray[np.uint8], classes: int, where: str) -> None:
    """Raise DataError, naming the first bad index and value, unless all lie in 0..classes-1."""
    bad = np.flatnonzero(labels >= classes)
    if len(bad):
        raise DataError(
            f"{where}: label {labels[bad[0]]} at index {bad[0]:,} ({len(bad):,} such labels); "
            f"allowed are 0 to {classes - 1}"
        )


def check_official(published: Published, file: str, sha256: str, path: Path) -> list[str]:
    """Return a warning if a file is not the published one. Raises DataError for another dataset's.

    MNIST and Fashion-MNIST have the same file names and shapes: only the contents tell them apart.
    """
    known = published.sha256.get(file)
    if sha256 == known:
        return []
    found = owner(sha256)
    if found is not None:
        raise wrong_dataset(path, *found)
    return [
        f"{published.relative(file)} is not the published file: SHA-256 {sha256}, "
        f"published {known}; results are not comparable with others'"
    ]


def wrong_dataset(path: Path, other: Published, other_file: str) -> DataError:
    """Return the error for a file that belongs to another published dataset."""
    return DataError(
        f"{shown(path)} holds {other.name}'s {other_file}; put the right file there, or choose "
        f"dataset={other.name}"
    )


def channel_statistics(
    images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, exact, by sums over a histogram.

    images: (M, C, H, W) uint8; rows: those to look at, None for all. With n pixels x of a channel,
    S their sum and Q that of their squares: mean = S / n and variance = (n Q - S²) / n², all but
    the division in Python's integers.
    """
    channels = images.shape[1]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images) if rows is None else len(rows), CHUNK):
        chunk = slice(start, start + CHUNK)
        block = images[chunk if rows is None else rows[chunk]]
        for channel in range(channels):
            pixels = block[:, channel].ravel()
            histogram[channel] += np.bincount(pixels, minlength=256)
    mean, std = [], []
    for counts in histogram.tolist():
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        mean.append(total / n)
        std.append(math.sqrt(n * squares - total * total) / n)
    return tuple(mean), tuple(std)

"""Reads CIFAR-10 (Krizhevsky 2009), in its official binary version or its Python version.

A binary file contains 10,000 records: a label byte, then a red, a green and a blue plane of 32x32
bytes. A Python file is a pickled dictionary, which ``plain_pickle`` reads without running code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset_files import read, sha256
from nnopt.data.locations import Location, complete_locations, location_in, similar_folders
from nnopt.data.plain_pickle import Bytes, read_plain_pickle
from nnopt.data.published import CIFAR10, Published
from nnopt.data.source import Decoded, Source, check_labels, check_official
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import visible

MAX_REASON_LENGTH = 200  # characters
IMAGES_PER_FILE = 10_000
PIXELS = 3 * 32 * 32
MAX_FILE_BYTES = 2**26  # twice the size of a file of either version
FILES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
PYTHON_FOLDER = "cifar-10-batches-py"
SIMILAR = ("cifar-10", "cifar-10-binary", "cifar-10-python")  # other names of the data folder


def locate(published: Published, root: Path) -> Source[Published]:
    """Return the first complete version under ``root`` as a source. Raises DataError."""
    location = complete_locations(published, root, candidates(published, root))[0]
    names = [name for files in FILES.values() for name in files]
    paths = dict(zip(names, location.paths.values(), strict=True))
    return Source(published.name, str(location.folder), paths, published, _decode)


def candidates(published: Published, root: Path) -> list[Location]:
    """Return the folders that can contain the binary or the Python version, with their files."""
    binary = {name: [name] for files in FILES.values() for name in files}
    python = {name.removesuffix(".bin"): [name.removesuffix(".bin")] for name in binary}
    tops = [root, *similar_folders(root, *SIMILAR)]
    versions = ((published.folder, binary), (PYTHON_FOLDER, python))
    unpacked = [location_in(top / name, files) for top in tops for name, files in versions]
    flat = [location_in(top, files) for top in tops for _, files in versions]
    return unpacked + flat


def _decode(published: Published, paths: Mapping[str, Path]) -> Decoded:
    parts: dict[str, tuple[np.ndarray, NDArray[np.int64]]] = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    for part, files in FILES.items():
        images, labels = [], []
        for name in files:
            path = paths[name]
            content = read(path, MAX_FILE_BYTES)
            is_binary = path.suffix == ".bin"
            folder = CIFAR10.folder if is_binary else PYTHON_FOLDER
            sources[f"{folder}/{path.name}"] = sha256(content)
            records = parse_binary(content, path) if is_binary else parse_python(content, path)
            # Both versions contain the same records, so the published checksums apply to both.
            notes += check_official(published, name, sha256(records.data), path)
            check_labels(records[:, 0], len(published.classes), shown(path))
            images.append(records[:, 1:])
            labels.append(records[:, 0])
        pixels = np.concatenate(images).reshape(-1, *published.shape)
        parts[part] = pixels, np.concatenate(labels, dtype=np.int64)
    return Decoded(published.classes, parts, sources, notes=tuple(notes))


def parse_binary(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the records of a binary file: (N, 1 + 3072), label first. Raises DataError."""
    expected = IMAGES_PER_FILE * (1 + PIXELS)
    if len(content) != expected:
        kind = "truncated" if len(content) < expected else "too long"
        raise DataError(
            f"{shown(path)} is {kind}: {len(content):,} bytes, expected {expected:,}; delete the "
            "files of the dataset and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(IMAGES_PER_FILE, 1 + PIXELS)


def parse_python(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the records of a pickled file, as ``parse_binary`` does. Raises DataError."""
    try:
        batch = read_plain_pickle(content)
    except Exception as error:  # a damaged pickle raises many kinds of errors
        reason = visible(str(error)[:MAX_REASON_LENGTH] or type(error).__name__)
        raise DataError(f"{shown(path)} is damaged or not a CIFAR-10 batch: {reason}") from error
    if not isinstance(batch, dict):
        raise DataError(f"{shown(path)} contains a {type(batch).__name__}, expected a dictionary")
    pixels, labels = (_value(batch, key, path) for key in ("data", "labels"))
    shape = (IMAGES_PER_FILE, PIXELS)
    array = pixels.array if isinstance(pixels, Bytes) else None
    if array is None or array.shape != shape:
        kind = f"of type {type(pixels).__name__}" if array is None else f"an array {array.shape}"
        found = kind[:MAX_REASON_LENGTH]
        raise DataError(f"{shown(path)}: 'data' is {found}, expected an array {shape} of bytes")
    if not isinstance(labels, list) or len(labels) != IMAGES_PER_FILE:
        raise DataError(f"{shown(path)}: 'labels' is not a list of {IMAGES_PER_FILE:,} numbers")
    for index, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CIFAR10.classes):
            raise DataError(
                f"{shown(path)}: label {_short(label)} at index {index:,}; allowed are 0 to "
                f"{len(CIFAR10.classes) - 1}"
            )
    return np.concatenate([np.array(labels, dtype=np.uint8)[:, None], array], axis=1)


def _value(batch: dict[Any, Any], key: str, path: Path) -> Any:
    """Return the value of a key. Keys are strings or, in files of Python 2, bytes."""
    for spelling in (key.encode(), key):
        if spelling in batch:
            return batch[spelling]
    names = ", ".join(_short(name) for name in list(batch)[:10])
    raise DataError(f"{shown(path)} has no key {key!r}; its keys are {names}")


def _short(value: object) -> str:
    """Return a short text for a value in a message; a hostile file can contain very long values."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "of more than 18 digits"
    if isinstance(value, str | bytes):
        return repr(value[:50])
    return repr(value) if isinstance(value, int | float) else type(value).__name__

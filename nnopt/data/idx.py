"""Reads MNIST and Fashion-MNIST: IDX files (http://yann.lecun.com/exdb/mnist/, LeCun et al. 1998).

An IDX file is a magic number (two zero bytes, the type 0x08 for unsigned bytes, the number of
dimensions), each dimension as a big-endian 32-bit integer, then the values, last dimension fastest.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset_files import read, sha256
from nnopt.data.locations import Location, complete_locations, location_in, similar_folders
from nnopt.data.published import Published, owner
from nnopt.data.source import Decoded, Source, check_labels, check_official, wrong_dataset
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
INNER = ("raw", "", "data/fashion")  # subfolders: torchvision's, none, Fashion-MNIST's repository

MAX_LABELS_BYTES = 2**20  # the largest published file has 60,008 bytes


def locate(published: Published, root: Path) -> Source[Published]:
    """Find the four files under ``root``. Raises DataError if one is missing.

    Both datasets have equal file names. A folder with the labels of the other dataset is skipped.
    """
    complete = complete_locations(published, root, candidates(published, root))
    location = next((one for one in complete if not _other_dataset(published, one)), complete[0])
    if other := _other_dataset(published, location):
        raise wrong_dataset(*other)
    return Source(published.name, str(location.folder), location.paths, published, _decode)


def candidates(published: Published, root: Path) -> list[Location]:
    """Return the folders that can contain the files, and the paths of the files in them."""
    usual = root / published.folder
    similar = similar_folders(root, usual.parent.name)
    folders = [usual, *(top / inner for top in similar for inner in INNER), root / "raw", root]
    names = {file: spellings(file) for files in FILES.values() for file in files}
    return [location_in(folder, names) for folder in dict.fromkeys(folders)]


def spellings(file: str) -> list[str]:
    """Return the accepted paths of a file: for x-idx also x.idx, x-idx.gz, x-idx/x.idx, ..."""
    dotted = file.replace("-idx", ".idx")
    names = [file, f"{file}.gz", dotted, f"{dotted}.gz"]
    return [*names, *(f"{folder}/{name}" for folder in (file, dotted) for name in names)]


def _other_dataset(published: Published, location: Location) -> tuple[Path, Published, str] | None:
    """Return path, dataset and official file name of the labels if they are another dataset's."""
    path = location.paths[FILES["train"][1]]
    try:
        other = owner(sha256(read(path, MAX_LABELS_BYTES, size_in_header)))
    except DataError:  # decoding reports it
        return None
    return None if other is None or other[0] is published else (path, *other)


def _decode(published: Published, paths: Mapping[str, Path]) -> Decoded:
    parts: dict[str, tuple[np.ndarray, NDArray[np.int64]]] = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    for part, files in FILES.items():
        contents = {file: read(paths[file], size_of=size_in_header) for file in files}
        for file, content in contents.items():
            digest = sources[published.relative(file)] = sha256(content)
            notes += check_official(published, file, digest, paths[file])
        images, labels = (
            parse_idx(contents[file], dimensions, paths[file])
            for file, dimensions in zip(files, (3, 1), strict=True)
        )
        of_images, of_labels = (shown(paths[file]) for file in files)
        if len(images) != len(labels):
            raise DataError(
                f"{of_images} has {len(images):,} images, but {of_labels} has {len(labels):,} "
                "labels; the numbers must be equal"
            )
        check_labels(labels, len(published.classes), of_labels)
        parts[part] = images[:, None], labels.astype(np.int64)
    train, test = (parts[part][0] for part in FILES)
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{published.folder}: training images are {train.shape[1:]}, test images "
            f"{test.shape[1:]} (channels, height, width); they must be the same"
        )
    if 0 in train.shape:
        raise DataError(f"{shown(paths[FILES['train'][0]])} has no images")
    return Decoded(published.classes, parts, sources, notes=tuple(notes))


def size_in_header(start: bytes) -> int:
    """Return the file size that an IDX header implies; 0 if ``start`` is not an IDX header."""
    dimensions = start[3] if start[:3] == bytes([0, 0, 8]) and len(start) > 3 else 0
    header = 4 + 4 * dimensions
    if not 0 < dimensions <= 4 or len(start) < header:
        return 0
    size: int = math.prod(struct.unpack(f">{dimensions}I", start[4:header]))
    return header + size


def parse_idx(content: bytes, dimensions: int, path: Path) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, as a view of ``content``.

    Raises DataError if the header is wrong or does not match the size of the file.
    """
    start, magic = 4 + 4 * dimensions, bytes([0, 0, 8, dimensions])
    if len(content) < start:
        problem = f"is truncated: {len(content)} bytes, but its header has {start} bytes"
    elif content[:4] != magic:
        problem = (
            f"is not an IDX file with {dimensions} dimension(s): it begins with "
            f"{content[:4].hex(' ')}, expected {magic.hex(' ')}"
        )
    else:
        shape = struct.unpack(f">{dimensions}I", content[4:start])
        expected = start + math.prod(shape)
        if len(content) == expected:
            return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
        kind = "truncated" if len(content) < expected else "too long"
        problem = f"is {kind}: {len(content):,} bytes, but its header {shape} means {expected:,}"
    raise DataError(f"{shown(path)} {problem}; delete it and fetch it again")

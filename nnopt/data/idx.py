"""MNIST and Fashion-MNIST: IDX files (http://yann.lecun.com/exdb/mnist/, LeCun et al. 1998).

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

from nnopt.data.files import missing, present, read, sha256
from nnopt.data.published import Published
from nnopt.data.source import (
    Decoded,
    Source,
    channel_statistics,
    check_labels,
    check_official,
)
from nnopt.errors import DataError
from nnopt.results.files import shown

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def locate(published: Published, root: Path) -> Source[Published]:
    """The four files under ``root``, each plain or ``.gz``. Raises DataError if one is missing."""
    paths = {}
    for file in [file for pair in FILES.values() for file in pair]:
        path = present(root / published.folder, file)
        if path is None:
            raise missing(published, root, file)
        paths[file] = path
    return Source(
        name=published.name,
        place=str(root / published.folder),
        files=paths,
        settings=published,
        decoder=_decode,
    )


def _decode(published: Published, paths: Mapping[str, Path]) -> Decoded:
    parts: dict[str, tuple[np.ndarray, NDArray[np.int64]]] = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    for part, files in FILES.items():
        contents = {file: read(paths[file]) for file in files}
        for file, content in contents.items():
            sources[published.relative(file)] = sha256(content)
            notes += check_official(published, file, sha256(content))
        images, labels = (
            parse_idx(contents[file], dimensions, paths[file])
            for file, dimensions in zip(files, (3, 1), strict=True)
        )
        if len(images) != len(labels):
            raise DataError(
                f"{shown(paths[files[0]])} holds {len(images):,} images but "
                f"{shown(paths[files[1]])} {len(labels):,} labels; they must be as many"
            )
        check_labels(labels, len(published.classes), shown(paths[files[1]]))
        parts[part] = images[:, None], labels.astype(np.int64)
    sizes = {part: inputs.shape[1:] for part, (inputs, _) in parts.items()}
    if sizes["train"] != sizes["test"]:
        raise DataError(
            f"{published.folder}: training images are {sizes['train']}, test images "
            f"{sizes['test']} (channels, height, width); they must be the same"
        )
    if 0 in parts["train"][0].shape:
        raise DataError(f"{shown(paths[FILES['train'][0]])} holds no image; expected some")
    mean, std = channel_statistics(parts["train"][0])
    return Decoded(published.classes, parts, sources, mean, std, tuple(notes))


def parse_idx(content: bytes, dimensions: int, path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, a view of ``content``. Raises DataError.

    Every number in the header is checked against the size of the file before it is used.
    """
    name = shown(path)
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(
            f"{name} is truncated: {len(content)} bytes, but its header alone takes {start}; "
            "delete it and fetch it again"
        )
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise DataError(
            f"{name} is no IDX file of {dimensions} dimension(s): it begins with "
            f"{content[:4].hex(' ')}, expected {magic.hex(' ')}; delete it and fetch it again"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = start + math.prod(shape)
    if len(content) != expected:
        kind = "truncated" if len(content) < expected else "too long"
        raise DataError(
            f"{name} is {kind}: {len(content):,} bytes, but its header {shape} says "
            f"{expected:,}; delete it and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)

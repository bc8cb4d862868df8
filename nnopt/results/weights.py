"""Reading of the weights of runs, and comparison of the weights of two runs."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nnopt.errors import ModelError
from nnopt.io.atomic_files import FileRecord, shown
from nnopt.io.received_files import open_received
from nnopt.io.safe_text import shortened

MAX_FILE_BYTES = 2**36

MAX_OVERHEAD_BYTES = 2**26
"""Maximum size of a file of weights in addition to 16 bytes for each parameter."""

Arrays = dict[str, NDArray[np.floating]]

MAX_COMPRESSED_BYTES = 2**30
"""Maximum size of the arrays of a compressed file, after decompression.

Larger arrays are written without compression."""

MAX_HEADER_CHARACTERS = 1000
"""Maximum length of the header of an array. Usual headers have 100 characters."""

DAMAGE_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
"""Errors that NumPy and zipfile raise for a damaged archive."""


def read_weights(
    path: Path, parameters: float | None = None, record: FileRecord | None = None
) -> Arrays:
    """Read an ``.npz`` file written by nnopt, without unpickling. Return a map from name to array.

    Args:
        path: The file.
        parameters: The number of parameters of the network, or None if it is unknown. It limits the
            size of the arrays.
        record: The recorded size and hash of the file, or None if they are unknown.

    Raises:
        ModelError: The file is missing, damaged, or not written by nnopt.
    """
    try:
        with (
            open_received(path, path.parent, MAX_FILE_BYTES) as file,
            _archive(file, parameters, record) as archive,
        ):
            members = archive.infolist()
            _check_members(members, os.fstat(file.fileno()).st_size)
            count = sum(_checked_size(archive, member) for member in members)
            # A network has at most as many running statistics as parameters.
            if parameters is not None and count > 2 * parameters + 1000:
                raise ValueError(
                    f"it holds {count:,} numbers, but the network has {parameters:,.0f} parameters"
                )
            arrays: Arrays = {}
            for member in members:
                with archive.open(member) as entry:  # reading to the end checks the CRC
                    array = npy.read_array(entry, max_header_size=MAX_HEADER_CHARACTERS)
                arrays[member.filename.removesuffix(".npy")] = array
            return arrays
    except FileNotFoundError as error:
        raise ModelError(f"{shown(path)} does not exist") from error
    except DAMAGE_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) else error
        reason = reason or type(error).__name__
        raise ModelError(f"{shown(path)} is damaged: {shortened(str(reason), 300)}") from error


def _archive(
    file: BufferedReader, parameters: float | None, record: FileRecord | None
) -> zipfile.ZipFile:
    """Open the archive in a file. Raises ValueError if the file differs from its record."""
    if record is not None:
        size = os.fstat(file.fileno()).st_size
        if parameters is not None and size > 16 * parameters + MAX_OVERHEAD_BYTES:
            raise ValueError(f"it has {size:,} bytes, too many for {parameters:,.0f} parameters")
        if size != record.size:
            raise ValueError(f"it has {size:,} bytes, but the model's description {record.size:,}")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != record.sha256:
            raise ValueError(
                f"its SHA-256 is {digest}, but in the model's description {record.sha256}"
            )
        file.seek(0)
    return zipfile.ZipFile(file)


def _check_members(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError if nnopt cannot have written the archive."""
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two of its arrays have the same name")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise ValueError(f"{member.filename[:50]!r} is no array")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename[:50]!r} has an unexpected compression")
    stored = [x.file_size for x in members if x.compress_type == zipfile.ZIP_STORED]
    if sum(stored) > size:
        raise ValueError("its arrays overlap: together, they are larger than the file")
    if sum(member.file_size for member in members) > max(size, MAX_COMPRESSED_BYTES):
        raise ValueError("its compressed arrays are too large")


def _checked_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return the size of an array after checking its header. Raises one of DAMAGE_ERRORS."""
    name = member.filename[:50]
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with archive.open(member) as file:
        if (version := npy.read_magic(file)) not in readers:
            raise ValueError(f"{name!r} has an unknown format")
        shape, _, dtype = readers[version](file, max_header_size=MAX_HEADER_CHARACTERS)
        length = file.tell()
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or not dtype.isnative:
        raise ValueError(f"{name!r} holds {str(dtype)[:50]}, not numbers")
    if any(isinstance(side, bool) or side < 0 for side in shape) or len(shape) > 32:
        raise ValueError(f"{name!r} has an impossible shape")
    size = math.prod(shape)
    if size * dtype.itemsize != member.file_size - length:
        raise ValueError(f"{name!r} has a size that does not match its shape {str(shape)[:50]}")
    return size


@dataclass(frozen=True)
class ArrayDifference:
    """Difference of arrays ``a`` and ``b`` of the same name and shape, treated as vectors.

    ``cosine`` is the cosine of the angle between ``a`` and ``b``, or None if one of them is 0.
    """

    name: str
    shape: tuple[int, ...]
    norms: tuple[float, float]  # L2 norms of a and b
    distance: float  # L2 norm of b - a
    cosine: float | None


def array_differences(
    a: Mapping[str, NDArray[np.floating]], b: Mapping[str, NDArray[np.floating]]
) -> list[ArrayDifference]:
    """Compare, in float64, the arrays of ``a`` and ``b`` that have the same name and shape."""
    return [
        _difference(name, np.asarray(x, np.float64), np.asarray(b[name], np.float64))
        for name, x in a.items()
        if name in b and np.shape(x) == np.shape(b[name])
    ]


def _difference(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> ArrayDifference:
    with np.errstate(all="ignore"):  # weights that are not finite lead to NaN
        norms = _norm(x), _norm(y)
        cosine = float(np.vdot(x / norms[0], y / norms[1])) if all(norms) else None
        return ArrayDifference(name, x.shape, norms, _norm(y - x), cosine)


def _norm(x: NDArray[np.float64]) -> float:
    """Return the L2 norm. The squares neither overflow nor underflow."""
    largest = float(np.max(np.abs(x), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(x / largest))

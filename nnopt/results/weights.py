"""Reading of the weights of runs, and comparison of the weights of two runs."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.received_files import open_received
from nnopt.io.safe_text import shortened

MAX_FILE_BYTES = 2**36

Arrays = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class ArrayDifference:
    """Difference of two arrays a and b with the same name and shape, regarded as vectors.

    Attributes:
        norms: L2 norms ‖a‖ and ‖b‖.
        distance: L2 norm ‖b - a‖.
        cosine: Cosine of the angle between a and b; None if one of them is 0.
    """

    name: str
    shape: tuple[int, ...]
    norms: tuple[float, float]
    distance: float
    cosine: float | None


DAMAGE_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
)
"""Errors that NumPy and zipfile raise for a damaged archive."""

MAX_HEADER_CHARACTERS = 1000
"""Maximum length of the header of an array. Usual headers have 100 characters."""


def read_weights(path: Path, parameters: float | None = None) -> Arrays:
    """Return the arrays by name of an ``.npz`` file written by nnopt, without unpickling.

    The arrays are never larger than the file, because compressed files are refused. ``parameters``
    is the number of parameters of the network, or None if it is unknown.

    Raises:
        DataError: The file is missing, damaged, or not written by nnopt.
    """
    try:
        with (
            open_received(path, path.parent, MAX_FILE_BYTES) as file,
            zipfile.ZipFile(file) as archive,
        ):
            members = archive.infolist()
            _check_members(members, os.fstat(file.fileno()).st_size)
            headers = [_header(archive, member) for member in members]
            _check_count(headers, parameters)
            return {
                member.filename.removesuffix(".npy"): _array(archive, member, header)
                for member, header in zip(members, headers, strict=True)
            }
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)} does not exist: the run has no weights") from error
    except DAMAGE_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) else error
        reason = reason or type(error).__name__
        raise DataError(f"{shown(path)} is damaged: {shortened(str(reason), 300)}") from error


@dataclass(frozen=True)
class _Header:
    """Type and shape of one array, and the length of its header in bytes."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    length: int


def _check_members(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError if nnopt cannot have written the archive."""
    names = {member.filename for member in members}
    if len(names) < len(members):
        raise ValueError("two of its arrays have the same name")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise ValueError(f"{member.filename[:50]!r} is no array")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"{member.filename[:50]!r} is compressed, as nnopt's weights never are"
            )
    if sum(member.file_size for member in members) > size:
        raise ValueError("its arrays overlap: they are larger than the file")


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    """Read and check the header of an array. Raises one of DAMAGE_ERRORS."""
    name = member.filename[:50]
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name!r} has an unknown format")
        read = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            read = np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file, max_header_size=MAX_HEADER_CHARACTERS)
        length = file.tell()
    if dtype.kind not in "fiu" or dtype.itemsize > 8 or not dtype.isnative:
        raise ValueError(f"{name!r} holds {str(dtype)[:50]}, not numbers")
    if any(isinstance(side, bool) or side < 0 for side in shape) or len(shape) > 32:
        raise ValueError(f"{name!r} has an impossible shape")
    if math.prod(shape) * dtype.itemsize != member.file_size - length:
        raise ValueError(f"{name!r} has another size than its shape {str(shape)[:50]}")
    return _Header(shape, is_fortran, dtype, length)


def _check_count(headers: Sequence[_Header], parameters: float | None) -> None:
    """Raise ValueError if there are more numbers than a network with these parameters has.

    There are at most as many running statistics as parameters.
    """
    count = sum(math.prod(header.shape) for header in headers)
    if parameters is not None and count > 2 * parameters + 1000:
        raise ValueError(
            f"it holds {count:,} numbers, but the network has {parameters:,.0f} parameters"
        )


def _array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: _Header
) -> NDArray[np.floating]:
    """Read an array and check its CRC. Raises one of DAMAGE_ERRORS."""
    data = archive.read(member)
    array: NDArray[np.floating] = np.frombuffer(data, header.dtype, offset=header.length)
    return array.reshape(header.shape, order="F" if header.is_fortran else "C")


def array_differences(
    a: Mapping[str, NDArray[np.floating]], b: Mapping[str, NDArray[np.floating]]
) -> list[ArrayDifference]:
    """Compare the arrays of a and b with the same name and shape, in float64."""
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

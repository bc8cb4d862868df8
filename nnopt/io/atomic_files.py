"""Files that are either complete or absent, and folders that belong to one run.

A file is written under a temporary name in its folder, synced to the disk and then renamed. A
rename within a folder is atomic (POSIX ``rename``), so a reader never sees a part of a file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnopt.errors import OutputError

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # full disk, quota, size limit


@dataclass(frozen=True)
class FileRecord:
    """The name of a file, its size in bytes, and the SHA-256 of its content."""

    name: str
    size: int
    sha256: str


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` completely or not at all. Raises OutputError."""
    with _replacing(path, len(data)) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8. A surrogate escape of ``os.fsdecode`` becomes its original byte."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as strict JSON; see ``strict``. Raises OutputError."""
    # A lone surrogate (a byte of a file name that is not UTF-8) becomes the JSON escape \udcXX.
    text = json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8", errors="backslashreplace"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Write named arrays as ``.npz``. ``np.load(path)`` reads them without pickle.

    In contrast to ``np.savez``, arrays of Python objects are refused, a name may be any string, and
    equal arrays give equal files.
    """
    with _replacing(path, sum(array.nbytes for array in arrays.values())) as file:
        _write_archive(file, arrays, compressed)


def write_hashed_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = False
) -> FileRecord:
    """Write named arrays as ``write_arrays`` does, and return the size and the hash of the file.

    The file is hashed before it is synced, while its content is in memory.
    """
    with _replacing(path, sum(array.nbytes for array in arrays.values())) as file:
        _write_archive(file, arrays, compressed)
        size = file.tell()
        file.seek(0)
        return FileRecord(path.name, size, hashlib.file_digest(file, "sha256").hexdigest())


def _write_archive(file: BinaryIO, arrays: Mapping[str, np.ndarray], compressed: bool) -> None:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so equal arrays give equal files
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def fresh_folder(parent: Path, stem: str) -> Path:
    """Create and return a new folder with the first free name: ``stem``, ``stem-2``, ...

    ``mkdir`` fails if the folder exists, so concurrent processes get different folders. Raises
    OutputError.
    """
    folder, number = parent, 1
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = parent / (stem if number == 1 else f"{stem}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise output_error("create folder", folder, error) from error


def link_latest(outputs: Path, target: Path) -> None:
    """Point the relative symlink ``outputs/latest`` to ``target``, replacing the old link.

    If the link cannot be created, or ``latest`` is a folder, nothing changes.
    """
    temporary = _temporary(outputs)
    try:
        os.symlink(os.path.relpath(target.resolve(), outputs.resolve()), temporary)
        os.replace(temporary, outputs / "latest")
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)


def output_error(action: str, path: Path, error: OSError, size: int | None = None) -> OutputError:
    """Return the OutputError "cannot ACTION PATH: ...". size: the number of bytes to write."""
    if error.errno in DISK_FULL_ERRORS:
        reason = "the disk, or its quota, is full"
        if size is not None:
            reason = f"the disk, or its quota, has no room for {size:,} bytes"
        with suppress(OSError):
            reason += f" ({shutil.disk_usage(path.parent).free:,} bytes are free)"
        reason += "; make room"
    else:
        reason = error.strerror or str(error)
        reason = f"{reason[:1].lower()}{reason[1:]}; check the folder and its permissions"
    return OutputError(
        f"cannot {action} {shown(path)}: {reason}, or choose another folder (nnopt run: "
        "hydra.run.dir=DIR; nnopt run -m: hydra.sweep.dir=DIR)"
    )


def shown(path: Path) -> str:
    """Return the path as text, quoted and escaped if it has unprintable characters."""
    text = str(path)
    return text if text.isprintable() else repr(text)


@contextmanager
def _replacing(path: Path, size: int) -> Iterator[BufferedRandom]:
    """Open a temporary file. Once it is written and synced, it replaces ``path``."""
    temporary = _temporary(path.parent)
    try:
        # The umask sets the permissions, whereas tempfile.mkstemp would make the file private.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise output_error("write", path, error, size) from error
        raise


def _temporary(folder: Path) -> Path:
    """Return a name that no other process uses, and that is short enough for the file system."""
    return folder / f".{os.getpid()}-{os.urandom(6).hex()}.tmp"


def json_text(value: Any) -> str:
    """Return strict JSON in ASCII, which every output encoding can represent; see ``strict``."""
    return json.dumps(strict(value), indent=2, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """Return ``value`` in the types of JSON. NaN and infinities, which JSON lacks, become None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value

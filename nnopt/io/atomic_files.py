"""Files that are either whole or absent, and folders that belong to one run alone.

Every file is written under a temporary name beside its target, flushed, synced to the disk and only
then renamed over it. Renaming within a folder is atomic (POSIX ``rename``), so a reader, a crash or
a full disk meets the old content or the new one, never half of it.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nnopt.errors import OutputError

# The disk, the user's quota on it, or the process's limit on a file's size is used up.
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as a whole or not at all. Raises OutputError."""
    with _replacing(path, len(data)) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8. Bytes of file names that are no UTF-8 stay as they were."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as strict JSON; see ``strict``. Raises OutputError."""
    write_strict_json(path, strict(value))


def write_strict_json(path: Path, value: Any) -> None:
    """Write a value that ``strict`` has returned. Raises OutputError."""
    # A lone surrogate (from a file name that is no UTF-8) becomes \udcXX: just JSON's own escape.
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8", errors="backslashreplace"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz``; read them by ``np.load(path)``, which unpickles nothing.

    This is ``np.savez`` but for three things: arrays of Python objects are refused, a name may be
    any string (``np.savez`` takes names as keyword arguments), and equal arrays give equal bytes.
    """
    size = sum(array.nbytes for array in arrays.values())
    with _replacing(path, size) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, whatever the clock says
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def fresh_folder(parent: Path, stem: str) -> Path:
    """Make and return a folder nobody else has: ``stem``, or ``stem-2``, ``stem-3``, ...

    ``mkdir`` fails where the folder exists, so each of many processes gets its own. Raises
    OutputError.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make folder", parent, error) from error
    for number in itertools.count(1):
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise output_error("make folder", folder, error) from error
        return folder
    raise AssertionError("itertools.count ended")


def link_latest(outputs: Path, target: Path) -> None:
    """Point the relative symlink ``outputs/latest`` to ``target``, replacing the old one at once.

    A convenience only: where links are refused, or ``latest`` is a real folder, nothing happens.
    """
    temporary = _temporary(outputs)
    try:
        os.symlink(os.path.relpath(target.resolve(), outputs.resolve()), temporary)
        os.replace(temporary, outputs / "latest")
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)


def output_error(action: str, path: Path, error: OSError, size: int | None = None) -> OutputError:
    """One line for ``error``, met by trying to ``action`` (a verb) ``path`` of ``size`` bytes."""
    if error.errno in DISK_FULL:
        needed = "" if size is None else f" for {size:,} bytes"
        reason = f"the disk, or its quota, is full{needed}{_space_left(path)}; make room"
    else:
        reason = f"{(error.strerror or str(error)).lower()}; check the folder and its permissions"
    return OutputError(
        f"cannot {action} {shown(path)}: {reason}, or choose another folder with hydra.run.dir=DIR "
        "(hydra.sweep.dir=DIR for a sweep)"
    )


def shown(path: Path) -> str:
    """Return the path, quoted and escaped if printing it would break a line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


@contextmanager
def _replacing(path: Path, size: int) -> Iterator[BinaryIO]:
    """A temporary file beside ``path`` that takes its place once written and synced."""
    temporary = _temporary(path.parent)
    try:
        # 0o666 less the umask, like any other file; tempfile.mkstemp would make it private.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with open(descriptor, "wb") as file:
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
    """A name no other process uses, short, so that it fits wherever the final name does."""
    return folder / f".{os.getpid()}-{os.urandom(6).hex()}.tmp"


def _space_left(path: Path) -> str:
    with suppress(OSError):
        return f" ({shutil.disk_usage(path.parent).free:,} bytes are free)"
    return ""


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

"""Safe reading of untrusted dataset files: only regular files of limited size."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.received_files import kind_of

# A gzip file may unpack to GZIP_FLOOR bytes or to GZIP_RATIO times its size, if that is more.
GZIP_FLOOR = 256 * 2**20
GZIP_RATIO = 100

HEADER_BYTES = 64
SizeOf = Callable[[bytes], int]  # maps the first HEADER_BYTES, unpacked, to the unpacked size


def read(path: Path, limit: int = 2**30, size_of: SizeOf | None = None) -> bytes:
    """Return the bytes of a regular file, unpacked if its name ends in ``.gz``.

    ``limit`` is the largest allowed size in bytes, packed and unpacked. ``size_of`` computes the
    unpacked size from the first unpacked bytes. Unpacking stops one byte after this size, so that
    the caller notices a longer file. Raises DataError if the file is absent, damaged, too large or
    not a regular file.
    """
    check_regular(path)
    try:
        if (size := path.stat().st_size) > limit:
            raise DataError(
                f"{shown(path)} has {size:,} bytes, expected {limit:,} at most; delete it and "
                "fetch it again"
            )
        return _read_gzip(path, limit, size_of) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{shown(path)} ({path.stat().st_size:,} bytes) is damaged: {error}; delete it and "
            "fetch it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def check_regular(path: Path) -> None:
    """Raise DataError unless ``path`` is a regular file. Opening a FIFO would block."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{shown(path)} is {kind_of(mode)}; expected a regular file")


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a file or folder that the system cannot read."""
    if isinstance(error, FileNotFoundError):
        what = "is a dangling link" if path.is_symlink() else "does not exist"
        return DataError(f"{shown(path)} {what}; expected a file")
    reason = (error.strerror or str(error)).lower()
    return DataError(f"cannot read {shown(path)}: {reason}; check its permissions")


def _read_gzip(path: Path, limit: int, size_of: SizeOf | None) -> bytes:
    limit = min(limit, max(GZIP_FLOOR, GZIP_RATIO * path.stat().st_size))
    with gzip.open(path) as file:
        start = file.read(HEADER_BYTES)
        size = limit if size_of is None else min(limit, max(len(start), size_of(start)))
        content = start + file.read(size + 1 - len(start))
    if len(content) > limit:
        raise DataError(
            f"{shown(path)} unpacks to more than {limit:,} bytes; if you trust the file, "
            "unpack it yourself"
        )
    return content


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size, not unpacked. Raises DataError."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def refuse_links(folder: Path, root: Path) -> None:
    """Raise OSError if ``folder``, or a folder between it and ``root``, is a link.

    A write through a link would change files outside of ``root``. ``root`` itself may be a link,
    and so may a ``folder`` outside of ``root``, because the user named it.
    """
    while folder.is_relative_to(root) and folder != root:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, f"{shown(folder)} is a link, which nnopt does not follow")
        folder = folder.parent


def remove(path: Path) -> None:
    """Delete a folder with its contents, a file, or a link but not its target."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()

"""Files from other people: opened and decoded within limits.

A folder of results may be a download. Its files can be links to private files, named pipes that
block a reader, endless devices, or deeply nested JSON.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any

from nnopt.io.safe_text import visible

MIB = 2**20

# The sizes in bytes of the largest files that are read.
SUMMARY_BYTES = 16 * MIB  # summary.json; a usual one has 10 kB
CONFIG_BYTES = 2 * MIB  # config.yaml; a usual one has 3 kB
TABLE_BYTES = 256 * MIB  # metrics.csv, results.csv and sweep.json
LOG_BYTES = 2**40  # run.log; only its first line and its end are read

SAFE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # 0 on Windows

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def kind_of(mode: int) -> str:
    """Return the kind of a file that is not regular. mode: ``st_mode`` of ``os.stat``."""
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def open_received(path: Path, folder: Path, limit: int) -> BufferedReader:
    """Open a regular file of at most ``limit`` bytes that belongs to ``folder``.

    ``folder`` itself may be a link. A link in ``folder`` may only lead to a file in ``folder``.
    The call never blocks. Raises OSError, whose ``strerror`` is the reason.
    """
    status, real = os.lstat(path), str(path)
    # A folder between ``folder`` and the file can be a link.
    if stat.S_ISLNK(status.st_mode) or path.parent != folder:
        real = os.path.realpath(path)
        if not Path(real).is_relative_to(os.path.realpath(folder)):
            why = f"a link leads to {visible(real)}, outside of the folder; replace it by a copy"
            raise OSError(errno.EPERM, why, str(path))
        status = os.stat(real)
    _check(path, status, limit)
    descriptor = os.open(real, os.O_RDONLY | SAFE_FLAGS | getattr(os, "O_BINARY", 0))
    try:
        _check(path, os.fstat(descriptor), limit)  # checked again: the file may have been replaced
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_received(path: Path, folder: Path, limit: int) -> bytes:
    """Return the bytes of a file that ``open_received`` accepts. Raises OSError."""
    with open_received(path, folder, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:  # the file grew, or its size is unknown
        raise _too_large(path, len(data), limit)
    return data


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises ValueError for a text that strict JSON does not allow, that repeats a key, or that is
    nested too deeply for Python.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {visible(name[:50])!r} twice")
    return unique


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not allowed in JSON")


def _check(path: Path, status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        why = f"it is {kind_of(status.st_mode)}, not a regular file"
        raise OSError(errno.EINVAL, why, str(path))
    if status.st_size > limit:
        raise _too_large(path, status.st_size, limit)


def _too_large(path: Path, size: int, limit: int) -> OSError:
    why = f"it has {size:,} bytes or more, and at most {limit:,} are allowed"
    return OSError(errno.EFBIG, why, str(path))

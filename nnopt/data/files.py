"""Reading the files of a dataset without trusting them: regular files only, bounded in size."""

from __future__ import annotations

import gzip
import hashlib
import os
import shlex
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnopt.data.published import Download, Published
from nnopt.errors import DataError
from nnopt.results.files import shown

# A gzip file may not unpack to more than this, or 100 times its size: images never shrink so much.
GZIP_FLOOR = 256 * 2**20
GZIP_RATIO = 100

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(path: Path, limit: int = 2**30) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes, unpacked if its name ends in ``.gz``.

    Raises DataError.
    """
    check_regular(path)
    try:
        if (size := path.stat().st_size) > limit:
            raise DataError(
                f"{shown(path)} has {size:,} bytes, expected {limit:,} at most; delete it and "
                "fetch it again"
            )
        return _read_gzip(path) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{shown(path)} ({path.stat().st_size:,} bytes) is damaged: {error}; delete it and "
            "fetch it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def check_regular(path: Path) -> None:
    """Raise DataError unless ``path`` is a regular file, before opening it: a FIFO would hang."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        what = "is a dangling link" if path.is_symlink() else "does not exist"
        raise DataError(f"{shown(path)} {what}; expected a file") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise DataError(f"{shown(path)} is {kind}; expected a regular file")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system refuses to read."""
    reason = (error.strerror or str(error)).lower()
    return DataError(f"cannot read {shown(path)}: {reason}; check its permissions")


def _read_gzip(path: Path) -> bytes:
    limit = max(GZIP_FLOOR, GZIP_RATIO * path.stat().st_size)
    with gzip.open(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"{shown(path)} unpacks to more than {limit:,} bytes, {GZIP_RATIO} times its size or "
            "more; if that is right, unpack it yourself"
        )
    return content


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file of any size, not unpacked. Raises DataError."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def present(folder: Path, file: str) -> Path | None:
    """Where ``file`` lies in ``folder``, plain or as ``.gz``; None if it does not."""
    for candidate in (folder / file, folder / f"{file}.gz"):
        if os.path.lexists(candidate):
            return candidate
    return None


def missing(published: Published, root: Path, file: str) -> DataError:
    """The error for a file that is not there: what, where, from which address, by which command."""
    argument = shlex.quote(str(root)) if str(root).isprintable() else shown(root)
    return DataError(
        f"{published.relative(file)} not found in {shown(root)}; its official address is "
        f"{_download_of(published, file).addresses[0]}; fetch it with: nnopt data fetch "
        f"{published.name} --root {argument} (or run with data.download=true)"
    )


def _download_of(published: Published, file: str) -> Download:
    """The download that brings ``file``: its own .gz, or the archive that holds all files."""
    wanted = f"{published.relative(file)}.gz"
    return next((one for one in published.downloads if one.file == wanted), published.downloads[0])


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for another process that holds it. Raises OSError.

    The system drops the lock when its holder ends, however it ends, so a lock never goes stale.
    Where there are no such locks (Windows) two processes may do the same work twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            import fcntl
        except ImportError:
            pass
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

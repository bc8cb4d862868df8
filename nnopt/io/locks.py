"""Locks: who works on a folder or a file.

The system drops a lock when its holder ends, however that is. So a lock never goes stale, and
anybody can tell a run that is under way from one that was killed. filelock takes the locks. nnopt
opens the files itself, because a folder may be a download. It asks with a shared lock who holds a
folder, which filelock does not have.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnopt.io.atomic_files import output_error, shown

LOCK = "lock"
TRIES, PAUSE = 20, 0.01
"""Attempts at a lock, and seconds between them: whoever only asks if it is held, holds it for some
microseconds."""

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""The errors of a file system without locks: Lustre and NFS may be mounted so."""

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""The folder may be a download: its lock may be a link out of it, or a pipe, which would block."""


def take(descriptor: int, wait: bool) -> bool:
    """Lock an open file until it is closed. False if another process holds it; ``wait``: until it
    does not. Raises OSError, also on a file system without locks."""
    from filelock import lock_descriptor  # takes 10 ms

    return lock_descriptor(descriptor, blocking=wait, poll_interval=PAUSE)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for another process that holds it.

    A link, a pipe or a device in the place of the lock file is refused. Raises OSError, also on a
    file system without locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(path)
    try:
        take(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the folder, which exists. False if somebody else does; ``wait``: until they do not.

    On a file system without locks it is always True. A link, a pipe or a device in the place of the
    lock is refused. Raises OutputError.
    """
    descriptor = -1
    try:
        descriptor = _open(folder / LOCK)
        is_mine = _held(descriptor, wait)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise output_error("write", folder / LOCK, error) from error
    try:
        yield is_mine
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Does anybody hold the folder? False where there are no such locks."""
    try:
        import fcntl

        descriptor = os.open(folder / LOCK, os.O_RDONLY | _NO_LINKS)
    except (ImportError, OSError):  # there is no such file: no process ever has
        return False
    try:
        # Shared: those who ask do not see each other. And the file may be another user's: NFS gives
        # an exclusive lock only of a file that is open for writing (flock(2)).
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _open(path: Path) -> int:
    """Open a lock file, made if it is not there. Raises OSError unless it is a regular file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _NO_LINKS, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"the lock {shown(path)} is not a regular file")
    return descriptor


def _held(descriptor: int, wait: bool) -> bool:
    try:
        for _ in range(TRIES):
            if take(descriptor, wait):
                return True
            time.sleep(PAUSE)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return True
    return False

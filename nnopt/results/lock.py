"""Who works on a folder: an flock on the file ``lock`` in it, which the system drops when its
holder ends, however that is. So a lock never goes stale, and anybody can tell a run that is under
way from one that was killed.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnopt.results.files import output_error

LOCK = "lock"
TRIES, PAUSE = 20, 0.01
"""Attempts at a lock, and seconds between them: whoever only asks if it is held, holds it for some
microseconds."""

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""The errors of flock on a file system without locks: Lustre and NFS may be mounted so."""

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""The folder may be a download: its lock may be a link out of it, or a pipe, which would block."""


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the folder, which exists. False if somebody else does; ``wait``: until they do not.

    Where there are no such locks (Windows, some network file systems) it is always True. A link or
    a pipe in the place of the lock is refused. Raises OutputError.
    """
    descriptor = -1
    try:
        descriptor = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT | _NO_LINKS, 0o666)
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
        descriptor = os.open(folder / LOCK, os.O_RDONLY | _NO_LINKS)
    except OSError:  # there is no such file: no process ever has
        return False
    try:
        # Shared, for the file may be another user's: NFS gives an exclusive lock only of a file
        # that is open for writing (flock(2)).
        return not _try(descriptor, shared=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _held(descriptor: int, wait: bool) -> bool:
    if wait:
        return _try(descriptor, wait=True)
    for _ in range(TRIES):
        if _try(descriptor):
            return True
        time.sleep(PAUSE)
    return False


def _try(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Take the lock, if nobody else has it. True, too, where there are none."""
    try:
        import fcntl
    except ImportError:
        return True
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True

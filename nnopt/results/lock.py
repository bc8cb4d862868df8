"""Who works on a folder: an flock on the file ``lock`` in it, which the system drops when its
holder ends, however that is. So a lock never goes stale, and anybody can tell a run that is under
way from one that was killed.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"
TRIES, PAUSE = 20, 0.01
"""Attempts at a lock, and seconds between them: whoever only asks if it is held, holds it for some
microseconds."""

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What flock says on a file system without locks: Lustre and NFS may be mounted so."""


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the folder, which exists. False if somebody else does; ``wait``: until they do not.

    Where there are no such locks (Windows, some network file systems) it is always True. Raises
    OSError.
    """
    with open(folder / LOCK, "ab") as file:
        yield _held(file.fileno(), wait)


def is_held(folder: Path) -> bool:
    """Does anybody hold the folder? False where there are no such locks."""
    try:
        with open(folder / LOCK, "rb") as file:
            # Shared, for the file may be another user's: NFS gives an exclusive lock only of a file
            # that is open for writing (flock(2)).
            return not _try(file.fileno(), shared=True)
    except OSError:  # there is no such file: nobody ever has
        return False


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

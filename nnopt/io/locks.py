"""Locks on folders and files. The system releases a lock when the process that holds it ends.

So there are no stale locks. On Windows, which has no flock, the package filelock acquires the
locks. Links are not followed, because a folder may be a download.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from nnopt.io.atomic_files import output_error
from nnopt.io.own_files import open_to_append
from nnopt.io.received_files import SAFE_FLAGS

try:
    import fcntl

    HAS_FLOCK = True
except ImportError:  # Windows
    HAS_FLOCK = False

LOCK = "lock"
LOCK_ATTEMPTS = 20
RETRY_SECONDS = 0.01  # pause before the next attempt: ``is_held`` may hold the lock briefly

NO_LOCK_ERRORS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""The errors of a file system without locks, such as Lustre and NFS with some mount options."""


def take(descriptor: int, wait: bool) -> bool:
    """Lock an open file until it is closed. With ``wait``, wait until the lock is free.

    Return False if another process holds the lock. Raises OSError on a file system without locks.
    """
    if not HAS_FLOCK:
        from filelock import lock_descriptor

        return lock_descriptor(descriptor, blocking=wait, poll_interval=RETRY_SECONDS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for another process that holds it.

    Raises OSError if ``path`` is a link, a pipe or a device, and on a file system without locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(open_to_append(path), "rb") as file:
        take(file.fileno(), wait=True)
        yield


@contextmanager
def locked(path: Path, wait: bool, attempt: Callable[[int, bool], bool] = take) -> Iterator[bool]:
    """Hold the lock file ``path`` in the context. Yield False if another process holds it.

    With ``wait``, wait for the lock. attempt: function that locks the open file. Raises
    OutputError if the file cannot be opened or locked.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(open_to_append(path), "rb"))
            is_mine = attempt(file.fileno(), wait)
        except OSError as error:
            raise output_error("lock", path, error) from error
        yield is_mine


def hold(folder: Path, wait: bool = False) -> AbstractContextManager[bool]:
    """Hold the lock of a folder in the context. Yield False if another process holds it.

    The folder must exist. With ``wait``, wait for the lock. On a file system without locks, yield
    True. Raises OutputError, for instance if the lock file is a link, a pipe or a device.
    """
    return locked(folder / LOCK, wait, _take_if_there_are_locks)


def is_held(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder; False on a file system without locks."""
    try:
        access = os.O_RDONLY if HAS_FLOCK else os.O_RDWR
        descriptor = os.open(folder / LOCK, access | SAFE_FLAGS)
    except OSError:  # for instance no lock file: no process has held the folder
        return False
    try:
        if not HAS_FLOCK:
            return not take(descriptor, wait=False)
        # Shared locks do not conflict with each other. They also work for another user's file: NFS
        # gives an exclusive lock only for a file that is open for writing (flock(2)).
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _take_if_there_are_locks(descriptor: int, wait: bool) -> bool:
    """Lock an open file as ``take`` does; return True on a file system without locks."""
    try:
        for _ in range(LOCK_ATTEMPTS):
            if take(descriptor, wait):
                return True
            time.sleep(RETRY_SECONDS)
    except OSError as error:
        if error.errno not in NO_LOCK_ERRORS:
            raise
        return True
    return False

"""Who works on a folder: an flock on the file ``lock`` in it, which the system drops when its
holder ends, however that is. So a lock never goes stale, and anybody can tell a run that is under
way from one that was killed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"
TRIES, PAUSE = 20, 0.01
"""Attempts at a lock, and seconds between them: whoever only asks if it is held, holds it for some
microseconds."""


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the folder, which exists. False if somebody else does; ``wait``: until they do not.

    Where there are no such locks (Windows) it is always True. Raises OSError.
    """
    with open(folder / LOCK, "ab") as file:
        yield _locked(file.fileno(), wait)


def is_held(folder: Path) -> bool:
    """Does anybody hold the folder?"""
    try:
        with open(folder / LOCK, "rb") as file:
            return not _try(file.fileno())
    except OSError:  # there is no such file: nobody ever has
        return False


def _locked(descriptor: int, wait: bool) -> bool:
    if wait:
        try:
            import fcntl
        except ImportError:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    for _ in range(TRIES):
        if _try(descriptor):
            return True
        time.sleep(PAUSE)
    return False


def _try(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

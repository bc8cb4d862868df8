"""The state of a point, read from its folder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnopt.io.atomic_files import output_error
from nnopt.io.locks import is_held
from nnopt.io.own_files import SUMMARY
from nnopt.results.summary import UnusableSummaryError, read_summary

log = logging.getLogger("nnopt")

FAILED = ("failed", "diverged", "timeout")
"""Statuses of failed points, which run again only with --retry-failed."""

ENDED = ("done", "pruned", *FAILED)
"""Statuses of finished points. The other statuses are pending, running and interrupted."""


@dataclass(frozen=True)
class PointState:
    """The state of a point.

    ``status`` is "pending" (no folder), "running" (a process holds the folder's lock),
    "interrupted" (unfinished, and the lock is free), or the status in ``summary.json``.
    """

    status: str
    error: str | None = None
    stamp: int | None = None  # the time of the last change of ``summary.json`` in ns
    summary: Mapping[str, Any] = field(default_factory=dict)


PENDING, RUNNING, INTERRUPTED = map(PointState, ("pending", "running", "interrupted"))


def read_state(folder: Path, held: bool | None = None) -> PointState:
    """Return the state of the point in a folder. The folder may be missing.

    ``held`` states whether a process holds the folder's lock. If it is None, the lock is checked.
    """
    end = _end(folder)
    if end is None and held is None:
        held = is_held(folder)
        if not held:  # the point may have ended after its summary was read
            end = _end(folder)
    if end is None and not held:
        return INTERRUPTED if folder.is_dir() else PENDING
    return end or RUNNING


def _end(folder: Path) -> PointState | None:
    """Return the state in a point's summary, or None if no valid summary of an ended run exists."""
    try:
        found = read_summary(folder)
    except UnusableSummaryError:
        return None
    status, error = found.values["status"], found.values["error"]
    is_ended = status in (*ENDED, "interrupted")
    return PointState(status, error, found.written_ns, found.values) if is_ended else None


def note_unusable_summary(folder: Path) -> None:
    """Log why a point's summary, if it exists, cannot be used. The point then runs again."""
    try:
        read_summary(folder)
    except UnusableSummaryError as error:
        if (folder / SUMMARY).exists():
            log.warning("%s/%s %s; the point runs again", folder.name, SUMMARY, error.reason)


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists. Raises OutputError on failure or if the path is a link."""
    try:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which nnopt never creates", str(folder))
    except OSError as error:
        raise output_error("create folder", folder, error) from error

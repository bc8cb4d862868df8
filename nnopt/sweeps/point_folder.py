"""The folder of one point: in what state it is, and who works on it."""

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
"""Statuses of points that came to a bad end of their own; what they do again, they do if asked."""

ENDED = ("done", "pruned", *FAILED)
"""Statuses that need nothing more; the others are pending, running and interrupted."""


@dataclass(frozen=True)
class State:
    """What a point's folder tells.

    status: pending (not begun), running (somebody holds the folder), interrupted (begun, not at its
    end, and held by nobody), or what ``summary.json`` says. stamp: by which two ends are told
    apart, None before the first. metrics: the whole summary, empty before.
    """

    status: str
    error: str | None = None
    stamp: int | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)


PENDING, RUNNING, INTERRUPTED = State("pending"), State("running"), State("interrupted")


def read_state(folder: Path, held: bool | None = None) -> State:
    """The state of a folder, which need not exist. held: by the caller, who then need not ask."""
    end = _end(folder)
    if end is None and held is None:
        held = is_held(folder)
        if not held:  # whoever held it may have come to the end between the two looks
            end = _end(folder)
    if end is not None:
        return end
    if held:
        return RUNNING
    return INTERRUPTED if folder.is_dir() else PENDING


def _end(folder: Path) -> State | None:
    """Return what the summary says; None if there is none, or it is not one that nnopt writes."""
    try:
        found = read_summary(folder)
    except UnusableSummaryError:
        return None
    summary = found.values
    if summary["status"] not in (*ENDED, "interrupted"):
        return None
    return State(summary["status"], summary.get("error"), found.stamp, summary)


def note_unusable_summary(folder: Path) -> None:
    """Log why a point runs again if its summary cannot be used."""
    try:
        read_summary(folder)
    except UnusableSummaryError as error:
        if (folder / SUMMARY).exists():
            log.warning("%s/%s %s; the point runs again", folder.name, SUMMARY, error.reason)


def make(folder: Path) -> None:
    """Make the folder, unless it is there. Raises OutputError, also for a link in its place."""
    try:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which nnopt never makes", str(folder))
    except OSError as error:
        raise output_error("make folder", folder, error) from error

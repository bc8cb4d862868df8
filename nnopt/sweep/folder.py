"""The folder of one point: in what state it is, and who works on it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnopt.results.files import output_error
from nnopt.results.lock import LOCK, hold, is_held
from nnopt.results.metrics import METRICS
from nnopt.results.own_files import SUMMARY
from nnopt.results.received import SUMMARY_BYTES, open_received, parse_json

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
        with open_received(folder / SUMMARY, folder, SUMMARY_BYTES) as file:
            stamp = os.fstat(file.fileno()).st_mtime_ns
            summary = parse_json(file.read())
    except (OSError, ValueError):
        return None
    if not _is_summary(summary):
        return None
    return State(summary["status"], summary.get("error"), stamp, summary)


def _is_summary(summary: Any) -> bool:
    """Return whether what a sweep reads from a summary has the types that nnopt writes."""
    if not isinstance(summary, dict) or summary.get("status") not in (*ENDED, "interrupted"):
        return False
    numbers = [summary.get(key) for key in METRICS]
    if not all(value is None or _is_number(value) for value in numbers):
        return False
    data, versions = summary.get("data") or {}, summary.get("versions") or {}
    if not (isinstance(data, dict) and isinstance(versions, dict)):
        return False
    sources = data.get("sources", {})
    texts = [*sources.values(), *versions.values()] if isinstance(sources, dict) else [None]
    return isinstance(summary.get("error"), str | None) and all(isinstance(x, str) for x in texts)


def _is_number(value: Any) -> bool:
    """Return whether a value of JSON is a number that float64 holds, or a truth value."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


@contextmanager
def working_on(folder: Path) -> Iterator[bool]:
    """Hold the folder for as long as its point is worked on; False if another process does. Raises
    OutputError."""
    try:
        holding = hold(folder)
        is_mine = holding.__enter__()
    except OSError as error:
        raise output_error("write", folder / LOCK, error) from error
    try:
        yield is_mine
    finally:
        holding.__exit__(None, None, None)


def make(folder: Path) -> None:
    """Make the folder, unless it is there. Raises OutputError, also for a link in its place."""
    try:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which nnopt never makes", str(folder))
    except OSError as error:
        raise output_error("make folder", folder, error) from error

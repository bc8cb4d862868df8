"""The folder of one point: in what state it is, and who works on it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnopt.errors import OutputError
from nnopt.results.files import output_error
from nnopt.results.lock import LOCK, hold, is_held

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
    """What the summary says; None if there is none that can be read."""
    try:
        with open(folder / "summary.json", "rb") as file:
            stamp = os.fstat(file.fileno()).st_mtime_ns
            summary = json.loads(file.read())
        return State(str(summary["status"]), summary.get("error"), stamp, summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


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
    """Make the folder, unless it is there. Raises OutputError."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error("make folder", folder, error) from error


def clear(folder: Path) -> None:
    """Remove what an earlier attempt at the point has left, the summary first: a point that is half
    removed is never taken for one at its end. Raises OutputError."""
    try:
        with suppress(FileNotFoundError):
            (folder / "summary.json").unlink()
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot remove what is left of an earlier attempt in {folder}: {error.strerror}"
        ) from error

"""The files that nnopt writes into a folder of results: their names, and safe access to them.

A folder of results may be a download. A link in it could redirect a write or a deletion. So files
are opened without following links, and only files with nnopt's own names are deleted.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from nnopt.errors import OutputError
from nnopt.io.atomic_files import output_error, shown
from nnopt.io.received_files import SAFE_FLAGS, kind_of

SUMMARY = "summary.json"

MODEL = "model.json"
"""The description of the trained network, which belongs to the files ``WEIGHTS``."""

WEIGHTS = {"best": "model_best.npz", "last": "model_last.npz"}
"""Epoch of saved weights -> name of their file."""

MASKS, ARCHITECTURE = "masks.npz", "architecture.yaml"
"""The masks of pruned weights, and the layers of the network after pruning of units."""

CLASSES, CONFUSION, PREDICTIONS = "classes.csv", "confusion.csv", "predictions.csv"

EVALUATION = "evaluation.json"
"""The metrics of ``nnopt evaluate``, in a new folder."""

CHECKPOINTS = ("checkpoint_a.npz", "checkpoint_b.npz")
"""The two checkpoint files, which a run replaces alternately."""

RUN_FILES = frozenset(
    (
        *(SUMMARY, *CHECKPOINTS, "config.yaml", "events.out.tfevents.nnopt", "layers.csv"),
        *("lr_find.csv", "metrics.csv", MODEL, *WEIGHTS.values(), "run.log"),
        *(MASKS, ARCHITECTURE, CLASSES, CONFUSION, PREDICTIONS),
    )
)
"""The files of a run, apart from its lock and its plots."""

SWEEP_FILES = frozenset(
    {"plots.log", "results.csv", "search.journal", "search.lock", "search.log", "sweep.json"}
)
"""The files of a sweep, apart from its lock, its plots and the folders of its runs."""

PLOTS, SUBMITIT = "plots", "submitit"  # names of folders
PLOT_SUFFIXES = (".png", ".svg")
TEMPORARY = re.compile(r"\.(\d+)-[0-9a-f]{12}\.tmp")  # name from ``atomic_files``, with process id


def open_to_append(path: Path) -> int:
    """Open or create a regular file for reading and appending, and return its descriptor.

    The call never blocks and never follows a link. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | SAFE_FLAGS, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which nnopt never creates", path) from error
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    why = "it is a hard link; replace it by a copy"
    if not stat.S_ISREG(status.st_mode):
        why = f"it is {kind_of(status.st_mode)}, not a regular file"
    raise OSError(errno.EPERM, why, str(path))


class LogFile(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for type checkers
    """A log in a folder of results. A line that cannot be written is dropped.

    A full disk must neither end a run nor print a traceback. Raises OutputError if the file cannot
    be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            descriptor = open_to_append(path)
        except OSError as error:
            raise output_error("write", path, error) from error
        super().__init__(os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace"))
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written to the disk."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, whether or not its last line can be written."""
        with suppress(OSError):
            self.stream.close()
        super().close()


def irregular_entries(folder: Path, names: frozenset[str]) -> Iterator[str]:
    """Yield a message for each of ``names`` that is a link, a pipe, a device or a socket."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in names and not (
                entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
            ):
                kind = kind_of(entry.stat(follow_symlinks=False).st_mode)
                yield f"{shown(Path(entry.path))} is {kind}"


def check_writable(folder: Path) -> None:
    """Raise OSError if a folder probably cannot be created or written. Nothing is created."""
    existing = Path(os.path.abspath(folder))
    while not _exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OSError(errno.ENOTDIR, f"{shown(existing)} is not a folder", str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(existing))
    if hasattr(os, "statvfs"):
        disk = os.statvfs(existing)
        free_blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        if disk.f_blocks and not free_blocks:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(existing))


def _exists(path: Path) -> bool:
    """Return whether ``path`` exists or is a dangling link. Raises OSError if this is unknown."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_run(folder: Path) -> None:
    """Remove the files that nnopt wrote for a run, except its lock. Other files stay.

    The summary is removed first: without it, the run counts as unfinished, even if the removal is
    interrupted. Raises OutputError.
    """
    plots = folder / PLOTS
    try:
        for link in filter(Path.is_symlink, (folder, plots)):
            raise OSError(errno.ELOOP, f"{shown(link)} is a link, not a folder")
        _remove_files(folder, [SUMMARY])
        _remove_files(folder, [n for n in os.listdir(folder) if n in RUN_FILES or is_temporary(n)])
        if plots.is_dir():
            names = os.listdir(plots)
            _remove_files(plots, [n for n in names if n.endswith(PLOT_SUFFIXES) or is_temporary(n)])
            if not os.listdir(plots):
                plots.rmdir()
    except OSError as error:
        raise OutputError(
            f"cannot remove the files of an earlier attempt in {shown(folder)}: {error.strerror}"
        ) from error


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files from a folder; absent files are ignored. Raises OutputError."""
    try:
        _remove_files(folder, list(names))
    except OSError as error:
        raise output_error("remove the files of an earlier attempt in", folder, error) from error


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a temporary file of ``nnopt.io.atomic_files``."""
    return TEMPORARY.fullmatch(name) is not None


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of ended processes, if possible. Links are not followed."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = TEMPORARY.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and not _is_running(int(match[1])):
                os.unlink(entry)


def _is_running(process: int) -> bool:
    """Return whether ``process`` is the id of a running process other than the current one."""
    if process == os.getpid():  # the current process writes no file at the moment
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True


def _remove_files(folder: Path, names: list[str]) -> None:
    """Remove files or links, but not the targets of links. Raises OSError for a folder."""
    for name in names:
        try:
            os.unlink(folder / name)
        except FileNotFoundError:
            continue
        except IsADirectoryError as error:
            raise OSError(errno.EISDIR, f"{name} is a folder", str(folder / name)) from error

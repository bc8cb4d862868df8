"""Checks of a sweep that is resumed. Its folder may be a download.

Without permission on the command line, nnopt starts no program, contacts no other machine, and
writes nothing outside the sweep's folder, except to an existing cache of nnopt.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnopt.backends.thread_choice import ThreadChoice
from nnopt.config.point import Point
from nnopt.data.cache import is_cache
from nnopt.errors import ResumeError
from nnopt.io.atomic_files import shown
from nnopt.io.locks import LOCK, hold, is_held
from nnopt.io.own_files import (
    PLOTS,
    RUN_FILES,
    SUBMITIT,
    SWEEP_FILES,
    irregular_entries,
    remove_temporary_files,
)
from nnopt.recipe.thread_notes import threads_of
from nnopt.results import environment
from nnopt.results.cores import usable_cores
from nnopt.schema import (
    CsvConfig,
    ImageConfig,
    LauncherConfig,
    PoolConfig,
    RayConfig,
    SubmititConfig,
)
from nnopt.schema.values import format_value, quoted
from nnopt.sweeps.manifest import Sweep, with_values
from nnopt.sweeps.point_folder import PointState
from nnopt.terminal import console

LIMITS = ("cores", "library")
"""Values of ``ThreadChoice.reason`` that do not depend on the configuration."""

OWN_CLUSTERS = (None, "auto", "local")
"""Trusted values of hydra.launcher.address: Ray starts a cluster, or the environment names one."""


def check_folder(sweep: Sweep) -> None:
    """Raise ResumeError if a file that nnopt would use is a link or a special file."""
    for problem in _intruders(sweep):
        raise ResumeError(
            f"{problem}, which nnopt never creates; remove it, or replace it by a copy, and resume "
            "the sweep again"
        )


def _intruders(sweep: Sweep) -> Iterator[str]:
    ids = frozenset(point.id for point in sweep.points)
    yield from irregular_entries(sweep.folder, SWEEP_FILES | ids | {LOCK, PLOTS, SUBMITIT})
    for folder in (sweep.folder / point.id for point in sweep.points):
        if folder.is_dir():
            yield from irregular_entries(folder, RUN_FILES | {LOCK, PLOTS})


def remove_leftovers(sweep: Sweep) -> None:
    """Remove the temporary files of processes that were killed during a write.

    Folders of running points are skipped. Raises OutputError.
    """
    with hold(sweep.folder, wait=True):  # every process that writes here holds the folder's lock
        remove_temporary_files(sweep.folder)
    remove_temporary_files(sweep.folder / PLOTS)
    for folder in (sweep.folder / point.id for point in sweep.points):
        if not is_held(folder):
            remove_temporary_files(folder)
            remove_temporary_files(folder / PLOTS)


def check_launcher(launcher: LauncherConfig, given: frozenset[str], sweep_folder: Path) -> None:
    """Raise ResumeError if a stored setting names a cluster, or a folder outside ``sweep_folder``.

    The values of the keys in ``given`` are trusted, because they are from the command line.
    """
    match launcher:
        case RayConfig(address=value) if value not in OWN_CLUSTERS:
            key, danger = "hydra.launcher.address", "a cluster can run programs on this machine"
        case SubmititConfig(folder=value) if not _is_inside(value, sweep_folder):
            key, danger = "hydra.launcher.folder", "it is outside of the sweep's folder"
        case _:
            return
    if key not in given:
        raise ResumeError(
            f"{key} = {value!r} is stored with the sweep, and {danger}; to trust this value, "
            f"give it again: {key}={value}"
        )


def with_safe_data(point: Point, given: frozenset[str], sweep_folder: Path) -> Point:
    """Return the point without downloads, and without a cache, unless they are trusted.

    Downloads need data.download on the command line. If data.cache or data.root is on the command
    line, it determines the cache. Otherwise the stored cache is trusted if it is already a cache of
    nnopt outside the sweep. Without a cache, decoded data stay in memory.
    """
    data = point.config.data
    cache, download = data.cache, data.download and "data.download" in given
    if "data.root" in given and "data.cache" not in given:
        cache = str(Path(data.root, "cache"))
    elif cache is not None and "data.cache" not in given:
        is_safe = not _is_inside(cache, sweep_folder) and is_cache(Path(cache))
        cache = cache if is_safe else None
    if (cache, download) == (data.cache, data.download):
        return point
    return with_values(point, "data", cache=cache, download=download)


def with_current_plugins(sweep: Sweep) -> Sweep:
    """Return the sweep with the current paths of its plug-ins in its overrides."""
    records = sweep.points[0].container["plugins"] if sweep.points else []
    if not records:
        return sweep
    current = f"plugins={format_value(records, quoted)}"
    is_plugins = [text.lstrip("+").startswith("plugins=") for text in sweep.overrides]
    pairs = zip(sweep.overrides, is_plugins, strict=True)
    return replace(sweep, overrides=tuple(current if is_own else x for x, is_own in pairs))


def note_missing_cache(before: tuple[Point, ...], after: tuple[Point, ...]) -> None:
    """Print a note for each cache that ``with_safe_data`` has removed from the configurations."""
    pairs = zip(before, after, strict=True)
    changed = [old.config for old, new in pairs if new.config.data.cache is None]
    of_files = [c for c in changed if isinstance(c.dataset, ImageConfig | CsvConfig)]
    unused = {c.data.cache for c in of_files}
    for cache in sorted(filter(None, unused)):
        console.note(
            f"note: data.cache = {shown(Path(cache))} is no cache of nnopt, or is inside the "
            "resumed folder, so decoded data stay in memory; data.cache=DIR chooses a folder"
        )


def _is_inside(path: str | None, folder: Path) -> bool:
    """Return whether a path is None or inside a folder."""
    given = None if path is None else Path(os.path.expanduser(path)).resolve()
    return given is None or given.is_relative_to(folder.resolve())


def note_differences(
    states: Iterable[PointState], threads: Sequence[ThreadChoice], launcher: LauncherConfig
) -> None:
    """Print a note if finished points used other versions, processors or numbers of threads.

    The results of the points to run may then differ in the last digits. ``threads`` and
    ``launcher`` belong to the points to run.
    """
    done = [state.summary for state in states if state.status == "done"]
    if others := differences(done, threads, launcher):
        console.note(
            f"note: finished points were made with {', '.join(others)}; numbers of the other "
            "points may differ in the last digits"
        )


def differences(
    summaries: Sequence[Mapping[str, Any]],
    threads: Sequence[ThreadChoice],
    launcher: LauncherConfig,
) -> list[str]:
    """Return how versions, processors and threads of summaries differ from those of this process.

    ``threads`` and ``launcher`` belong to the points that this process runs.
    """
    if not (summaries and threads):
        return []
    versions = [("versions", name, name, here) for name, here in environment.versions().items()]
    processor = ("machine", "cpu", "processor", environment.machine()["cpu"])
    found = []
    for group, key, name, here in [*versions, processor]:
        values = [_at(summary, group, key) for summary in summaries]
        if others := {str(x) for x in values if isinstance(x, str | int) and x != here}:
            found.append(f"{name} {' and '.join(sorted(others))} (here {here})")
    return [*found, *_threads(summaries, threads, launcher)]


def _threads(
    done: Sequence[Mapping[str, Any]], choices: Sequence[ThreadChoice], launcher: LauncherConfig
) -> Iterator[str]:
    """Yield a text if numbers of threads differ because of the machine or the launcher.

    The number of threads also depends on the network and the data of a point. A difference is
    therefore reported only if one number exceeds the limit that applied to the other number.
    """
    most = threads_of(launcher, usable_cores() or 1) if isinstance(launcher, PoolConfig) else None
    here = [min(choice.count, most or choice.count) for choice in choices]
    pairs = zip(here, choices, strict=True)
    limited = [n for n, choice in pairs if choice.reason in LIMITS or n < choice.count]
    before = [(_at(x, "threads", "used"), _at(x, "threads", "chosen_by")) for x in done]
    counts = [count for count, _ in before if isinstance(count, int)]
    limited_before = [n for n, reason in before if isinstance(n, int) and reason in LIMITS]
    if max(counts, default=0) > min(limited, default=math.inf) or (
        max(here, default=0) > min(limited_before, default=math.inf)
    ):
        yield f"threads {max(counts)} (here {max(here)})"


def _at(summary: Mapping[str, Any], group: str, key: str) -> Any:
    """Return ``summary[group][key]``, or None if an entry is missing."""
    values = summary.get(group)
    return values.get(key) if isinstance(values, dict) else None

"""A note at the start of a run or sweep if threads have to wait for cores."""

from __future__ import annotations

from collections.abc import Sequence

from nnopt.backends.thread_choice import ThreadChoice
from nnopt.results.cores import ProcessorTimes, busy_cores, processor_times, usable_cores
from nnopt.schema import LauncherConfig, PoolConfig
from nnopt.terminal.console import note


def note_threads(
    choices: Sequence[ThreadChoice],
    points: int,
    launcher: LauncherConfig,
    start: ProcessorTimes | None,
) -> None:
    """Print a note if there are more threads than cores, or if other processes use the cores.

    ``choices`` are the thread choices of the points or, in a search, of sample points of the search
    space. ``points`` is the number of points to run, which a search counts over all trials.
    ``start`` has the processor times when the command began.
    """
    cores = usable_cores()
    if not choices or cores is None or launcher.name not in ("sequential", "pool"):
        return  # other launchers run the points on other machines
    busy = busy_cores(start, processor_times())
    message = thread_note(choices, points, launcher, cores, busy)
    if message is not None:
        note(f"note: {message}")


def thread_note(
    choices: Sequence[ThreadChoice],
    points: int,
    launcher: LauncherConfig,
    cores: int,
    busy: float | None,
) -> str | None:
    """Return the note, or None if threads do not wait for cores.

    This process may use ``cores`` cores. Other processes use ``busy`` cores on average, if known.
    """
    largest = max(choices, key=lambda choice: choice.count)
    count, setting = largest.count, f"backend.threads = {largest.count}"
    workers = 1
    if isinstance(launcher, PoolConfig):
        workers = min(launcher.workers or cores, points)
        most = threads_of(launcher, cores)
        if largest.reason != "backend.threads":
            count = min(count, most)
            setting = f"hydra.launcher.threads = {most}"
    if workers * count > cores:
        if workers == 1:
            return (
                f"{setting} is more than the {cores} {_cores(cores)} that may be used, which makes "
                f"the training slower; set backend.threads={cores} or leave it out"
            )
        what = f"hydra.launcher.workers = {workers}"
        what += f" with {setting} is" if count > 1 else " is"
        return (
            f"{what} more than the {cores} {_cores(cores)} that may be used, which makes the sweep "
            f"slower; set hydra.launcher.workers={max(cores // count, 1)}"
        )
    if count > 1 and busy is not None and busy > cores - workers * count + 0.5:
        return (
            f"other processes use {busy:.1f} of the {cores} cores, and {count} threads that share "
            "a layer wait for each other; backend.threads=1 may be several times faster"
        )
    return None


def threads_of(config: PoolConfig, cores: int) -> int:
    """Return the number of threads of each worker, in a pool that may use ``cores`` cores."""
    return config.threads or max(cores // (config.workers or cores), 1)


def _cores(count: int) -> str:
    return "core" if count == 1 else "cores"

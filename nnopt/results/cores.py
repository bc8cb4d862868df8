"""Processor cores: those this process may use, and their use by other processes."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

MIN_INTERVAL_SECONDS = 0.05
"""Shortest interval for measuring use: the kernel counts processor time in steps of 0.01 s."""


def usable_cores() -> int | None:
    """Return the number of cores that ``taskset``, a container and its CPU quota allow."""
    cores = allowed_cores()
    count = os.cpu_count() if cores is None else len(cores)
    quota = cpu_quota()
    if count is None or quota is None:
        return count
    return min(count, max(math.floor(quota), 1))


def allowed_cores() -> frozenset[int] | None:
    """Return the indices of the cores that this process may use, or None if unknown."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def thread_pools() -> ThreadpoolController:
    """Return the controller of the thread pools of all loaded libraries.

    A search for the libraries takes a millisecond. The result is cached until another module is
    imported, which may load a library.
    """
    return _thread_pools(len(sys.modules))


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def cpu_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return the number of cores that control groups allow this process, None without a limit.

    A control group limits the processor time per period of time. The result is the smallest quota
    of the group of this process and of its parent groups.
    """
    quotas: list[float] = []
    lines: list[str] = []
    with suppress(OSError):
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            if controllers:  # control groups version 1
                quotas += _quota_v1(root / controllers / folder)
            else:
                quotas += _quota_v2(root / folder)
    return min(quotas, default=None)


def _quota_v1(folder: Path) -> list[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return [quota / period] if quota > 0 else []
    return []


def _quota_v2(folder: Path) -> list[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    return []


@dataclass(frozen=True)
class ProcessorTimes:
    """Processor times at one moment, in seconds.

    Attributes:
        clock: Value of the monotonic clock.
        all_processes: Processor time of all processes on the usable cores.
        this_process: Processor time of this process and its ended children.
    """

    clock: float
    all_processes: float
    this_process: float


def processor_times() -> ProcessorTimes | None:
    """Return the current processor times, or None on systems other than Linux."""
    with suppress(OSError, ValueError):
        text = Path("/proc/stat").read_text(encoding="ascii")
        ticks = ticks_of_all(text, allowed_cores())
        own = os.times()
        this_process = own.user + own.system + own.children_user + own.children_system
        return ProcessorTimes(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), this_process)
    return None


def ticks_of_all(stat: str, cores: frozenset[int] | None) -> int:
    """Sum the columns user, nice and system of these cores in a text from ``/proc/stat``."""
    ticks = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        number = name.removeprefix("cpu")
        if number == name or not number.isdecimal():
            continue  # this line does not belong to a core
        if cores is None or int(number) in cores:
            ticks += sum(map(int, columns[:3]))
    return ticks


def busy_cores(start: ProcessorTimes | None, end: ProcessorTimes | None) -> float | None:
    """Return the mean number of cores that other processes used, or None if unknown."""
    if start is None or end is None or end.clock - start.clock < MIN_INTERVAL_SECONDS:
        return None
    others = end.all_processes - start.all_processes
    others -= end.this_process - start.this_process
    return max(others / (end.clock - start.clock), 0.0)

"""The processor cores that this process may use, the share that other processes take, and the
libraries that have threads."""

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

SHORTEST_SECONDS = 0.05
"""The kernel counts processor time in steps of 0.01 s: over a shorter time the load is unknown."""


def usable_cores() -> int | None:
    """Return the number of cores that ``taskset``, a container and its CPU quota allow."""
    cores = allowed_cores()
    count = os.cpu_count() if cores is None else len(cores)
    quota = cpu_quota()
    if count is None or quota is None:
        return count
    return min(count, max(math.floor(quota), 1))


def allowed_cores() -> frozenset[int] | None:
    """Return the numbers of the cores that the scheduler may give to this process."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def thread_pools() -> ThreadpoolController:
    """Return the controller of the thread pools of all loaded libraries.

    Listing the libraries takes a millisecond. The list is made again only after an import, which
    may have loaded more of them.
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
    """Return the CPU quota of this process's control groups in cores, None without a quota.

    A process may use ``quota`` microseconds of processor time in each ``period``. The smallest
    quota of the group and of the groups that contain it counts.
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
            if controllers:  # version 1
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
    """Seconds: a clock, the processor time of all processes on the usable cores, and that of this
    process and its ended children."""

    clock: float
    of_all: float
    of_this: float


def processor_times() -> ProcessorTimes | None:
    """Return the times so far, None where the system does not count them as Linux does."""
    with suppress(OSError, ValueError):
        text = Path("/proc/stat").read_text(encoding="ascii")
        ticks = ticks_of_all(text, allowed_cores())
        own = os.times()
        of_this = own.user + own.system + own.children_user + own.children_system
        return ProcessorTimes(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), of_this)
    return None


def ticks_of_all(stat: str, cores: frozenset[int] | None) -> int:
    """Return the sum of the columns user, nice and system of these cores in ``/proc/stat``."""
    ticks = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        number = name.removeprefix("cpu")
        if number == name or not number.isdecimal():
            continue  # not the line of one core
        if cores is None or int(number) in cores:
            ticks += sum(map(int, columns[:3]))
    return ticks


def busy_cores(start: ProcessorTimes | None, end: ProcessorTimes | None) -> float | None:
    """Return the mean number of cores that other processes used between two moments, None if it is
    unknown."""
    if start is None or end is None or end.clock - start.clock < SHORTEST_SECONDS:
        return None
    others = (end.of_all - start.of_all) - (end.of_this - start.of_this)
    return max(others / (end.clock - start.clock), 0.0)

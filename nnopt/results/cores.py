"""The processor cores that this process may use, and how much other processes use them."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

MIN_INTERVAL_SECONDS = 0.05  # shortest measured interval; the kernel counts in steps of 0.01 s


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
    """Return an object that controls the thread pools of all loaded libraries.

    Finding the pools takes a millisecond, so the object is cached until another module is imported.
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
    """Return the number of cores that control groups allow this process; None means no limit.

    The result is the smallest quota among this process's control group and the group's parents.
    """
    quotas: list[float] = []
    with suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8", errors="replace").splitlines():
            quotas += _quotas(root, line)
    return min(quotas, default=None)


def _quotas(root: Path, membership: str) -> Iterator[float]:
    """Yield the quotas of a control group and its parents, from a line of ``/proc/self/cgroup``."""
    _, controllers, path = membership.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    group = Path(path.lstrip("/"))
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if controllers:  # control groups version 1
                place = root / controllers / folder
                texts = [(place / f"cpu.cfs_{x}_us").read_text() for x in ("quota", "period")]
            else:
                texts = (root / folder / "cpu.max").read_text().split()
            quota, period = map(int, texts)  # raises ValueError if the quota is "max"
            if quota > 0:
                yield quota / period


@dataclass(frozen=True)
class ProcessorTimes:
    """Processor times at one moment, in seconds."""

    clock: float  # value of the monotonic clock
    all_processes: float  # processor time of all processes on the usable cores
    this_process: float  # processor time of this process and its ended children


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
    """Sum the user, nice and system ticks of ``cores``. stat: the content of ``/proc/stat``."""
    rows = re.findall(r"^cpu(\d+) (\d+) (\d+) (\d+)", stat, re.MULTILINE)
    return sum(sum(map(int, row)) for core, *row in rows if cores is None or int(core) in cores)


def busy_cores(start: ProcessorTimes | None, end: ProcessorTimes | None) -> float | None:
    """Return the mean number of cores that other processes used, or None if unknown."""
    if start is None or end is None or end.clock - start.clock < MIN_INTERVAL_SECONDS:
        return None
    others = end.all_processes - start.all_processes
    others -= end.this_process - start.this_process
    return max(others / (end.clock - start.clock), 0.0)

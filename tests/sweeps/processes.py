"""Functions that find running processes on Linux, for tests that every process ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def descendants(process: int) -> set[int]:
    """Return the ids of the running processes that ``process`` started, even indirectly."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended meanwhile
            continue
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    found, new = set[int](), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def is_alive(process: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition holds, and fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def training_points(sweep: Path) -> list[Path]:
    """Return the folders of the points of a sweep that have completed an epoch."""
    return [x.parent for x in sweep.glob("*/metrics.csv") if x.read_text().count("\n") > 1]


def own_workers() -> set[int]:
    """Return the ids of the running processes that the test process started."""
    return descendants(os.getpid())

"""Notes on finished points that used other versions, machines or threads than this process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nnopt.backends.thread_choice import ThreadChoice
from nnopt.recipe.thread_notes import threads_of
from nnopt.results import environment
from nnopt.results.cores import usable_cores
from nnopt.schema import LauncherConfig, PoolConfig
from nnopt.sweeps.point_folder import PointState
from nnopt.terminal import console

LIMITS = ("cores", "library")
"""Reasons for a number of threads that do not depend on the configuration."""


def note_differences(
    states: Iterable[PointState], threads: Sequence[ThreadChoice], launcher: LauncherConfig
) -> None:
    """Print a note if finished points used other versions, processors or threads.

    The results of the points to run may then differ in the last digits. ``threads`` and
    ``launcher`` belong to the points to run.
    """
    done = [state.summary for state in states if state.status == "done"]
    if not (done and threads):
        return
    differences: list[str] = []
    for name, here in environment.versions().items():
        differences += _others([_at(x, "versions", name) for x in done], name, here)
    processors = [_at(x, "machine", "cpu") for x in done]
    differences += _others(processors, "processor", environment.machine()["cpu"])
    differences += _threads(done, threads, launcher)
    if differences:
        console.note(
            f"note: finished points were made with {', '.join(differences)}; numbers of the other "
            "points may differ in the last digits"
        )


def _threads(
    done: Sequence[Mapping[str, Any]], choices: Sequence[ThreadChoice], launcher: LauncherConfig
) -> Iterator[str]:
    """Yield a text if the number of threads differs because of the machine or the launcher.

    The number of threads also depends on the network and the data of a point. So a difference is
    reported only if one number exceeds the limit that applied to the other number.
    """
    most = threads_of(launcher, usable_cores() or 1) if isinstance(launcher, PoolConfig) else None
    here = [min(choice.count, most or choice.count) for choice in choices]
    limited = [
        count
        for count, choice in zip(here, choices, strict=True)
        if choice.reason in LIMITS or count < choice.count
    ]
    before = [(_at(x, "threads", "used"), _at(x, "threads", "chosen_by")) for x in done]
    counts = [count for count, _ in before if isinstance(count, int)]
    limited_before = [n for n, reason in before if isinstance(n, int) and reason in LIMITS]
    if max(counts, default=0) > min(limited, default=math.inf) or (
        max(here, default=0) > min(limited_before, default=math.inf)
    ):
        yield f"threads {max(counts)} (here {max(here)})"


def _at(summary: Mapping[str, Any], group: str, key: str) -> Any:
    """Return an entry of a group of a summary, or None if it is missing."""
    values = summary.get(group)
    return values.get(key) if isinstance(values, dict) else None


def _others(values: Iterable[Any], name: str, here: Any) -> Iterator[str]:
    """Yield a text if a value other than None differs from the value of this process."""
    known = [value for value in values if isinstance(value, str | int)]
    others = sorted({str(value) for value in known if value != here})
    if others:
        yield f"{name} {' and '.join(others)} (here {here})"

"""Helpers shared by launchers that run points in other processes."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nnopt.errors import ConfigError, NnoptError, TimeLimitError
from nnopt.io.locks import hold
from nnopt.io.own_files import open_to_append
from nnopt.recipe.recorder import initial_summary
from nnopt.results.summary import UnusableSummaryError, read_summary, write_summary
from nnopt.sweeps.point_folder import ENDED, make_folder, read_state
from nnopt.sweeps.task import Task, TaskResult, run_task
from nnopt.terminal.interruption import interrupt, stopping_on_signals

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

GRACE_SECONDS = 10.0
"""Time in which a stopped point can write its results, before its process is killed."""


def thread_limits(threads: int) -> dict[str, str]:
    """Return the environment variables that limit the threads of libraries in a new process."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def record_lost_task(task: Task, status: str, error: str) -> TaskResult:
    """Return the result of a task whose process ended without reporting one.

    The status is "running" if another process runs the point. If ``summary.json`` has a result that
    the task does not replace, this result is returned. Otherwise, ``status`` and ``error`` are
    returned, and written to ``summary.json`` if possible.
    """
    with suppress(NnoptError):
        make_folder(task.folder)
        with hold(task.folder) as is_held_here:
            if not is_held_here:  # another process has resumed the sweep
                return TaskResult(task, "running")
            state = read_state(task.folder, held=True)
            is_recorded = state.status == "interrupted" and state.error and status != "timeout"
            if state.stamp != task.replaces and (state.status in ENDED or is_recorded):
                return TaskResult(task, state.status, state.error)
            summary = {**_unfinished_summary(task), "status": status, "error": error}
            write_summary(task.folder, summary)
            append_log(task, f"{status}: {error}\n")
    return TaskResult(task, status, error)


def _unfinished_summary(task: Task) -> Mapping[str, Any]:
    """Return the summary that an unfinished point has written, or else one without results."""
    with suppress(UnusableSummaryError):
        summary = read_summary(task.folder).values
        if summary["status"] in ("running", "interrupted"):
            return summary
    return initial_summary(task.point)


def append_log(task: Task, text: str) -> None:
    """Append text to the log of the point. A failure to write is ignored."""
    with suppress(OSError):
        descriptor = open_to_append(task.folder / "run.log")
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(text)


def run_task_within(task: Task, seconds: float | None, directory: str) -> TaskResult:
    """Run a task in a process of a cluster, in the working directory of the sweep.

    After SIGTERM, or SIGINT from Ray, the point writes its results and a checkpoint. After the time
    limit ``seconds``, the point does the same, with the status "timeout". If it still runs
    GRACE_SECONDS after the time limit, its process is killed.
    """

    def stop(number: int, frame: object) -> None:
        assert seconds is not None
        interrupt(TimeLimitError(seconds))

    os.chdir(directory)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the sweep was started in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with stopping_on_signals():
        if seconds is None:
            return run_task(task)
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True)
        try:
            return run_task(task)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            faulthandler.cancel_dump_traceback_later()


def require_package(package: str, extra: str, launcher: str) -> None:
    """Raise ConfigError if a package is not installed, without importing the package."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"hydra/launcher={launcher} needs {package}, which is not installed; "
            f"pip install -c constraints.txt -e '.[{extra}]'"
        )

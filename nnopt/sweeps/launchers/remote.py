"""What launchers share whose points run in other processes than the sweep's."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import signal
from contextlib import suppress

from nnopt.errors import ConfigError, NnoptError, TimeLimitError
from nnopt.io.locks import hold
from nnopt.io.own_files import open_to_append
from nnopt.recipe.recorder import initial_summary
from nnopt.results.cores import usable_cores
from nnopt.results.summary import write_summary
from nnopt.schema import PoolConfig
from nnopt.sweeps.point_folder import ENDED, make, read_state
from nnopt.sweeps.task import Outcome, Task, work

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

GRACE_SECONDS = 10.0
"""What a point that is told to stop has to write what it has; then its process is killed."""


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that hold NumPy's and PyTorch's libraries to so many threads. They are
    read when the libraries load, so they have to be there when the process starts."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def threads_of(config: PoolConfig) -> int:
    """Return the number of threads of each worker of a pool."""
    cores = usable_cores() or 1
    return config.threads or max(cores // (config.workers or cores), 1)


def lost(task: Task, status: str, error: str) -> Outcome:
    """Return the outcome of a task whose process ended without a result.

    It is the outcome in the point's ``summary.json`` if the point ended or was interrupted.
    Otherwise it is ``status`` and ``error``, which are written there.
    """
    with suppress(NnoptError):  # of a full disk the table says as much as it can
        make(task.folder)
        with hold(task.folder) as is_mine:
            if not is_mine:  # somebody has resumed the sweep meanwhile
                return Outcome(task, "running")
            state = read_state(task.folder, held=True)
            if state.status in ENDED and state.stamp != task.replaces:
                return Outcome(task, state.status, state.error)
            is_told = state.status == status == "interrupted" and state.stamp != task.replaces
            if is_told and state.error:
                return Outcome(task, status, state.error)
            summary = dict(state.summary) if state.status == "interrupted" else {}
            summary = {**(summary or initial_summary(task.point)), "status": status, "error": error}
            write_summary(task.folder, summary)
            append_log(task, f"{status}: {error}\n")
    return Outcome(task, status, error)


def append_log(task: Task, text: str) -> None:
    """Add text to the log of the point. Never fails."""
    with suppress(OSError):
        descriptor = open_to_append(task.folder / "run.log")
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(text)


def work_within(task: Task, seconds: float | None, directory: str) -> Outcome:
    """``work`` in a process that others than the launcher have started, from ``directory``, so that
    relative paths mean what they mean there.

    After ``seconds`` the point writes what it has, its status being "timeout"; if it cannot, the
    process ends.
    """

    def end(number: int, frame: object) -> None:
        assert seconds is not None
        raise TimeLimitError(seconds)

    os.chdir(directory)
    if seconds is None:
        return work(task)
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True)
    try:
        return work(task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def require(package: str, extra: str, launcher: str) -> None:
    """Raises ConfigError if a package is not installed; imports nothing."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"hydra/launcher={launcher} needs {package}, which is not installed; "
            f"pip install -c constraints.txt -e '.[{extra}]'"
        )

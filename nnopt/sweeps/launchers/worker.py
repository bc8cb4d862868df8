"""The program of a worker process: reads tasks from a pipe and writes their results to another.

A worker ends with the process that started it. A thread waits until the pipe is closed, which the
kernel does even after ``kill -9``, and then kills the whole process group, including processes
that the worker has started. (On Linux, PR_SET_PDEATHSIG would kill the worker only, and leave the
others of its group.)
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import threading
import traceback
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, cast

from nnopt.terminal.interruption import stop_on_signals

if TYPE_CHECKING:
    from nnopt.sweeps.task import Task

READY = "ready"
"""Message of a worker that has imported its modules."""


def main() -> None:
    """Run tasks until SIGTERM, after which the point writes its results, or the pipe is closed."""
    faulthandler.enable()
    stop_on_signals()
    tasks_pipe, results_pipe = _take_pipe(0, "rb"), _take_pipe(1, "wb")
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_receive, args=(tasks_pipe, tasks), daemon=True).start()

    from nnopt.sweeps.task import run_task

    _send(READY, results_pipe)
    while True:
        _send(run_task(tasks.get()), results_pipe)


def _take_pipe(number: int, mode: str) -> BinaryIO:
    """Return standard input or output, and replace it by the null device.

    The output of points and of the processes that they start does not reach the pipe.
    """
    pipe = cast(BinaryIO, os.fdopen(os.dup(number), mode))  # not inherited by other programs
    with open(os.devnull, "r+b") as null:
        os.dup2(null.fileno(), number)
    return pipe


def _receive(pipe: BinaryIO, tasks: SimpleQueue[Task]) -> None:
    """Put the received tasks into the queue. When the pipe is closed, kill the process group."""
    try:
        while True:  # safe to unpickle: the pipe comes from the parent process, not from a file
            tasks.put(pickle.load(pipe))
    except EOFError:
        pass
    except Exception:  # an incomplete task, or one of another version of nnopt
        traceback.print_exc()
    os.killpg(0, signal.SIGKILL)


def _send(message: object, pipe: BinaryIO) -> None:
    pickle.dump(message, pipe)
    pipe.flush()

"""The program of a worker process. It reads tasks from one pipe and writes results to another.

A worker ends when its parent process ends, even after ``kill -9``, because the kernel then closes
the pipe. A thread of the worker notices this and kills the process group, which includes the
processes that the worker has started. (On Linux, PR_SET_PDEATHSIG would kill the worker only.)
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

READY = "ready"  # the message that a worker sends after it has imported its modules


def main() -> None:
    """Run tasks until the pipe closes, or until SIGTERM, after which a point writes its results."""
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
    """Return the pipe on standard input or output, and replace that stream by the null device.

    So the output of points, and of the processes that they start, does not reach the pipe.
    """
    pipe = cast(BinaryIO, os.fdopen(os.dup(number), mode))  # child processes do not inherit it
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
    except Exception:  # the task is incomplete, or another version of nnopt sent it
        traceback.print_exc()
    os.killpg(0, signal.SIGKILL)


def _send(message: object, pipe: BinaryIO) -> None:
    pickle.dump(message, pipe)
    pipe.flush()

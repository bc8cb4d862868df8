"""The program of a worker process: takes tasks from a pipe and sends their outcomes into another.

It belongs to the process that started it, and ends with it, however that ends: a thread waits for
the end of the pipe, which the kernel brings about even after ``kill -9``, and then kills the whole
process group, and so whatever the worker itself may have started. (Linux could kill the worker by
itself, PR_SET_PDEATHSIG, but then nobody would be left to kill the others of its group.)
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
"""What a worker says when it has imported what it needs."""


def main() -> None:
    """Work until SIGTERM, which lets the point write what it has, or the end of the pipe."""
    faulthandler.enable()
    stop_on_signals()
    tasks_pipe, outcomes_pipe = _take_pipe(0, "rb"), _take_pipe(1, "wb")
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_receive, args=(tasks_pipe, tasks), daemon=True).start()

    from nnopt.sweeps.task import work

    _send(READY, outcomes_pipe)
    while True:
        _send(work(tasks.get()), outcomes_pipe)


def _take_pipe(number: int, mode: str) -> BinaryIO:
    """Standard input or output for ourselves alone: not for what a point prints, which its log has
    too, and not for processes that it starts."""
    pipe = cast(BinaryIO, os.fdopen(os.dup(number), mode))  # which no other program inherits
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), number)
    return pipe


def _receive(pipe: BinaryIO, tasks: SimpleQueue[Task]) -> None:
    """Hand the tasks over; at the pipe's end, end at once whatever is being worked on."""
    try:
        while True:  # what a parent process wrote in memory; no file's word is trusted like this
            tasks.put(pickle.load(pipe))
    except EOFError:
        pass
    except Exception:  # half a task, or one that does not fit the nnopt imported here
        traceback.print_exc()
    os.killpg(0, signal.SIGKILL)


def _send(message: object, pipe: BinaryIO) -> None:
    pickle.dump(message, pipe)
    pipe.flush()

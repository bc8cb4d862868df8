"""The launcher ``pool``: worker processes on this machine.

Each worker is a process of its own (``worker.py``) that takes one point after another, so that
PyTorch is imported and data are loaded once in each. Cached data above 256 MiB are mapped into
memory, so all workers share one copy. A worker that ends costs the point that it was training, and
another worker takes its place.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import IO, Any

from nnopt.errors import TimeLimitError
from nnopt.results.cores import usable_cores
from nnopt.schema import PoolConfig
from nnopt.sweeps.launchers.remote import GRACE_SECONDS, append_log, lost, thread_limits, threads_of
from nnopt.sweeps.launchers.worker import READY
from nnopt.sweeps.task import Outcome, Task
from nnopt.terminal.interruption import SIGTERM_CODE

START_SECONDS = 120.0
"""What a worker may take to start, on a busy machine or from a slow disk."""

LONGEST_COMPLAINT = 64 * 1024
"""Bytes of what a worker wrote to stderr that go to the log of the point it was at."""

# The path of this process, since a worker imports what it does, wherever it was started.
PROGRAM = (
    "import sys; sys.path = sys.argv[1:]; from nnopt.sweeps.launchers.worker import main; main()"
)


def in_processes(tasks: Iterable[Task], config: PoolConfig) -> Generator[Outcome, None, None]:
    """The launcher: at most so many workers at once, started when there is a point for them."""
    pool, waiting = _Pool(config), iter(tasks)
    try:
        while True:
            while pool.has_room and (task := next(waiting, None)) is not None:
                pool.give(task)
            if not pool.busy:
                return
            yield from pool.wait()
    finally:
        pool.stop()


@dataclass(eq=False)
class Worker:
    """A process, the task it is at, and when that has to be finished (``time.monotonic``)."""

    process: subprocess.Popen[bytes]
    complaints: IO[bytes]  # what it writes to stderr
    device: int | str | None
    started: bool = False
    task: Task | None = None
    deadline: float = math.inf
    seen: int = 0

    def new_complaints(self) -> str:
        """What came to stderr since the last call, the end of it if it is long."""
        descriptor = self.complaints.fileno()
        size = os.fstat(descriptor).st_size
        start, self.seen = max(self.seen, size - LONGEST_COMPLAINT), size
        return os.pread(descriptor, size - start, start).decode("utf-8", "replace")


class _Pool:
    """The workers of one sweep. A thread for each listens to it; all else happens in the caller."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._count = config.workers or usable_cores() or 1
        self._threads = threads_of(config)
        self._timeout = math.inf if config.timeout is None else config.timeout
        self._workers: list[Worker] = []
        self._messages: SimpleQueue[tuple[Worker, Any]] = SimpleQueue()

    @property
    def busy(self) -> list[Worker]:
        """Those that are at a task."""
        return [worker for worker in self._workers if worker.task is not None]

    @property
    def has_room(self) -> bool:
        """Is there, or may there be, a worker for one more task?"""
        return len(self.busy) < self._count

    def give(self, task: Task) -> None:
        """Let a worker that is free, or a new one, begin with the task."""
        free = [worker for worker in self._workers if worker.task is None]
        worker = free[0] if free else self._start()
        allowance = 0 if worker.started else START_SECONDS
        worker.task, worker.deadline = task, time.monotonic() + allowance + self._timeout
        stdin = worker.process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # of one that has died, as its other pipe is about to tell
            pickle.dump(task, stdin)
            stdin.flush()

    def wait(self) -> list[Outcome]:
        """The outcomes that are there, as soon as there is one."""
        outcomes: list[Outcome] = []
        while not outcomes:
            for worker, message in self._new_messages():
                if worker not in self._workers:
                    continue  # stopped meanwhile
                if message is None:
                    outcomes += self._bury(worker)
                elif message == READY:  # only now the point's time begins to count
                    worker.started, worker.deadline = True, time.monotonic() + self._timeout
                elif worker.task is not None:
                    outcomes.append(replace(message, task=worker.task))
                    self._release(worker)
            late = [w for w in self.busy if w.deadline <= time.monotonic()]
            if late:
                outcomes += self._stop(late, "timeout", str(TimeLimitError(self._timeout)))
        return outcomes

    def stop(self) -> None:
        """End every process, those that are at a task included."""
        self._stop(self._workers, "interrupted", "the sweep was stopped")

    def _start(self) -> Worker:
        environment = {**os.environ, **thread_limits(self._threads)}
        device = None
        if self._config.devices:  # the one that the fewest workers have
            used = [worker.device for worker in self._workers]
            device = min(self._config.devices, key=used.count)
            environment["CUDA_VISIBLE_DEVICES"] = str(device)
        complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the worker has ended
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            start_new_session=True,  # a group to kill as a whole; the terminal's Ctrl-C is ours
        )
        worker = Worker(process, complaints, device)
        self._workers.append(worker)
        threading.Thread(target=_listen, args=(worker, self._messages), daemon=True).start()
        return worker

    def _new_messages(self) -> Iterator[tuple[Worker, Any]]:
        """Wait for a message, or until a task has taken too long; then all that are there."""
        deadline = min(worker.deadline for worker in self.busy)
        pause = None if deadline == math.inf else max(deadline - time.monotonic(), 0)
        with suppress(Empty):
            yield self._messages.get(timeout=pause)
            while True:
                yield self._messages.get_nowait()

    def _release(self, worker: Worker) -> tuple[Task | None, str]:
        """Take the task from the worker; what it wrote to stderr meanwhile goes to the point's
        log."""
        task, worker.task, worker.deadline = worker.task, None, math.inf
        complaints = worker.new_complaints()
        if task is not None and complaints:
            append_log(task, complaints)
        return task, complaints

    def _bury(self, worker: Worker) -> list[Outcome]:
        """Return the outcome of the task of a worker that has ended by itself."""
        with suppress(subprocess.TimeoutExpired):  # its pipe is closed before it has ended
            worker.process.wait(GRACE_SECONDS)
        [(task, complaints)] = self._end([worker])
        code = worker.process.returncode
        if task is None:
            return []
        if code == SIGTERM_CODE or -code in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            name = "SIGTERM" if code == SIGTERM_CODE else signal.Signals(-code).name
            return [lost(task, "interrupted", f"interrupted by {name}")]
        error = f"the worker process ended with exit code {code}"
        if code < 0:
            error = f"killed by signal {-code}"
            if -code == signal.SIGKILL:
                error += ", which the system sends when memory runs out"
        elif complaints.strip():
            error += f": {complaints.strip().splitlines()[-1]}"
        return [lost(task, "failed", error)]

    def _stop(self, workers: Sequence[Worker], status: str, error: str) -> list[Outcome]:
        """Let points write what they have, then end their workers: at the latest after
        GRACE_SECONDS, or when Ctrl-C is pressed again."""
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(deadline - time.monotonic(), 0))
        finally:
            ended = self._end(workers)
        return [lost(task, status, error) for task, _ in ended if task is not None]

    def _end(self, workers: Sequence[Worker]) -> list[tuple[Task | None, str]]:
        """Kill what is left of these workers and of what they have started. Returns the task each
        was at, and what it wrote to stderr meanwhile."""
        for worker in workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
        ended = []
        for worker in list(workers):
            worker.process.wait()
            self._workers.remove(worker)
            ended.append(self._release(worker))
            worker.complaints.close()
            assert worker.process.stdin is not None
            with suppress(BrokenPipeError):
                worker.process.stdin.close()
        return ended


def _listen(worker: Worker, messages: SimpleQueue[tuple[Worker, Any]]) -> None:
    """Pass on what a worker says, and that it says no more: None."""
    assert worker.process.stdout is not None
    try:
        with worker.process.stdout as pipe, suppress(EOFError, pickle.UnpicklingError):
            while True:
                messages.put((worker, pickle.load(pipe)))
    finally:  # whatever came out of the pipe: somebody waits for this
        messages.put((worker, None))

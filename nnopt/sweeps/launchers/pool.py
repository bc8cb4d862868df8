"""The launcher ``pool``: worker processes on this machine.

Each worker is a separate process (``worker.py``) that runs one point after another, so it imports
PyTorch and loads the data only once. Cached data above 256 MiB are mapped into memory, so all
workers share one copy. If a worker dies, only its current point fails, and the worker is replaced.
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
from nnopt.recipe.thread_notes import threads_of
from nnopt.results.cores import usable_cores
from nnopt.schema import PoolConfig
from nnopt.sweeps.launchers.remote import GRACE_SECONDS, append_log, record_lost_task, thread_limits
from nnopt.sweeps.launchers.worker import READY
from nnopt.sweeps.task import Task, TaskResult
from nnopt.terminal.interruption import SIGTERM_CODE

START_SECONDS = 120.0
"""Additional time for the first task of a worker, because the worker has to start."""

MAX_STDERR_BYTES = 64 * 1024
"""If a point writes more bytes than this to stderr, only the last ones are copied to its log."""

# A worker gets the import path of this process, so that both import the same modules.
PROGRAM = (
    "import sys; sys.path = sys.argv[1:]; from nnopt.sweeps.launchers.worker import main; main()"
)


def run_in_pool(tasks: Iterable[Task], config: PoolConfig) -> Generator[TaskResult, None, None]:
    """Run tasks in worker processes, which are started as needed. Implements ``Launcher``."""
    pool, waiting = _Pool(config), iter(tasks)
    try:
        while True:
            while len(pool.busy) < pool.count and (task := next(waiting, None)) is not None:
                pool.submit(task)
            if not pool.busy:
                return
            yield from pool.wait()
    finally:
        pool.stop()


@dataclass(eq=False)
class Worker:
    """A worker process and its current task."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    device: int | str | None  # the only CUDA device that the worker can use; None for all devices
    started: bool = False  # whether the worker has imported its modules
    task: Task | None = None
    deadline: float = math.inf  # value of time.monotonic() at which the task is stopped
    stderr_read: int = 0  # number of bytes already read from stderr


class _Pool:
    """The workers of one sweep. For each worker, a thread of this process receives its messages."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        cores = usable_cores() or 1
        self.count = config.workers or cores
        self._threads = threads_of(config, cores)
        self._timeout = math.inf if config.timeout is None else config.timeout
        self._workers: list[Worker] = []
        self._messages: SimpleQueue[tuple[Worker, Any]] = SimpleQueue()

    @property
    def busy(self) -> list[Worker]:
        """The workers that have a task."""
        return [worker for worker in self._workers if worker.task is not None]

    def submit(self, task: Task) -> None:
        """Give the task to an idle worker, or to a new one."""
        free = [worker for worker in self._workers if worker.task is None]
        worker = free[0] if free else self._start()
        allowance = 0 if worker.started else START_SECONDS
        worker.task, worker.deadline = task, time.monotonic() + allowance + self._timeout
        stdin = worker.process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # the worker has died, as its output pipe will report
            pickle.dump(task, stdin)
            stdin.flush()

    def wait(self) -> list[TaskResult]:
        """Wait for at least one result, and return all available results."""
        results: list[TaskResult] = []
        while not results:
            for worker, message in self._new_messages():
                if worker not in self._workers:  # the pool has stopped the worker
                    continue
                if message is None:
                    results += self._handle_exit(worker)
                elif message == READY:  # the time limit of the task starts now
                    worker.started, worker.deadline = True, time.monotonic() + self._timeout
                elif worker.task is not None:
                    results.append(replace(message, task=worker.task))
                    self._release(worker)
            if late := [w for w in self.busy if w.deadline <= time.monotonic()]:
                results += self._stop(late, "timeout", str(TimeLimitError(self._timeout)))
        return results

    def stop(self) -> None:
        """Stop all workers. Their tasks are interrupted."""
        self._stop(self._workers, "interrupted", "the sweep was stopped")

    def _start(self) -> Worker:
        environment = {**os.environ, **thread_limits(self._threads)}
        device = None
        if self._config.devices:  # the device that the fewest workers use
            used = [worker.device for worker in self._workers]
            device = min(self._config.devices, key=used.count)
            environment["CUDA_VISIBLE_DEVICES"] = str(device)
        stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _end
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # Ctrl-C on the terminal does not reach the new process group
        )
        worker = Worker(process, stderr, device)
        self._workers.append(worker)
        threading.Thread(target=_listen, args=(worker, self._messages), daemon=True).start()
        return worker

    def _new_messages(self) -> Iterator[tuple[Worker, Any]]:
        """Wait for a message or for a deadline, and yield all available messages."""
        deadline = min(worker.deadline for worker in self.busy)
        pause = None if deadline == math.inf else max(deadline - time.monotonic(), 0)
        with suppress(Empty):
            yield self._messages.get(timeout=pause)
            while True:
                yield self._messages.get_nowait()

    def _release(self, worker: Worker) -> tuple[Task | None, str]:
        """Mark the worker as idle. Return its task and new stderr output, which is also logged."""
        task, worker.task, worker.deadline = worker.task, None, math.inf
        descriptor = worker.stderr.fileno()
        size = os.fstat(descriptor).st_size
        start, worker.stderr_read = max(worker.stderr_read, size - MAX_STDERR_BYTES), size
        stderr = os.pread(descriptor, size - start, start).decode("utf-8", "replace")
        if task is not None and stderr:
            append_log(task, stderr)
        return task, stderr

    def _handle_exit(self, worker: Worker) -> list[TaskResult]:
        """Remove a worker that died. Return the result of its task, or nothing if it was idle."""
        with suppress(subprocess.TimeoutExpired):  # the pipe closes before the process ends
            worker.process.wait(GRACE_SECONDS)
        task, stderr = self._end(worker)
        code = worker.process.returncode
        if task is None:
            return []
        if code == SIGTERM_CODE or -code in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            name = "SIGTERM" if code == SIGTERM_CODE else signal.Signals(-code).name
            return [record_lost_task(task, "interrupted", f"interrupted by {name}")]
        error = f"the worker process ended with exit code {code}"
        if code < 0:
            error = f"killed by signal {-code}"
            if -code == signal.SIGKILL:
                error += ", which the system sends when memory runs out"
        elif stderr.strip():
            error += f": {stderr.strip().splitlines()[-1]}"
        return [record_lost_task(task, "failed", error)]

    def _stop(self, workers: Sequence[Worker], status: str, error: str) -> list[TaskResult]:
        """Terminate workers, and kill those that still run after GRACE_SECONDS or Ctrl-C."""
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(deadline - time.monotonic(), 0))
        finally:
            tasks = [self._end(worker)[0] for worker in list(workers)]
        return [record_lost_task(task, status, error) for task in tasks if task is not None]

    def _end(self, worker: Worker) -> tuple[Task | None, str]:
        """Kill the process group of a worker, and return its task and its new stderr output."""
        with suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        self._workers.remove(worker)
        released = self._release(worker)
        worker.stderr.close()
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
        return released


def _listen(worker: Worker, messages: SimpleQueue[tuple[Worker, Any]]) -> None:
    """Put the messages of a worker into the queue, and None when its pipe is closed."""
    assert worker.process.stdout is not None
    try:
        with worker.process.stdout as pipe, suppress(EOFError, pickle.UnpicklingError):
            while True:
                messages.put((worker, pickle.load(pipe)))
    finally:  # even after an error, because the pool waits for this message
        messages.put((worker, None))

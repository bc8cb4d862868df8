"""The task of running one point, and the interface of the launchers that run tasks."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nnopt.config.point import Point
from nnopt.errors import NnoptError, ResumeError, TimeLimitError
from nnopt.io.locks import hold
from nnopt.io.own_files import remove_run
from nnopt.recipe.checkpoints import usable_checkpoint
from nnopt.recipe.recorder import AfterEpoch
from nnopt.recipe.run import run
from nnopt.sweeps.point_folder import ENDED, make_folder, read_state

log = logging.getLogger("nnopt")


@dataclass(frozen=True)
class Task:
    """A point to run, and its folder, which ``run_task`` creates. A task can be pickled."""

    point: Point
    folder: Path
    after_epoch: tuple[AfterEpoch, ...] = ()
    replaces: int | None = None  # the stamp of the point's state when the task was created


@dataclass(frozen=True)
class TaskResult:
    """The result of a task. The status is "running" if another process is running the point."""

    task: Task
    status: str
    error: str | None = None


class Launcher(Protocol):
    """Runs tasks in this process, in other processes, or on other machines."""

    def __call__(self, tasks: Iterable[Task]) -> Generator[TaskResult, None, None]:
        """Run the tasks, and yield the result of each task as soon as the task has ended.

        The next task is requested only when it can start, because a search chooses each point from
        the results yielded so far. The order of the results is arbitrary. If the generator is
        closed or raises an exception, all running tasks and their processes are stopped.
        """
        ...


def run_task(task: Task) -> TaskResult:
    """Run a task in this process while holding the lock of its folder.

    Unless its training diverged, the point continues from its checkpoint, if it has one. Only
    KeyboardInterrupt and SystemExit are raised. The result reports every other error.
    """
    try:
        make_folder(task.folder)
        with hold(task.folder) as is_held_here:
            if not is_held_here:
                return TaskResult(task, "running")
            state = read_state(task.folder, held=True)
            if state.status in ENDED and state.stamp != task.replaces:
                return TaskResult(task, state.status, state.error)  # finished by another process
            resumed = None
            if state.status != "diverged":  # the training would diverge at the same step
                resumed = usable_checkpoint(task.point, task.folder)
            if resumed is not None:
                try:
                    run(task.point, task.folder, task.after_epoch, quiet=True, resumed=resumed)
                    return TaskResult(task, "done")
                except ResumeError as error:
                    log.warning("%s; the point starts over", error)
            remove_run(task.folder)
            run(task.point, task.folder, task.after_epoch, quiet=True)
    except (NnoptError, TimeLimitError) as error:
        return TaskResult(task, error.status, str(error))
    except Exception as error:
        return TaskResult(task, "failed", f"{type(error).__name__}: {error}")
    return TaskResult(task, "done")


def run_sequentially(tasks: Iterable[Task]) -> Generator[TaskResult, None, None]:
    """Run the tasks in this process, one after another. Implements ``Launcher``."""
    for task in tasks:
        yield run_task(task)

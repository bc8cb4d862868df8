"""One point of a sweep as a piece of work, and who works on it."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nnopt.compose import Point
from nnopt.errors import NnoptError, OutputError
from nnopt.results.files import output_error
from nnopt.run import run


@dataclass(frozen=True)
class Task:
    """A point and the folder of its results, which whoever takes the task makes. Can be sent to
    another process."""

    point: Point
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """How a task ended: a status as in ``summary.json``, and the error in one line, if any."""

    task: Task
    status: str
    error: str | None = None


class Launcher(Protocol):
    """Who works on the tasks: this process, others beside it, or other machines."""

    def __call__(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        """Take a task whenever there is room for one more, and yield each one's outcome as soon as
        it has ended, in whatever order that is.

        Tasks are asked for one at a time and as late as possible: a search decides on the next
        point when it is asked, knowing the outcomes yielded until then. Closing the generator, or
        an exception while it waits, stops all that is running and leaves no process behind.
        """
        ...


def work(task: Task) -> Outcome:
    """Run the point in this process. Only what has to end the whole process is raised:
    KeyboardInterrupt, SystemExit."""
    try:
        _make(task.folder)
        run(task.point, task.folder)
    except NnoptError as error:
        return Outcome(task, error.status, str(error))
    except Exception as error:
        return Outcome(task, "failed", f"{type(error).__name__}: {error}")
    return Outcome(task, "done")


def one_after_another(tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
    """The launcher that needs nothing: every point in this process."""
    for task in tasks:
        yield work(task)


def _make(folder: Path) -> None:
    """Raises OutputError, if the folder is there already too."""
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise OutputError(f"the folder {folder} exists; results are never overwritten") from error
    except OSError as error:
        raise output_error("make folder", folder, error) from error

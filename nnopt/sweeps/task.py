"""One point of a sweep as a piece of work, and who works on it."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nnopt.config.point import Point
from nnopt.errors import NnoptError, TimeLimitError
from nnopt.io.locks import hold
from nnopt.io.own_files import remove_run
from nnopt.recipe.recorder import AfterEpoch
from nnopt.recipe.run import run
from nnopt.sweeps.point_folder import make, read_state


@dataclass(frozen=True)
class Task:
    """A point and the folder of its results, which whoever takes the task makes. Can be sent to
    another process.

    after_epoch: as for ``nnopt.recipe.run.run``. replaces: the stamp of the state in which the
    folder was when it was decided to run the point; if somebody else has brought it to an end
    since, that end counts.
    """

    point: Point
    folder: Path
    after_epoch: tuple[AfterEpoch, ...] = ()
    replaces: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task ended: a status as in ``summary.json``, and the error in one line, if any. The
    status is "running" if another process works on the point."""

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
    """Run the point in this process, holding its folder. Only what has to end the whole process is
    raised: KeyboardInterrupt, SystemExit."""
    try:
        make(task.folder)
        with hold(task.folder) as is_mine:
            if not is_mine:
                return Outcome(task, "running")
            state = read_state(task.folder, held=True)
            if state.stamp != task.replaces:  # another process has been here meanwhile
                return Outcome(task, state.status, state.error)
            remove_run(task.folder)
            run(task.point, task.folder, task.after_epoch, quiet=True)
    except (NnoptError, TimeLimitError) as error:
        return Outcome(task, error.status, str(error))
    except Exception as error:
        return Outcome(task, "failed", f"{type(error).__name__}: {error}")
    return Outcome(task, "done")


def one_after_another(tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
    """The launcher that needs nothing: every point in this process."""
    for task in tasks:
        yield work(task)

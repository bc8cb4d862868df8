"""A search: it draws trials with Optuna, yields their points as tasks, and reports the results.

Only code that runs a search imports this module, because it imports Optuna.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from nnopt.config.compose import Plan
from nnopt.config.point import Point
from nnopt.config.search_parameters import Parameter
from nnopt.config.search_space import Space
from nnopt.errors import ConfigError, ResumeError
from nnopt.io.own_files import LogFile
from nnopt.io.paths import in_folder
from nnopt.recipe.recorder import AfterEpoch
from nnopt.schema import OptunaConfig, first_override
from nnopt.sweeps.manifest import Sweep, add_points, read_sweep
from nnopt.sweeps.point_folder import ENDED, PointState, note_unusable_summary, read_state
from nnopt.sweeps.search.journal_check import check_trials
from nnopt.sweeps.search.pruner import PrunerCallback
from nnopt.sweeps.search.study import (
    JOURNAL,
    damaged_journal,
    load_trial,
    lock_search,
    open_study,
    suggest,
)
from nnopt.sweeps.task import Task, TaskResult

Overrides = tuple[str, ...]

STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
"""Status of a trial -> its state in Optuna. The other statuses are failures."""

STOPPED = (TrialState.PRUNED, TrialState.FAIL)  # states of trials whose points do not run again


@dataclass(frozen=True)
class FinishedTrial:
    """The result of a trial."""

    number: int  # counted from 1
    overrides: Overrides
    status: str  # "done", "pruned", "refused" (by a rule), or the status of the failed point
    value: float | None = None  # the mean of the metric over the seeds if the status is "done"
    error: str | None = None
    seconds: float | None = None  # the total time of the points


@dataclass(eq=False)
class OpenTrial:
    """An unfinished trial, with one point for each seed."""

    trial: Trial
    overrides: Overrides
    points: list[Point]

    def finish(self, results: Mapping[str, PointState], metric: str) -> FinishedTrial | None:
        """Return the result of the trial, or None if it is not finished yet.

        The trial is finished if one of its points failed or was pruned, or if all are done.
        ``results`` maps the ids of finished points to their states.
        """
        states = [results[point.id] for point in self.points if point.id in results]
        seconds = [s.summary["total_seconds"] for s in states if s.summary.get("total_seconds")]
        total = math.fsum(seconds) if seconds else None
        result = FinishedTrial(self.trial.number + 1, self.overrides, "done", seconds=total)
        for state in states:
            if state.status != "done":
                return replace(result, status=state.status, error=state.error)
        if len(states) < len(self.points):
            return None
        values = [state.summary.get(metric) for state in states]
        finite = [value for value in values if isinstance(value, int | float)]
        if len(finite) < len(values):
            return replace(result, status="failed", error=f"{metric} was never finite")
        return replace(result, value=math.fsum(value / len(finite) for value in finite))


@contextmanager
def open_search(
    plan: Plan, sweep: Sweep, adapt: Callable[[Point], Point] = lambda point: point
) -> Iterator[SearchRun]:
    """Start or continue a search in the folder of a sweep. Optuna's messages go to ``search.log``.

    Raises ResumeError if the folder has a different search or another process runs the search.
    """
    handler = LogFile(sweep.folder / "search.log")
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    assert plan.space is not None
    try:
        with lock_search(sweep.folder / JOURNAL), plan.space.composing():
            # Another process may have added points before this process acquired the lock.
            stored = read_sweep(sweep.folder, sweep)
            current = replace(stored, sweeper=sweep.sweeper, launcher=sweep.launcher)
            yield SearchRun(plan, current, adapt)
    finally:
        logger.removeHandler(handler)
        handler.close()


class SearchRun:
    """A running search. ``sweep`` has the distinct points of all trials, in order of the trials."""

    def __init__(self, plan: Plan, sweep: Sweep, adapt: Callable[[Point], Point]) -> None:
        assert isinstance(sweep.sweeper, OptunaConfig)
        assert plan.space is not None
        self.sweep = sweep
        self.settings: OptunaConfig = sweep.sweeper
        self.space: Space = plan.space
        self.finished: deque[FinishedTrial] = deque()  # the caller removes the results
        # The number (counted from 1) and the overrides of the trial whose task was yielded last.
        self.latest: tuple[int, Overrides] = (0, ())
        self._adapt = adapt
        self._epochs = max(point.config.epochs for point in plan.points)
        self._journal = sweep.folder / JOURNAL
        self.study = open_study(self._journal, self.settings, self._epochs)
        # The journal has the first names of renamed keys.
        parameters = [parameter.with_first_names() for parameter in self.space.parameters]
        self._check_same_search(plan.points, parameters)
        try:
            check_trials(self.study, parameters, {point.id for point in sweep.points})
        except (ValueError, TypeError) as error:
            raise damaged_journal(self._journal, error) from error
        self._results: dict[str, PointState] = {}
        for point in sweep.points:
            self._read_result(point)
        self.lost = self._lost_points()  # the points to run again, because their results are lost
        self._running: set[str] = set()
        self._open: list[OpenTrial] = []
        self._started = time.monotonic()

    def tasks(self, after_epoch: tuple[AfterEpoch, ...] = ()) -> Iterator[Task]:
        """Yield a task for each point to run. Draw a trial when the caller requests its first task.

        Each task calls the callbacks ``after_epoch`` before the callback of the pruner.
        """
        for point, frozen in self.lost:
            yield self._task(point, frozen.number, self._draw_overrides(frozen), *after_epoch)
        for trial in self._trials():
            opened = self._draw(trial)
            if opened is None:
                continue
            self._open.append(opened)
            for index, point in enumerate(opened.points):
                self._report_finished()
                if opened not in self._open:
                    break  # the point of an earlier seed failed or was pruned
                if point.id not in self._running and point.id not in self._results:
                    point = self._add_point(point)
                    callbacks = (*after_epoch, *self._pruner_callbacks(trial, index))
                    yield self._task(point, trial.number, opened.overrides, *callbacks)
            self._report_finished()

    def report(self, result: TaskResult) -> None:
        """Record the result of a task. An interrupted point runs again on resume."""
        point = result.task.point
        self._running.remove(point.id)
        self._read_result(point)
        if result.status in ENDED and point.id not in self._results:  # the point has no summary
            self._results[point.id] = PointState(result.status, result.error)
        self._report_finished()

    def _task(self, point: Point, number: int, overrides: Overrides, *after: AfterEpoch) -> Task:
        self._running.add(point.id)
        self.latest = number + 1, overrides
        return Task(self._adapt(point), self.sweep.folder / point.id, after)

    def _read_result(self, point: Point) -> None:
        state = read_state(self.sweep.folder / point.id)
        if state.status in ENDED:
            self._results[point.id] = state

    def _lost_points(self) -> list[tuple[Point, FrozenTrial]]:
        """Return each point that has a complete trial but no result, with its first complete trial.

        Damaged summaries are logged, except for points whose trials are all pruned or failed.
        """
        trials: dict[str, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            for identity in trial.user_attrs.get("points", ()):
                trials.setdefault(identity, []).append(trial)
        lost = []
        for point in self.sweep.points:
            folder, found = self.sweep.folder / point.id, trials.get(point.id, [])
            if point.id in self._results or (found and all(t.state in STOPPED for t in found)):
                continue
            if read_state(folder).status != "running":
                note_unusable_summary(folder)
                complete = [trial for trial in found if trial.state == TrialState.COMPLETE]
                lost += [(point, trial) for trial in complete[:1]]
        return lost

    def _trials(self) -> Iterator[Trial]:
        """Yield the trials that an earlier process has not finished, then new trials."""
        study, limit = self.study, self.settings.timeout
        for frozen in study.get_trials(deepcopy=False):
            if not frozen.state.is_finished():
                yield load_trial(study, self._journal, frozen.number)
        while len(study.get_trials(deepcopy=False)) < self.settings.trials:
            if limit is not None and time.monotonic() - self._started > limit:
                return
            yield study.ask()

    def _draw(self, trial: Trial) -> OpenTrial | None:
        """Draw the values of a trial. If a rule refuses them, report this and return None."""
        overrides = self._draw_overrides(trial)
        try:
            points = self.space.points(overrides)
        except ConfigError as error:
            reason = "; ".join(error.problems)
            self._report(trial, FinishedTrial(trial.number + 1, overrides, "refused", error=reason))
            return None
        trial.set_user_attr("points", [point.id for point in points])
        return OpenTrial(trial, overrides, points)

    def _draw_overrides(self, trial: BaseTrial) -> Overrides:
        return tuple(self.space.draw(lambda parameter: suggest(trial, parameter)))

    def _add_point(self, point: Point) -> Point:
        """Return the point with the same id in the sweep; a missing point is added first.

        A point is added just before it runs, so that a failed first seed leaves no pending points.
        """
        planned = self.space.points_of(self.settings)
        with in_folder(self.space.working):  # paths of data may be relative to ``working``
            self.sweep = add_points(self.sweep, [point], planned=planned)
        return next(known for known in self.sweep.points if known.id == point.id)

    def _report_finished(self) -> None:
        for opened in list(self._open):
            if finished := opened.finish(self._results, self.settings.metric):
                self._open.remove(opened)
                if finished.status == "pruned":
                    self._copy_reports(opened)
                self._report(opened.trial, finished)

    def _report(self, trial: Trial, finished: FinishedTrial) -> None:
        if finished.error is not None:
            trial.set_user_attr("error", f"{finished.status}: {finished.error}")
        state = STATES.get(finished.status, TrialState.FAIL)
        self.study.tell(trial, finished.value, state=state)
        self.finished.append(finished)

    def _copy_reports(self, opened: OpenTrial) -> None:
        """Copy the reported epochs of a pruned point from its first trial to a repeated trial."""
        trials = self.study.get_trials(deepcopy=False)
        identity = opened.points[0].id
        first = next(t for t in trials if identity in t.user_attrs.get("points", ()))
        if first.number != opened.trial.number:
            for epoch, value in first.intermediate_values.items():
                opened.trial.report(value, epoch)

    def _pruner_callbacks(self, trial: Trial, index: int) -> Sequence[AfterEpoch]:
        """Return the pruner's callback for the first seed of a trial, and none for other seeds."""
        if self.settings.pruner == "none" or index > 0:
            return ()
        return (PrunerCallback(self._journal, trial.number, self.settings, self._epochs),)

    def _check_same_search(self, samples: Sequence[Point], parameters: Sequence[Parameter]) -> None:
        """Raise ResumeError if the folder contains a different search."""
        ids = "\n".join(point.id for point in samples)  # the ids depend on the YAML files
        settings = asdict(self.settings).items()
        asked = {key: x for key, x in settings if key not in ("params", "trials", "timeout")}
        asked |= {
            "parameters": list(map(str, parameters)),
            "fixed": [first_override(x) for x in self.space.fixed if not x.startswith("plugins=")],
            "epochs": self._epochs,
            "seeds": [" ".join(overrides) for overrides in self.space.seeds],
            "configuration": hashlib.sha256(ids.encode()).hexdigest(),
        }
        before = self.study.user_attrs.get("asked")
        if before is None:
            self.study.set_user_attr("asked", asked)
        elif before != asked:
            keys = [key for key in asked if asked[key] != before.get(key)] or ["setting"]
            raise ResumeError(
                f"the YAML files, or nnopt, have changed since the search in {self.sweep.folder} "
                f"began: {', '.join(keys)} would differ; begin a new search with nnopt run -m"
            )

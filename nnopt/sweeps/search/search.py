"""A search as a source of tasks: asks Optuna for a trial when a launcher has room for one more, and
tells Optuna how trials have ended. Imported only by searches, as Optuna is.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from nnopt.config.compose import Plan
from nnopt.config.point import Point
from nnopt.config.search_space import Space
from nnopt.errors import ConfigError, ResumeError
from nnopt.io.own_files import LogFile
from nnopt.recipe.recorder import AfterEpoch
from nnopt.schema import OptunaConfig
from nnopt.sweeps.manifest import Sweep, add_points, read_sweep
from nnopt.sweeps.point_folder import ENDED, PointState, note_unusable_summary, read_state
from nnopt.sweeps.search.journal_check import check_parameters, check_points
from nnopt.sweeps.search.pruner import Pruning
from nnopt.sweeps.search.study import JOURNAL, alone, damaged_journal, open_study, suggest, trial_of
from nnopt.sweeps.task import Task, TaskResult


@dataclass(frozen=True)
class Ended:
    """How a trial has ended. number: from 1. words: what was drawn. status: done, pruned, refused
    (by a rule), or that of a point that failed. error: in one line. seconds: of its points."""

    number: int
    words: tuple[str, ...]
    status: str
    value: float | None
    error: str | None
    seconds: float | None


@dataclass(eq=False)
class OpenTrial:
    """A trial that Optuna waits to hear of, and its points, one for each seed."""

    trial: Trial
    words: tuple[str, ...]
    points: list[Point]


@contextmanager
def begin(
    plan: Plan, sweep: Sweep, adapt: Callable[[Point], Point] = lambda point: point
) -> Iterator[SearchRun]:
    """Begin a search in its folder, or continue the one that was begun there.

    adapt: changes each point before it runs. The messages of Optuna go to ``search.log``. Raises
    ResumeError if another search was begun there, or if another process continues it.
    """
    handler = LogFile(sweep.folder / "search.log")
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)
    assert plan.space is not None
    try:
        with alone(sweep.folder / JOURNAL), plan.space.composing():
            # Until the lock was ours, the process before may have added points.
            there = read_sweep(sweep.folder, sweep)
            asked = replace(there, sweeper=sweep.sweeper, launcher=sweep.launcher)
            yield SearchRun(plan, asked, adapt)
    finally:
        logger.removeHandler(handler)
        handler.close()


class SearchRun:
    """A search under way.

    sweep: has the points of all trials so far, each once, in the order in which they were drawn.
    study: Optuna's, for reading. settings: of the search, as they are now.
    news: trials that have ended since somebody last took them out. lost: points that run again
    since their results are no longer there, with the trials that had them. latest: the number, from
    1, and the words of the trial of the task that was taken last.
    """

    def __init__(
        self, plan: Plan, sweep: Sweep, adapt: Callable[[Point], Point] = lambda point: point
    ) -> None:
        assert isinstance(sweep.sweeper, OptunaConfig)
        assert plan.space is not None
        self.sweep = sweep
        self._adapt = adapt
        self.settings: OptunaConfig = sweep.sweeper
        self.space: Space = plan.space
        self.news: deque[Ended] = deque()
        self._epochs = max(point.config.epochs for point in plan.points)
        self._journal = sweep.folder / JOURNAL
        self.study = open_study(self._journal, self.settings, self._epochs)
        self._check_same(plan.points)
        try:
            check_parameters(self.study, self.space.parameters)
            check_points(self.study, {point.id for point in sweep.points})
        except (ValueError, TypeError) as error:
            raise damaged_journal(self._journal, error) from error
        self._results: dict[str, PointState] = {}
        for point in sweep.points:
            self._look_at(point)
        self.lost = self._lost_points()
        self.latest: tuple[int, tuple[str, ...]] = (0, ())
        self._under_way: set[str] = set()
        self._open: list[OpenTrial] = []
        self._started = time.monotonic()

    def tasks(self, after_epoch: tuple[AfterEpoch, ...] = ()) -> Iterator[Task]:
        """The points that are yet to be run, each drawn when it is asked for. after_epoch: for each
        of them, before the search itself looks at an epoch."""
        for point, ended in self.lost:
            self._under_way.add(point.id)
            self.latest = ended.number + 1, self._words(ended)
            yield Task(self._adapt(point), self.sweep.folder / point.id, after_epoch)
        for trial in self._trials():
            opened = self._draw(trial)
            if opened is None:
                continue
            self._open.append(opened)
            for index, point in enumerate(opened.points):
                self._settle()
                if opened not in self._open:
                    break  # with an earlier seed it has failed, or was stopped
                if point.id not in self._under_way and point.id not in self._results:
                    point = self._added(point)
                    self._under_way.add(point.id)
                    self.latest = trial.number + 1, opened.words
                    looks = (*after_epoch, *self._prunings(trial, index))
                    yield Task(self._adapt(point), self.sweep.folder / point.id, looks)
            self._settle()

    def tell(self, outcome: TaskResult) -> None:
        """A task has ended. One that was interrupted is run again when the search is resumed."""
        point = outcome.task.point
        self._under_way.remove(point.id)
        self._look_at(point)
        if outcome.status in ENDED and point.id not in self._results:  # a folder it could not make
            self._results[point.id] = PointState(outcome.status, outcome.error)
        self._settle()

    def _look_at(self, point: Point) -> None:
        state = read_state(self.sweep.folder / point.id)
        if state.status in ENDED:
            self._results[point.id] = state

    def _lost_points(self) -> list[tuple[Point, FrozenTrial]]:
        """Return the points of complete trials whose results are no longer there, each with the
        first such trial, and log which summaries are damaged. Points of pruned and failed trials do
        not run again."""
        states: dict[str, set[TrialState]] = {}
        complete: dict[str, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            for identity in trial.user_attrs.get("points", ()):
                states.setdefault(identity, set()).add(trial.state)
                if trial.state == TrialState.COMPLETE:
                    complete.setdefault(identity, trial)
        stopped = {TrialState.PRUNED, TrialState.FAIL}
        lost = []
        for point in self.sweep.points:
            folder, found = self.sweep.folder / point.id, states.get(point.id, set())
            if point.id in self._results or (found and found <= stopped):
                continue
            if read_state(folder).status != "running":
                note_unusable_summary(folder)
                if point.id in complete:
                    lost.append((point, complete[point.id]))
        return lost

    def _trials(self) -> Iterator[Trial]:
        """Those that were begun before and have not ended, then new ones."""
        study, limit = self.study, self.settings.timeout
        for frozen in study.get_trials(deepcopy=False):
            if not frozen.state.is_finished():
                yield trial_of(study, self._journal, frozen.number)
        while len(study.get_trials(deepcopy=False)) < self.settings.trials:
            if limit is not None and time.monotonic() - self._started > limit:
                return
            yield study.ask()

    def _draw(self, trial: Trial) -> OpenTrial | None:
        """The trial's keys and points; None if a rule refuses them, and Optuna is told so."""
        words = self._words(trial)
        try:
            points = self.space.points(words)
        except ConfigError as error:
            empty = OpenTrial(trial, words, [])
            self._tell(empty, TrialState.FAIL, "refused", error="; ".join(error.problems))
            return None
        trial.set_user_attr("points", [point.id for point in points])
        return OpenTrial(trial, words, points)

    def _words(self, trial: BaseTrial) -> tuple[str, ...]:
        return tuple(self.space.draw(lambda parameter: suggest(trial, parameter)))

    def _added(self, point: Point) -> Point:
        """The point as the sweep has it, from now on if it has not: of a trial that a bad end of
        an earlier seed ends, the other seeds never become points that nobody will run."""
        planned = self.space.points_of(self.settings)
        with self.space.there():  # where relative paths of data are to be found
            self.sweep = add_points(self.sweep, [point], planned=planned)
        return next(there for there in self.sweep.points if there.id == point.id)

    def _settle(self) -> None:
        """Tell Optuna of the trials that are now known how they ended."""
        for opened in list(self._open):
            known = [self._results[p.id] for p in opened.points if p.id in self._results]
            bad = next((state for state in known if state.status != "done"), None)
            if bad is None and len(known) < len(opened.points):
                continue
            self._open.remove(opened)
            told = [state.summary.get(self.settings.metric) for state in known]
            values = [value for value in told if isinstance(value, int | float)]
            if bad is not None:
                is_pruned = bad.status == "pruned"
                if is_pruned:
                    self._copy_reports(opened)
                state = TrialState.PRUNED if is_pruned else TrialState.FAIL
                self._tell(opened, state, bad.status, error=bad.error)
            elif len(values) < len(known):
                error = f"{self.settings.metric} was never finite"
                self._tell(opened, TrialState.FAIL, "failed", error=error)
            else:
                value = math.fsum(value / len(values) for value in values)
                self._tell(opened, TrialState.COMPLETE, "done", value)

    def _copy_reports(self, opened: OpenTrial) -> None:
        """A trial that repeats one that was pruned has reported nothing itself."""
        trials = self.study.get_trials(deepcopy=False)
        first = opened.points[0].id
        other = next(t for t in trials if first in t.user_attrs.get("points", ()))
        if other.number != opened.trial.number:
            for epoch, value in other.intermediate_values.items():
                opened.trial.report(value, epoch)

    def _tell(
        self,
        opened: OpenTrial,
        state: TrialState,
        status: str,
        value: float | None = None,
        error: str | None = None,
    ) -> None:
        trial = opened.trial
        if error is not None:
            trial.set_user_attr("error", f"{status}: {error}")
        self.study.tell(trial, value, state=state)
        states = [self._results[p.id] for p in opened.points if p.id in self._results]
        seconds = [s.summary["total_seconds"] for s in states if s.summary.get("total_seconds")]
        took = math.fsum(seconds) if seconds else None
        self.news.append(Ended(trial.number + 1, opened.words, status, value, error, took))

    def _prunings(self, trial: Trial, index: int) -> Sequence[AfterEpoch]:
        """Of a trial's seeds the first one decides whether it goes on."""
        if self.settings.pruner == "none" or index > 0:
            return ()
        return (Pruning(self._journal, trial.number, self.settings, self._epochs),)

    def _check_same(self, samples: Sequence[Point]) -> None:
        """Raises ResumeError if the folder has another search, whose trials would mislead this.
        samples: whose ids tell what the YAML files say now."""
        asked = asdict(self.settings)
        for key in ("params", "trials", "timeout"):
            del asked[key]
        asked |= {"parameters": [str(parameter) for parameter in self.space.parameters]}
        asked |= {"fixed": list(self.space.fixed), "epochs": self._epochs}
        asked |= {"seeds": [" ".join(words) for words in self.space.seeds]}
        ids = "\n".join(point.id for point in samples)
        asked |= {"configuration": hashlib.sha256(ids.encode()).hexdigest()}
        before = self.study.user_attrs.get("asked")
        if before is None:
            self.study.set_user_attr("asked", asked)
        elif before != asked:
            keys = [key for key in asked if asked[key] != before.get(key)] or ["setting"]
            raise ResumeError(
                f"the search in {self.sweep.folder} was begun with another {', '.join(keys)}, so "
                "it cannot be continued; begin a new one with nnopt run -m"
            )

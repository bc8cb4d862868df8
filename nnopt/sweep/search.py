"""A search as a source of tasks: asks Optuna for a trial when a launcher has room for one more, and
tells Optuna how trials have ended. Imported only by searches, as Optuna is.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from nnopt import console
from nnopt.compose import Plan, Point
from nnopt.errors import ConfigError
from nnopt.schema import OptunaConfig
from nnopt.sweep.pruning import Pruning
from nnopt.sweep.space import Space
from nnopt.sweep.study import JOURNAL, open_study, suggest, trial_of
from nnopt.sweep.task import Outcome, Task

FINAL = ("done", "pruned", "failed", "diverged", "timeout")
"""Statuses of points that are not run again when a search is resumed."""

LOGGERS = ("optuna", "nnopt.search")


@dataclass(frozen=True)
class Result:
    """How a point has ended: its status, its error in one line, and the metric that is searched by,
    None without one. trial: that ran it."""

    trial: int
    status: str
    error: str | None
    value: float | None


@dataclass(eq=False)
class OpenTrial:
    """A trial that Optuna waits to hear of, and its points, one for each seed."""

    trial: Trial
    points: list[Point]


@contextmanager
def begin(plan: Plan, directory: Path) -> Iterator[SearchRun]:
    """A search in its folder, or the one that was begun there, which then goes on. What Optuna has
    to say goes to ``search.log``. Raises ConfigError if another search was begun there."""
    assert isinstance(plan.sweeper, OptunaConfig)
    assert plan.space is not None
    epochs = max(point.config.epochs for point in plan.points)
    handler = logging.FileHandler(directory / "search.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield SearchRun(plan.sweeper, plan.space, epochs, directory)
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()


class SearchRun:
    """A search under way.

    points: of all trials so far, each once, in the order in which they were first drawn.
    study: Optuna's, for reading. epochs: the most that a training may have.
    """

    def __init__(self, settings: OptunaConfig, space: Space, epochs: int, directory: Path) -> None:
        self.settings = settings
        self.space = space
        self.directory = directory
        self.points: list[Point] = []
        self.study = open_study(directory / JOURNAL, settings, epochs)
        self._epochs = epochs
        self._check_same()
        self._results: dict[str, Result] = {}
        self._under_way: dict[str, int] = {}
        self._open: list[OpenTrial] = []
        self._started = time.monotonic()

    def tasks(self) -> Iterator[Task]:
        """The points that are yet to be run, each drawn when it is asked for."""
        for trial in self._trials():
            points = self._points_of(trial)
            if points is None:
                continue
            opened = OpenTrial(trial, points)
            self._open.append(opened)
            for index, point in enumerate(points):
                if opened not in self._open:
                    break  # with an earlier seed it has failed, or was stopped
                if point.id in self._under_way or self._is_known(point, trial.number):
                    self._settle()
                    continue
                self._under_way[point.id] = trial.number
                console.note(f"[{self._count(trial)}] {' '.join(point.overrides)}")
                folder = self.directory / point.id
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
                yield Task(point, folder, self._prunings(trial, index))
            self._settle()

    def tell(self, outcome: Outcome) -> None:
        """A task has ended."""
        point = outcome.task.point
        number = self._under_way.pop(point.id)
        if outcome.status != "interrupted":  # else it is run again when the search is resumed
            value = self._value_of(point) if outcome.status == "done" else None
            self._results[point.id] = Result(number, outcome.status, outcome.error, value)
            self._settle()

    def _trials(self) -> Iterator[Trial]:
        """Those that were begun before and have not ended, then new ones."""
        settings, study = self.settings, self.study
        for frozen in study.get_trials(deepcopy=False):
            trial = trial_of(study, self.directory / JOURNAL, frozen.number)
            if not frozen.state.is_finished():
                yield trial
            elif "error" not in frozen.user_attrs or "point" in frozen.user_attrs:
                drawn = frozen.params
                words = self.space.draw(lambda p, drawn=drawn: drawn[p.key])  # type: ignore[misc]
                for point in self._remember(self.space.points(words)):
                    self._is_known(point, frozen.number)
        while len(study.get_trials(deepcopy=False)) < settings.trials:
            if settings.timeout and time.monotonic() - self._started > settings.timeout:
                told = f"hydra.sweeper.timeout = {settings.timeout:g} s is over: no further trial"
                console.note(told)
                return
            yield study.ask()

    def _points_of(self, trial: Trial) -> list[Point] | None:
        """Draw the trial; None if it was refused, and Optuna is told so."""
        words = self.space.draw(lambda parameter: suggest(trial, parameter))
        try:
            points = self._remember(self.space.points(words))
        except ConfigError as error:
            console.note(f"[{self._count(trial)}] {' '.join(words)}")
            console.note(f"  refused: {'; '.join(error.problems)}")
            self._tell(trial, TrialState.FAIL, error="; ".join(error.problems))
            return None
        trial.set_user_attr("point", points[0].id)
        return points

    def _remember(self, points: list[Point]) -> list[Point]:
        known = {point.id for point in self.points}
        self.points += [point for point in points if point.id not in known]
        return points

    def _is_known(self, point: Point, number: int) -> bool:
        """Has the point been run, for another trial, or before the search was resumed?"""
        if point.id not in self._results:
            summary = _read(self.directory / point.id / "summary.json")
            if (status := summary.get("status")) in FINAL:
                value = self._value_of(point) if status == "done" else None
                self._results[point.id] = Result(number, status, summary.get("error"), value)
        return point.id in self._results

    def _settle(self) -> None:
        """Tell Optuna of the trials that are now known how they ended."""
        for opened in list(self._open):
            results = [self._results.get(point.id) for point in opened.points]
            known = [result for result in results if result]
            bad = next((result for result in known if result.status != "done"), None)
            if bad is None and len(known) < len(results):
                continue
            self._open.remove(opened)
            values = [result.value for result in known if result.value is not None]
            if bad is not None and bad.status == "pruned":
                self._tell_pruned(opened.trial, bad)
            elif bad is not None or len(values) < len(known):
                reason = f"{self.settings.metric} is not finite"
                error = f"{bad.status}: {bad.error}" if bad else reason
                self._tell(opened.trial, TrialState.FAIL, error=error)
            else:
                self._tell(opened.trial, TrialState.COMPLETE, math.fsum(values) / len(values))

    def _tell_pruned(self, trial: Trial, result: Result) -> None:
        if result.trial != trial.number:  # which has reported nothing itself
            reported = self.study.get_trials(deepcopy=False)[result.trial].intermediate_values
            for epoch, value in reported.items():
                trial.report(value, epoch)
        self._tell(trial, TrialState.PRUNED, error=result.error)

    def _tell(
        self, trial: Trial, state: TrialState, value: float | None = None, error: str | None = None
    ) -> None:
        if error is not None:
            trial.set_user_attr("error", error)
        self.study.tell(trial, value, state=state)

    def _prunings(self, trial: Trial, index: int) -> tuple[Pruning, ...]:
        """Of a trial's seeds the first one decides whether it goes on."""
        if self.settings.pruner == "none" or index > 0:
            return ()
        return (Pruning(self.directory / JOURNAL, trial.number, self.settings, self._epochs),)

    def _value_of(self, point: Point) -> float | None:
        value = _read(self.directory / point.id / "summary.json").get(self.settings.metric)
        return float(value) if isinstance(value, int | float) else None

    def _count(self, trial: Trial) -> str:
        return f"{trial.number + 1}/{self.settings.trials}"

    def _check_same(self) -> None:
        """Raises ConfigError if the folder has another search, whose trials would mislead this."""
        asked = asdict(self.settings)
        for key in ("params", "trials", "timeout"):
            del asked[key]
        asked |= {"parameters": [str(parameter) for parameter in self.space.parameters]}
        asked |= {"fixed": list(self.space.fixed)}
        asked |= {"seeds": [" ".join(words) for words in self.space.seeds]}
        before = self.study.user_attrs.get("asked")
        if before is None:
            self.study.set_user_attr("asked", asked)
        elif before != asked:
            keys = [key for key in asked if asked[key] != before.get(key)]
            raise ConfigError(
                f"the search in {self.directory} was begun with another {', '.join(keys)}; only "
                "hydra.sweeper.trials and hydra.sweeper.timeout can change when it goes on"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return summary

"""What a search says while it runs: a line for each trial that has ended and, on a terminal, one
live line below them that counts the trials and tells the best and the time left; with
view=terminal the learning curves of the trial that runs stand between them.
"""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from contextlib import suppress
from typing import Self

from optuna.trial import TrialState

from nnopt.analysis.tabulate import counted
from nnopt.io.safe_text import visible
from nnopt.results.metrics import better_direction
from nnopt.results.metrics_file import EpochRow
from nnopt.sweeps.progress import LONGEST, duration
from nnopt.sweeps.search.search import Ended, SearchRun
from nnopt.terminal.live_display import LiveDisplay, View


class SearchProgress(LiveDisplay):
    """The progress of a search; a context manager.

    with SearchProgress(run) as progress:
        progress.epoch(row, is_best)  # of the point that runs, if it is in this process
        progress.update()             # when a trial may have ended
    """

    def __init__(self, run: SearchRun, view: View = "bar") -> None:
        self._run = run
        self._counts: Counter[str] = Counter()
        self._best: tuple[float, int] | None = None
        for trial in run.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            self._take(trial.value, trial.number + 1)
        self._before = sum(t.state.is_finished() for t in run.study.get_trials(deepcopy=False))
        self._started = time.monotonic()
        self._epoch = ""
        super().__init__(view)

    def __enter__(self) -> Self:
        super().__enter__()
        if lost := len(self._run.lost):
            run = "runs" if lost == 1 else "run"
            self.print_line(f"{counted(lost, 'point')} whose results are lost {run} again")
        self._refresh()
        return self

    def epoch(self, row: EpochRow, best: bool) -> None:
        """The point that runs has finished an epoch. Most calls only look at a clock."""
        self.add_epoch(row, self._name_of_latest())
        if self.is_due():
            self._epoch = f"epoch {row.epoch}"
            self._refresh()

    def update(self) -> None:
        """Tell of the trials that have ended."""
        while self._run.news:
            ended = self._run.news.popleft()
            self._counts[ended.status] += 1
            self.print_line(self._line_of(ended, self._take(ended.value, ended.number)))
        self._epoch = ""
        self._refresh()

    def _take(self, value: float | None, number: int) -> bool:
        """Is the value of this trial the best so far?"""
        if value is None:
            return False
        sign = 1 if better_direction(self._run.settings.metric) == "higher" else -1
        if self._best is not None and sign * value <= sign * self._best[0]:
            return False
        self._best = value, number
        return True

    def _line_of(self, ended: Ended, is_best: bool) -> str:
        total = self._run.settings.trials
        number = f"[{ended.number:>{len(str(total))}}/{total}]"
        words = " ".join(map(short, ended.words))[:LONGEST]
        outcome = textwrap.shorten(visible(ended.error or ""), 2 * LONGEST, placeholder=" ...")
        if ended.value is not None:
            outcome = f"{self._run.settings.metric} {ended.value:.4g}"
        seconds = "" if ended.seconds is None else f"{ended.seconds:7.1f} s"
        parts = [number, visible(words), f"{ended.status:<8}", outcome + seconds]
        return "  ".join([*parts, "best"] if is_best else parts).rstrip()

    def _name_of_latest(self) -> str:
        number, words = self._run.latest
        return f"[{number}] {' '.join(map(short, words))}"

    def _refresh(self) -> None:
        if self.width is None:
            return
        finished = self._counts.total()
        left = self._run.settings.trials - self._before - finished
        parts = [f"{count} {status}" for status, count in self._counts.items()]
        parts.append(f"{max(left, 0)} to go")
        told = [", ".join(parts)]
        if finished and left > 0:
            seconds = (time.monotonic() - self._started) / finished * left
            told.append(f"about {duration(seconds)} left")
        if self._best is not None:
            value, number = self._best
            told.append(f"best {value:.4g} in trial {number}")
        self.text = "  ".join(filter(None, [*told, self._epoch]))
        self.draw()


def short(word: str) -> str:
    """A word of the command line without the key's group, and its number to four digits."""
    key, _, text = word.partition("=")
    with suppress(ValueError):
        text = text if len(text) < 7 else f"{float(text):.4g}"
    return f"{key.rpartition('.')[2]}={text}"

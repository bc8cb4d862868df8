"""Progress display of a search: a line for each finished trial, and a live line below them."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Self

from optuna.trial import TrialState

from nnopt.analysis.tabulate import counted
from nnopt.io.safe_text import visible
from nnopt.results.metrics import better_direction
from nnopt.sweeps.progress import MAX_NAME, PointsProgress
from nnopt.sweeps.results_table import TableRow
from nnopt.sweeps.search.search import FinishedTrial, SearchRun
from nnopt.terminal.live_display import ProgressMode


class SearchProgress(PointsProgress):
    """Progress display of a search, used like ``SweepProgress`` without ``start`` and ``skip``."""

    def __init__(self, run: SearchRun, mode: ProgressMode = "bar") -> None:
        super().__init__(mode)
        self._run = run
        self._counts: Counter[str] = Counter()
        self._best: tuple[float, int] | None = None
        trials = run.study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.COMPLETE:
                self._is_best(trial.value, trial.number + 1)
        self._finished_before = sum(trial.state.is_finished() for trial in trials)

    def __enter__(self) -> Self:
        super().__enter__()
        if lost := len(self._run.lost):
            verb = "runs" if lost == 1 else "run"
            self.print_line(f"{counted(lost, 'point')} whose results are lost {verb} again")
        self._refresh()
        return self

    def close(self) -> None:
        """Print the results that are not printed yet, and remove the live part."""
        self._print_finished()
        super().close()

    def finish(self, identity: str, rows: Sequence[TableRow]) -> None:
        """Print the results of the trials that are finished because the point is finished."""
        self._print_finished()
        self._epoch = ""
        self._refresh()

    def _print_finished(self) -> None:
        while self._run.finished:
            trial = self._run.finished.popleft()
            self._counts[trial.status] += 1
            self.print_line(self._line(trial, self._is_best(trial.value, trial.number)))

    def _is_best(self, value: float | None, number: int) -> bool:
        """Return whether the value of a trial is the best so far; if so, store it."""
        if value is None:
            return False
        sign = 1 if better_direction(self._run.settings.metric) == "higher" else -1
        if self._best is not None and sign * value <= sign * self._best[0]:
            return False
        self._best = value, number
        return True

    def _line(self, trial: FinishedTrial, is_best: bool) -> str:
        total = self._run.settings.trials
        number = f"[{trial.number:>{len(str(total))}}/{total}]"
        overrides = " ".join(map(short_override, trial.overrides))[:MAX_NAME]
        result = textwrap.shorten(visible(trial.error or ""), 2 * MAX_NAME, placeholder=" ...")
        if trial.value is not None:
            result = f"{self._run.settings.metric} {trial.value:.4g}"
        seconds = "" if trial.seconds is None else f"{trial.seconds:7.1f} s"
        parts = [number, visible(overrides), f"{trial.status:<8}", result + seconds]
        return "  ".join([*parts, "best"] if is_best else parts).rstrip()

    def _running_point(self) -> tuple[str, str]:
        number, overrides = self._run.latest
        return f"[{number}] {' '.join(map(short_override, overrides))}", ""

    def _parts(self) -> Iterator[str]:
        finished = self._counts.total()
        left = self._run.settings.trials - self._finished_before - finished
        counts = [f"{count} {status}" for status, count in self._counts.items()]
        yield ", ".join([*counts, f"{max(left, 0)} to go"])
        if left > 0:
            yield self._time_left(finished, left)
        if self._best is not None:
            value, number = self._best
            yield f"best {value:.4g} in trial {number}"


def short_override(override: str) -> str:
    """Return an override without the group of its key and with its number in four digits."""
    key, _, text = override.partition("=")
    with suppress(ValueError):
        text = text if len(text) < 7 else f"{float(text):.4g}"
    return f"{key.rpartition('.')[2]}={text}"

"""Terminal output of a search: its progress, and its best trials at the end."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from optuna.trial import FrozenTrial, TrialState

from nnopt.analysis.tabulate import counted
from nnopt.config.hydra import compose_files, plain
from nnopt.config.search_parameters import Drawn
from nnopt.io.safe_text import visible
from nnopt.plots.sweep.importance import MANY_TRIALS
from nnopt.results.metrics import better_direction
from nnopt.schema import VARIANTS, WITHOUT_EFFECT
from nnopt.schema.values import flatten, format_value, quoted
from nnopt.sweeps.progress import MAX_NAME, PointsProgress
from nnopt.sweeps.results_table import TableRow
from nnopt.sweeps.search.search import FinishedTrial, SearchRun
from nnopt.sweeps.search.study import drawn_value, importances, why_no_importances
from nnopt.terminal import console
from nnopt.terminal.live_display import ProgressMode

MAX_TRIALS = 5  # maximum number of trials in the table of the best trials

UNSET_KEYS = {"experiment", "ablation", "seed", *WITHOUT_EFFECT} - {"data"}
"""Keys and groups that are left out of the printed command for a rerun of the best trial."""


class SearchProgress(PointsProgress):
    """Progress display of a search. Unlike ``SweepProgress``, it has no ``start`` and ``skip``."""

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
            self.print_line(f"{counted(lost, 'point')} {verb} again, because results are lost")
        self._refresh()
        return self

    def close(self) -> None:
        """Print the results that are not printed yet, and remove the live part."""
        self._print_finished()
        super().close()

    def finish(self, identity: str, rows: Sequence[TableRow]) -> None:
        """Print the results of the trials that have finished since the last call."""
        self._print_finished()
        self._refresh()

    def _print_finished(self) -> None:
        while self._run.finished:
            trial = self._run.finished.popleft()
            self._counts[trial.status] += 1
            self.print_line(self._line(trial, self._is_best(trial.value, trial.number)))

    def _is_best(self, value: float | None, number: int) -> bool:
        """Return whether the value of a trial is the best so far, and store the best value."""
        if value is None:
            return False
        sign = 1 if better_direction(self._run.settings.metric) == "higher" else -1
        is_best = self._best is None or sign * value > sign * self._best[0]
        if is_best:
            self._best = value, number
        return is_best

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
    """Shorten an override: remove the group of the key, and round a long number to four digits."""
    key, _, text = override.partition("=")
    with suppress(ValueError):
        text = text if len(text) < 7 else f"{float(text):.4g}"
    return f"{key.rpartition('.')[2]}={text}"


def print_best_trials(run: SearchRun) -> None:
    """Print the best trials, the importance of keys, and a command to rerun the best trial."""
    metric = run.settings.metric
    ranked = best_trials(run)
    console.note(f"{count_trials(run)}; the best by {metric}:")
    if not ranked:
        console.note("  no trial has a value")
        return
    parameters = run.space.parameters
    rows = [
        [str(t.number + 1), f"{t.value:.6g}", *[_digits(drawn_value(t, p)) for p in parameters]]
        for t in ranked[:MAX_TRIALS]
    ]
    keys = [parameter.key for parameter in parameters]
    console.print_table(["trial", metric, *keys], rows, "rr" + "l" * len(keys))
    if reason := why_no_importances(run.study):
        console.note(f"importance of keys: not computed, because {reason}")
    else:
        texts = [f"{one.key} {one.weight:.2f}" for one in importances(run.study)]
        few = "" if len(ranked) >= MANY_TRIALS else "; uncertain, because the trials are few"
        console.note(f"importance (PED-ANOVA): {', '.join(texts)}{few}")
    best = next(p for p in run.sweep.points if p.id == ranked[0].user_attrs["points"][0])
    command = ["nnopt", "run", "-m", *overrides_of(best.container), "seed=range(5)"]
    console.note("to run the best trial again with other seeds:")
    console.note(f"  {shlex.join(command)}")


def count_trials(run: SearchRun) -> str:
    """Return counts as text: ``30 trials: 25 done, 3 pruned, 2 failed; repeated draws: 4``."""
    trials = run.study.get_trials(deepcopy=False)
    states = Counter(trial.state for trial in trials)
    names = {
        TrialState.COMPLETE: "done",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "not finished",
    }
    counts = ", ".join(f"{states[state]} {name}" for state, name in names.items() if states[state])
    drawn = Counter(t.user_attrs["points"][0] for t in trials if "points" in t.user_attrs)
    repeated = drawn.total() - len(drawn)
    more = f"; repeated draws: {repeated}" if repeated else ""
    return f"{counted(len(trials), 'trial')}: {counts}{more}"


def best_trials(run: SearchRun) -> list[FrozenTrial]:
    """Return the complete trials, best first. Trials with the same points are returned once."""
    sign = -1.0 if better_direction(run.settings.metric) == "higher" else 1.0
    trials = run.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    first: dict[str, FrozenTrial] = {}
    for trial in trials:
        first.setdefault(trial.user_attrs["points"][0], trial)
    return sorted(first.values(), key=lambda t: (sign * (t.value or 0.0), t.number))


def overrides_of(container: Mapping[str, Any]) -> Iterator[str]:
    """Yield overrides that reproduce a configuration, but select no experiment or ablation file.

    The seed, and keys that do not change the results, are omitted. Must be called within
    ``composing``.
    """
    default = plain(compose_files([]).config)
    chosen = {group: str(container[group]["name"]) for group in VARIANTS}
    files = [f"{group}={name}" for group, name in chosen.items() if default[group]["name"] != name]
    yield from files
    before = dict(flatten(plain(compose_files(files).config)))
    for key in ("data.root", "data.cache"):  # the points of a sweep have absolute paths
        before[key] = os.path.abspath(os.path.expanduser(before[key]))
    if container["plugins"]:  # without the hashes, which only a changed file would need
        yield f"plugins={format_value([x['source'] for x in container['plugins']], quoted)}"
    for key, value in flatten({k: x for k, x in container.items() if k != "plugins"}):
        if key.partition(".")[0] not in UNSET_KEYS and (key not in before or before[key] != value):
            yield f"{key}={format_value(value, quoted)}"


def _digits(value: Drawn | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

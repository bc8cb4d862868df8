"""What a search has found: the best trials, which keys mattered, and how to run the best again."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from nnopt.config.hydra import compose_files, plain
from nnopt.config.point import leaves
from nnopt.results.metrics import better_direction
from nnopt.schema import VARIANTS, WITHOUT_EFFECT
from nnopt.sweeps.search.search import SearchRun
from nnopt.sweeps.search.study import importances
from nnopt.terminal import console

SHOWN = 5
"""Trials in the table."""

LEFT_OUT = {"experiment", "ablation", "seed", *WITHOUT_EFFECT} - {"data"}
"""Keys that a word to run the best again does not set."""


def report(run: SearchRun) -> None:
    """Print the best trials, the importance of the keys, and the command for more seeds. To be
    called while the search is under way."""
    metric = run.settings.metric
    ranked = best_trials(run)
    console.note(f"{count_trials(run)}; the best by {metric}:")
    if not ranked:
        console.note("  none has ended with a value")
        return
    keys = [p.key for p in run.space.parameters]
    rows = [
        [str(t.number + 1), f"{t.value:.6g}", *[_digits(t.params.get(key, "–")) for key in keys]]
        for t in ranked[:SHOWN]
    ]
    console.print_table(["trial", metric, *keys], rows, "rr" + "l" * len(keys))
    if weights := importances(run.study):
        told = ", ".join(f"{key} {weight:.2f}" for key, weight in weights.items())
        console.note(f"importance (PED-ANOVA): {told}")
    console.note("the best again, with other seeds:")
    console.note(f"  {command(run)}")


def count_trials(run: SearchRun) -> str:
    """Such as ``30 trials: 25 done, 3 pruned, 2 failed; repeated draws: 4``."""
    trials = run.study.get_trials(deepcopy=False)
    states = Counter(trial.state for trial in trials)
    names = {
        TrialState.COMPLETE: "done",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "not finished",
    }
    told = ", ".join(f"{states[state]} {name}" for state, name in names.items() if states[state])
    drawn = Counter(t.user_attrs["points"][0] for t in trials if "points" in t.user_attrs)
    repeated = drawn.total() - len(drawn)
    counted = f"{len(trials)} trial{'s' if len(trials) != 1 else ''}"
    return f"{counted}: {told}" + (f"; repeated draws: {repeated}" if repeated else "")


def best_trials(run: SearchRun) -> list[FrozenTrial]:
    """The trials that have a value, the best first, of those with one configuration the first."""
    sign = -1.0 if better_direction(run.settings.metric) == "higher" else 1.0
    trials = run.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    first: dict[str, FrozenTrial] = {}
    for trial in trials:
        first.setdefault(trial.user_attrs["points"][0], trial)
    return sorted(first.values(), key=lambda t: (sign * (t.value or 0.0), t.number))


def command(run: SearchRun) -> str:
    """A command line that runs the best trial again, with five seeds."""
    best = best_trials(run)[0]
    point = next(p for p in run.sweep.points if p.id == best.user_attrs["points"][0])
    return shlex.join(["nnopt", "run", "-m", *words_of(point.container), "seed=range(5)"])


def words_of(container: Mapping[str, Any]) -> Iterator[str]:
    """The fewest words that make a configuration, without experiments or ablations. To be called
    within ``composing``. Keys that change no result are left out, and so is the seed."""
    usual = plain(compose_files([]).config)
    chosen = {group: str(container[group]["name"]) for group in VARIANTS}
    files = [f"{group}={name}" for group, name in chosen.items() if usual[group]["name"] != name]
    yield from files
    before = dict(leaves(plain(compose_files(files).config)))
    for key in ("data.root", "data.cache"):  # of a sweep's points they are absolute
        before[key] = os.path.abspath(os.path.expanduser(before[key]))
    for key, value in leaves(container):
        if key.partition(".")[0] not in LEFT_OUT and (key not in before or before[key] != value):
            yield f"{key}={_text(value)}"


def _text(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/][\w/.-]*", value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def _digits(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

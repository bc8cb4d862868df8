"""Record runs of nnopt: from their folders to the CSV files in docs/findings/.

The file of a study is replaced. In the file of the experiments, only the rows of the recorded
experiments are replaced. Runs that have not finished are refused.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from study_files import (
    ABOUT,
    DEFAULT,
    EXPERIMENTS,
    ID,
    METRICS,
    NAME,
    OVERRIDES,
    path_of,
    read_rows,
    write_rows,
)

from nnopt.analysis.settings import varying_keys
from nnopt.config.compose import make_plan
from nnopt.errors import ConfigError, DataError, NnoptError, suggest
from nnopt.io.atomic_files import shown
from nnopt.results.collect import Run, RunIndex, find_runs, read_table, setting_text
from nnopt.results.metrics_file import read_metrics
from nnopt.schema import WITHOUT_EFFECT

CONF = Path(__file__).resolve().parents[1] / "conf"

DIGITS = 8
"""Significant digits of a metric in a file."""

UNUSABLE = ("failed", "interrupted")
"""Statuses of runs that ``nnopt resume`` trains again. A diverged run is a result."""

Identity = tuple[str, tuple[str, ...]]
"""Name of an experiment, and the overrides of its runs, sorted."""


class UnfinishedRunsError(NnoptError):
    """Error: some runs have not finished."""

    exit_code = 5


def record(name: str, folders: Sequence[Path]) -> Path:
    """Write the runs in some folders to the file of a study; return its path.

    Raises ConfigError if the study is unknown or if the runs belong to another one, DataError if a
    run is damaged, and UnfinishedRunsError if a run has not finished.
    """
    ablation = None if name == EXPERIMENTS else ablation_of(name)
    runs = _finished_runs(folders)
    if ablation is None:
        return _record_experiments(runs)
    for run in runs:
        if run.summary["name"] != ablation:
            raise ConfigError(
                f"{shown(run.folder)} is a run of {run.summary['name']!r}, not of {ablation!r}"
            )
    keys = varying_keys(runs)
    if not keys:
        raise ConfigError(f"{name}: the {len(runs)} runs differ in no key, so they are no study")
    rows = [
        {key: setting_text(run.settings[key]) for key in keys if key in run.settings} | _row(run)
        for run in runs
    ]
    columns = _columns(keys, rows)
    return write_rows(name, columns, sorted(rows, key=lambda row: _cells(row, columns)))


def ablation_of(name: str) -> str:
    """Return the ablation whose runs a study contains. Raises ConfigError without one.

    The study has the name of the ablation, or this name and a part after an underscore.
    """
    ablations = [path.stem for path in (CONF / "ablation").glob("*.yaml")]
    found = [x for x in ablations if name == x or name.startswith(f"{x}_")]
    if not found:
        hint = suggest(name, [EXPERIMENTS, *sorted(ablations)])
        raise ConfigError(f"unknown study {name!r}: give {EXPERIMENTS!r} or an ablation; {hint}")
    return max(found, key=len)


# runs ---------------------------------------------------------------------------------------------


def _finished_runs(folders: Sequence[Path]) -> list[Run]:
    index = find_runs(folders, with_summaries=True)
    if index.damaged:
        raise DataError(index.damaged[0])
    open_folders = [*_open_sweeps(index), *_open_runs(index)]
    if open_folders:
        folder, counts = open_folders[0]
        states = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        others = f"; {len(open_folders) - 1} more folders like this" * (len(open_folders) > 1)
        flag = " --retry-failed" if counts["failed"] else ""
        raise UnfinishedRunsError(
            f"{shown(folder)} has runs that have not finished ({states}); "
            f"finish them first: nnopt resume {shown(folder)}{flag}{others}"
        )
    return index.runs


def _open_sweeps(index: RunIndex) -> Iterator[tuple[Path, Counter[str]]]:
    """Yield each sweep with unfinished runs, and the number of these runs by status."""
    for sweep in index.sweeps:
        counts = Counter(
            run.status
            for run in index.runs
            if run.folder.parent == sweep and run.status in UNUSABLE
        )
        counts["running or killed"] = sum(run.parent == sweep for run in index.unfinished)
        rows = read_table(sweep)
        is_pending = [row.get("status") == "pending" for row in rows]
        counts["pending"] = sum(is_pending)
        counts["without a folder"] = sum(
            not pending and not (sweep / row.get("id", "")).is_dir()
            for row, pending in zip(rows, is_pending, strict=True)
        )
        if counts.total():
            yield sweep, counts


def _open_runs(index: RunIndex) -> Iterator[tuple[Path, Counter[str]]]:
    """Yield each unfinished run outside of the sweeps, and its status."""
    for folder in index.unfinished:
        if folder.parent not in index.sweeps:
            yield folder, Counter({"running or killed": 1})
    for run in index.runs:
        if run.status in UNUSABLE and run.folder.parent not in index.sweeps:
            yield run.folder, Counter({run.status: 1})


def _row(run: Run) -> dict[str, str]:
    """Return the cells of a run without those of its keys."""
    metrics = run.metrics | _accuracies_around_pruning(run) | _smoothness(run)
    summary = run.summary
    return {
        "seed": str(run.seed),
        **{name: f"{metrics[name]:.{DIGITS}g}" for name in METRICS if name in metrics},
        "status": run.status,
        "cpu": (summary.get("machine") or {}).get("cpu", ""),
        "threads": str((summary.get("threads") or {}).get("used", "")),
        "commit": (summary.get("git") or {}).get("commit", "")[:7],
    }


def _columns(keys: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the columns of a file. A column after the seed has a cell that is not empty."""
    optional = [x for x in (*METRICS, *ABOUT) if any(row.get(x) for row in rows)]
    return [*keys, "seed", *optional]


def _cells(row: Mapping[str, str], columns: Sequence[str]) -> list[tuple[float, str]]:
    """Return the cells of a row for sorting: numbers by value, then texts."""
    return [(_number(row.get(column, "")), row.get(column, "")) for column in columns]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def _accuracies_around_pruning(run: Run) -> dict[str, float]:
    found: Mapping[str, Any] = (run.summary.get("pruning") or {}).get("validation_accuracy") or {}
    return {f"validation_{when}": x for when, x in found.items() if x is not None}


def _smoothness(run: Run) -> dict[str, float]:
    if run.status != "done":
        return {}
    rows = read_metrics(run.folder / "metrics.csv", run.checksums.get("metrics.csv"))
    value = gradient_variation([row.gradient_norm for row in rows])
    return {} if value is None else {"gradient_variation": value}


def gradient_variation(norms: Sequence[float]) -> float | None:
    """Return the mean relative change of the gradient norm between consecutive epochs, 0 to 1.

    With the norms gₜ = ‖∇L(wₜ)‖ of the last step of each epoch (the column ``gradient_norm`` of
    metrics.csv), the relative change is |gₜ₊₁ - gₜ| / max(gₜ, gₜ₊₁), and 0 if both norms are 0.

    Santurkar et al. (2018, "How Does Batch Normalization Help Optimization?", section 3.1) call a
    loss smooth if its gradient changes little along the path of the training (β-smoothness,
    "gradient predictiveness"). They measure ‖∇L(w') - ∇L(w)‖, and |g' - g| is a lower bound of it
    by the triangle inequality. The relative change does not depend on a constant factor of the
    loss. In contrast, the number of epochs in which the training loss rises is 0 for almost every
    network that learns, so it distinguishes no settings.

    The norms are those of single batches, so the value contains their noise, and it measures
    changes over epochs, not over steps. A network that does not learn can have a small value.

    Args:
        norms: Gradient norm of each epoch, in order.

    Returns:
        The mean over the pairs of consecutive epochs, or None with fewer than two epochs or with a
        norm that is not finite.
    """
    if len(norms) < 2 or not all(map(math.isfinite, norms)):
        return None
    return statistics.mean(
        abs(after - before) / max(before, after) if max(before, after) else 0.0
        for before, after in pairwise(norms)
    )


# experiments --------------------------------------------------------------------------------------


def _record_experiments(runs: Sequence[Run]) -> Path:
    new = [_experiment_row(run) for run in runs]
    replaced = {identity_of(row) for row in new}
    old = read_rows(EXPERIMENTS) if path_of(EXPERIMENTS).exists() else []
    rows = [*(row for row in old if identity_of(row) not in replaced), *new]
    rows.sort(key=lambda row: (identity_of(row), int(row["seed"])))
    for identity, group in groupby(rows, identity_of):
        repeated = [x for x, n in Counter(row["seed"] for row in group).items() if n > 1]
        if repeated:
            text = " ".join([identity[0], *identity[1]])
            raise ConfigError(f"{text}: two runs have the seed {repeated[0]}; give one of them")
    return write_rows(EXPERIMENTS, _columns((NAME, OVERRIDES), rows), rows)


def _experiment_row(run: Run) -> dict[str, str]:
    """Return the row of a run. Raises ConfigError unless it is the run of an experiment."""
    parts = (text.lstrip("+").partition("=") for text in run.summary["overrides"])
    given = {key: value for key, _, value in parts}
    name = given.pop("experiment", DEFAULT)
    others = sorted(
        f"{key}={value}"
        for key, value in given.items()
        if key != "seed" and key.partition(".")[0] not in WITHOUT_EFFECT
    )
    is_other = name == DEFAULT and any(not x.startswith("backend") for x in others)
    if is_other or composed_ids(name, tuple(others), (run.seed,)) != (run.summary["id"],):
        raise ConfigError(
            f"{shown(run.folder)} is no run of the present configuration of the experiment "
            f"{name!r}; run it with python benchmarks/experiments.py"
        )
    return {NAME: name, OVERRIDES: shlex.join(others), **_row(run), ID: run.summary["id"]}


def identity_of(row: Mapping[str, str]) -> Identity:
    """Return the experiment and the overrides of a row of the file of the experiments."""
    return row[NAME], tuple(sorted(shlex.split(row[OVERRIDES])))


@cache
def composed_ids(name: str, overrides: tuple[str, ...], seeds: tuple[int, ...]) -> tuple[str, ...]:
    """Return the ids that the configurations of an experiment have now, in the order of the seeds.

    Raises ConfigError if there is no such experiment or if an override is invalid.
    """
    chosen = [] if name == DEFAULT else [f"experiment={name}"]
    values = ",".join(map(str, seeds))
    plan = make_plan([*chosen, *overrides, f"seed={values}"], multirun=True)
    return tuple(point.id for point in plan.points)


def changed_experiments(rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield a message for each experiment whose configuration has changed since its runs."""
    for (name, overrides), group in groupby(rows, identity_of):
        members = list(group)
        seeds = tuple(int(row["seed"]) for row in members)
        try:
            is_same = composed_ids(name, overrides, seeds) == tuple(row[ID] for row in members)
        except ConfigError as error:
            yield f"{path_of(EXPERIMENTS).name}: {name}: {error.problems[0]}"
            continue
        if not is_same:
            text = " ".join([name, *overrides])
            yield f"{path_of(EXPERIMENTS).name}: {text} has changed since its runs; record it again"

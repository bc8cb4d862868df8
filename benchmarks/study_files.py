"""Small CSV files of measured runs in docs/findings/, one file for each study.

A file has a row for each run: the values of the keys that vary among the runs, the seed, the
metrics, the processor, the number of threads, and the commit of nnopt. findings.py reads these
files.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnopt.analysis.settings import varying_keys
from nnopt.results.collect import Run, Value, find_runs, setting_text

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "findings"

METRICS = (
    "test_accuracy",
    "test_loss",
    "best_validation_accuracy",
    "best_validation_loss",
    "best_epoch",
    "train_accuracy",
    "train_loss",
    "generalization_gap",
    "steps",
    "steps_to_target",
    "epochs_to_target",
    "seconds_to_target",
    "validation_before",
    "validation_pruned",
    "validation_retrained",
    "sparsity",
    "compression_ratio",
    "theoretical_speedup",
    "train_seconds",
)
"""Metrics that a file may contain; a metric that no run has is left out."""

ABOUT = ("status", "cpu", "threads", "commit")
"""Further columns, which are neither keys nor metrics."""

DIGITS = 8
"""Significant digits of a metric in a file."""


def write_study(name: str, folders: Sequence[Path]) -> Path:
    """Write the runs in some folders to the file of a study; return its path.

    Raises SystemExit if a run is unfinished, missing or damaged.
    """
    index = find_runs(folders, with_summaries=True)
    if index.unfinished or index.pending or index.missing or index.damaged:
        raise SystemExit(f"{name}: finish all runs first: nnopt resume {folders[0]}")
    keys = varying_keys(index.runs)
    found = [run.metrics | _accuracies_around_pruning(run) for run in index.runs]
    metrics = [name for name in METRICS if any(name in values for values in found)]
    rows = sorted(
        [
            *(setting_text(run.settings[key]) if key in run.settings else "" for key in keys),
            *(run.seed, *(f"{x[m]:.{DIGITS}g}" if m in x else "" for m in metrics)),
            *_about(run),
        ]
        for run, x in zip(index.runs, found, strict=True)
    )
    path = FOLDER / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([[*keys, "seed", *metrics, *ABOUT], *rows])
    return path


def _accuracies_around_pruning(run: Run) -> dict[str, float]:
    found: Mapping[str, Any] = (run.summary.get("pruning") or {}).get("validation_accuracy") or {}
    return {f"validation_{when}": x for when, x in found.items() if x is not None}


def _about(run: Run) -> list[Any]:
    summary = run.summary
    threads = (summary.get("threads") or {}).get("used", "")
    commit = (summary.get("git") or {}).get("commit", "")[:7]
    return [run.status, (summary.get("machine") or {}).get("cpu", ""), threads, commit]


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of the file of a study, as texts by column."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_runs(name: str) -> list[Run]:
    """Return the runs of a study, as ``nnopt compare`` would read them from their folders."""
    return [_run(name, number, row) for number, row in enumerate(read_rows(name))]


def _run(name: str, number: int, row: Mapping[str, str]) -> Run:
    fixed = {"seed", *METRICS, *ABOUT}
    return Run(
        folder=FOLDER / f"{name}.csv",
        seed=int(row["seed"]),
        status=row.get("status", "done"),
        error=None,
        settings={key: value_of(text) for key, text in row.items() if key not in fixed and text},
        metrics={key: float(row[key]) for key in METRICS if row.get(key)},
        sources=frozenset(),
        ended=number,
    )


def value_of(text: str) -> Value:
    """Return the value of a key, from its text in the syntax of overrides."""
    constants: dict[str, Value] = {"null": None, "true": True, "false": False}
    if text in constants:
        return constants[text]
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        number = float(text)
        return number if math.isfinite(number) else text
    return text

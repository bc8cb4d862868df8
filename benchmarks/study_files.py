"""Small CSV files of measured runs in docs/findings/, one file for each study.

A file has a row for each run: the values of the keys that vary among the runs, the seed, the
metrics, the status, the processor, the number of threads, and the commit of nnopt. In the file of
the experiments, the columns ``name`` and ``overrides`` replace the keys, and the column ``id`` has
the id of the run's configuration. study_record.py writes these files.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nnopt.errors import ConfigError, suggest
from nnopt.results.collect import Run, Value

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "findings"

EXPERIMENTS = "experiments"
"""The study with the runs of conf/experiment/ and of the default configuration."""

DEFAULT = "spiral_mlp"
"""Name of the default configuration, the only one in the file of the experiments without a file in
conf/experiment/."""

NAME, OVERRIDES, ID = "name", "overrides", "id"
"""Columns of the file of the experiments: the experiment, the overrides of the run without those of
the seed and of keys that affect no result, and the id of the configuration."""

METRICS = (
    "test_accuracy",
    "test_loss",
    "best_validation_accuracy",
    "best_validation_loss",
    "best_epoch",
    "train_accuracy",
    "train_loss",
    "generalization_gap",
    "gradient_variation",
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

ABOUT = ("status", "cpu", "threads", "commit", ID)
"""Further columns, which are neither keys nor metrics."""

Row = Mapping[str, str]


def path_of(name: str) -> Path:
    """Return the path of the file of a study."""
    return FOLDER / f"{name}.csv"


def recorded_studies() -> list[str]:
    """Return the names of all studies that have a file."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of the file of a study, as texts by column. Raises ConfigError without it."""
    try:
        with path_of(name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        hint = suggest(name, recorded_studies())
        raise ConfigError(f"no runs of the study {name!r} are recorded; {hint}") from error


def write_rows(name: str, columns: Sequence[str], rows: Iterable[Row]) -> Path:
    """Write the file of a study, and return its path. A missing value is an empty cell."""
    path = path_of(name)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_runs(name: str) -> list[Run]:
    """Return the runs of a study, as ``nnopt compare`` would read them from their folders."""
    return [_run(name, number, row) for number, row in enumerate(read_rows(name))]


def _run(name: str, number: int, row: Row) -> Run:
    fixed = {"seed", *METRICS, *ABOUT}
    keys = [key for key in row if key not in fixed and (row[key] or key == OVERRIDES)]
    return Run(
        folder=path_of(name),
        seed=int(row["seed"]),
        status=row.get("status", "done"),
        error=None,
        settings={key: value_of(row[key]) for key in keys},
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

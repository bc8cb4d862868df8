"""``results.csv``: one row for every point of a sweep."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnopt.compose import Plan, Point
from nnopt.results.files import write_text
from nnopt.results.metrics import METRICS


def write_table(plan: Plan, directory: Path) -> None:
    """Write the table as the points' folders stand now: finished, running, or not yet begun.

    Columns: number, id, status, error, every key swept over under its full name, seed, metrics.
    Numbers have full precision; what is not there is an empty cell. Raises OutputError.
    """
    varied = [key for key in plan.varied if key != "seed"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    swept = set(varied)  # "epochs" may be both: asked for, and done when patience ran out
    metrics = [f"{key}_done" if key in swept else key for key in METRICS]
    table.writerow(["number", "id", "status", "error", *varied, "seed", *metrics])
    for number, point in enumerate(plan.points, start=1):
        summary = _read_summary(directory / point.id)
        status = summary.get("status", "pending")
        settings = [*[_setting(point, key) for key in varied], point.config.seed]
        cells = [summary.get("error"), *settings, *[summary.get(key) for key in METRICS]]
        table.writerow([number, point.id, status, *["" if c is None else c for c in cells]])
    write_text(directory / "results.csv", text.getvalue())


def _read_summary(folder: Path) -> Mapping[str, Any]:
    try:
        summary: Mapping[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {"status": "running"} if (folder / "run.log").exists() else {}
    return summary


def _setting(point: Point, key: str) -> str:
    """The value a point was given for a swept key; of a group, the name of the file."""
    chosen = dict(word.lstrip("+").split("=", 1) for word in point.overrides)
    return chosen[key]

"""The points of a report: finished, failed, damaged, running or pending."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from nnopt.analysis.settings import varying_keys
from nnopt.io.locks import is_held
from nnopt.io.received_files import (
    CONFIG_BYTES,
    LOG_BYTES,
    TABLE_BYTES,
    open_received,
    parse_json,
    read_received,
)
from nnopt.results.collect import Run, RunIndex, Value, read_table, setting_text, settings_of
from nnopt.results.summary import check_tree
from nnopt.schema import new_override, with_new_keys

FIXED_COLUMNS = ("number", "id", "status", "error")
"""First columns of ``results.csv``; the columns of the varied keys and ``seed`` follow."""


@dataclass(frozen=True)
class Point:
    """A configuration of a sweep, or a single run, with the available information.

    ``status``: as in the summary; "damaged" if the summary is damaged. Without a summary: "running"
    if a process has locked the folder, else a final status such as "timeout" in ``results.csv``,
    else "interrupted". Without a folder: the status in ``results.csv``, else "pending".
    """

    name: str  # identifier of the run
    folder: Path | None  # None for a point that has not started
    sweep: Path | None  # folder of the sweep that contains the point
    number: int | None  # number of the point in the table of the sweep
    status: str
    error: str | None
    seed: int | None
    settings: Mapping[str, Value]
    metrics: Mapping[str, float] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)  # empty if it cannot be read


Row = Mapping[str, str]
Tables = Mapping[Path, Mapping[str, Row]]  # rows by folder of the sweep and id of the point


def find_points(index: RunIndex) -> list[Point]:
    """Return all points of an index, ordered by sweep and number."""
    tables = {
        sweep: {row["id"]: row for row in read_table(sweep) if row.get("id")}
        for sweep in index.sweeps
    }
    points = [_finished(run, tables) for run in index.runs]
    unfinished = {**dict.fromkeys(index.unfinished), **index.damaged_folders}
    points += [_unfinished(folder, damage, tables) for folder, damage in unfinished.items()]
    known = {(point.sweep, point.name) for point in points}
    for sweep, rows in tables.items():
        plan = _planned(sweep)
        points += [
            _pending(sweep, row, plan.get(name, {}))
            for name, row in rows.items()
            if (sweep, name) not in known
        ]
    return sorted(points, key=_order)


def _order(point: Point) -> tuple[str, int, str]:
    parent = point.sweep or (point.folder.parent if point.folder else Path())
    return str(parent), point.number or 0, point.name


def _row_of(folder: Path, tables: Tables) -> tuple[Path | None, Row]:
    """Return the sweep that contains a point's folder, and the point's row in the sweep's table."""
    sweep = next((parent for parent in folder.parents if parent in tables), None)
    return sweep, tables[sweep].get(folder.name, {}) if sweep else {}


def _finished(run: Run, tables: Tables) -> Point:
    sweep, row = _row_of(run.folder, tables)
    name, number = run.folder.resolve().name, _integer(row.get("number"))
    point = Point(name, run.folder, sweep, number, run.status, run.error, run.seed, run.settings)
    return replace(point, metrics=run.metrics, summary=run.summary)


def _unfinished(folder: Path, damage: str | None, tables: Tables) -> Point:
    """Return a point without a summary, from its ``config.yaml`` and the table of its sweep."""
    sweep, row = _row_of(folder, tables)
    config = _config(folder)
    status, error = ("running" if is_held(folder) else "interrupted"), None
    # If a point runs again, the table still has the old status, so the lock takes precedence.
    if status != "running" and row.get("status") not in (None, "", "pending", "running", "done"):
        status, error = row["status"], row.get("error") or None
    if damage is not None:
        status, error = "damaged", damage
    settings = _settings(config, _overrides(folder)) or _varied_settings(row)
    seed = config.get("seed") if isinstance(config.get("seed"), int) else _integer(row.get("seed"))
    number = _integer(row.get("number"))
    return Point(folder.resolve().name, folder, sweep, number, status, error, seed, settings)


def _pending(sweep: Path, row: Row, plan: Mapping[str, Any]) -> Point:
    """Return a point without a folder, from the plan or the table of its sweep."""
    number, seed = _integer(row.get("number")), _integer(row.get("seed"))
    status, error = row.get("status") or "pending", row.get("error") or None
    settings = _settings(plan.get("config"), plan.get("overrides")) or _varied_settings(row)
    return Point(row["id"], None, sweep, number, status, error, seed, settings)


def read_plan(sweep: Path) -> dict[str, Any]:
    """Return the content of ``sweep.json``, or an empty map if it is missing or damaged."""
    with suppress(OSError, ValueError):
        plan = parse_json(read_received(sweep / "sweep.json", sweep, TABLE_BYTES))
        if isinstance(plan, dict):
            return plan
    return {}


def _planned(sweep: Path) -> dict[str, dict[str, Any]]:
    points = read_plan(sweep).get("points")
    maps = [x for x in points if isinstance(x, dict)] if isinstance(points, list) else []
    return {point["id"]: point for point in maps if isinstance(point.get("id"), str)}


def _settings(config: Any, overrides: Any) -> dict[str, Value]:
    """Return the settings of a configuration; empty if nnopt cannot have written it."""
    if not (isinstance(config, dict) and isinstance(overrides, list | tuple)):
        return {}
    with suppress(ValueError):
        check_tree(config)
        texts = [new_override(text) for text in overrides if isinstance(text, str)]
        return settings_of(with_new_keys(config), texts)
    return {}


def _config(folder: Path) -> dict[str, Any]:
    """Return the values of ``config.yaml``; empty if nnopt cannot have written it.

    nnopt writes no aliases. With aliases, a few lines can define more values than memory holds.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    errors = (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException)
    with suppress(*errors):
        text = read_received(folder / "config.yaml", folder, CONFIG_BYTES).decode("utf-8")
        if any(isinstance(x, yaml.AliasToken | yaml.TagToken) for x in yaml.scan(text)):
            return {}
        config = OmegaConf.to_container(OmegaConf.create(text))
        if isinstance(config, dict) and all(isinstance(key, str) for key in config):
            check_tree(config)
            return cast(dict[str, Any], config)
    return {}


def open_log(folder: Path) -> BinaryIO:
    """Open the log of a run. Raises OSError."""
    return open_received(folder / "run.log", folder, LOG_BYTES)


def _overrides(folder: Path) -> Sequence[str]:
    """Return the overrides in the first line of the log."""
    with suppress(OSError), open_log(folder) as log:
        line = log.readline(10_000).decode("utf-8", errors="replace")
        if match := re.search(r", overrides: (.*)", line):
            return match[1].split()
    return ()


def _varied_settings(row: Row) -> dict[str, Value]:
    """Return the values of the varied keys in a row of the table."""
    names = list(row)
    if "seed" not in names or tuple(names[: len(FIXED_COLUMNS)]) != FIXED_COLUMNS:
        return {}
    varied = names[len(FIXED_COLUMNS) : names.index("seed")]
    return {key: _number(row[key]) for key in varied if row[key]}


def _number(text: str) -> Value:
    """Convert a cell of a table to an int or a float; return the text if it is no number."""
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    number = r"-?[0-9]{1,30}(\.[0-9]{0,30})?(e[+-]?[0-9]{1,3})?"
    if re.fullmatch(number, text) and math.isfinite(value := float(text)):
        return value
    return text


def _integer(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def keys_that_vary(points: Sequence[Point]) -> list[str]:
    """Return the keys that differ between points, except the seed.

    Points with a complete configuration are compared as by ``nnopt compare``. Of the
    other points, only the varied keys of their sweep are known.
    """
    known = [point for point in points if "seed" in point.settings]
    keys = varying_keys(known)
    others = [point for point in points if "seed" not in point.settings]
    for key in dict.fromkeys(key for point in others for key in point.settings):
        values = {setting_text(p.settings[key]) for p in points if key in p.settings}
        if len(values) > 1 and key not in keys:
            keys.append(key)
    return keys

"""The points of a report: what runs and sweeps left, finished, failed, damaged or not begun."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

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

FIXED_COLUMNS = ("number", "id", "status", "error")
"""Of ``results.csv``, before the keys that are swept over; ``seed`` ends these."""


@dataclass(frozen=True)
class Point:
    """One point, as far as it is known.

    folder: None of a point that has not begun. sweep: the folder whose ``results.csv`` names it.
    number: its place in there. status: of the summary, or without one ``running`` (somebody holds
    the folder), ``interrupted`` (nobody does), ``pending``, ``damaged``. summary: what
    ``summary.json`` holds, nothing if it cannot be read.
    """

    name: str
    folder: Path | None
    sweep: Path | None
    number: int | None
    status: str
    error: str | None
    seed: int | None
    settings: Mapping[str, Value]
    metrics: Mapping[str, float] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def find_points(found: RunIndex) -> list[Point]:
    """Every point below the folders that were searched: sweep by sweep, in the order of each."""
    tables = {sweep: _rows(sweep) for sweep in found.sweeps}
    plans = {sweep: _planned(sweep) for sweep in found.sweeps}
    points = [_ended(run, tables) for run in found.runs]
    points += [_unfinished(folder, tables) for folder in found.unfinished]
    points += [
        _unfinished(folder, tables, damage) for folder, damage in found.damaged_folders.items()
    ]
    known = {(point.sweep, point.name) for point in points}
    for sweep, rows in tables.items():
        to_come = [row for row in rows.values() if (sweep, row["id"]) not in known]
        points += [_pending(sweep, row, plans[sweep].get(row["id"], {})) for row in to_come]
    return sorted(points, key=_order)


def _order(point: Point) -> tuple[str, int, str]:
    place = point.sweep or (point.folder.parent if point.folder else Path())
    return str(place), point.number or 0, point.name


Rows = dict[str, dict[str, str]]
"""The rows of a sweep's table, by the points' ids."""


def _rows(sweep: Path) -> Rows:
    """Return the rows of a sweep's table; none if it cannot be read."""
    return {row["id"]: row for row in read_table(sweep) if row.get("id")}


def _row_of(folder: Path, tables: Mapping[Path, Rows]) -> tuple[Path | None, dict[str, str]]:
    """The sweep a point's folder belongs to, and its row there."""
    for sweep in folder.parents:
        if sweep in tables:
            return sweep, tables[sweep].get(folder.name, {})
    return None, {}


def _ended(run: Run, tables: Mapping[Path, Rows]) -> Point:
    sweep, row = _row_of(run.folder, tables)
    return Point(
        name=run.folder.resolve().name,
        folder=run.folder,
        sweep=sweep,
        number=_whole(row.get("number")),
        status=run.status,
        error=run.error,
        seed=run.seed,
        settings=run.settings,
        metrics=run.metrics,
        summary=run.summary,
    )


def _unfinished(folder: Path, tables: Mapping[Path, Rows], damage: str | None = None) -> Point:
    """What is known without a summary: ``config.yaml``, and what the sweep's table says."""
    sweep, row = _row_of(folder, tables)
    config = _config(folder)
    status, error = ("running" if is_held(folder) else "interrupted"), None
    # The table is older than the lock: of a point that runs again, it has the end before.
    if status != "running" and row.get("status") not in (None, "", "pending", "running", "done"):
        status, error = row["status"], row.get("error") or None
    if damage is not None:
        status, error = "damaged", damage
    settings = _settings(config, _overrides(folder)) or _swept(row)
    seed = config.get("seed") if isinstance(config.get("seed"), int) else _whole(row.get("seed"))
    number = _whole(row.get("number"))
    return Point(folder.resolve().name, folder, sweep, number, status, error, seed, settings)


def _pending(sweep: Path, row: Mapping[str, str], plan: Mapping[str, Any]) -> Point:
    """A point without a folder: what the sweep's plan, or its table, says of it."""
    status = row.get("status") or "pending"
    error, number = row.get("error") or None, _whole(row.get("number"))
    seed = _whole(row.get("seed"))
    settings = _settings(plan.get("config"), plan.get("overrides")) or _swept(row)
    return Point(row["id"], None, sweep, number, status, error, seed, settings)


def read_plan(sweep: Path) -> dict[str, Any]:
    """``sweep.json``: the words of the command line, and every point's configuration; empty if it
    is not there, or is no JSON. The results do not hang on it."""
    with suppress(OSError, ValueError):
        found = parse_json(read_received(sweep / "sweep.json", sweep, TABLE_BYTES))
        if isinstance(found, dict):
            return found
    return {}


def _planned(sweep: Path) -> dict[str, dict[str, Any]]:
    points = read_plan(sweep).get("points")
    if not isinstance(points, list):
        return {}
    return {
        point["id"]: point
        for point in points
        if isinstance(point, dict) and isinstance(point.get("id"), str)
    }


def _settings(config: Any, overrides: Any) -> dict[str, Value]:
    """Return the settings of a configuration; empty if it is not one of nnopt."""
    if not (isinstance(config, dict) and isinstance(overrides, list | tuple)):
        return {}
    with suppress(ValueError):
        check_tree(config)
        return settings_of(config, [word for word in overrides if isinstance(word, str)])
    return {}


def _config(folder: Path) -> dict[str, Any]:
    """Return the values of ``config.yaml``; empty if nnopt cannot have written it.

    nnopt writes no aliases. With aliases, a few lines can define more values than memory holds.
    """
    import yaml  # type: ignore[import-untyped]
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


def _overrides(folder: Path) -> Sequence[str]:
    """Return the words of the command line, which the first line of the log has."""
    with (
        suppress(OSError, ValueError),
        open_received(folder / "run.log", folder, LOG_BYTES) as log,
    ):
        line = log.readline(10_000).decode("utf-8", errors="replace")
        if match := re.search(r", overrides: (.*)", line):
            return match[1].split()
    return ()


def _swept(row: Mapping[str, str]) -> dict[str, Value]:
    """The values of the keys that a sweep goes over, by its table."""
    names = list(row)
    if "seed" not in names or tuple(names[: len(FIXED_COLUMNS)]) != FIXED_COLUMNS:
        return {}
    return {
        key: _number(row[key])
        for key in names[len(FIXED_COLUMNS) : names.index("seed")]
        if row[key]
    }


def _number(text: str) -> Value:
    """As the configuration has it: 0.001 of ``1e-3``."""
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{0,30})?(e[+-]?[0-9]{1,3})?", text):
        value = float(text)
        return value if math.isfinite(value) else text
    return text


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def keys_that_vary(points: Sequence[Point]) -> list[str]:
    """The keys that tell the points apart, the seed aside: of those whose whole configuration is
    known, as ``nnopt compare`` finds them, and of the others the ones that their sweep goes over.
    """
    known = [point for point in points if "seed" in point.settings]
    keys = varying_keys(known)
    others = [point for point in points if "seed" not in point.settings]
    for key in dict.fromkeys(key for point in others for key in point.settings):
        values = {setting_text(p.settings[key]) for p in points if key in p.settings}
        if len(values) > 1 and key not in keys:
            keys.append(key)
    return keys

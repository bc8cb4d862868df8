"""The records of a report's page: what was run, tables, curves, and all that belongs to a point."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnopt import __version__
from nnopt.analysis.comparison import Comparison, Row, compare_runs
from nnopt.analysis.same_data import split_by_data_files, unify_file_names
from nnopt.analysis.settings import known_metrics, unknown_name
from nnopt.analysis.tabulate import Table, short_text, tabulate
from nnopt.config.point import to_yaml
from nnopt.io.received_files import CONFIG_BYTES, LOG_BYTES, open_received, read_received
from nnopt.io.safe_text import shortened
from nnopt.report.about import about
from nnopt.report.curves import COLUMNS, Curve, read_curves, short
from nnopt.report.page import fill_page
from nnopt.report.pictures import PAGE_BYTES, place_pictures, plots_of
from nnopt.report.points import Point, find_points, keys_that_vary
from nnopt.results.collect import RunIndex, setting_text
from nnopt.results.metrics import METRICS, better_direction

Record = dict[str, Any]
"""What becomes an object of JSON."""

LOG_CHARACTERS = 600_000
"""Of the tails of all logs together."""

MOST_LINES, LONGEST_CELL = 5_000, 300
"""Limits: lines of one configuration, and characters of a value."""

LONGEST_TAIL, SHORTEST_TAIL = 8_000, 400
"""Characters of one log: of a run that is not done, and of others if there is no room."""


def gather(directory: Path, found: RunIndex, metrics: Sequence[str], page: Path) -> Record:
    """Everything that the page shows. Raises ConfigError for a metric that no run has."""
    check_metrics(found, metrics)
    points = find_points(found)
    curves = read_curves([_place_of_curve(point) for point in points])
    scopes = [
        (sweep, _scope(name, points, indices, sweep, found, metrics))
        for name, indices, sweep in _scopes(directory, points, found.sweeps)
    ]
    keys = list(dict.fromkeys(key for _, scope in scopes for key in scope["keys"]))
    grids: list[Record] = []
    lines: dict[str, int] = {}
    tail = max(SHORTEST_TAIL, LOG_CHARACTERS // max(len(points), 1))
    records = [
        {
            **_about_point(point, keys, directory),
            **_curve(curve, grids),
            "config": _config(point, lines),
            "log": _tail(point, min(tail, LONGEST_TAIL)),
            "plots": [],
        }
        for point, curve in zip(points, curves, strict=True)
    ]
    page_records = {
        "title": directory.resolve().name,
        "folder": str(directory),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
        "metrics": list(metrics),
        "better": {name: better_direction(name) for name in METRICS},
        "curves": COLUMNS,
        "scopes": [scope for _, scope in scopes],
        "points": records,
        "grids": grids,
        "lines": list(lines),
        "thinned": max((curve.every for curve in curves if isinstance(curve, Curve)), default=1),
    }
    return page_records | {"pictures": _add_plots(page_records, scopes, points, page)}


def _place_of_curve(point: Point) -> tuple[Path, str | None] | None:
    if point.folder is None:
        return None
    return point.folder, (point.summary.get("files") or {}).get("metrics.csv")


def _add_plots(
    page_records: Record,
    scopes: Sequence[tuple[Path | None, Record]],
    points: Sequence[Point],
    page: Path,
) -> dict[str, int]:
    """Give every scope and point its plots, with what room the rest of the page leaves; returns how
    many are within the page, and how many linked."""
    owners = [(sweep, scope) for sweep, scope in scopes if sweep]
    owners += [
        (point.folder, record)
        for point, record in zip(points, page_records["points"], strict=True)
        if point.folder
    ]
    plots = [plots_of(folder) for folder, _ in owners]
    sweeps = sum(sweep is not None for sweep, _ in scopes)
    pictures = place_pictures(
        [path for paths in plots[:sweeps] for path in paths],
        [path for paths in plots[sweeps:] for path in paths],
        page,
        PAGE_BYTES - len(fill_page(page_records)),
    )
    for (_, record), paths in zip(owners, plots, strict=True):
        record["plots"] = [
            {"name": path.stem, "src": pictures.sources[path], "file": path.name}
            for path in paths
            if path in pictures.sources
        ]
    return {"within": pictures.within, "linked": pictures.linked}


def check_metrics(found: RunIndex, metrics: Sequence[str]) -> None:
    """Raise ConfigError for a metric that no finished run has; before any has finished, for one
    that there is not."""
    known = known_metrics(found.runs) or list(METRICS)
    for metric in metrics:
        if metric not in known:
            raise unknown_name("metric", metric, known)


# scopes: all that was found, and each sweep -------------------------------------------------------


def _scopes(
    directory: Path, points: Sequence[Point], sweeps: Sequence[Path]
) -> Iterable[tuple[str, list[int], Path | None]]:
    """(name, indices of its points, folder of the sweep). Of one sweep, or of runs alone, there is
    one scope; of several, one for all and one for each."""
    members: dict[Path | None, list[int]] = {sweep: [] for sweep in sweeps}
    for index, point in enumerate(points):
        members.setdefault(point.sweep, []).append(index)
    members = {sweep: indices for sweep, indices in members.items() if indices}
    if len(members) == 1:
        ((sweep, indices),) = members.items()
        yield directory.resolve().name, indices, sweep
        return
    yield "everything", list(range(len(points))), None
    for sweep, indices in members.items():
        yield (_place(sweep, directory) if sweep else "single runs"), indices, sweep


def _scope(
    name: str,
    points: Sequence[Point],
    indices: Sequence[int],
    sweep: Path | None,
    found: RunIndex,
    metrics: Sequence[str],
) -> Record:
    members = [points[index] for index in indices]
    keys = keys_that_vary(members)
    comparison, reason = _comparison(members, found, metrics)
    return {
        "name": name,
        "points": list(indices),
        "keys": keys,
        "about": about(members, keys, sweep),
        "comparison": comparison,
        "why": reason,
        "plots": [],
    }


def _comparison(
    points: Sequence[Point], found: RunIndex, metrics: Sequence[str]
) -> tuple[Record | None, str]:
    """The table of ``nnopt compare``, and why there is none."""
    folders = {point.folder for point in points}
    runs = [run for run in found.runs if run.folder in folders]
    known = known_metrics(runs)
    if not any(run.status == "done" for run in runs):
        return None, "No run has finished yet: there is nothing to compare."
    if missing := [metric for metric in metrics if metric not in known]:
        return None, f"No run of these has a number for {', '.join(missing)}."
    comparison = compare_runs(unify_file_names(split_by_data_files(runs)), metrics)
    return _table(comparison, tabulate(comparison), points), ""


def _table(comparison: Comparison, table: Table, points: Sequence[Point]) -> Record:
    """Text of the cells, the numbers they are sorted by, and the values of each seed."""
    statuses = Counter(point.status for point in points)
    for row in comparison.rows:
        statuses.subtract(row.setting.left_out)
    names = [name for name in statuses if name != "done" and statuses[name] > 0]
    unknown = {name: statuses[name] for name in names}
    notes = [note for note in table.notes if not note.startswith("*")]
    if unknown:
        told = ", ".join(f"{count} {status}" for status, count in unknown.items())
        notes.append(f"not in the table: {told}")
    return {
        "title": table.title,
        "header": list(table.header),
        "align": table.align,
        "rows": [[cell.text for cell in row] for row in table.rows],
        "best": [[i for i, cell in enumerate(row) if cell.is_best] for row in table.rows],
        "values": [_sortable(comparison, row) for row in comparison.rows],
        "seeds": [_by_seed(row, comparison.metrics) for row in comparison.rows],
        "notes": notes,
    }


def _sortable(comparison: Comparison, row: Row) -> list[Any]:
    """One number or text for each of the table's columns, which are as ``tabulate`` has them."""
    values = row.setting.values
    cells: list[Any] = [setting_text(values[k]) if k in values else None for k in comparison.keys]
    for found in (outcome.estimate for outcome in row.outcomes):
        low = found.interval[0] if found and found.interval else None
        cells += [found.n, short(found.mean, 9), short(low, 9)] if found else [0, None, None]
    return cells


def _by_seed(row: Row, metrics: Sequence[str]) -> list[Record]:
    """For each metric the mean, the interval's ends, and (seed, value)."""
    records = []
    for metric, outcome in zip(metrics, row.outcomes, strict=True):
        found = outcome.estimate
        ends = [short(end, 6) for end in found.interval] if found and found.interval else None
        values = [[seed, short(value, 6)] for seed, value in row.setting.metric(metric).items()]
        mean = short(found.mean, 6) if found else None
        records.append({"mean": mean, "interval": ends, "values": values})
    return records


# points -------------------------------------------------------------------------------------------


def _about_point(point: Point, keys: Sequence[str], directory: Path) -> Record:
    return {
        "name": point.name,
        "folder": _place(point.folder, directory) if point.folder else None,
        "sweep": _place(point.sweep, directory) if point.sweep else None,
        "number": point.number,
        "status": point.status,
        "error": point.error and shortened(point.error, LONGEST_TAIL),
        "seed": point.seed,
        "keys": [_cell(point, key) for key in keys],
        "metrics": {
            name: short(value, 6) for name, value in point.metrics.items() if name in METRICS
        },
        "overrides": " ".join(map(str, point.summary.get("overrides") or ())),
    }


def _cell(point: Point, key: str) -> str:
    value = setting_text(point.settings[key]) if key in point.settings else None
    return short_text(value, LONGEST_CELL)


def _curve(curve: Curve | str | None, grids: list[Record]) -> Record:
    """Return the record of a curve; ``grids`` has epochs and steps, which most points share."""
    if curve is None:
        return {}
    if isinstance(curve, str):
        return {"unread": curve}
    grid = {"epoch": curve.epochs, "step": curve.steps}
    if grid not in grids[-8:]:
        grids.append(grid)
    return {
        "grid": len(grids) - 1 - grids[::-1].index(grid),
        "seconds": curve.seconds,
        "columns": dict(curve.columns),
    }


def _config(point: Point, lines: dict[str, int]) -> list[int]:
    """Return the lines of the configuration as YAML, as places in the list of all lines.

    The summary has a checksum, so it counts where there is one. An unfinished run has only its
    ``config.yaml``.
    """
    text = ""
    if config := point.summary.get("config"):
        text = to_yaml(config)
    elif point.folder:
        with suppress(OSError):
            data = read_received(point.folder / "config.yaml", point.folder, CONFIG_BYTES)
            text = data.decode("utf-8", errors="replace")
    return [lines.setdefault(line, len(lines)) for line in text.splitlines()[:MOST_LINES]]


def _tail(point: Point, most: int) -> str:
    """Return the last lines of the log; more lines of a run that is not done."""
    if point.folder is None:
        return ""
    most = most if point.status == "done" else LONGEST_TAIL
    try:
        with open_received(point.folder / "run.log", point.folder, LOG_BYTES) as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(max(0, size - 4 * most))  # a character has at most four bytes
            text = log.read(4 * most).decode("utf-8", errors="replace")
    except OSError:
        return ""
    if size <= 4 * most and len(text) <= most:
        return text
    tail = text[-most:]
    return "…\n" + (tail.partition("\n")[2] or tail)


def _place(folder: Path, directory: Path) -> str:
    """Return the folder relative to the one that is reported on."""
    try:
        relative = folder.relative_to(directory)
    except ValueError:
        return str(folder)
    return directory.resolve().name if relative == Path() else str(relative)

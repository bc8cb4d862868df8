"""The data of a report's page: facts, tables, curves and points."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnopt import __version__
from nnopt.analysis.comparison import Comparison, Row, compare_runs
from nnopt.analysis.same_data import split_by_data_files, unify_file_names
from nnopt.analysis.settings import known_metrics, unknown_name
from nnopt.analysis.tabulate import short_text, tabulate, value_of
from nnopt.config.point import to_yaml
from nnopt.io.received_files import CONFIG_BYTES, read_received
from nnopt.io.safe_text import shortened
from nnopt.report.about import about
from nnopt.report.curves import COLUMNS, Curve, read_curves, short
from nnopt.report.page import fill_page
from nnopt.report.plots import MAX_PAGE_BYTES, embed_or_link, plots_of
from nnopt.report.points import Point, find_points, keys_that_vary, open_log
from nnopt.results.collect import RunIndex, setting_text
from nnopt.results.metrics import METRICS, better_direction

Record = dict[str, Any]  # an object of the JSON data

MAX_LOG_CHARACTERS = 600_000  # limit of all logs of a page
MAX_TAIL_CHARACTERS = 8_000  # highest limit of one log, used if the run is not done
MIN_TAIL_CHARACTERS = 400  # lowest limit of one log, used if the page has many logs
MAX_CONFIG_LINES, MAX_CELL_CHARACTERS = 5_000, 300


def gather(directory: Path, index: RunIndex, metrics: Sequence[str], page: Path) -> Record:
    """Return the data of a report on ``directory``. Raises ConfigError for an unknown metric."""
    known = known_metrics(index.runs) or METRICS
    if unknown := [name for name in metrics if name not in known]:
        raise unknown_name("metric", unknown[0], known)
    points = find_points(index)
    files = [
        (p.folder, (p.summary.get("files") or {}).get("metrics.csv")) if p.folder else None
        for p in points
    ]
    curves = read_curves(files)
    scopes = list(_scopes(directory, points, index, metrics))
    keys = list(dict.fromkeys(key for _, scope in scopes for key in scope["keys"]))
    grids: list[Record] = []
    lines: dict[str, int] = {}
    tail = max(MIN_TAIL_CHARACTERS, MAX_LOG_CHARACTERS // max(len(points), 1))
    records = [
        {
            **_point_facts(point, keys, directory),
            **_curve(curve, grids),
            "config": _config(point, lines),
            "log": _tail(point, min(tail, MAX_TAIL_CHARACTERS)),
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
        "better": {name: better_direction(name) for name in (*METRICS, *metrics)},
        "curves": COLUMNS,
        "scopes": [scope for _, scope in scopes],
        "points": records,
        "grids": grids,
        "lines": list(lines),
        "thinned": max((curve.every for curve in curves if isinstance(curve, Curve)), default=1),
    }
    return page_records | {"plots": _add_plots(page_records, scopes, points, page)}


def _add_plots(
    page_records: Record,
    scopes: Sequence[tuple[Path | None, Record]],
    points: Sequence[Point],
    page: Path,
) -> dict[str, int]:
    """Add the plots to every scope and point; return the numbers of embedded and linked plots."""
    sweep_plots = [(scope, plots_of(sweep)) for sweep, scope in scopes if sweep]
    point_plots = [
        (record, plots_of(point.folder))
        for point, record in zip(points, page_records["points"], strict=True)
        if point.folder
    ]
    sources = embed_or_link(
        [path for _, paths in sweep_plots for path in paths],
        [path for _, paths in point_plots for path in paths],
        page,
        MAX_PAGE_BYTES - len(fill_page(page_records)),
    )
    for record, paths in sweep_plots + point_plots:
        record["plots"] = [
            {"name": path.stem, "src": sources[path], "file": path.name}
            for path in paths
            if path in sources
        ]
    embedded = sum(source.startswith("data:") for source in sources.values())
    return {"embedded": embedded, "linked": len(sources) - embedded}


# scopes: a scope is all points, the points of one sweep, or those of no sweep ---------------------


def _scopes(
    directory: Path, points: Sequence[Point], index: RunIndex, metrics: Sequence[str]
) -> Iterator[tuple[Path | None, Record]]:
    """Yield the JSON data of each scope, with the folder of its sweep or None."""
    for name, indices, sweep in _members(directory, points, index.sweeps):
        members = [points[number] for number in indices]
        keys = keys_that_vary(members)
        comparison, reason = _comparison(members, index, metrics)
        record = {
            "name": name,
            "points": indices,
            "keys": keys,
            "about": about(members, keys, sweep),
            "comparison": comparison,
            "why": reason,
            "plots": [],
        }
        yield sweep, record


def _members(
    directory: Path, points: Sequence[Point], sweeps: Sequence[Path]
) -> Iterator[tuple[str, list[int], Path | None]]:
    """Yield for each scope its name, the indices of its points, and the folder of its sweep.

    If all points belong to one sweep or to no sweep, there is only the scope of all points.
    Otherwise, there are also a scope for each sweep, and one for all points that belong to none.
    """
    members: dict[Path | None, list[int]] = {sweep: [] for sweep in (*sweeps, None)}
    for index, point in enumerate(points):
        members[point.sweep].append(index)
    members = {sweep: indices for sweep, indices in members.items() if indices}
    if len(members) == 1:
        ((sweep, indices),) = members.items()
        yield directory.resolve().name, indices, sweep
        return
    yield "everything", list(range(len(points))), None
    for sweep, indices in members.items():
        yield (_relative(sweep, directory) if sweep else "single runs"), indices, sweep


def _comparison(
    points: Sequence[Point], index: RunIndex, metrics: Sequence[str]
) -> tuple[Record | None, str]:
    """Return the table of ``nnopt compare``, or None and the reason why there is none."""
    folders = {point.folder for point in points}
    runs = [run for run in index.runs if run.folder in folders]
    known = known_metrics(runs)
    if not any(run.status == "done" for run in runs):
        return None, "No run has finished yet: there is nothing to compare."
    if missing := [metric for metric in metrics if metric not in known]:
        return None, f"None of these runs has a number for {', '.join(missing)}."
    comparison = compare_runs(unify_file_names(split_by_data_files(runs)), metrics)
    return _table(comparison, points), ""


def _table(comparison: Comparison, points: Sequence[Point]) -> Record:
    """Return the table with the text and the sort key of each cell, and the values by seed."""
    table = tabulate(comparison)
    statuses = Counter(point.status for point in points)
    for row in comparison.rows:
        statuses.subtract(row.setting.left_out)
    notes = [note for note in table.notes if not note.startswith("*")]
    if missing := [f"{n} {name}" for name, n in statuses.items() if name != "done" and n > 0]:
        notes.append(f"not in the table: {', '.join(missing)}")
    return {
        "title": table.title,
        "header": list(table.header),
        "align": table.align,
        "rows": [[cell.text for cell in row] for row in table.rows],
        "best": [[i for i, cell in enumerate(row) if cell.is_best] for row in table.rows],
        "values": [_sort_keys(comparison, row) for row in comparison.rows],
        "seeds": [_by_seed(row, comparison.metrics) for row in comparison.rows],
        "notes": notes,
    }


def _sort_keys(comparison: Comparison, row: Row) -> list[Any]:
    """Return for each column of ``tabulate`` the number or text by which ``row`` is sorted."""
    cells: list[Any] = [value_of(row.setting, key) for key in comparison.keys]
    for result in (outcome.estimate for outcome in row.outcomes):
        low = result.interval[0] if result and result.interval else None
        cells += [result.n, short(result.location, 9), short(low, 9)] if result else [0, None, None]
    return cells


def _by_seed(row: Row, metrics: Sequence[str]) -> list[Record]:
    """Return for each metric the mean, the ends of its interval, and the value of each seed."""
    records = []
    for metric, outcome in zip(metrics, row.outcomes, strict=True):
        result = outcome.estimate
        interval = (result and result.interval) or ()
        ends = [short(end, 6) for end in interval if math.isfinite(end)]
        values = [[seed, short(value, 6)] for seed, value in row.setting.metric(metric).items()]
        mean = short(result.location, 6) if result else None
        whole = ends if len(ends) == 2 else None  # of times to a target, an end may be infinite
        records.append({"mean": mean, "interval": whole, "values": values})
    return records


# points -------------------------------------------------------------------------------------------


def _point_facts(point: Point, keys: Sequence[str], directory: Path) -> Record:
    return {
        "name": point.name,
        "folder": _relative(point.folder, directory) if point.folder else None,
        "sweep": _relative(point.sweep, directory) if point.sweep else None,
        "number": point.number,
        "status": point.status,
        "error": point.error and shortened(point.error, MAX_TAIL_CHARACTERS),
        "seed": point.seed,
        "keys": [_cell(point, key) for key in keys],
        "metrics": {
            name: short(value, 6) for name, value in point.metrics.items() if name in METRICS
        },
        "overrides": " ".join(point.summary.get("overrides", ())),
    }


def _cell(point: Point, key: str) -> str:
    value = setting_text(point.settings[key]) if key in point.settings else None
    return short_text(value, MAX_CELL_CHARACTERS)


def _curve(curve: Curve | str | None, grids: list[Record]) -> Record:
    """Return a curve as JSON data. Add its epochs and steps to ``grids`` if they are new."""
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
    """Return the index in ``lines`` of each line of the configuration in YAML; add new lines.

    The summary takes precedence over ``config.yaml``, because it has a checksum.
    """
    text = ""
    if config := point.summary.get("config"):
        text = to_yaml(config)
    elif point.folder:
        with suppress(OSError):
            data = read_received(point.folder / "config.yaml", point.folder, CONFIG_BYTES)
            text = data.decode("utf-8", errors="replace")
    return [lines.setdefault(line, len(lines)) for line in text.splitlines()[:MAX_CONFIG_LINES]]


def _tail(point: Point, most: int) -> str:
    """Return the end of the log, at most ``most`` characters, or more if the run is not done."""
    if point.folder is None:
        return ""
    if point.status != "done":
        most = MAX_TAIL_CHARACTERS
    try:
        with open_log(point.folder) as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(max(0, size - 4 * most))  # a character has at most four bytes
            text = log.read(4 * most).decode("utf-8", errors="replace")
    except OSError:
        return ""
    if size <= 4 * most and len(text) <= most:
        return text
    tail = text[-most:]
    return "…\n" + (tail.partition("\n")[2] or tail)


def _relative(folder: Path, directory: Path) -> str:
    """Return the path of a folder relative to ``directory``, the folder of the report."""
    if not folder.is_relative_to(directory):
        return str(folder)
    relative = folder.relative_to(directory)
    return directory.resolve().name if relative == Path() else str(relative)

"""All plots of a sweep or of other runs. The keys that vary determine the kinds of plots."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nnopt.analysis.comparison import Comparison, Row, compare_runs
from nnopt.analysis.number_format import MISSING
from nnopt.analysis.same_data import split_by_data_files, unify_file_names
from nnopt.errors import DataError, NnoptError, OutputError
from nnopt.io.atomic_files import output_error
from nnopt.io.own_files import open_to_append, remove_files
from nnopt.plots import style
from nnopt.plots.sweep.by_key import plot_by_key
from nnopt.plots.sweep.curves import LearningCurves, plot_sweep_curves
from nnopt.plots.sweep.groups import group_settings
from nnopt.plots.sweep.heat_map import heat_map_keys, plot_heat_map
from nnopt.plots.sweep.means import plot_means
from nnopt.plots.sweep.parallel import MIN_KEYS, MIN_SETTINGS, plot_parallel
from nnopt.results.collect import Run, find_runs
from nnopt.results.metrics_file import EpochRow, read_metrics

log = logging.getLogger("nnopt")

DEFAULT_METRIC = "test_accuracy"
SUFFIXES = (".png", ".svg")

OLD_PLOTS = ("learning_rate", "compression")
"""Names of plots of earlier versions, which ``by_key`` replaces."""

Plot = Callable[[Sequence[Path]], None]


def plot_sweep(directory: Path, metric: str | None = None) -> list[Path]:
    """Draw the plots of a sweep into its folder ``plots``; return the written files.

    If ``metric`` is None, the plots show the test accuracy. The function never raises: a plot that
    cannot be drawn causes a warning in the log.
    """
    metric = metric or DEFAULT_METRIC
    try:
        runs = unify_file_names(split_by_data_files(find_runs([directory]).runs))
        if not any(metric in run.metrics for run in runs if run.status == "done"):
            log.info("no plots of the sweep: none of its finished runs has a %s", metric)
            return []
        plots = dict(_plots(compare_runs(runs, [metric]), runs))
    except Exception as error:
        _warn(directory, "the plots of the sweep", error)
        return []
    written: list[Path] = []
    for name, draw in plots.items():
        written += draw_plot(directory, name, draw)
    with suppress(OutputError):
        remove_files(
            directory / "plots", [f"{x}{suffix}" for x in OLD_PLOTS for suffix in SUFFIXES]
        )
    return written


def draw_plot(directory: Path, name: str, draw: Plot) -> list[Path]:
    """Draw a plot of a sweep into its folder ``plots``; return the written files.

    An error causes a warning in the log, and is not raised.
    """
    try:
        return _draw(directory / "plots", name, draw)
    except Exception as error:
        _warn(directory, f"the plot {name} of the sweep", error)
        return []


def plot_comparison(comparison: Comparison, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw the plots of a comparison, for its first metric, into ``folder``; return the files.

    Raises:
        OutputError: A file cannot be written.
    """
    return [path for name, draw in _plots(comparison, runs) for path in _draw(folder, name, draw)]


def _plots(comparison: Comparison, runs: Sequence[Run]) -> Iterator[tuple[str, Plot]]:
    """Yield the name and the drawing function of each plot for which there are data."""
    comparison = _drawable(comparison)
    if not comparison.rows:
        return
    curves = _learning_curves(comparison, runs)
    if any(len(history) > 1 for setting in curves for history in setting.histories):
        yield "curves", lambda paths: plot_sweep_curves(comparison, curves, paths)
    if len(comparison.rows) > 1:
        yield "means", lambda paths: plot_means(comparison, paths)
    if (keys := heat_map_keys(comparison)) is not None:
        yield "heat_map", lambda paths: plot_heat_map(comparison, keys, paths)
    if len(comparison.keys) >= MIN_KEYS and len(comparison.rows) >= MIN_SETTINGS:
        yield "parallel", lambda paths: plot_parallel(comparison, paths)
    if (grouping := group_settings(comparison)) is not None:
        yield "by_key", lambda paths: plot_by_key(comparison, grouping, paths)


def _drawable(comparison: Comparison) -> Comparison:
    """Return the comparison without settings whose values no axis can show, and warn about them."""
    metric = comparison.metrics[0]

    def fits(row: Row) -> bool:
        sizes = [abs(value) for value in row.setting.metric(metric).values()]
        return all(x == 0 or 1 / style.LARGEST < x < style.LARGEST for x in sizes)

    rows = tuple(filter(fits, comparison.rows))
    if left_out := len(comparison.rows) - len(rows):
        log.warning(
            "settings not plotted, because a nonzero %s has a magnitude above %g or below %g: %d",
            *(metric, style.LARGEST, 1 / style.LARGEST, left_out),
        )
    return replace(comparison, rows=rows)


def _learning_curves(comparison: Comparison, runs: Sequence[Run]) -> list[LearningCurves]:
    """Return the epochs of the finished runs of every setting.

    If no run of a setting is finished, its other runs are used. A run without a readable
    ``metrics.csv`` is omitted.
    """
    others: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if run.status != "done":
            values = tuple(run.settings.get(key, MISSING) for key in comparison.keys)
            others.setdefault(values, []).append(run)
    curves, problems = [], []
    for row in comparison.rows:
        values = tuple(row.setting.values.get(key, MISSING) for key in comparison.keys)
        members = list(row.setting.runs.values()) or others.get(values, [])
        histories: list[list[EpochRow]] = []
        for run in members:
            try:
                checksum = run.checksums.get("metrics.csv")
                histories.append(read_metrics(run.folder / "metrics.csv", checksum))
            except DataError as error:
                if (run.folder / "metrics.csv").exists():
                    problems.append(str(error))
        if histories := [history for history in histories if history]:
            diverged = all(run.status == "diverged" for run in members)
            curves.append(LearningCurves(row, tuple(histories), diverged))
    if problems:
        more = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
        log.warning("left out of the curves: %s%s", problems[0], more)
    return curves


def _draw(folder: Path, name: str, draw: Plot) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make the folder", folder, error) from error
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    draw(paths)
    return paths


def _warn(directory: Path, what: str, error: Exception) -> None:
    """Log a warning; write the traceback of an unexpected error to ``plots.log``."""
    if isinstance(error, NnoptError):
        log.warning("cannot draw %s: %s", what, error)
        return
    log.warning("cannot draw %s: %r; the traceback is in plots.log of the sweep", what, error)
    with suppress(OSError), open(open_to_append(directory / "plots.log"), "a") as file:
        traceback.print_exception(error, file=file)

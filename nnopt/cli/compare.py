"""``nnopt compare``: one table of runs and sweeps."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnopt.analysis import render
from nnopt.analysis.comparison import Comparison, compare_runs, metric_label, sort_rows
from nnopt.analysis.equivalence import read_margins
from nnopt.analysis.records import document, pivot_records, records
from nnopt.analysis.same_data import (
    check_same_data,
    split_by_data_files,
    unify_file_names,
    with_unified_file_names,
)
from nnopt.analysis.settings import Condition, known_keys, read_condition, varying_keys
from nnopt.analysis.tabulate import Table, check_pivot, counted, pivot, tabulate
from nnopt.cli.parsers import compare_parser, metric_names
from nnopt.errors import ConfigError, DataError, Problems, suggest
from nnopt.io.atomic_files import json_text, shown, write_text
from nnopt.io.locks import is_held
from nnopt.io.paths import given_path
from nnopt.results.collect import Run, RunIndex, find_runs, setting_text
from nnopt.results.metrics import CENSORED
from nnopt.terminal import console
from nnopt.terminal.safe_stream import standard_output

log = logging.getLogger("nnopt")


def main(arguments: list[str]) -> int:
    """Print or write the table. Return the exit code."""
    options = compare_parser().parse_intermixed_args(arguments)
    out = None if options.out is None else given_path(options.out, "--out")
    form = _format(options.format, out)
    found = find_runs([given_path(name, "DIR") for name in options.directories])
    for problem in found.damaged:
        console.error(problem)
    comparison, runs = _compare(options, found)
    if out is not None:
        write_text(out, _text(comparison, form, options))
        console.note(f"wrote {shown(out)}")
        for note in comparison.notes:
            console.note(note)
    elif form == "table":
        table = _table(comparison, options)
        console.note(table.title)
        console.print_table(table.header, render.text_rows(table), table.align)
        for note in table.notes:
            console.note(note)
    else:
        standard_output().write(_text(comparison, form, options))
        for note in comparison.notes if form == "csv" else ():
            log.info("%s", note)
    if options.plots is not None:
        message = _plot(comparison, runs, given_path(options.plots, "--plots"))
        is_alone = out is not None or form == "table"
        console.note(message) if is_alone else log.info("%s", message)
    return DataError.exit_code if found.damaged else 0


def _table(comparison: Comparison, options: argparse.Namespace) -> Table:
    return pivot(comparison, *options.pivot) if options.pivot else tabulate(comparison)


def _text(comparison: Comparison, form: str, options: argparse.Namespace) -> str:
    """Return the comparison in a format."""
    if form == "csv":
        pair = options.pivot
        rows = pivot_records(comparison, *pair) if pair else records(comparison)
        return render.to_csv(rows, options.keep_formulas)
    if form == "json":
        return json_text(document(comparison, options.pivot))
    return render.RENDERERS[form](_table(comparison, options))


def _plot(comparison: Comparison, runs: Sequence[Run], folder: Path) -> str:
    """Draw the figures. Return a message with the names of the figures."""
    from nnopt.plots.sweep.draw import plot_comparison

    paths = plot_comparison(comparison, runs, folder)
    if not paths:
        return "no figure was drawn: there is only one setting and one epoch"
    names = ", ".join(dict.fromkeys(path.stem for path in paths))
    return f"wrote to {shown(folder)}, as PNG and SVG: {names}"


def _format(name: str | None, out: Path | None) -> str:
    """Return the value of --format, or the format of the suffix of ``out``. Raises ConfigError."""
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: its folder does not exist")
    if name is not None or out is None:
        return name or "table"
    suffix = out.suffix.lower()
    if suffix not in render.SUFFIXES:
        raise ConfigError(
            f"--out {out}: no format has the suffix {suffix!r}; "
            f"{suggest(suffix, render.SUFFIXES)}, or name a --format"
        )
    return render.SUFFIXES[suffix]


def _compare(options: argparse.Namespace, found: RunIndex) -> tuple[Comparison, list[Run]]:
    """Filter, check, group and sort the runs. Return the comparison and the compared runs."""
    by_file = split_by_data_files(found.runs)
    found = replace(found, runs=unify_file_names(by_file))
    known = known_keys(found.runs)
    where = [read_condition(text, known) for text in options.where]
    baseline = [read_condition(text, known, operators=("=",)) for text in options.baseline]
    conditions, baseline = (
        [with_unified_file_names(condition, by_file, found.runs) for condition in given]
        for given in (where, baseline)
    )
    runs = _filtered(found, conditions)
    named = {condition.key for condition in conditions} | set(options.pivot or ())
    if not options.allow_mixed_data:
        check_same_data(runs, may_differ="dataset" in named)
    metrics = metric_names(options)
    _check_options(options, metrics)
    keys = varying_keys(runs) if options.margin else []
    margins = read_margins(options.margin, {x: metric_label(x, keys) for x in metrics})
    comparison = compare_runs(runs, metrics, baseline, margins, options.estimate)
    if options.pivot:
        check_pivot(comparison, *options.pivot)
    if options.sort or options.pivot:
        rows = sort_rows(comparison, options.sort or options.pivot[0], options.reverse)
        comparison = replace(comparison, rows=rows)
    elif options.reverse:
        comparison = replace(comparison, rows=comparison.rows[::-1])
    return replace(comparison, notes=(*comparison.notes, *_notes(found))), runs


def _check_options(options: argparse.Namespace, metrics: Sequence[str]) -> None:
    """Raise ConfigError with all combinations of options that are refused."""
    problems = Problems()
    times = [name for name in metrics if name in CENSORED]
    if options.plots is not None:
        if len(metrics) > 1:
            problems.append(f"--plots draws one metric, not {len(metrics)}: name one with --metric")
        elif times:
            problems.append(
                f"--plots draws means, but {times[0]} has no mean if a run did not reach the "
                "target; remove --plots or choose another --metric"
            )
        if options.estimate != "mean":
            problems.append(
                f"--plots draws means, not --estimate {options.estimate}; remove one of them"
            )
    if options.margin and not options.baseline:
        problems.append(
            f"--margin {options.margin[0]}: a margin is for differences from a baseline; "
            "add --baseline KEY=VALUE"
        )
    if options.estimate != "mean" and len(times) == len(metrics):
        problems.append(
            f"--estimate {options.estimate} has no effect on {', '.join(times)}, whose median is "
            "shown; remove --estimate"
        )
    problems.check()


def _notes(found: RunIndex) -> list[str]:
    """Return notes on the numbers of points without results."""
    running = sum(map(is_held, found.unfinished))
    counts = [
        (running, "run", "still running"),
        (len(found.unfinished) - running, "run", "interrupted"),
        (found.missing, "point", "without a folder"),
        (found.pending, "point", "not started"),
    ]
    return [f"left out: {counted(count, noun)} {state}" for count, noun, state in counts if count]


def _filtered(found: RunIndex, conditions: Sequence[Condition]) -> list[Run]:
    """Return the runs that meet all conditions. Raises ConfigError if no such run is finished."""
    runs = found.runs
    for condition in conditions:
        before, runs = runs, [run for run in runs if condition.holds(run.settings)]
        if not runs:
            key = condition.key
            values = dict.fromkeys(
                setting_text(run.settings[key]) for run in before if key in run.settings
            )
            earlier = " and ".join(map(str, conditions[: conditions.index(condition)]))
            raise ConfigError(
                f"no run {earlier and f'with {earlier} '}has {condition}; values of {key}: "
                f"{', '.join(values) or 'none'}"
            )
    if not any(run.status == "done" for run in runs):
        counts = Counter(run.status for run in runs)
        counts["running"] += (running := sum(map(is_held, found.unfinished)))
        counts["interrupted"] += len(found.unfinished) - running
        counts["damaged"] += len(found.damaged)
        states = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        raise ConfigError(f"no {'matching ' * bool(conditions)}run has finished: {states}")
    return runs

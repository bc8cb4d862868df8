"""The verb ``compare``: one table of any number of runs and sweeps."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnopt.analysis import render
from nnopt.analysis.comparison import Comparison, compare_runs, sort_rows
from nnopt.analysis.same_data import (
    check_same_data,
    split_by_data_files,
    unify_file_names,
    with_unified_file_names,
)
from nnopt.analysis.settings import Condition, known_keys, read_condition
from nnopt.analysis.tabulate import Table, check_pivot, pivot, pivot_records, records, tabulate
from nnopt.config.arguments import Parser
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown, write_text
from nnopt.io.locks import is_held
from nnopt.io.paths import given_path
from nnopt.results.collect import Run, RunIndex, find_runs, setting_text
from nnopt.terminal import console
from nnopt.terminal.safe_stream import standard_output

log = logging.getLogger("nnopt")

FORMATS = tuple(render.SUFFIXES.values())

EXAMPLES = """\
examples:
  nnopt compare outputs/latest
  nnopt compare outputs/sweeps --where dataset=mnist --where 'optimizer.lr<=0.1'
  nnopt compare outputs/latest --baseline optimizer=sgd --metric test_loss --sort test_loss
  nnopt compare outputs/latest --pivot optimizer optimizer.lr --out table.tex
  nnopt compare outputs/sweeps --metric test_loss --plots pictures

docs/compare.md tells what the columns mean and how differences are tested.
"""


def main(arguments: list[str]) -> int:
    """Compare; returns the exit code, that of damaged data if a run could not be read. Raises
    ConfigError or OutputError."""
    options = parser().parse_intermixed_args(arguments)
    out = None if options.out is None else given_path(options.out, "--out")
    form = _format(options.format, out)
    found = find_runs([given_path(name, "DIR") for name in options.directories])
    for problem in found.damaged:
        console.error(problem)
    comparison, runs = _compare(options, found)
    if options.pivot:
        down, across = options.pivot
        table, rows = pivot(comparison, down, across), pivot_records(comparison, down, across)
    else:
        table, rows = tabulate(comparison), records(comparison)
    if form == "csv":
        text = render.to_csv(rows, options.keep_formulas)
    else:
        text = render.RENDERERS[form](table)
    if out is not None:
        write_text(out, text)
        console.note(f"wrote {shown(out)}")
        for note in comparison.notes:
            console.note(note)
    elif form == "table":
        _print(table)
    else:
        standard_output().write(text)
        for note in comparison.notes if form == "csv" else ():
            log.info("%s", note)
    if options.plots is not None:
        message = _plot(comparison, runs, given_path(options.plots, "--plots"))
        is_alone = out is not None or form == "table"
        console.note(message) if is_alone else log.info("%s", message)
    return DataError.exit_code if found.damaged else 0


def _plot(comparison: Comparison, runs: Sequence[Run], folder: Path) -> str:
    """Draw the pictures; says which. Raises OutputError."""
    from nnopt.plots.sweep.draw import plot_comparison

    paths = plot_comparison(comparison, runs, folder)
    if not paths:
        return "no picture to draw: these are neither several settings nor several epochs"
    names = ", ".join(dict.fromkeys(path.stem for path in paths))
    return f"wrote to {shown(folder)}, as PNG and SVG: {names}"


def parser() -> argparse.ArgumentParser:
    """The options of ``nnopt compare``."""
    parser = Parser(
        prog="nnopt compare",
        description="One table of any number of runs and sweeps: a row for each setting, its mean "
        "over the seeds, and what the differences are worth.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("directories", nargs="+", metavar="DIR", help="a run, a sweep, or a folder of many")
    add(
        "--metric",
        action="append",
        metavar="NAME[,NAME]",
        help="a number of summary.json (default: test_accuracy)",
    )
    add(
        "--baseline",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="test the differences to this setting; give it again to name several keys",
    )
    add(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only runs with KEY=VALUE, KEY=ONE,OTHER, KEY!=VALUE, KEY<NUMBER, <=, > or >=",
    )
    add("--sort", metavar="NAME", help="by a key, or by a metric, the best first")
    add("--reverse", action="store_true", help="the other way round")
    add("--pivot", nargs=2, metavar=("ROW", "COLUMN"), help="two keys that span the table")
    add("--mixed-data", action="store_true", help="allow runs on different datasets or files")
    add("--format", choices=FORMATS, help="default: by the suffix of --out, or a table")
    add(
        "--keep-formulas",
        action="store_true",
        help="in CSV, put no apostrophe before a text that a spreadsheet takes for a formula",
    )
    add("--plots", metavar="FOLDER", help="draw pictures of the settings, as PNG and SVG")
    add("--out", metavar="FILE", help=f"write to a file: {', '.join(render.SUFFIXES)}")
    return parser


def _format(name: str | None, out: Path | None) -> str:
    """The format asked for, or that of the file's suffix. Raises ConfigError for an unknown one,
    and if there is no folder for the file."""
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: its folder does not exist")
    if name is not None or out is None:
        return name or "table"
    suffix = out.suffix.lower()
    if suffix not in render.SUFFIXES:
        raise ConfigError(
            f"--out {out}: no format has the suffix {suffix!r}; choose one of "
            f"{', '.join(render.SUFFIXES)}, or name a --format"
        )
    return render.SUFFIXES[suffix]


def _compare(options: argparse.Namespace, found: RunIndex) -> tuple[Comparison, list[Run]]:
    """Filter, check, group and sort; the runs are those that were compared. Raises ConfigError."""
    told = split_by_data_files(found.runs)
    found = replace(found, runs=unify_file_names(told))
    known = known_keys(found.runs)
    where = [read_condition(word, known) for word in options.where]
    baseline = [read_condition(word, known, operators=("=",)) for word in options.baseline]
    conditions, baseline = (
        [with_unified_file_names(condition, told, found.runs) for condition in given]
        for given in (where, baseline)
    )
    runs = _filtered(found, conditions)
    named = {condition.key for condition in conditions} | set(options.pivot or ())
    if not options.mixed_data:
        check_same_data(runs, may_differ="dataset" in named)
    names = ",".join(options.metric or ["test_accuracy"]).split(",")
    metrics = list(dict.fromkeys(name.strip() for name in names))
    if options.plots is not None and len(metrics) > 1:
        raise ConfigError(f"--plots draws one metric, not {len(metrics)}: name one with --metric")
    comparison = compare_runs(runs, metrics, baseline)
    if options.pivot:
        check_pivot(comparison, *options.pivot)
    if options.sort or options.pivot:
        rows = sort_rows(comparison, options.sort or options.pivot[0], options.reverse)
        comparison = replace(comparison, rows=rows)
    elif options.reverse:
        comparison = replace(comparison, rows=comparison.rows[::-1])
    return replace(comparison, notes=(*comparison.notes, *_notes(found))), runs


def _notes(found: RunIndex) -> list[str]:
    """On runs of which nothing is known yet."""
    notes = []
    if found.unfinished:
        running = sum(map(is_held, found.unfinished))
        killed = len(found.unfinished) - running
        counts = {"still running": running, "interrupted": killed}
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        notes.append(f"left out: {told}")
    if found.absent:
        notes.append(f"left out: {found.absent} of a sweep's points, whose folders are not there")
    if found.pending:
        notes.append(f"to come: {found.pending} of a sweep's points have not begun")
    return notes


def _filtered(found: RunIndex, conditions: Sequence[Condition]) -> list[Run]:
    """The runs of which all conditions are true; at least one of them is done."""
    runs = found.runs
    for condition in conditions:
        before, runs = runs, [run for run in runs if condition.holds(run.settings)]
        if not runs:
            key = condition.key
            values = dict.fromkeys(
                setting_text(run.settings[key]) for run in before if key in run.settings
            )
            raise ConfigError(f"no run has {condition}; values of {key}: {', '.join(values)}")
    if not any(run.status == "done" for run in runs):
        counts = Counter(run.status for run in runs)
        counts["running"] += (running := sum(map(is_held, found.unfinished)))
        counts["interrupted"] += len(found.unfinished) - running
        counts["damaged"] += len(found.damaged)
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        raise ConfigError(f"no run has finished: {told}")
    return runs


def _print(table: Table) -> None:
    console.note(table.title)
    console.print_table(table.header, render.text_rows(table), table.align)
    for note in table.notes:
        console.note(note)

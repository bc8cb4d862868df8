"""The verb ``run``: check every point, make a fresh folder, run the points one after another."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nnopt.backends import load_backend
from nnopt.backends.thread_choice import ThreadChoice, threads_for
from nnopt.config.compose import Plan, Point, make_plan
from nnopt.config.hydra_internals import get_args_parser
from nnopt.config.point import FEW
from nnopt.errors import ConfigError, OutputError
from nnopt.io.atomic_files import fresh_folder, link_latest, output_error, shown
from nnopt.io.locks import hold
from nnopt.io.own_files import check_writable
from nnopt.io.paths import given_path
from nnopt.recipe.prepare import prepare
from nnopt.recipe.run import run
from nnopt.recipe.thread_notes import note_threads
from nnopt.results.cores import processor_times
from nnopt.schema import OptunaConfig
from nnopt.sweeps.launchers.make import make_launcher
from nnopt.sweeps.manifest import begin
from nnopt.terminal import console
from nnopt.terminal.interruption import Interruption, code_of, message_of, stop_on_signals
from nnopt.terminal.live_display import no_curves_reason

OUTPUTS = Path("outputs")
"""Where results go unless hydra.run.dir or hydra.sweep.dir says otherwise."""


def launch(arguments: list[str]) -> int:
    """Run what the command line asks for; returns the exit code.

    Raises ConfigError or DataError before any folder is made, OutputError if one cannot be, and
    what ended a single run early. A sweep goes on after a failed point.
    """
    start = processor_times()
    stop_on_signals()
    parser = _parser()
    options = _parse(parser, arguments)
    options.config_dir = options.config_dir and os.path.expanduser(options.config_dir)
    if options.help or options.hydra_help or options.info:
        from nnopt.config.show import print_help, print_info

        if options.info:
            print_info(options)
        else:
            print_help(options, parser)
        return 0
    plan = make_plan(options.overrides, options.multirun, options.config_dir)
    if options.cfg:
        from nnopt.config.show import print_config

        print_config(plan, options)
        return 0
    if options.fail_fast and not plan.is_sweep:
        raise ConfigError("--fail-fast concerns a sweep; `nnopt run -m` runs one")
    kind = "sweeps" if plan.is_sweep else "runs"
    check_directory(plan, kind)
    launcher = make_launcher(plan.launcher)
    threads = prepare_all(plan.points)
    directory = make_directory(plan, kind)
    _note_missing_curves(plan)
    points = len(plan.points)
    if plan.space is not None:
        points = plan.space.points_of(cast(OptunaConfig, plan.sweeper))
    note_threads(threads, points, plan.launcher, start)
    if plan.space is not None:
        from nnopt.sweeps.search.execute import run_search  # imports Optuna

        note_missing_plots(plan.points, points)
        sweep = begin(replace(plan, points=()), directory)
        return run_search(plan, sweep, launcher, fail_fast=options.fail_fast)
    if plan.is_sweep:
        from nnopt.sweeps.execute import run_points  # imports much that a single run never needs

        note_missing_plots(plan.points, points)
        return run_points(begin(plan, directory), launcher, fail_fast=options.fail_fast)
    try:
        with hold(directory) as is_ours:
            if not is_ours:  # started at the same moment, and found it empty too
                raise OutputError(f"another process writes into {directory}; name another folder")
            summary = run(plan.points[0], directory)
        _report_run(summary, directory)
    except (KeyboardInterrupt, Interruption) as stop:
        console.error(f"{message_of(stop)}; the results until then are kept in {directory}")
        return code_of(stop)
    return 0


def _note_missing_curves(plan: Plan) -> None:
    """Print a note with the reason if view=terminal is set but no curves can be drawn."""
    if not any(point.config.view == "terminal" for point in plan.points):
        return
    launcher: str = plan.launcher.name
    if plan.is_sweep and launcher != "sequential":
        console.note("note: view=terminal draws points that run in this process, none of these")
    elif reason := no_curves_reason():
        console.note(f"note: view=terminal: {reason}; view=bar takes its place")


def note_missing_plots(points: Iterable[Point], count: int) -> None:
    """Print a note if ``plots=auto`` draws no pictures of points in a sweep of this size."""
    if count > FEW and any(point.config.plots == "auto" for point in points):
        console.note(
            "note: only the sweep's own pictures are drawn; plots=true adds those of points"
        )


def prepare_all(points: Iterable[Point]) -> list[ThreadChoice]:
    """Refuse points that cannot run before the first one starts. Return the threads of each point.

    Loading is remembered, so points share their data. Raises ConfigError with all problems, or
    DataError."""
    problems: dict[str, None] = {}
    threads = []
    for point in points:
        try:
            architecture = prepare(point.config).architecture
            library_threads = load_backend(point.config.backend.name).default_threads()
            threads.append(threads_for(architecture, point.config, library_threads))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))
    return threads


def _parser() -> ArgumentParser:
    """Return a parser of Hydra's flags and the overrides. Its errors are ConfigErrors."""
    parser = get_args_parser()
    parser.add_argument("--fail-fast", action="store_true", help="of a sweep: stop at a failure")

    def refuse(message: str) -> None:
        is_key = message.startswith("unrecognized arguments: -") and "=" in message
        hint = "; keys have no dash before them, as in epochs=3" if is_key else ""
        raise ConfigError(f"{message}{hint}; `nnopt run --help` lists the flags")

    parser.error = refuse  # type: ignore[assignment]  # argparse would print its usage and exit
    return parser


def _parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Return the flags and the overrides. Raises ConfigError for a flag that does not exist or has
    no effect."""
    options: Namespace = parser.parse_intermixed_args(arguments)
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(options, flag) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name}: nnopt does not follow it; --config-dir adds a folder")
    if options.cfg and options.multirun:
        raise ConfigError("--cfg prints one configuration; leave -m out")
    if not options.cfg and (options.resolve or options.package is not None):
        flag = "--resolve" if options.resolve else "--package"
        raise ConfigError(f"{flag} belongs to --cfg; write --cfg job {flag}")
    return options


def check_directory(plan: Plan, kind: str) -> None:
    """Raise OutputError if the results cannot be written to their folder. No folder is made, since
    later checks may refuse the command."""
    named = _named_directory(plan)
    directory = OUTPUTS / kind if named is None else named
    try:
        if named is not None and _exists(directory):
            _check_empty(directory)
        check_writable(directory)
    except OSError as error:
        raise output_error("make the folder", directory, error) from error


def _exists(path: Path) -> bool:
    """Return whether a path exists. Raises OSError if its parent folders cannot be read."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _named_directory(plan: Plan) -> Path | None:
    key = "hydra.sweep.dir" if plan.is_sweep else "hydra.run.dir"
    return None if plan.directory is None else given_path(plan.directory, key)


def _check_empty(directory: Path) -> None:
    """Raise OutputError unless the folder is empty."""
    try:
        is_empty = not any(directory.iterdir())
    except OSError as error:
        raise output_error("make the folder", directory, error) from error
    if not is_empty:
        raise OutputError(
            f"the folder {shown(directory)} is not empty, and results are never overwritten; name "
            "another"
        )


def make_directory(plan: Plan, kind: str) -> Path:
    """A fresh folder below outputs/KIND; one that the user named has to be new or empty.

    Raises ConfigError or OutputError.
    """
    directory = _named_directory(plan)
    if directory is None:
        stamp, name = time.strftime("%Y-%m-%d_%H-%M-%S"), plan.points[0].config.name
        directory = fresh_folder(OUTPUTS / kind, f"{stamp}_{name}")
        link_latest(OUTPUTS, directory)
        return directory.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make the folder", directory, error) from error
    _check_empty(directory)  # another process may have begun there
    if OUTPUTS.is_dir():
        link_latest(OUTPUTS, directory)
    return directory.absolute()


def _report_run(summary: Mapping[str, Any], folder: Path) -> None:
    """The panel at the end of a run: what came out, and where it lies."""
    results = {
        "test accuracy": f"{summary['test_accuracy']:z.4f}",
        "test loss": f"{summary['test_loss']:z.4f}",
    }
    if summary["best_validation_accuracy"] is not None:
        best = summary["best_validation_accuracy"]
        results["best validation accuracy"] = f"{best:.4f} (epoch {summary['best_epoch']})"
    results["parameters"] = f"{summary['parameters']:,}"
    results["training"] = f"{summary['train_seconds']:.1f} s, {summary['epochs']} epochs"
    if summary["stopped_early"]:
        results["training"] += ", stopped early"
    paths = {"metrics": folder / "metrics.csv", "weights": folder / "model_best.npz"}
    if (folder / "plots").is_dir():
        paths["plots"] = folder / "plots"
    console.summary(summary["name"], results, {"folder": folder, **paths})
